"""The champion is judged on what was approved after it, once, before any training saw it; that is kept for ever."""

import shutil

import numpy as np
import pytest
from sqlalchemy import text

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.evaluation.judged import summarize_judged
from heimdall_assets.kinds import CHAMPION_ON_NEW_DATA, SPLIT_KINDS, TRAIN_SPLIT
from heimdall_assets.lineage.walk import JUDGED_MODEL
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.keeping.collecting import InUse, collect_garbage
from heimdall_assets.pipeline.keeping.erasing import erase_session, plan_erasure
from heimdall_assets.pipeline.monitoring.judging import NOT_JUDGED, find_new, judge_new_sessions, read_judged
from heimdall_assets.pipeline.prediction.released import read_released
from heimdall_assets.pipeline.prediction.stored import observe_stored
from heimdall_assets.pipeline.releases.promotion import promote_release
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.pipeline.tracing.indexing import open_whole_index
from heimdall_assets.pipeline.tracing.uses import find_uses
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.computing import read_facts
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets_tests.homes import SIMULATION, ignore, make_places, release


def add(places, seed, count=3):
    """Import and approve sessions; return their ids."""
    stores = places.open_stores()
    before = {row["id"] for row in stores.measurements.list_sessions()}
    import_simulated(stores, SIMULATION.model_copy(update={"num_sessions": count, "seed": seed}), f"s{seed}", ignore)
    return {row["id"] for row in stores.measurements.list_sessions()} - before


def snap(stores):
    return take_snapshot(stores, DatasetSpec())[0].manifest


def list_split(stores, version, kind):
    manifest = Manifest.decode(stores.objects.read_bytes(stores.releases.find_record(version)["manifest"]))
    table = load_table(stores.objects, read_parent(stores.objects, manifest, kind).artifacts["table"])
    return set(table["session_id"])


def list_judged(stores):
    return [(one.version, set(one.sessions)) for one in stores.releases.list_judgements()]


@pytest.fixture(scope="module")
def history(released_home, tmp_path_factory):
    """The planted order: A, release, B, retraining, its model promoted, C, judged; and B and C by name."""
    places, first = released_home(tmp_path_factory.mktemp("judged") / "home")
    stores = places.open_stores()
    assert first["version"] == "v1.0.0"
    assert list_judged(stores) == []
    b = add(places, 7)
    second = release(places)
    promote_release(stores, second["version"], "auditor", "for the test")
    c = add(places, 8, 2)
    judge_new_sessions(stores, snap(stores))
    return places, b, c, second


def test_each_new_session_is_judged_once_by_the_champion_of_that_moment(history):
    places, b, c, second = history
    stores = places.open_stores()
    assert list_judged(stores) == [("v1.0.0", b), (second["version"], c)]
    table = read_judged(stores)
    assert set(table["session_id"]) == b | c
    assert not table["session_id"].duplicated().any()
    assert table["approval_event_id"].notna().all()
    one = judge_new_sessions(stores, snap(stores)).manifest
    assert one.summary["num_sessions"] == 0
    assert len(list_judged(stores)) == 2


def test_it_was_judged_before_a_training_saw_it(history):
    places, b, _, second = history
    stores = places.open_stores()
    held = {kind: list_split(stores, second["version"], kind) for kind in SPLIT_KINDS.values()}
    assert b <= set().union(*held.values())
    judgement = stores.releases.list_judgements()[0]
    split = Manifest.decode(stores.objects.read_bytes(second["manifests"][TRAIN_SPLIT]))
    began = read_facts(stores.objects, split.digest)["started_at"]
    assert judgement.judged_at < began  # both ISO 8601 in UTC
    assert judgement.result == second["manifests"][CHAMPION_ON_NEW_DATA]


def test_rows_say_what_the_released_model_says_of_the_session(history):
    places, b, _, _ = history
    stores = places.open_stores()
    released = read_released(stores, "v1.0.0")
    table = read_judged(stores, "v1.0.0").set_index("session_id")
    rows = load_table(stores.objects, snap(stores).artifacts["table"])
    rows = rows[rows["session_id"].isin(b)].reset_index(drop=True)
    sessions, _ = observe_stored(stores, rows, ignore, released.manifest)
    said = released.predict(sessions)
    mine = table.loc[sessions.session_id.astype(str)]
    np.testing.assert_allclose(mine["latitude"], said.latitude, rtol=1e-9)
    assert (mine["error_m"] > 0).all()
    assert set(mine["baseline"]) <= {"tdoa_robust", "log_distance"}
    figures = summarize_judged(table.reset_index())
    assert figures["median_m"] == pytest.approx(np.median(mine["error_m"]))


