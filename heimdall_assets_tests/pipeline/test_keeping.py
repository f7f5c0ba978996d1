"""What nobody needs goes, and nothing else; what is erased is gone, and every digest over what is left still holds."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.errors import CorruptObject, NotFound, Refused
from heimdall_assets.lineage import verify_release
from heimdall_assets.manifests import Manifest, encode_canonical_json
from heimdall_assets.media_types import BINARY_MEDIA_TYPE
from heimdall_assets.merkle import hash_leaf
from heimdall_assets.pipeline.keeping.collecting import Collected, InUse, collect_garbage
from heimdall_assets.pipeline.keeping.erasing import erase_session, plan_erasure
from heimdall_assets.pipeline.releases.audit import audit_release
from heimdall_assets.pipeline.results import read_result
from heimdall_assets.places import read_places
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets_tests.homes import ignore
from heimdall_assets_tests.lineage.world import World, make_world

DAYS = 30.0
LONG_AGO = time.time() - 100 * 86_400
WHY = ("Ada", "asked to")


@pytest.fixture
def world(quick_path: Path) -> World:
    """Two releases of five sessions, a result that was never released, and an object of nobody's."""
    world = make_world(quick_path, 5)
    world.release(world.make_chain())
    world.release(world.make_chain(TrainingSpec(seed=1)))
    world.make_chain(TrainingSpec(seed=2))
    world.objects.put_bytes(b"nobody's", BINARY_MEDIA_TYPE)
    return world


@pytest.fixture
def stores(world: World, quick_path: Path) -> Iterator[Stores]:
    opened = read_places({"HEIMDALL_HOME": str(quick_path)}).open_stores()
    age(quick_path)
    yield opened
    opened.measurements.close()


def age(home: Path) -> None:
    """Let everything in the object store be unused for long."""
    for path in (home / "objects").rglob("*"):
        if path.is_file():
            os.utime(path, (LONG_AGO, LONG_AGO))


def list_rest(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted((home / "objects").rglob("*")) if path.is_file()}


def collect(stores: Stores, in_use: InUse | None = None, dry_run: bool = False, days: float = DAYS) -> Collected:
    return collect_garbage(stores, time.time() - days * 86_400, in_use or InUse(), dry_run, ignore)


def find_unreleased(stores: Stores) -> str:
    """Return the reference of the model that was never released."""
    for name in collect(stores, dry_run=True).references:
        digest = stores.objects.read_reference(name) if name.startswith("results/") else None
        if digest and Manifest.decode(stores.objects.read_bytes(digest)).kind == "onnx_model":
            return name
    raise AssertionError("none would go")


def list_faults(stores: Stores) -> list[str]:
    versions = [str(record["version"]) for record in stores.releases.list_releases()]
    return [finding.describe() for version in versions for finding in audit_release(stores, version)]


def test_what_nobody_needs_goes_and_every_release_stands(world: World, stores: Stores, quick_path: Path) -> None:
    before = list_rest(quick_path)
    planned = collect(stores, dry_run=True)
    assert list_rest(quick_path) == before
    done = collect(stores)
    assert (done.objects, done.references, done.kept) == (planned.objects, planned.references, planned.kept)
    gone = {Path(name).name for name in set(before) - set(list_rest(quick_path))}
    assert {name for name in gone if len(name) == 64} == set(done.objects)
    assert sum(done.objects.values()) == sum(len(before[name]) for name in before if Path(name).name in done.objects)
    # Of the model that was never released: checkpoint, evaluation and graph; the rest is behind the releases.
    assert sum(name.startswith("results/") for name in done.references) == 3
    assert all(data != b"nobody's" for data in list_rest(quick_path).values())
    assert list_faults(stores) == []
    again = collect(stores)
    assert (again.objects, again.references) == ({}, [])


def test_everything_of_a_released_chain_is_still_found_by_its_cache_key(
    world: World, stores: Stores, quick_path: Path
) -> None:
    known = set(stores.objects.list_references("results/"))
    done = collect(stores)
    for name in known - set(done.references):
        assert read_result(stores.objects, name) is not None, name
    facts = {name for name in stores.objects.list_references("facts/")}
    assert {name.removeprefix("facts/") for name in facts} == {
        stores.objects.read_reference(name) for name in stores.objects.list_references("results/")
    }


