"""``heimdall lineage``, ``verify`` and ``diff`` on a real home: answers for people and programs, exit status."""

import csv
import json
import sqlite3
from dataclasses import fields

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.cli.lineage import TABLES
from heimdall_assets.errors import CorruptObject
from heimdall_assets.lineage.recorded import RecordedData
from heimdall_assets.merkle import Checkpoint, compute_root, decode_checkpoint, hash_leaf
from heimdall_assets.pipeline.releases.reading import read_provenance
from heimdall_assets.places import read_places
from heimdall_assets_tests.lineage.world import make_world
from heimdall_assets_tests.stores.releasing import take_away
from heimdall_assets_tests.test_house import list_loaded


@pytest.fixture(params=["folder", "bucket"])
def home(request, tmp_path, monkeypatch):
    """A home with two releases; the first one used a session that was withdrawn before the second.

    With releases in a bucket, commands run as on another machine: with a home of its own, that shares the stores.
    """
    for name in ("HEIMDALL_DATABASE_URL", "HEIMDALL_OBJECTS", "HEIMDALL_MODELS", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    models = None
    if request.param == "bucket":
        models = request.getfixturevalue("bucket")
        monkeypatch.setenv("HEIMDALL_MODELS", models)
        monkeypatch.setenv("HEIMDALL_DATABASE_URL", f"sqlite:///{tmp_path / 'heimdall.db'}")
        monkeypatch.setenv("HEIMDALL_OBJECTS", str(tmp_path / "objects"))
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path if models is None else tmp_path / "elsewhere"))
    world = make_world(tmp_path, 5, models)
    world.release(world.make_chain())
    world.withdraw(["session-0001"])
    world.approve(world.add_sessions(5, 1))
    world.release(world.make_chain(median_m=90.0))
    return world


