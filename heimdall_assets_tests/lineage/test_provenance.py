"""Provenance: complete, checked by its schema and by itself; uses and differences are read from it alone."""

import copy
import json

import pytest

from heimdall_assets.domain import APPROVED_COLUMNS
from heimdall_assets.errors import CorruptObject, NotFound, Refused
from heimdall_assets.lineage.difference import diff_models, render_difference
from heimdall_assets.lineage.environments import compare_environments
from heimdall_assets.lineage.listings import DECISIONS, decode_decisions
from heimdall_assets.lineage.provenance import (
    build_provenance,
    decode_provenance,
    find_contradictions,
    find_facts,
)
from heimdall_assets.lineage.recorded import list_rows
from heimdall_assets.lineage.tree import render_tree
from heimdall_assets.lineage.walk import walk_manifests
from heimdall_assets.manifests import Manifest, encode_canonical_json
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.specs import DatasetSpec, TrainingSpec
from heimdall_assets_tests.lineage.world import ENVIRONMENT, FACTS, REASON, list_nodes, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def roots(world):
    return world.make_chain()


@pytest.fixture(scope="module")
def provenance(world, roots):
    return world.freeze(roots)


def test_the_walk_finds_every_manifest_once_parents_first(world, roots):
    nodes = walk_manifests(roots.values(), world.objects.read_bytes)
    kinds = [node.manifest.kind for node in nodes]
    assert kinds[:3] == ["approved_measurements", "iq_files", "spectrogram_features"]
    assert len(kinds) == len(set(kinds)) == 9
    placed = set()
    for node in nodes:
        assert {digest for name, digest in node.manifest.parents.items() if name != "measurement_database"} <= placed
        placed.add(node.digest)
    assert walk_manifests(roots["onnx_model"], world.objects.read_bytes)[-1].manifest.kind == "onnx_model"


def test_what_is_no_manifest_is_named(world):
    digest = world.objects.put_bytes(b"{}", JSON_MEDIA_TYPE).digest
    with pytest.raises(CorruptObject, match=f"manifest {digest}: found bytes that are no manifest"):
        walk_manifests(digest, world.objects.read_bytes)
    manifest = Manifest(kind="a", code_version="1")
    loose = world.objects.put_bytes(manifest.encode() + b" ", JSON_MEDIA_TYPE).digest
    with pytest.raises(CorruptObject, match="another encoding"):
        walk_manifests(loose, world.objects.read_bytes)
    child = Manifest(kind="b", code_version="1", parents={"a": "0" * 64})
    orphan = world.objects.put_bytes(child.encode(), JSON_MEDIA_TYPE).digest
    with pytest.raises(NotFound):
        walk_manifests(orphan, world.objects.read_bytes)


def test_a_manifest_that_is_its_own_ancestor_is_refused():
    looped = Manifest(kind="a", code_version="1", parents={"a": "0" * 64}).encode()
    with pytest.raises(CorruptObject, match="its own ancestors"):
        walk_manifests("0" * 64, lambda digest: looped)


def test_everything_is_there_as_it_was(world, provenance):
    data = world.read_data(provenance)
    sessions = index_rows(data.sessions, "session_id")
    assert len(sessions) == 10
    row = sessions["session-0003"]
    assert (row["session_name"], row["campaign"], row["origin"]) == ("night 3", "north", "measured")
    assert (world.name(row["approved_by"]), row["approval_reason"]) == ("Ada", REASON)
    assert {row["split"] for row in sessions.values()} == {"train", "val", "test"}
    heard = index_rows(data.measurements, "measurement_id")
    assert len(heard) == 30
    with_iq = heard["session-0003-station-a"]
    assert with_iq["iq_data_location"] == f"sha256:{with_iq['iq_digest']}"
    assert with_iq["iq_status"] == "ok"
    assert heard["session-0003-station-c"]["iq_digest"] is None
    assert heard["session-0003-station-c"]["signal_strength_db"] == -83.0
    assert index_rows(data.sources, "source_id")["source-3"]["source_error_margin_m"] == 30.0
    listed = provenance["nodes"][0]["artifacts"][DECISIONS]["digest"]
    decisions = decode_decisions(world.objects.read_bytes(listed))
    assert decisions[row["approval_event_id"]]["recording_session_id"] == "session-0003"
    assert provenance["seeds"] == {"SplitSpec.salt": "42", "TrainingSpec.seed": 42}
    (environment,) = provenance["environments"].values()
    assert environment["cpu_capability"] == "AVX2"
    assert environment["git_dirty"] is False
    assert provenance["metrics"]["median_m"] == 120.0
    assert all(node["event"]["storage_id"] > 0 for node in provenance["nodes"])
    assert provenance["database"]["fingerprint"] == world.measurements.compute_fingerprint(DatasetSpec())