def test_what_was_used_lately_stays(stores: Stores) -> None:
    junk = stores.objects.put_bytes(b"new, and nobody's yet", BINARY_MEDIA_TYPE)
    unreleased = find_unreleased(stores)
    manifest = read_result(stores.objects, unreleased)  # found again, as by a run with the settings of then
    assert manifest is not None
    done = collect(stores)
    assert stores.objects.exists(junk.digest)
    assert done.young >= 1
    assert unreleased not in done.references
    assert read_result(stores.objects, unreleased) == manifest


def test_an_object_that_is_put_again_counts_as_used(stores: Stores) -> None:
    found = stores.objects.put_bytes(b"nobody's", BINARY_MEDIA_TYPE)
    assert found.digest not in collect(stores).objects
    assert stores.objects.read_bytes(found.digest) == b"nobody's"


def test_work_under_way_keeps_what_it_began_with(stores: Stores, quick_path: Path) -> None:
    assert collect(stores, InUse(since=LONG_AGO - 86_400)).objects == {}
    work = stores.scratch / "a training" / "epoch.safetensors"
    work.parent.mkdir(parents=True)
    work.write_bytes(b"half way")
    os.utime(work, (LONG_AGO - 86_400, LONG_AGO - 86_400))
    assert collect(stores).objects == {}
    work.unlink()
    assert collect(stores).objects


def test_the_latest_result_of_an_asset_stays_with_all_that_it_hangs_on(world: World, stores: Stores) -> None:
    name = find_unreleased(stores)
    digest = stores.objects.read_reference(name)
    assert digest is not None
    done = collect(stores, InUse([digest]))
    assert name not in done.references
    assert done.kept["the latest results"] > 0
    assert stores.objects.read_reference(name) == digest


def test_a_hold_keeps_a_result_until_it_ends(stores: Stores) -> None:
    name = find_unreleased(stores)
    digest = stores.objects.read_reference(name)
    assert digest is not None
    junk = stores.objects.put_bytes(b"nobody's", BINARY_MEDIA_TYPE).digest
    stores.measurements.place_hold("audit 7", ("object", digest), *WHY)
    stores.measurements.place_hold("a file", ("object", junk), *WHY)
    stores.measurements.place_hold("a session", ("session", "session-0001"), *WHY)  # which is no digest
    with pytest.raises(Refused, match="hold audit 7: found one of this name that stands"):
        stores.measurements.place_hold("audit 7", ("object", digest), *WHY)
    age(stores.scratch.parent)
    done = collect(stores)
    assert (done.kept["holds"] >= 2, name in done.references, junk in done.objects) == (True, False, False)
    stores.measurements.end_hold("audit 7", *WHY)
    with pytest.raises(NotFound, match="hold audit 7: found none of this name"):
        stores.measurements.end_hold("audit 7", *WHY)
    age(stores.scratch.parent)
    assert name in collect(stores).references


def test_where_a_release_cannot_tell_what_it_needs_nothing_goes(stores: Stores, quick_path: Path) -> None:
    record = stores.releases.find_record("v1.0.0")
    for path in (
        quick_path / "heimdall-models" / "v1.0.0" / "provenance.json",
        _find(quick_path, record["provenance"]),
    ):
        path.chmod(0o644)
        path.write_bytes(b"{}")
    before = list_rest(quick_path)
    with pytest.raises(Refused, match=r"release v1\.0\.0: what it hangs on cannot be told"):
        collect(stores)
    assert list_rest(quick_path) == before


def test_recordings_of_sessions_that_nobody_decided_on_stay(world: World, stores: Stores, quick_path: Path) -> None:
    (session,) = world.add_sessions(5, 1)
    age(quick_path)
    collect(stores)
    for row in stores.measurements.find_session(session)["measurements"]:
        if row["iq_data_location"]:
            assert stores.objects.exists(row["iq_data_location"].removeprefix("sha256:"))


def test_a_collector_beside_writers_takes_nothing_that_is_used(world: World, stores: Stores, quick_path: Path) -> None:
    """Results are found again, and objects put again, while a collector runs without pause."""
    name = find_unreleased(stores)
    ended, faults = threading.Event(), []

    def use() -> None:
        opened = read_places({"HEIMDALL_HOME": str(quick_path)}).open_stores()
        for number in range(60):
            data = f"object {number % 3}".encode()
            digest = opened.objects.put_bytes(data, BINARY_MEDIA_TYPE).digest
            manifest = read_result(opened.objects, name)
            opened.objects.write_reference(f"experiments/{digest}", digest)
            if opened.objects.read_bytes(digest) != data:
                faults.append(f"object {number} is gone")
            if manifest is not None and read_result(opened.objects, name) is None:
                faults.append(f"result {number} is gone")
            for path in (_find(quick_path, digest), quick_path / "objects" / "references" / f"{name}@"):
                if path.exists():
                    os.utime(path, (LONG_AGO, LONG_AGO))
        ended.set()

    thread = threading.Thread(target=use)
    thread.start()
    while not ended.is_set():
        collect(stores)
    thread.join()
    assert faults == []
    assert list_faults(stores) == []