def run(*arguments, status=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    return result.stdout


def test_lineage_of_a_model_as_tree_json_and_page(home, tmp_path):
    assert "measurement_database" in run("lineage", "v1.0.0")
    told = json.loads(run("lineage", "latest", "--json"))
    assert told["model"]["version"] == "v1.0.1"
    rows = json.loads(run("lineage", "latest", "--table", "sessions", "--json"))
    assert "session-0001" not in {row["session_id"] for row in rows}
    assert {row["approved_by"] for row in rows} == {"Ada"}
    lines = list(csv.DictReader(run("lineage", "latest", "--table", "measurements").splitlines()))
    assert len(lines) == 15
    assert int(lines[0]["iq_start_unix_ns"]) > 10**18
    page = tmp_path / "lineage.html"
    run("lineage", "v1.0.0", "--html", str(page))
    assert "Where v1.0.0 comes from" in page.read_text()


def ask_uses(*asked):
    return json.loads(run("lineage", *asked, "--json"))["releases"]


def test_a_withdrawn_session_names_the_release_that_used_it(home):
    told = json.loads(run("lineage", "--session", "session-0001", "--json"))
    assert [use["version"] for use in told["releases"]] == ["v1.0.0"]
    decisions = [(row["decision"], row["decided_by"], row["signed_by"]) for row in told["decisions"]]
    assert decisions == [("approved", "Ada", None), ("rejected", "Bob", None)]
    shown = run("lineage", "--session", "night 1")
    assert "v1.0.0" in shown
    assert "not signed" in shown
    assert len(ask_uses("--measurement", "session-0000-station-a")) == 2
    assert len(ask_uses("--source", "Source 5")) == 1
    home.add_sessions(6, 1)
    for asked in (("--session", "night 6"), ("--measurement", "session-0006-station-a"), ("--source", "source-6")):
        assert "no released model used it" in run("lineage", *asked)


def test_an_object_names_what_made_it_and_what_used_it(home):
    node = next(node for node in home.read_provenance("v1.0.0")["nodes"] if node["kind"] == "trained_checkpoint")
    weights = node["artifacts"]["weights.safetensors"]["digest"]
    told = json.loads(run("lineage", "--object", weights, "--json"))
    assert told["releases"][0]["nodes"] == [f"trained_checkpoint {node['digest']}"]
    assert told["made_from"][-1] == {"kind": "trained_checkpoint", "digest": node["digest"]}
    assert told["made_from"][0]["kind"] == "measurement_database"
    shown = run("lineage", "--object", weights)
    assert shown.index("made from") < shown.index("used by 1 released model")


def test_the_index_can_be_made_anew(home):
    told = json.loads(run("lineage", "--reindex", "--json"))
    assert (told["results"], told["unread"]) == (18, [])
    assert f"indexed 18 results, {told['edges']} edges" in run("lineage", "--reindex")
    path = home.objects.local_path(home.read_provenance("v1.0.0")["nodes"][0]["artifacts"]["table"]["digest"])
    path.chmod(0o600)
    path.write_bytes(b"no table")
    assert "not indexed: approved_measurements" in run("lineage", "--reindex")
    result = CliRunner().invoke(main, ["lineage", "--session", "session-0001"])
    assert "of 1 result at rest nobody can say what they used: approved_measurements" in result.stderr


def test_the_index_is_no_evidence(home):
    run("lineage", "--reindex")
    with sqlite3.connect(home.database) as connection:
        connection.execute("UPDATE lineage_nodes SET name = 'another' WHERE kind = 'session'")
        connection.execute("DELETE FROM lineage_edges")
    connection.close()
    assert "all is as it was released" in run("verify", "latest")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--session", "nobody"), "session nobody: found neither in the database nor behind any released model"),
        (("--measurement", "night 0"), "measurement night 0: found neither"),
        (("--source", "nobody"), "source nobody: found neither"),
        (("--station", "nobody"), "station nobody: found neither"),
        (("--object", "0" * 64), f"digest {'0' * 64}: found neither in the object store"),
    ],
)
def test_what_nobody_knows_is_no_answer_that_nothing_used_it(home, asked, said):
    result = CliRunner().invoke(main, ["lineage", *asked])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_checkpoint_kept_elsewhere_tells_a_log_that_was_cut(home, tmp_path):
    kept, log = tmp_path / "checkpoint.txt", tmp_path / "log.jsonl"
    assert "entries" in run("ledger", "checkpoint", "--output", str(kept))
    assert run("ledger", "checkpoint") == kept.read_text()
    told = json.loads(run("ledger", "checkpoint", "--json"))
    assert decode_checkpoint(kept.read_text()) == Checkpoint(**told)
    assert f"{told['size']} entries" in run("ledger", "export", str(log))
    assert compute_root([hash_leaf(line) for line in log.read_bytes().splitlines()]).hex() == told["root"]
    assert "all is as it was released" in run("verify", "latest", "--checkpoint", str(kept))
    home.withdraw(["session-0002"])  # later entries change nothing
    assert json.loads(run("verify", "latest", "--checkpoint", str(kept), "--json"))["ok"]
    connection = sqlite3.connect(home.database)
    for (name,) in connection.execute("select name from sqlite_master where type = 'trigger'").fetchall():
        connection.execute(f'drop trigger "{name}"')
    size = told["size"]
    connection.execute("delete from log_entries where id >= ?", (size - 1,))
    connection.commit()
    connection.close()
    found = json.loads(run("verify", "latest", "--checkpoint", str(kept), "--json", status=1))["findings"]
    names = [finding["name"] for finding in found if finding["severity"] == "error"]
    assert f"log up to the checkpoint, its first {size} entries" in names
    kept.write_text("nothing of the kind")
    result = CliRunner().invoke(main, ["verify", "latest", "--checkpoint", str(kept)])
    assert result.exit_code == 2
    assert "expected heimdall-assets/log/NAME, a size and a root in base64" in result.stderr


def test_every_table_of_a_model_is_shown(home):
    assert [field.name for field in fields(RecordedData)] == list(TABLES)
    for name in TABLES:
        rows = json.loads(run("lineage", "v1.0.0", "--table", name, "--json"))
        assert (len(rows) == 0) == (name == "left_out")


@pytest.mark.parametrize(
    "arguments",
    [
        ("lineage",),
        ("lineage", "latest", "--session", "a"),
        ("lineage", "--session", "a", "--table", "sources"),
        ("lineage", "--reindex", "--session", "a"),
        ("lineage", "latest", "--reindex"),
        ("lineage", "--session", "a", "--source", "b"),
    ],
)
def test_lineage_wants_one_thing(home, arguments):
    run(*arguments, status=2)


