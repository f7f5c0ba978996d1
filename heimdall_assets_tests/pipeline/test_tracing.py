"""The index of lineage: it answers as a walk through every manifest at rest does, also behind, lost, or shared."""

import random
import sqlite3
from collections import defaultdict

import pytest
from sqlalchemy import select

from heimdall_assets.errors import InvalidInput, StorageError
from heimdall_assets.kinds import SPLIT_KINDS
from heimdall_assets.manifests import RESULTS, Manifest
from heimdall_assets.pipeline.results import find_or_compute, tell_results
from heimdall_assets.pipeline.tracing.indexing import build_listener, find_missing, open_whole_index, rebuild
from heimdall_assets.pipeline.tracing.uses import find_origins, find_uses
from heimdall_assets.specs import PromotionSpec, TrainingSpec
from heimdall_assets.stores.computing import FACTS
from heimdall_assets.stores.database.edges import number_thing
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.schema import lineage_edges, lineage_nodes
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.addresses import parse_place
from heimdall_assets.stores.objects.cache import ObjectCache
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.opening import open_object_store
from heimdall_assets_tests.lineage.world import World, make_world
from heimdall_assets_tests.stores.one_table import make_one_table, open_one_table, write_receivers
from heimdall_assets_tests.stores.processes import run_at_once
from heimdall_assets_tests.stores.releasing import open_at
from heimdall_assets_tests.stores.test_one_table import RECEIVERS, ROWS

SPLITS = {kind: split for split, kind in SPLIT_KINDS.items()}


def ask(world, **asked):
    with open_whole_index(world.stores) as whole:
        assert whole.unread == []
        return find_uses(world.stores, whole.edges, **asked)


def read_all(world):
    """Return digest -> manifest of every result at rest, those too whose reference leads to another by now."""
    digests = {world.objects.read_reference(name) for name in world.objects.list_references(RESULTS)}
    digests |= {name.removeprefix(FACTS) for name in world.objects.list_references(FACTS)}
    return {digest: Manifest.decode(world.objects.read_bytes(digest)) for digest in digests}


def walk(world, what, value):
    """Return what ``find_uses`` should, from every manifest and table at rest: version -> sessions; loose results."""
    manifests = read_all(world)
    tables = {
        digest: world.read_table(manifest.artifacts["table"].digest)
        for digest, manifest in manifests.items()
        if "table" in manifest.artifacts
    }
    starts = defaultdict(set)  # manifest -> sessions
    for digest, manifest in manifests.items():
        rows = tables.get(digest)
        if manifest.kind == "approved_measurements" and what != "digest":
            names = ["measurement_id"] if what == "measurement" else [f"{what}_id", f"{what}_name"]
            found = rows[(rows[names] == value).any(axis=1)]
        elif manifest.kind == "iq_files" and what == "digest":
            found = rows[rows["digest"] == value]
        else:
            found = []
        if len(found):
            starts[digest] |= set(found["session_id"])
        held = {artifact.digest for artifact in manifest.artifacts.values()} | set(manifest.summary.get("shards", []))
        if what == "digest" and value in held | {digest} | set(manifest.content.values()):
            starts[digest] |= set()
    used = {digest: list_behind(manifests, digest) for digest in manifests}
    touched = {digest for digest, behind in used.items() if behind & starts.keys()}
    releases = {}
    taken = set()
    for record in world.releases.list_releases():
        behind = used[record["manifest"]] | used[record["evaluation"]]
        if behind & touched:
            taken |= behind
            splits = [digest for digest in behind if manifests[digest].kind in SPLITS]
            sessions = {name for digest in behind for name in starts.get(digest, ())}
            releases[record["version"]] = {
                session: next(
                    (SPLITS[manifests[one].kind] for one in splits if session in set(tables[one]["session_id"])), None
                )
                for session in sessions
            }
    return releases, {(manifests[digest].kind, digest) for digest in touched - taken}


def list_behind(manifests, digest):
    if digest not in manifests:
        return set()
    parents = [list_behind(manifests, parent) for parent in manifests[digest].parents.values()]
    return {digest}.union(*parents)