def test_what_was_held_withdrawn_or_approved_again_is_not_new(history):
    places, _, _, second = history
    stores = places.open_stores()
    assert find_new(stores, snap(stores), second["version"]) == ([], 0)
    (late, gone) = sorted(add(places, 9, 2))
    before = snap(stores)
    stores.measurements.decide([gone], ApprovalStatus.REJECTED, "auditor", "wrong site")
    assert find_new(stores, before, second["version"])[0] == [late]  # withdrawn after the snapshot was taken
    assert find_new(stores, snap(stores), second["version"])[0] == [late]
    judge_new_sessions(stores, snap(stores))
    for status in (ApprovalStatus.REJECTED, ApprovalStatus.APPROVED):
        stores.measurements.decide([late], status, "auditor", "once more")
    assert find_new(stores, snap(stores), second["version"])[0] == []
    # B is new to the first model's data, but judged before; A was never new.
    assert find_new(stores, snap(stores), "v1.0.0")[0] == []


def test_lineage_shows_who_judged_a_session(history):
    places, b, _, _ = history
    stores = places.open_stores()
    result = Manifest.decode(stores.objects.read_bytes(stores.releases.list_judgements()[0].result))
    assert result.content[JUDGED_MODEL] == stores.releases.find_record("v1.0.0")["manifest"]
    with open_whole_index(stores) as index:
        uses = find_uses(stores, index.edges, session=min(b))
    assert {"kind": CHAMPION_ON_NEW_DATA, "digest": result.digest} in uses["results"]
    assert {"v1.0.0"}.isdisjoint(use["version"] for use in uses["releases"])  # judged on it, not made from it


def test_gc_keeps_judgements_for_ever(history):
    places, _, _, _ = history
    stores = places.open_stores()
    found = collect_garbage(stores, 2e10, InUse(), True, ignore)
    needed = {one.result for one in stores.releases.list_judgements()}
    manifests = [Manifest.decode(stores.objects.read_bytes(digest)) for digest in needed]
    needed |= {artifact.digest for manifest in manifests for artifact in manifest.artifacts.values()}
    needed |= {digest for manifest in manifests for digest in manifest.parents.values()}
    assert needed.isdisjoint(found.objects)
    assert {manifest.reference for manifest in manifests}.isdisjoint(found.references)


def test_the_log_refuses_a_session_twice_and_a_champion_that_changed(history):
    places, b, _, second = history
    stores = places.open_stores()
    size = len(stores.releases.read_log())
    assert not stores.releases.note_judgement("champion", second["version"], "0" * 64, [min(b)])
    assert not stores.releases.note_judgement("champion", "v1.0.0", "0" * 64, ["nobody"])
    assert len(stores.releases.read_log()) == size
    assert stores.releases.check_ledger() == []


def test_an_entry_that_was_changed_is_named(history, tmp_path):
    places, _, _, _ = history
    shutil.copytree(places.home, tmp_path / "home", symlinks=True)
    stores = make_places(tmp_path / "home").open_stores()
    with stores.releases.database.writing() as connection:
        names = [row[0] for row in connection.execute(text(
            "SELECT name FROM sqlite_master WHERE type='trigger' AND tbl_name='log_entries'"))]  # fmt: skip
        for name in names:
            connection.execute(text(f"DROP TRIGGER {name}"))
        connection.execute(text(
            "UPDATE log_entries SET body = replace(body, '\"version\":\"v1.0.0\"', '\"version\":\"v9.0.0\"') "
            "WHERE body LIKE '%\"kind\":\"judgement\"%'"))  # fmt: skip
    assert any("found leaf" in line for line in stores.releases.check_ledger())


def test_an_erased_session_keeps_its_row_and_loses_its_recordings(history, tmp_path):
    places, b, _, _ = history
    shutil.copytree(places.home, tmp_path / "home", symlinks=True)
    stores = make_places(tmp_path / "home").open_stores()
    planned = plan_erasure(stores, min(b))
    assert planned.judged_by == ["v1.0.0"]
    erase_session(stores, planned, True, "auditor", "asked for")
    assert min(b) in set(read_judged(stores)["session_id"])
    assert not stores.objects.find_present(planned.recordings)


def test_a_champion_that_cannot_be_read_is_told_and_stops_nothing(history, tmp_path):
    places, _, _, second = history
    shutil.copytree(places.home, tmp_path / "home", symlinks=True)
    moved = make_places(tmp_path / "home")
    stores = moved.open_stores()
    new = add(moved, 11, 2)
    path = stores.releases.files.root / second["version"] / "model.onnx"
    data = path.read_bytes()
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_bytes(data[:-1])
    damaged = judge_new_sessions(stores, snap(stores)).manifest
    assert "model.onnx" in damaged.summary[NOT_JUDGED]
    path.write_bytes(data)
    assert judge_new_sessions(stores, snap(stores)).manifest.summary["num_sessions"] == 2
    assert set(stores.releases.list_judgements()[-1].sessions) == new


def test_a_home_without_a_champion_judges_nothing(tmp_path):
    places = make_places(tmp_path / "home")
    add(places, 3, 2)
    stores = places.open_stores()
    manifest = judge_new_sessions(stores, snap(stores)).manifest
    assert manifest.summary["num_sessions"] == 0
    assert JUDGED_MODEL not in manifest.content