def _find(home: Path, digest: str) -> Path:
    return home / "objects" / "objects" / "sha256" / digest[:2] / digest


# --- erasing


def ask_script(home: Path, version: str, log: bool = True) -> list[str]:
    with sqlite3.connect(home / "heimdall.db") as connection:
        bodies = connection.execute("select body from log_entries order by id").fetchall()
    (home / "log.jsonl").write_text("".join(f"{body}\n" for (body,) in bodies))
    folder = home / "heimdall-models" / version
    faults, _ = verify_release.verify(folder, home / "objects", home / "log.jsonl" if log else None, None, [])
    return [f"{name}: {what}" for name, what in faults]


def test_an_erased_session_is_gone_and_its_releases_still_verify(
    world: World, stores: Stores, quick_path: Path
) -> None:
    planned = plan_erasure(stores, "night 1")
    assert (planned.session, len(planned.recordings), planned.num_measurements) == ("session-0001", 2, 3)
    assert list(planned.releases) == ["v1.0.0", "v1.0.1"]
    assert stores.objects.exists(planned.recordings[0])  # planned, no more
    before = list_faults(stores)
    erase_session(stores, planned, False, "Ada", "their owner asked")
    assert before == []
    for digest in planned.recordings:
        assert not stores.objects.exists(digest)
    shown = stores.measurements.find_session("session-0001")
    assert (shown["session_name"], shown["approval_status"], shown["measurements"]) == (
        "erased session-0001",
        "rejected",
        [],
    )
    assert (shown["source"]["name"], shown["source"]["latitude"]) == ("erased source-1", None)
    for version in planned.releases:
        found = audit_release(stores, version)
        assert {finding.severity for finding in found} == {"notice"}, found
        told = [finding for finding in found if finding.kind == "recording"]
        assert {finding.name.split()[-1] for finding in told} == set(planned.recordings)
        assert all("(their owner asked)" in finding.found and "erased at" in finding.found for finding in told)
        assert ask_script(quick_path, version) == []
        without_log = ask_script(quick_path, version, log=False)
        assert len(without_log) == 2
        assert all("is missing" in fault for fault in without_log)
    assert stores.measurements.check_ledger() == []
    for path in quick_path.glob("heimdall.db*"):  # the index of lineage too, and what SQLite wrote over
        assert b"night 1" not in path.read_bytes()
        assert b"Source 1" not in path.read_bytes()
    erase_session(stores, plan_erasure(stores, "session-0001"), False, "Ada", "again")
    assert len(stores.measurements.list_erasures()) == 1


def test_an_erasure_that_was_killed_is_finished_by_the_next(stores: Stores) -> None:
    planned = plan_erasure(stores, "night 2")
    stores.measurements.erase_session(planned.session, planned.recordings, *WHY)  # and no byte went
    with pytest.raises(NotFound, match="the erasure of session session-0002 was interrupted: heimdall erase session"):
        plan_erasure(stores, "night 2")  # whose name is gone by then
    again = plan_erasure(stores, "session-0002")
    assert again.recordings == planned.recordings
    erase_session(stores, again, False, *WHY)
    assert stores.objects.find_present(planned.recordings) == set()


def test_an_object_that_is_gone_without_an_erasure_stays_a_fault(stores: Stores, quick_path: Path) -> None:
    erased, lost = (plan_erasure(stores, name).recordings for name in ("night 1", "night 2"))
    erase_session(stores, plan_erasure(stores, "night 1"), False, *WHY)
    _find(quick_path, lost[0]).unlink()
    errors = [finding.name for finding in audit_release(stores, "v1.0.0") if finding.severity == "error"]
    assert [name.split()[-1] for name in errors] == [lost[0]]
    assert not {name.split()[-1] for name in errors} & set(erased)
    _find(quick_path, erased[0]).write_bytes(b"something else")  # changed is not gone
    errors = [finding.name for finding in audit_release(stores, "v1.0.0") if finding.severity == "error"]
    assert {name.split()[-1] for name in errors} == {lost[0], erased[0]}