def make_history(world, seed):
    """Let people decide, train and release at random; return what may be asked about."""
    draw = random.Random(seed)
    known = world.add_sessions(0, 6)
    world.approve(known)
    for step in range(5):
        known += world.add_sessions(len(known), draw.randint(0, 2))
        world.withdraw(draw.sample(known, draw.randint(0, 2)))
        world.approve(draw.sample(known, draw.randint(2, 4)))
        roots = world.make_chain(TrainingSpec(seed=draw.randint(1, 2)), median_m=100.0 + step)
        if draw.random() < 0.6:
            world.release(roots, status=draw.choice(["released", "rejected"]))
    rows = world.read_table(
        next(m for m in read_all(world).values() if m.kind == "approved_measurements").artifacts["table"].digest
    )
    manifest = draw.choice(list(read_all(world).items()))
    artifacts = [artifact.digest for artifact in manifest[1].artifacts.values()]
    return [
        *(("session", name) for name in [*known, "night 1", "nobody"]),
        *(("measurement", name) for name in draw.sample(sorted(rows["measurement_id"]), 3)),
        ("source", "Source 2"), ("source", "source-3"), ("station", "station-a"), ("station", "Station-C"),
        *(("digest", place.removeprefix("sha256:")) for place in rows["iq_data_location"].dropna().head(2)),
        *(("digest", digest) for digest in [manifest[0], *artifacts]),
    ]  # fmt: skip


def check(world, questions):
    for what, value in questions:
        told = ask(world, **{what: value})
        releases, loose = walk(world, what, value)
        found = {
            use["version"]: {row["session_id"]: row["split"] for row in use["sessions"]} for use in told["releases"]
        }
        assert found == releases, (what, value)
        assert {(row["kind"], row["digest"]) for row in told["results"]} == loose, (what, value)


@pytest.mark.parametrize("seed", range(3))
def test_the_index_answers_as_a_walk_through_all_manifests_does(quick_path, seed):
    world = make_world(quick_path, 0)
    check(world, make_history(world, seed))


def test_both_databases_answer_alike(database_url, quick_path):
    world = make_world(quick_path, 0, database_url=database_url)
    check(world, make_history(world, 7))
    world.measurements.close()


def test_splits_approvals_and_measurements_are_told(tmp_path):
    world = make_world(tmp_path, 5)
    first = world.release(world.make_chain())
    world.withdraw(["session-0001"])
    world.approve(world.add_sessions(5, 2), "heard again")
    second = world.release(world.make_chain())
    (use,) = ask(world, session="session-0001")["releases"]
    assert (use["version"], use["status"]) == (first, "released")
    (row,) = use["sessions"]
    told = {name: world.name(row[name]) for name in ("session_name", "split", "approved_by")}
    assert told == {"session_name": "night 1", "split": "val", "approved_by": "Ada"}
    assert use["measurements"] == [f"session-0001-station-{name}" for name in "abc"]
    (row,) = ask(world, session="night 5")["releases"][0]["sessions"]
    assert row["approval_reason"] == "heard again"
    assert len(ask(world, station="station-c")["releases"][1]["measurements"]) == 6
    asked = ask(world, measurement="session-0000-station-b")["releases"]
    assert [use["measurements"] for use in asked] == [["session-0000-station-b"]] * 2
    node = world.read_provenance(second)["nodes"][0]
    (use,) = ask(world, digest=node["artifacts"]["table"]["digest"])["releases"]
    assert use["nodes"] == [f"approved_measurements {node['digest']}"]


def test_what_a_gate_refused_and_what_was_never_released_is_found(tmp_path):
    world = make_world(tmp_path, 5)
    world.release(world.make_chain(), status="rejected", rejected=["median error"])
    roots = world.make_chain(TrainingSpec(seed=9))  # its evaluation satisfied nobody
    told = ask(world, session="session-0002")
    assert [use["status"] for use in told["releases"]] == ["rejected"]
    kinds = [row["kind"] for row in told["results"]]
    assert kinds == ["trained_checkpoint", "evaluation_metrics", "onnx_model"]
    assert told["results"][-1]["digest"] == roots["onnx_model"]


def test_a_result_names_all_that_it_was_made_from(tmp_path):
    world = make_world(tmp_path, 5)
    world.make_chain()
    manifests = read_all(world)
    with open_whole_index(world.stores) as whole:
        for digest, manifest in manifests.items():
            behind = list_behind(manifests, digest)
            fingerprints = {manifests[one].parents.get("measurement_database") for one in behind} - {None}
            told = [row["digest"] for row in find_origins(world.stores, whole.edges, digest)]
            assert set(told) == behind | fingerprints
            assert told[-1] == digest
            for artifact in manifest.artifacts.values():
                assert digest in {row["digest"] for row in find_origins(world.stores, whole.edges, artifact.digest)}
        assert find_origins(world.stores, whole.edges, "0" * 64) == []
        (pinned,) = [one.artifacts["table"].digest for one in manifests.values() if one.kind == "iq_files"]
        recording = world.read_table(pinned)["digest"].iloc[0]
        assert find_origins(world.stores, whole.edges, recording) == []  # nobody here made it


