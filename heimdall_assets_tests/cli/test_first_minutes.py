"""What a newcomer meets: which home a command works on, refusals at once, settings taken the same way everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.stores.locks import hold_lock
from heimdall_assets_tests.formats.recordings import make_noise, make_npy
from heimdall_assets_tests.homes import make_places
from heimdall_assets_tests.lineage.world import make_world

LISTING = (["models", "list"], ["sessions", "list"], ["sessions", "list", "--status", "approved"])
NEEDING = (
    ["plan"], ["train"], ["locate", "x"], ["predict", "latest", "x"], ["evaluate", "latest"], ["lineage", "latest"],
    ["lineage", "--session", "x"], ["verify", "latest"], ["diff", "v1.0.0", "latest"], ["reproduce", "latest"],
    ["models", "show", "latest"], ["models", "promote", "latest", "--by", "me", "--reason", "x"],
    ["models", "rollback", "--by", "me", "--reason", "x"], ["sessions", "show", "x"],
    ["sessions", "approve", "--all-pending", "--by", "me", "--reason", "x"],
)  # fmt: skip
IMPORT = [
    "import", "npy", "--session", "one", "--source", "Here,45,8,30", "--receiver", "A,45.1,8", "--rate-hz", "24000",
    "--start", "2026-11-20T10:00:00Z", "--frequency-hz", "145.5e6",
]  # fmt: skip
SLOW = {"torch", "lightning", "mlflow", "dagster", "onnxruntime", "scipy", "matplotlib", "sklearn"}


def heimdall(home: Path, *arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(part) for part in arguments], env={"HEIMDALL_HOME": str(home)})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one released model on five approved sessions of campaign north, and one pending session."""
    folder = tmp_path_factory.mktemp("first") / "home"
    world = make_world(folder, 5)
    world.release(world.make_chain())
    world.add_sessions(5, 1)
    world.measurements.close()
    make_places(folder).open_stores()  # of today's format
    return folder


# --- Which home


@pytest.mark.parametrize("arguments", LISTING, ids=" ".join)
def test_what_lists_in_no_home_names_it_lists_nothing_and_makes_none(tmp_path: Path, arguments: list[str]):
    said = heimdall(tmp_path / "home", *arguments)
    notice = f"home {tmp_path / 'home'} (HEIMDALL_HOME): nothing there yet; heimdall demo or heimdall import begins one"
    assert said.stderr == f"{notice}\n"
    assert said.stdout.startswith("0 ")
    told = heimdall(tmp_path / "home", *arguments, "--json")
    assert json.loads(told.stdout) == []
    assert told.stderr == f"{notice}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", NEEDING, ids=" ".join)
def test_what_needs_something_is_refused_in_no_home_and_makes_none(tmp_path: Path, arguments: list[str]):
    for more in ([], ["--json"]):
        said = heimdall(tmp_path / "home", *arguments, *more, code=2)
        assert said.stderr.startswith(f"Error: home {tmp_path / 'home'} (HEIMDALL_HOME): nothing there yet; ")
        assert said.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_default_home_is_named_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEIMDALL_HOME", raising=False)
    assert f"home {tmp_path / '.heimdall'} (HEIMDALL_HOME)" in CliRunner().invoke(main, ["sessions", "list"]).stderr


def test_settings_need_no_home(tmp_path: Path):
    assert heimdall(tmp_path / "home", "settings", "TrainingSpec").stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_home_is_begun_aloud_and_once(tmp_path: Path):
    file = tmp_path / "A.npy"
    file.write_bytes(make_npy(make_noise(24_000)))
    first = heimdall(tmp_path / "home", *IMPORT, file, "--json")
    assert first.stderr == f"home {tmp_path / 'home'} (HEIMDALL_HOME): begun\n"
    assert json.loads(first.stdout)["num_sessions"] == 1
    again = heimdall(tmp_path / "home", *IMPORT, file)
    assert again.stderr == ""
    assert again.stdout == (
        "added: 0 stations, 0 sources, 0 sessions, 0 measurements; 4 rows there before, unchanged\n"
    )


def test_an_import_whose_words_are_wrong_begins_no_home(tmp_path: Path):
    file = tmp_path / "A.npy"
    file.write_bytes(make_npy(make_noise(24_000)))
    wrong = ["2026" if word.startswith("2026") else word for word in IMPORT]
    assert heimdall(tmp_path / "home", *wrong, file, code=2).stderr.startswith("Error: --start ")
    assert not (tmp_path / "home").exists()


def test_a_home_in_which_nothing_is_yet_is_named(tmp_path: Path):
    make_places(tmp_path).open_stores()
    for arguments, lacks in ((["sessions", "list"], "no sessions yet"), (["models", "list"], "no release yet")):
        said = heimdall(tmp_path, *arguments)
        assert said.stderr.startswith(f"home {tmp_path} (HEIMDALL_HOME): {lacks}; ")
    refused = heimdall(tmp_path, "train", code=2).stderr
    assert f"home {tmp_path} (HEIMDALL_HOME): found 0 approved sessions, expected at least 1" in refused
    assert f"home {tmp_path} (HEIMDALL_HOME) holds no release yet" in heimdall(tmp_path, "verify", "v1", code=2).stderr