def test_what_is_held_is_not_erased(stores: Stores) -> None:
    stores.measurements.place_hold("court", ("session", "session-0001"), *WHY)
    planned = plan_erasure(stores, "night 1")
    with pytest.raises(Refused, match=r"session-0001: found it held \(court, since .*: asked to\)"):
        erase_session(stores, planned, False, *WHY)
    assert stores.objects.find_present(planned.recordings) == set(planned.recordings)
    assert stores.measurements.find_session("night 1")["measurements"]


def test_a_recording_that_another_session_holds_stays(world: World, stores: Stores, quick_path: Path) -> None:
    with sqlite3.connect(quick_path / "heimdall.db") as connection:
        connection.execute(
            "update measurements set iq_data_location = (select iq_data_location from measurements where id = ?) "
            "where id = ?",
            ("session-0001-station-a", "session-0002-station-a"),
        )
    planned = plan_erasure(stores, "night 1")
    assert (len(planned.recordings), len(planned.shared)) == (1, 1)
    erase_session(stores, planned, False, *WHY)
    assert stores.objects.exists(planned.shared[0])


def test_what_a_held_result_hangs_on_is_not_erased(world: World, stores: Stores) -> None:
    manifest = stores.releases.find_record("v1.0.0")["manifest"]
    stores.measurements.place_hold("audit", ("object", manifest), *WHY)
    planned = plan_erasure(stores, "night 1")
    with pytest.raises(Refused, match=rf"behind object {manifest}, which is held \(audit: asked to\)"):
        erase_session(stores, planned, False, *WHY)
    assert stores.objects.find_present(planned.recordings) == set(planned.recordings)
    assert stores.measurements.find_session("night 1")["measurements"]


def move_to_source(home: Path, session: str, source: str, name: str | None = None) -> None:
    with sqlite3.connect(home / "heimdall.db") as connection:
        connection.execute("update recording_sessions set known_source_id = ? where id = ?", (source, session))
        if name is not None:
            connection.execute("update recording_sessions set session_name = ? where id = ?", (name, session))


def test_a_source_keeps_its_place_while_another_session_is_of_it(stores: Stores, quick_path: Path) -> None:
    move_to_source(quick_path, "session-0002", "source-1", "Erased tape, restored")
    erase_session(stores, plan_erasure(stores, "night 1"), False, *WHY)
    assert stores.measurements.find_session("session-0002")["source"]["latitude"] is not None
    erase_session(stores, plan_erasure(stores, "session-0002"), False, *WHY)
    assert stores.measurements.find_session("session-0002")["source"]["latitude"] is None


def test_a_place_that_was_changed_beside_an_erasure_is_found(world: World, quick_path: Path) -> None:
    move_to_source(quick_path, "session-0002", "source-1")
    version = world.release(world.make_chain(TrainingSpec(seed=7)))
    stores = read_places({"HEIMDALL_HOME": str(quick_path)}).open_stores()
    erase_session(stores, plan_erasure(stores, "night 1"), False, *WHY)
    assert [one for one in audit_release(stores, version) if one.severity == "error"] == []
    with sqlite3.connect(quick_path / "heimdall.db") as connection:
        connection.execute("update known_sources set latitude = 10, longitude = 99 where id = 'source-1'")
    errors = [one.name for one in audit_release(stores, version) if one.severity == "error"]
    assert errors == ["source source-1"]


def test_an_erasure_excuses_nothing_that_no_erasure_takes(world: World, stores: Stores, quick_path: Path) -> None:
    node = next(one for one in world.read_provenance("v1.0.0")["nodes"] if one["kind"] == "trained_checkpoint")
    weights = node["artifacts"]["weights.safetensors"]["digest"]
    planned = plan_erasure(stores, "night 1")
    stores.measurements.erase_session(planned.session, [*planned.recordings, weights], *WHY)
    for digest in (*planned.recordings, weights):
        _find(quick_path, digest).unlink()
    errors = [one.name.split()[-1] for one in audit_release(stores, "v1.0.0") if one.severity == "error"]
    assert errors == [weights]
    faults = ask_script(quick_path, "v1.0.0")
    assert len(faults) == 1
    assert weights in faults[0]