@pytest.mark.parametrize("asked", [{}, {"session": "a", "source": "b"}, {"session": None}])
def test_where_used_wants_one_thing(tmp_path, asked):
    with pytest.raises(InvalidInput, match="where used"):
        ask(make_world(tmp_path, 0), **asked)


@pytest.mark.parametrize("lost", ["all of it", "a database of before"])
def test_an_index_that_is_behind_takes_in_what_it_lacks_before_it_answers(tmp_path, lost):
    world = make_world(tmp_path, 5)
    world.release(world.make_chain())
    expected = ask(world, session="session-0001")
    assert find_missing(world.stores, world.stores.edges.read_results()) == {}
    if lost == "all of it":
        world.stores.edges.clear()
    else:
        take_index_away(world.database)
        world.measurements.database.close()
        world = make_world(tmp_path, 0)
    assert ask(world, session="session-0001") == expected
    assert find_missing(world.stores, world.stores.edges.read_results()) == {}


@pytest.mark.parametrize("table", ["lineage_results", "lineage_edges"])
def test_what_fails_half_way_is_said_and_taken_in_later(tmp_path, table):
    world = make_world(tmp_path, 5)
    world.release(world.make_chain())
    with sqlite3.connect(world.database) as connection:
        connection.execute(
            f"CREATE TRIGGER full BEFORE INSERT ON {table} WHEN (SELECT count(*) FROM {table}) > 3 "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    with pytest.raises(StorageError, match="no room"):
        ask(world, session="session-0001")
    with sqlite3.connect(world.database) as connection:
        connection.execute("DROP TRIGGER full")
    connection.close()
    (use,) = ask(world, session="session-0001")["releases"]
    assert use["sessions"][0]["split"] == "val"
    before = read_rows(world)
    rebuild(world.stores)
    assert read_rows(world) == before


LATER = ("service_key_uses", "service_key_events", "serving_rule_events")
"""Tables of the revisions after the one that brought the index."""


def take_index_away(path):
    """Make a database that of the revision before the index."""
    with sqlite3.connect(path) as connection:
        for name in ("lineage_nodes", "lineage_edges", "lineage_results", "people", *LATER):
            connection.execute(f"DROP TABLE {name}")
        connection.execute("UPDATE heimdall_schema_version SET version_num = '0005'")
    connection.close()


@pytest.mark.parametrize("has_index", [True, False])
def test_a_home_that_may_only_be_read_answers_all_the_same(tmp_path, has_index):
    world = make_world(tmp_path, 5)
    world.release(world.make_chain())
    expected = ask(world, session="session-0001")
    world.make_chain(TrainingSpec(seed=3))  # behind by these
    if not has_index:
        take_index_away(world.database)
    before = world.database.read_bytes()
    measurements = MeasurementStore(f"sqlite:///{world.database}", read_only=True)
    measurements.upgrade()
    stores = Stores(measurements, world.objects, open_at(str(tmp_path / "heimdall-models"), measurements), tmp_path)
    assert not stores.edges.is_writable
    with open_whole_index(stores) as whole:
        told = find_uses(stores, whole.edges, session="session-0001")
    assert told["releases"] == expected["releases"]
    assert len(told["results"]) == 3
    assert world.database.read_bytes() == before


def test_a_result_that_cannot_be_read_is_said(tmp_path):
    world = make_world(tmp_path, 5)
    world.make_chain()
    digest, manifest = next(pair for pair in read_all(world).items() if pair[1].kind == "iq_files")
    path = world.objects.local_path(manifest.artifacts["table"].digest)
    path.chmod(0o600)
    path.write_bytes(b"no table")
    with open_whole_index(world.stores) as whole:
        told = find_uses(world.stores, whole.edges, session="session-0001")
        assert {row["digest"] for row in told["results"]} == set(read_all(world))
        assert len(whole.unread) == 1
        assert f"iq_files {digest}" in whole.unread[0]
        assert manifest.artifacts["table"].digest in whole.unread[0]
    with open_whole_index(world.stores) as whole:
        assert whole.unread  # until somebody computes it again


def index_home(folder, url):
    return rebuild_quietly(make_world(folder, 0, database_url=url))


def rebuild_quietly(world):
    with open_whole_index(world.stores) as whole:
        return whole.num_added


def read_rows(world):
    with world.measurements.database.reading() as connection:
        return [sorted(map(tuple, connection.execute(select(table)))) for table in (lineage_nodes, lineage_edges)]


def test_processes_that_index_the_same_at_once_write_the_same(tmp_path, database_url):
    world = make_world(tmp_path, 8, database_url=database_url)
    world.make_chain()
    rebuild(world.stores)
    expected = read_rows(world)
    world.stores.edges.clear()
    run_at_once(index_home, *[(tmp_path, database_url)] * 3)
    assert read_rows(world) == expected
    world.measurements.close()


def test_results_in_a_bucket_are_indexed_alike(tmp_path, bucket, s3):
    cache = ObjectCache(tmp_path / "cache", 10**9)
    place = parse_place(f"{bucket}/objects", "objects")
    objects = open_object_store(place, parse_place(f"{bucket}/recordings", "recordings"), s3.endpoint, cache)
    world = make_world(tmp_path, 5, objects=objects)
    world.release(world.make_chain())
    (use,) = ask(world, session="session-0001")["releases"]
    assert use["sessions"][0]["split"] == "val"
    assert find_missing(world.stores, world.stores.edges.read_results()) == {}


def test_a_snapshot_with_one_session_more_adds_few_edges(tmp_path):
    world = make_world(tmp_path, 300)
    world.make_chain()
    edges = rebuild(world.stores).edges
    before = edges.count_edges()
    world.make_chain(TrainingSpec(seed=4))  # the same data
    rebuild_quietly(world)
    assert edges.count_edges() - before < 15
    before = edges.count_edges()
    world.approve(world.add_sessions(300, 1))
    world.make_chain()
    rebuild_quietly(world)
    assert edges.count_edges() - before < before / 3


def test_two_things_under_one_number_are_refused(tmp_path):
    world = make_world(tmp_path, 0)
    edge = (("session", "a"), ("part", "b"), None)
    with world.measurements.database.writing() as connection:
        told = {"id": number_thing(("session", "a")), "kind": "session", "name": "z"}
        connection.execute(lineage_nodes.insert(), [told])
    with pytest.raises(StorageError, match="lineage index: found session z under the number"):
        world.stores.edges.add([edge])
    assert world.stores.edges.count_edges() == 0


def compute_decision(world):
    return find_or_compute(
        world.objects,
        "champion_model",
        {"model_release": "ab" * 32},
        [PromotionSpec()],
        lambda: ({}, {"champion": "v1"}),
    )


def test_a_result_is_indexed_before_it_can_be_found(tmp_path):
    world = make_world(tmp_path, 0)
    listen, seen = build_listener(world.stores), []

    def watch(digest, manifest):
        assert world.objects.read_reference(manifest.reference) is None
        listen(digest, manifest)
        seen.append(digest)

    with tell_results(watch):
        made = compute_decision(world)
        assert compute_decision(world).reused
    assert seen == [made.manifest.digest]
    assert set(world.stores.edges.read_results()) == set(seen)


def test_a_result_is_stored_although_its_index_cannot_be_written(tmp_path, caplog):
    world = make_world(tmp_path, 0)
    with world.measurements.database.writing() as connection:
        told = {"id": number_thing(("model_release", "ab" * 32)), "kind": "session", "name": "z"}
        connection.execute(lineage_nodes.insert(), [told])
    with tell_results(build_listener(world.stores)):
        made = compute_decision(world)
    assert "not in the index of lineage yet" in caplog.text
    assert world.objects.read_reference(made.manifest.reference) == made.manifest.digest
    assert set(find_missing(world.stores, world.stores.edges.read_results())) >= {made.manifest.digest}


def test_a_database_of_somebody_else_is_asked_and_never_written(tmp_path):
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    make_one_table(url, ROWS)
    stated = write_receivers(tmp_path / "receivers.json", RECEIVERS)
    before = (tmp_path / "theirs.db").read_bytes()
    measurements = open_one_table(url, stated)
    releases = open_at(str(tmp_path / "heimdall-models"), measurements)
    world = World(measurements, FolderObjectStore(tmp_path / "objects"), releases, {}, tmp_path / "theirs.db")
    roots = world.make_chain()
    session = ROWS[0][0]
    assert not world.stores.edges.is_there  # no ledger yet: nobody made one to answer a question
    assert len(ask(world, session=session)["results"]) == 9
    assert not (tmp_path / "heimdall-models").exists()
    version = world.release(roots)
    (use,) = ask(world, session=session)["releases"]
    assert (use["version"], use["sessions"][0]["approved_by"]) == (version, None)
    assert len(use["measurements"]) == 2
    assert set(world.stores.edges.read_results()) == set(read_all(world))  # beside the ledger of releases
    assert ask(world, station="1")["releases"][0]["measurements"] == [f"{session}/1"]
    assert (tmp_path / "theirs.db").read_bytes() == before