def test_a_database_elsewhere_is_read_without_a_home(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEIMDALL_DATABASE_URL", f"sqlite:///{home / 'heimdall.db'}")
    assert "6 sessions" in heimdall(tmp_path / "none", "sessions", "list").stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments", [*LISTING, *NEEDING], ids=" ".join)
@pytest.mark.parametrize("is_begun", [True, False], ids=["home", "no home"])
def test_what_reads_makes_no_database_at_an_address_that_was_mistyped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], is_begun: bool
):
    if is_begun:
        make_places(tmp_path / "home").open_stores()
    before = sorted(tmp_path.rglob("*"))
    address = f"sqlite:///{tmp_path / 'mistyped.db'}"
    monkeypatch.setenv("HEIMDALL_DATABASE_URL", address)
    said = heimdall(tmp_path / "home", *arguments, code=2)
    assert said.stderr == (
        f"Error: database {address} (HEIMDALL_DATABASE_URL): found none, expected one that is there; heimdall demo or "
        "heimdall import begins one\n"
    )
    assert said.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_what_writes_begins_a_database_at_a_stated_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEIMDALL_DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    file = tmp_path / "A.npy"
    file.write_bytes(make_npy(make_noise(24_000)))
    heimdall(tmp_path / "home", *IMPORT, file)
    assert "1 session" in heimdall(tmp_path / "home", "sessions", "list").stdout
    assert not (tmp_path / "home" / "heimdall.db").exists()


# --- Refusals at once

REFUSED = {
    "train --campaign nort": "campaign nort: found no sessions, did you mean north? (expected one of north)",
    "train --campaign city": "campaign city: found no sessions, expected one of north",
    "plan --campaign nort": "did you mean north?",
    "train --set DatasetSpec.origin=simulated": "found 0 approved sessions, expected at least 1 to train on (none",
    "train --set TrainingSpec.max_epoch=3": "did you mean TrainingSpec.max_epochs?",
    "predict v9.9.9 night": "model v9.9.9: found no such release",
    "predict latest nobody": "session nobody: found no session",
    "predict latest a.wav b.wav": "file a.wav: there is none",
    "locate nobody": "session nobody: found no session",
    "evaluate v9.9.9": "model v9.9.9: found no such release",
    "evaluate latest --campaign nort": "did you mean north?",
    "reproduce v9.9.9": "model v9.9.9: found no such release",
    "reproduce latest --set TrainingSpec.epochs=3": "did you mean TrainingSpec.max_epochs?",
    "diff latest v9.9.9": "model v9.9.9: found no such release",
    "lineage v9.9.9": "model v9.9.9: found no such release",
    "verify v9.9.9": "model v9.9.9: found no such release",
    "models show v9.9.9": "model v9.9.9: found no such release",
    "models promote v9.9.9 --by me --reason x": "model v9.9.9: found no such release",
    "sessions approve --campaign nort --by me --reason x": "did you mean north?",
}


def test_refusals_come_before_anything_slow_is_loaded(home: Path, tmp_path: Path):
    """One fresh process, one refusal after another: none of them may have loaded what only the work needs."""
    program = """
import sys
from heimdall_assets.cli import main
from heimdall_assets.stores.locks import hold_lock
for line in sys.stdin.read().splitlines():
    try:
        main(line.split())
    except SystemExit as ended:
        print(ended.code, *{name.partition(".")[0] for name in sys.modules})
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(REFUSED),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "HEIMDALL_HOME": str(home)},
    )
    ends, errors = done.stdout.splitlines(), done.stderr.splitlines()
    for (command, said), end, error in zip(REFUSED.items(), ends, errors, strict=True):
        status, *loaded = end.split()
        assert status == "2", command
        assert error.startswith("Error: "), command
        assert said in error, command
        assert not SLOW & set(loaded), command
    assert list(tmp_path.iterdir()) == []


def test_nothing_approved_says_how_many_wait(tmp_path: Path):
    world = make_world(tmp_path / "home", 2)
    world.withdraw([row["id"] for row in world.measurements.list_sessions()])
    world.add_sessions(2, 1)
    world.measurements.close()
    for command in ("train", "plan"):
        assert "(1 session pending: heimdall sessions approve " in heimdall(tmp_path / "home", command, code=2).stderr


# --- The same options


def test_plan_takes_what_train_takes():
    def read_options(name: str) -> dict[str, tuple[str, ...]]:
        return {option.name or "": tuple(option.opts) for option in main.commands[name].params}

    told = {"reason": ("--reason",), "intent": ("--intent",)}  # why and what for, which decides nothing
    assert read_options("plan") | told == read_options("train")
    assert {"campaigns", "settings_file", "assignments", "profile", "start_model", "search"} < set(read_options("plan"))


def test_a_plan_follows_a_file_of_settings(home: Path, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("DatasetSpec:\n  campaigns: [nort]\n")
    assert "campaign nort: found no sessions" in heimdall(home, "plan", "--settings", file, code=2).stderr
    both = heimdall(home, "plan", "--settings", file, "--campaign", "north", code=2).stderr
    assert both == "Error: --campaign and DatasetSpec: expected one of them\n"
    file.write_text("DatasetSpec:\n  campaigns: [north]\n")
    assert json.loads(heimdall(home, "plan", "--settings", file, "--json").stdout)[0]["action"] == "compute"


def test_tables_count_as_people_do(home: Path):
    listed = heimdall(home, "models", "list").stdout
    assert listed.startswith("1 released model ")
    assert "90 % ellipse covers" in listed
    assert heimdall(home, "sessions", "list", "--status", "pending").stdout.startswith("1 session ")
    assert heimdall(home, "lineage", "--source", "source-1").stdout.startswith("used by 1 released model ")


def test_a_second_page_of_a_home_is_refused_by_the_name_of_the_first(tmp_path: Path):
    """Its daemon would ask for every retraining once more."""
    home = tmp_path / "home"
    make_places(home).open_stores()
    with hold_lock(home / "page.lock", "process 7 of here, http://127.0.0.1:3000"):
        result = CliRunner().invoke(main, ["ui", "--port", "3999"], env={"HEIMDALL_HOME": str(home)})
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: home {home}: its page is open already; {home}/page.lock: held by process 7 of here, "
        "http://127.0.0.1:3000\n"
    )