def test_a_recording_that_came_again_and_was_lost_is_lost(world: World, stores: Stores, quick_path: Path) -> None:
    planned = plan_erasure(stores, "night 1")
    erase_session(stores, planned, False, *WHY)
    with sqlite3.connect(quick_path / "heimdall.db") as connection:
        connection.execute(
            "update measurements set iq_data_location = ? where id = 'session-0003-station-a'",
            (f"sha256:{planned.recordings[0]}",),
        )
    errors = [one.name.split()[-1] for one in audit_release(stores, "v1.0.0") if one.kind == "recording"
              and one.severity == "error"]  # fmt: skip
    assert errors == [planned.recordings[0]]


def test_the_files_of_features_go_where_that_is_asked(world: World, stores: Stores, quick_path: Path) -> None:
    shards = [world.objects.put_bytes(text, BINARY_MEDIA_TYPE).digest for text in (b"shard 1", b"shard 2", b"pairs")]
    index = pd.DataFrame({"measurement_id": ["session-0001-station-a", "session-0002-station-a"], "shard": shards[:2]})
    pairs = pd.DataFrame(
        {"first": ["session-0001-station-a"], "second": ["session-0001-station-b"], "shard": shards[2:]}
    )
    world.put_manifest("spectrogram_features", {"iq_files": "0" * 64},
                       {"index": world.put_table(index), "tracks": world.put_table(index[:0]),
                        "pairs": world.put_table(pairs)})  # fmt: skip
    planned = plan_erasure(stores, "night 1")
    assert set(planned.features) == {shards[0], shards[2]}
    erase_session(stores, planned, False, *WHY)
    assert stores.objects.find_present(shards) == set(shards)
    again = plan_erasure(stores, "session-0001")  # asked for later
    assert set(again.features) == {shards[0], shards[2]}
    stores.measurements.place_hold("other", ("session", "session-0002"), *WHY)
    erase_session(stores, again, True, *WHY)
    assert stores.objects.find_present(shards) == {shards[1]}


def test_damaged_bytes_that_were_moved_aside_go_too(stores: Stores, quick_path: Path) -> None:
    planned = plan_erasure(stores, "night 1")
    path = _find(quick_path, planned.recordings[0])
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-1] + b"x")
    assert stores.objects.set_aside(planned.recordings[0])
    stores.objects.put_bytes(whole, BINARY_MEDIA_TYPE)
    erase_session(stores, planned, False, *WHY)
    assert not [path for path in quick_path.rglob(planned.recordings[0])]


def test_where_something_behind_a_held_result_is_missing_nothing_goes(stores: Stores, quick_path: Path) -> None:
    name = find_unreleased(stores)
    digest = stores.objects.read_reference(name)
    assert digest is not None
    (parent,) = {Manifest.decode(stores.objects.read_bytes(digest)).parents["trained_checkpoint"]}
    stores.measurements.place_hold("audit", ("object", digest), *WHY)
    _find(quick_path, parent).unlink()
    before = list_rest(quick_path)
    with pytest.raises(Refused, match=f"holds: what {digest} hangs on cannot be told"):
        collect(stores)
    assert list_rest(quick_path) == before


def add_entry(home: Path, body: dict[str, Any]) -> None:
    encoded = encode_canonical_json(body)
    with sqlite3.connect(home / "heimdall.db") as connection:
        ((last,),) = connection.execute("select max(id) from log_entries")
        connection.execute(
            "insert into log_entries values (?, ?, ?)", (last + 1, encoded.decode(), hash_leaf(encoded).hex())
        )


SAID = {"decided_by": "heimdall", "decided_at": "2026-01-01T00:00:00.000000+00:00", "reason": "x"}


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "erasure", "session": {"a": 1}, "objects": [], "measurements": [], **SAID},
        {"kind": "erasure", "session": "s", "objects": 7, "measurements": [], **SAID},
        {"kind": "erasure", "person": ["x"], **SAID},
        {"kind": "erasure"},
        {"kind": "hold", "action": "placed"},
        {"kind": "hold", "action": "placed", "name": "a", "what": "object", "thing": 3, **SAID},
    ],
)
def test_an_entry_that_is_none_is_a_finding(stores: Stores, quick_path: Path, entry: dict[str, Any]) -> None:
    add_entry(quick_path, entry)
    errors = [finding for finding in audit_release(stores, "v1.0.0") if finding.severity == "error"]
    assert [finding.name.split()[0] for finding in errors] == ["log_entries"]
    with pytest.raises(CorruptObject, match="log_entries"):
        (stores.measurements.list_holds if entry["kind"] == "hold" else stores.measurements.list_erasures)()