def index_rows(table, key):
    return {row[key]: row for row in list_rows(table)}


def test_the_tables_hold_every_column_of_the_snapshot(world, provenance):
    data = world.read_data(provenance)
    tables = (data.sessions, data.sources, data.stations, data.measurements)
    joined = {"split", "site", "iq_status", "iq_reason", "iq_digest"}
    snapshot = world.read_table(provenance["nodes"][0]["artifacts"]["table"]["digest"])
    assert set.union(*map(set, tables)) - joined == set(snapshot) <= set(APPROVED_COLUMNS)
    placed = [name for table in tables for name in table if name not in joined]
    assert sorted(name for name in set(placed) if placed.count(name) > 1) == ["session_id", "source_id", "station_id"]


def test_a_file_of_many_sessions_is_as_small_as_one_of_few(world, provenance):
    names = {row["session_id"] for row in list_rows(world.read_data(provenance).sessions)}
    text = encode_canonical_json(provenance).decode()
    assert not [name for name in names if name in text]


def test_it_survives_its_own_encoding_and_agrees_with_itself(provenance):
    data = encode_canonical_json(provenance)
    assert decode_provenance(data) == provenance
    assert find_contradictions(provenance) == []
    assert encode_canonical_json(decode_provenance(data)) == data


def test_the_same_model_differs_only_in_facts_events_and_version(world, roots, provenance):
    bare = world.freeze(roots, "v9.9.9", dagster_events=None, read_facts=lambda _: None)
    assert all(node["event"] is node["facts"] is None for node in bare["nodes"])
    told = copy.deepcopy(provenance)
    for one in (bare, told):
        for node in one["nodes"]:
            del node["event"], node["facts"]
        del one["model"]["version"]
    assert bare == told


def test_each_node_keeps_the_facts_of_who_computed_it_when_a_later_release_finds_it_again(tmp_path):
    world = make_world(tmp_path, 5)
    before = world.freeze(world.make_chain())
    world.facts = {**FACTS, "started_by": "bob", "environment": {**ENVIRONMENT, "git_sha": "b" * 40, "git_dirty": True}}
    provenance = world.freeze(world.make_chain(TrainingSpec(seed=7)))  # training and what follows is computed anew
    by = {node["kind"]: node["facts"]["started_by"] for node in provenance["nodes"]}
    new = {"trained_checkpoint", "evaluation_metrics", "onnx_model"}
    assert {kind for kind, name in by.items() if name == "bob"} == new
    assert len(provenance["environments"]) == 2
    assert find_facts(provenance, "iq_files")["environment"]["git_sha"] == "a" * 40
    assert find_facts(provenance, "trained_checkpoint")["environment"]["git_dirty"] is True
    lines = [
        line
        for line in render_tree(provenance, world.read_decisions(provenance)).splitlines()
        if "-- " in line and "(code " in line
    ]
    assert len(lines) == len(by)
    for line in lines:
        assert f", by {by[line.split('-- ')[1].split()[0]]}, because " in line
    data = world.read_data(before), world.read_data(provenance)
    assert diff_models(before, provenance, data)["environment"] == {
        "git_dirty": [False, True],
        "git_sha": ["a" * 40, "b" * 40],
    }


def test_an_environment_that_was_changed_or_taken_out_is_found(provenance):
    (digest,) = provenance["environments"]
    forged = copy.deepcopy(provenance)
    forged["environments"][digest]["git_dirty"] = True
    assert [where for where, _ in find_contradictions(forged)] == [f"environment {digest}"]
    gone = copy.deepcopy(provenance)
    gone["environments"] = {}
    found = find_contradictions(gone)
    assert len(found) == len(provenance["nodes"]) + 1
    assert all(what == f"its environment {digest} is not there" for _, what in found)


def test_packages_and_threads_are_compared_one_by_one():
    first = {"packages": ["a==1", "b==2"], "threads": {"torch": 1}, "system": "Linux"}
    second = {"packages": ["a==1", "c==3"], "threads": {"torch": 2}, "system": "Linux"}
    assert compare_environments(first, second) == {
        "package b": ["2", None],
        "package c": [None, "3"],
        "threads torch": [1, 2],
    }
    assert compare_environments(None, None) == {}


def test_two_snapshots_behind_one_model_are_refused(tmp_path):
    world = make_world(tmp_path, 5)
    old = world.make_chain()
    world.approve(world.add_sessions(5, 5))
    new = world.make_chain()
    with pytest.raises(Refused, match="approved_measurements: found two behind one model"):
        world.freeze({"onnx_model": new["onnx_model"], "evaluation_metrics": old["evaluation_metrics"]})


