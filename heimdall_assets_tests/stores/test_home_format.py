"""A home says its format: a newer one is refused, an older one upgraded, or read where it may not be written."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.definitions import build_definitions
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import Refused, StorageError
from heimdall_assets.places import read_places
from heimdall_assets.stores.home_format import FILE, FORMAT, MADE, read_format
from heimdall_assets.stores.installation import read_version
from heimdall_assets_tests.homes import make_places
from heimdall_assets_tests.lineage.world import make_world

NEWER = {"format": FORMAT + 1, "made_by": "9.8.7"}
NOBODY = 65534
READING = (["models", "list"], ["models", "show", "latest"], ["lineage", "latest"], ["verify", "latest"], ["plan"])


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """Run as a user who may read ``folder`` and write nothing there."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    was = os.geteuid()
    if was == 0:  # who may write everywhere, whatever the files say
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def old_home(quick_path: Path) -> Path:
    """A home with a released model, as made before homes had a format; others may look into it."""
    quick_path.chmod(0o755)
    home = quick_path / "home"
    world = make_world(home, 5)
    world.release(world.make_chain())
    world.measurements.close()
    assert not (home / FILE).exists()
    return home


def list_files(folder: Path) -> dict[str, bytes]:
    """Return what a folder holds, file by file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def heimdall(home: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments, env={"HEIMDALL_HOME": str(home)})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_a_new_home_says_its_format(tmp_path: Path):
    home = tmp_path / "home"
    assert read_format(home) is None
    make_places(home).open_stores()
    assert json.loads((home / FILE).read_text()) == {"format": FORMAT, "made_by": read_version()}
    assert read_format(home) == FORMAT
    before = (home / FILE).stat().st_ino
    assert "upgraded" not in heimdall(home, "sessions", "list").stderr
    assert (home / FILE).stat().st_ino == before  # read, not written again
    assert [path.name for path in home.iterdir() if path.name.startswith(".tmp")] == []


def test_the_version_is_that_of_the_package():
    assert read_version() == "0.1.0"


@pytest.mark.parametrize("name", MADE)
def test_what_stores_made_shows_that_a_home_is_older(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    assert read_format(tmp_path) == 0


def test_other_peoples_files_make_no_home(tmp_path: Path):
    (tmp_path / "page.log").touch()
    (tmp_path / "recordings").mkdir()
    assert read_format(tmp_path) is None


def test_an_older_home_is_upgraded_once_and_says_so_in_one_line(old_home: Path):
    first = heimdall(old_home, "models", "list")
    assert "v1.0.0" in first.stdout
    assert first.stderr == f"home {old_home}: upgraded from format 0 to {FORMAT}\n"
    assert json.loads((old_home / FILE).read_text())["format"] == FORMAT
    assert heimdall(old_home, "models", "list").stderr == ""
    heimdall(old_home, "verify", "v1.0.0")


def test_a_program_that_reads_the_answer_is_told_beside_it(old_home: Path):
    told = heimdall(old_home, "models", "list", "--json")
    assert told.stderr == f"home {old_home}: upgraded from format 0 to {FORMAT}\n"
    assert json.loads(told.stdout)[0]["version"] == "v1.0.0"
    assert read_format(old_home) == FORMAT


def test_a_newer_home_is_refused_by_name_of_both_versions_and_not_touched(old_home: Path):
    (old_home / FILE).write_text(json.dumps(NEWER))
    before = list_files(old_home)
    said = (
        f"home {old_home}: found format {FORMAT + 1}, made by heimdall-assets 9.8.7; this is {read_version()}, "
        f"which knows formats up to {FORMAT}: install the newer version"
    )
    for arguments in (*READING, ["models", "list", "--json"], ["train"], ["demo"], ["ui"]):
        assert heimdall(old_home, *arguments, code=2).stderr == f"Error: {said}\n"
    with pytest.raises(Refused):
        prepare_dagster_home(make_places(old_home))
    assert list_files(old_home) == before


def test_a_step_of_a_run_refuses_a_newer_home_too(tmp_path: Path):
    """Whoever starts Dagster without our command line opens no store of a newer home either."""
    (tmp_path / FILE).write_text(json.dumps(NEWER))
    stores = build_definitions(make_places(tmp_path)).resources["stores"]
    with (
        pytest.raises(dg.DagsterResourceFunctionError) as caught,
        dg.build_resources({"stores": stores}),
    ):
        pass
    with pytest.raises(Refused, match=r"made by heimdall-assets 9\.8\.7"):
        raise caught.value.__cause__ or caught.value


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", "\x00" * 9, '{"format": 1}', '{"format": 2}'),
        *(f'{{"format": {wrong}, "made_by": "x"}}' for wrong in ('"1"', "true", "0", "-1", "1.0", "null")),
    ],
)
def test_a_file_that_says_nothing_is_one_line_and_never_replaced(tmp_path: Path, text: str):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(StorageError, match=rf"home .*: {FILE} holds .*, expected .* put a whole copy back") as caught:
        make_places(tmp_path).open_stores()
    assert "\n" not in str(caught.value)
    assert (tmp_path / FILE).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_an_older_home_that_may_not_be_written_is_read_and_says_so_in_one_line(old_home: Path, tmp_path: Path):
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(make_places(old_home)))) as instance:
        assert instance.get_run_records(limit=1) == []
    shutil.copytree(old_home, tmp_path / "copy")
    for arguments in READING:
        heimdall(tmp_path / "copy", *arguments)  # another user may be unable to load what it needs
    before = list_files(old_home)
    line = f"home {old_home}: format 0, older than {FORMAT}, may not be written: opened read-only\n"
    with without_rights(old_home):
        for arguments in READING:
            told = heimdall(old_home, *arguments)
            assert told.stdout
            assert told.stderr.startswith(line)
        assert "not compared" not in heimdall(old_home, "verify", "latest").stderr
        assert "v1.0.0" in heimdall(old_home, "models", "list", "--json").stdout
        refused = heimdall(old_home, "sessions", "approve", "session-0001", "--by", "me", "--reason", "x", code=2)
        assert refused.stderr.startswith(line)
        assert "was opened read-only and is never written" in refused.stderr
    assert list_files(old_home) == before


def test_a_home_of_today_that_may_not_be_written_is_read_too(old_home: Path):
    heimdall(old_home, "models", "list")
    before = list_files(old_home)
    with without_rights(old_home):
        assert heimdall(old_home, "models", "list").stderr == ""
        with pytest.raises(Refused, match="was opened read-only"):
            make_places(old_home).open_stores().measurements.decide(["x"], ApprovalStatus.APPROVED, "me", "x")
    assert list_files(old_home) == before


def test_an_older_home_with_its_database_elsewhere_is_opened_read_only_as_a_whole(old_home: Path, database_url: str):
    places = read_places({"HEIMDALL_HOME": str(old_home), "HEIMDALL_DATABASE_URL": database_url})
    with without_rights(old_home):
        stores = places.open_stores()
        assert stores.measurements.list_sessions() == []
        with pytest.raises(Refused, match="was opened read-only"):
            stores.measurements.decide(["x"], ApprovalStatus.APPROVED, "me", "x")
        stores.measurements.close()
    stores = places.open_stores()
    assert stores.measurements.database.is_writable
    stores.measurements.close()


def test_outside_of_the_command_line_the_log_is_told(old_home: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        make_places(old_home).open_stores()
    (record,) = caplog.records
    assert record.getMessage() == f"home {old_home}: upgraded from format 0 to {FORMAT}"


def test_a_place_where_no_home_can_be_made_costs_nothing_where_all_is_elsewhere(tmp_path: Path, old_home: Path):
    (tmp_path / "file").touch()
    elsewhere = {name: str(old_home / name.lower()) for name in ("HEIMDALL_OBJECTS", "HEIMDALL_MODELS")}
    places = read_places(
        {
            "HEIMDALL_HOME": str(tmp_path / "file" / "home"),
            "HEIMDALL_DATABASE_URL": f"sqlite:///{old_home}/heimdall.db",
            **elsewhere,
        }
    )
    assert len(places.open_stores().measurements.list_sessions()) == 5


def test_a_copied_home_is_the_same_home(old_home: Path, tmp_path: Path):
    heimdall(old_home, "models", "list")
    shutil.copytree(old_home, tmp_path / "copy")
    assert "upgraded" not in heimdall(tmp_path / "copy", "verify", "v1.0.0").stderr