# --- names


def test_a_pseudonym_that_a_reason_quotes_is_nobodys(stores: Stores) -> None:
    quoted = "person:5664d0a0c71951c14e4947bf5156f58a"
    stores.measurements.place_hold("a", ("session", "session-0001"), "Ada", f"as {quoted} said")
    assert list_faults(stores) == []


def test_an_erased_name_is_nowhere_and_every_digest_holds(world: World, stores: Stores, quick_path: Path) -> None:
    names = {name: pseudonym for pseudonym, name in stores.read_names().items()}
    assert stores.releases.erase_person("Ada", "Zoe", "she asked") == names["Ada"]
    assert names["Ada"] not in stores.read_names()
    assert list_faults(stores) == []
    for version in ("v1.0.0", "v1.0.1"):
        assert ask_script(quick_path, version) == []
    for path in quick_path.rglob("*"):
        if path.is_file():
            assert b"Ada" not in path.read_bytes(), path
    with pytest.raises(NotFound, match="person Ada: found nobody of this name"):
        stores.releases.erase_person("Ada", "Zoe", "again")
    world.approve(world.add_sessions(5, 1))  # who comes back is somebody new
    assert stores.read_names().keys() - {names["Ada"]} == stores.read_names().keys()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("update people set name = 'Eve' where name = 'Ada'", "found name 'Eve'"),
        ("update people set secret = '00' where name = 'Ada'", "found name 'Ada'"),
        ("update people set name = null, secret = null where name = 'Ada'", "found name None"),
        ("update people set name = 'Eve', secret = 7 where name = 'Ada'", "found name 'Eve'"),
        ("delete from people where name = 'Ada'", "found no row, expected that of who stands in the log"),
    ],
)
def test_a_name_that_was_changed_is_found(
    world: World, stores: Stores, quick_path: Path, change: str, found: str
) -> None:
    with sqlite3.connect(quick_path / "heimdall.db") as connection:
        connection.execute(change)
    errors = [finding for finding in audit_release(stores, "v1.0.0") if finding.severity == "error"]
    assert [finding.name.split()[0] for finding in errors] == ["people"]
    assert found in errors[0].found


# --- commands


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def test_the_commands_collect_hold_and_erase(stores: Stores, quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEIMDALL_HOME", str(quick_path))
    planned = json.loads(run("gc", "--dry-run", "--json").stdout)
    assert (planned["dry_run"], planned["num_bytes"] > 0) == (True, True)
    said = run("gc").stdout
    assert f"removed: {len(planned['objects'])} objects of" in said
    assert "v1.0.0" in said
    assert "removed: 0 objects of 0.0 MB, 0 references" in run("gc").stdout
    run("hold", "place", "court", "--session", "night 1", "--by", "Bo", "--reason", "a dispute")
    (held,) = json.loads(run("hold", "list", "--json").stdout)
    assert (held["name"], held["thing"], held["placed_by"]) == ("court", "session-0001", "Bo")
    run("gc", "--dry-run")
    refused = run("erase", "session", "night 1", "--by", "Ada", "--reason", "asked", code=2)
    assert "found it held (court" in refused.stderr
    run("hold", "end", "court", "--by", "Bo", "--reason", "settled")
    assert (
        "would erase: session session-0001, 3 measurements, 2 recordings"
        in run("erase", "session", "night 1", "--by", "Ada", "--reason", "asked", "--dry-run").stdout
    )
    erased = run("erase", "session", "night 1", "--by", "Ada", "--reason", "asked")
    assert "erased: session session-0001, 3 measurements, 2 recordings" in erased.stdout
    assert "model v1.0.1 learned or was judged with it and stays" in erased.stderr
    verified = run("verify", "v1.0.1").stdout
    assert "by Ada (asked)" in verified
    assert "all is as it was released" in verified
    gone = json.loads(run("erase", "person", "Ada", "--by", "Bo", "--reason", "asked by Ada", "--json").stdout)
    assert gone["person"].startswith("person:")
    assert gone["num_mentions"] == 1  # in the reason just given
    assert f"by {gone['person']} (asked)" in run("verify", "v1.0.1").stdout
    assert "found nobody of this name" in run("erase", "person", "Ada", "--by", "Bo", "--reason", "x", code=2).stderr
    assert (
        "expected either --session or --object"
        in run("hold", "place", "x", "--by", "Bo", "--reason", "x", code=2).stderr
    )