def test_no_snapshot_is_refused(world):
    lone = world.objects.put_bytes(Manifest(kind="onnx_model", code_version="1").encode(), JSON_MEDIA_TYPE).digest
    with pytest.raises(Refused, match="found none behind the model"):
        world.freeze({"onnx_model": lone})


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (lambda p: p.pop("seeds"), "seeds"),
        (lambda p: p.update(format="heimdall-provenance/2"), "format"),
        (lambda p: p.update(note="more"), "note"),
        (lambda p: p["nodes"][0].update(digest="zz"), "nodes"),
        (lambda p: p["nodes"].clear(), "nodes"),
        (lambda p: p["checks"][0].pop("passed"), "checks"),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused(provenance, spoil, place):
    broken = copy.deepcopy(provenance)
    spoil(broken)
    with pytest.raises(CorruptObject, match=place):
        decode_provenance(encode_canonical_json(broken))


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b'"heimdall-provenance/2"'])
def test_bytes_that_are_no_provenance_are_refused(data):
    with pytest.raises(CorruptObject, match="provenance: found"):
        decode_provenance(data)


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda p: p["nodes"][2]["specs"]["FeatureSpec"].update(hop=256), "node spectrogram_features"),
        (lambda p: p["nodes"].pop(1), "its parent iq_files"),
        (lambda p: p["model"]["manifests"].update(onnx_model="0" * 64), "model onnx_model"),
        (lambda p: p["nodes"][0]["event"].update(asset="iq_files"), "its Dagster event is of iq_files"),
        (lambda p: p["checks"][0].update(checked="0" * 64), "check train_split splits_do_not_leak it is of 000000"),
    ],
)
def test_a_file_that_contradicts_itself_is_told_where(provenance, spoil, where):
    broken = copy.deepcopy(provenance)
    spoil(broken)
    assert any(where in f"{place} {what}" for place, what in find_contradictions(broken))


def test_differences_tell_data_settings_and_figures(tmp_path):
    world = make_world(tmp_path, 5)
    first = world.read_provenance(world.release(world.make_chain()))
    world.withdraw(["session-0001"])
    world.approve(world.add_sessions(5, 1))
    second = world.read_provenance(world.release(world.make_chain(TrainingSpec(seed=7), median_m=100.0), "minor"))
    found = diff_models(first, second, (world.read_data(first), world.read_data(second)))
    assert found["data"]["sessions"] == {"added": ["session-0005"], "removed": ["session-0001"], "changed": []}
    assert len(found["data"]["measurements"]["added"]) == 3
    assert found["data"]["moved"]["session-0002"] == ["test", "val"]
    assert found["settings"] == {"TrainingSpec.seed": [42, 7]}
    assert found["code"] == {}
    assert found["metrics"]["median_m"] == {"first": 120.0, "second": 100.0, "difference": -20.0}
    text = render_difference(found)
    for part in ("sessions: 1 added, 1 removed", "TrainingSpec.seed: 42 -> 7", "median_m: 120 -> 100 (-20)"):
        assert part in text
    json.dumps(found, allow_nan=False)
    same = diff_models(first, first, (world.read_data(first), world.read_data(first)))
    assert same["settings"] == same["data"]["moved"] == {}
    assert not any(same["data"]["sessions"].values())


def test_approving_again_is_told_apart_from_a_changed_row(tmp_path):
    world = make_world(tmp_path, 5)
    first = world.freeze(world.make_chain())
    world.withdraw(["session-0000"])
    world.approve(["session-0000"], "looked again")
    second = world.freeze(world.make_chain())
    found = diff_models(first, second, (world.read_data(first), world.read_data(second)))
    assert list(found["data"]["approved_anew"]) == ["session-0000"]
    assert found["data"]["sessions"]["changed"] == []


def test_a_model_made_without_checks_events_or_iq_table_is_still_told(world, roots):
    nodes = list_nodes(world, roots)
    provenance = build_provenance(
        version="v1.0.0",
        roots={"approved_measurements": nodes["approved_measurements"].digest},
        read_bytes=world.objects.read_bytes,
        read_facts=lambda _: None,
        released=FACTS,
    )
    assert provenance["metrics"] == {}
    data = world.read_data(provenance)
    assert data.measurements["iq_digest"].isna().all()
    assert data.sessions["split"].isna().all()


def test_a_snapshot_without_its_table_is_named(world):
    empty = Manifest(kind="approved_measurements", code_version="1")
    digest = world.objects.put_bytes(empty.encode(), JSON_MEDIA_TYPE).digest
    provenance = world.freeze({"onnx_model": digest}, read_facts=lambda _: None)
    with pytest.raises(CorruptObject, match=f"approved_measurements {digest}: found no artifact table"):
        world.read_data(provenance)