def test_verify_is_silent_or_names_and_exits_1(home):
    assert "all is as it was released" in run("verify", "latest")
    told = json.loads(run("verify", "v1.0.0", "--json"))
    assert told["ok"]
    assert [finding["severity"] for finding in told["findings"]] == ["notice"]
    digest = home.read_provenance("v1.0.1")["nodes"][0]["digest"]
    path = home.objects.local_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"other")
    told = json.loads(run("verify", "latest", "--json", status=1))
    assert not told["ok"]
    assert told["findings"][0]["kind"] == "manifest"
    assert digest in run("verify", "latest", status=1)


def test_diff_tells_what_changed(home):
    told = json.loads(run("diff", "v1.0.0", "v1.0.1", "--json"))
    assert told["data"]["sessions"]["removed"] == ["session-0001"]
    assert told["metrics"]["median_m"]["difference"] == -30.0
    assert "median_m: 120 -> 90" in run("diff", "v1.0.0", "latest")


def test_unknown_models_are_one_line_and_exit_2(home):
    for command in (("lineage", "v9.9.9"), ("verify", "nobody"), ("diff", "v1.0.0", "v7.0.0")):
        run(*command, status=2)


def test_a_damaged_provenance_is_read_from_its_twin_and_refused_without_one(home):
    stores = read_places().open_stores()
    whole = read_provenance(stores, "v1.0.0")
    stores.releases.files.write_file("v1.0.0", "provenance.json", b"{}")
    assert read_provenance(stores, "v1.0.0") == whole
    twin = stores.objects.local_path(stores.releases.find_record("v1.0.0")["provenance"])
    twin.unlink()
    with pytest.raises(CorruptObject, match=r"run heimdall verify v1\.0\.0"):
        read_provenance(stores, "v1.0.0")
    assert [use["version"] for use in ask_uses("--session", "session-0001")] == ["v1.0.0"]  # by index and ledger
    assert "provenance" in run("verify", "v1.0.0", status=1)


@pytest.mark.parametrize("name", ["model.onnx", "provenance.json", "README.md"])
def test_repair_writes_damaged_files_from_their_copies_and_copies_from_files(home, name):
    for damage in (b"other", None):
        if damage is None:
            take_away(home.releases, "v1.0.0", name)
        else:
            home.releases.files.write_file("v1.0.0", name, damage)
        run("verify", "v1.0.0", status=1)
        told = json.loads(run("verify", "v1.0.0", "--repair", "--json"))
        assert told["ok"]
        assert len(told["repaired"]) == 1
        assert name in told["repaired"][0]
    twin = home.objects.local_path(home.releases.find_record("v1.0.0")["files"][name]["sha256"])
    twin.write_bytes(b"other")
    assert name in run("verify", "v1.0.0", "--repair")
    assert "repair" not in run("verify", "v1.0.0", "--repair")


def test_repair_sets_damaged_objects_aside_so_that_a_run_computes_them_again(home):
    node = next(node for node in home.read_provenance("v1.0.0")["nodes"] if node["kind"] == "trained_checkpoint")
    digest = node["artifacts"]["weights.safetensors"]["digest"]
    path = home.objects.local_path(digest)
    whole = path.read_bytes()
    path.write_bytes(b"other")
    assert home.objects.exists(digest)
    told = json.loads(run("verify", "v1.0.0", "--repair", "--json", status=1))
    assert digest in told["repaired"][0]
    assert told["findings"][0]["found"] == "no such object"
    assert not home.objects.exists(digest)
    assert (home.objects.root / "damaged" / digest).read_bytes() == b"other"
    assert not home.objects.set_aside(digest)
    home.objects.put_bytes(whole, "application/octet-stream")
    assert not home.objects.set_aside(digest)
    run("verify", "v1.0.0")


def test_nothing_whole_is_left_of_a_file(home):
    home.releases.files.write_file("v1.0.0", "README.md", b"other")
    home.objects.local_path(home.releases.find_record("v1.0.0")["files"]["README.md"]["sha256"]).unlink()
    assert "from a backup" in run("verify", "v1.0.0", "--repair", status=1)


@pytest.mark.parametrize("arguments", [["latest"], ["--session", "session-0001"], ["--object", "0" * 64]])
def test_asking_loads_no_table_library_that_holds_every_row(home, arguments, tmp_path):
    """At ten thousand sessions that alone would be a second and a hundred megabytes."""
    program = (
        f"from heimdall_assets.cli import main\ntry:\n    main(['lineage', *{arguments}])\nexcept SystemExit:\n    pass"
    )
    assert {"pandas", "scipy", "torch", "dagster"} & list_loaded(program, tmp_path) == set()
