"""Tables of levels from a file to sessions in the database, and to positions."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import InvalidIdentifier, InvalidSetting, InvalidTable, NotFound
from heimdall_assets.pipeline.intake.level_files import import_levels
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets_tests.tables.test_wide_levels import CLAIM, RECEIVERS, ROWS, TABLE


@pytest.fixture
def store(tmp_path):
    store = MeasurementStore(f"sqlite:///{tmp_path / 'heimdall.db'}")
    store.upgrade()
    yield store
    store.close()


def write_table(folder: Path, table: bytes = TABLE) -> dict[str, Path]:
    files = {"table": folder / "t.csv", "receivers": folder / "r.json"}
    files["table"].write_bytes(table)
    files["receivers"].write_bytes(RECEIVERS)
    return files


def test_each_row_of_a_table_becomes_a_session(store, tmp_path):
    report = import_levels(store, **write_table(tmp_path), campaign="powder", claim=CLAIM).report
    assert (report.num_sessions, report.num_measurements, report.num_stations) == (3, 4, 3)
    first, second, third = store.list_sessions(campaign="powder")
    assert first["session_name"] == "powder-20221123T132440"
    assert first["attributes"] == {"test_grid": 0, "test_note": "a", "not_heard": ["hill"]}
    assert third["attributes"]["heard_without_position"] == ["bus-1"]
    heard = {row["name"]: row for row in store.find_session(second["id"])["stations"]}
    assert set(heard) == {"bus-1", "hill"}
    assert heard["bus-1"]["latitude"] is None
    rows = {row["websdr_station_id"]: row for row in store.find_session(second["id"])["measurements"]}
    moving = rows[heard["bus-1"]["id"]]
    assert (moving["signal_strength_db"], moving["receiver_latitude"], moving["receiver_longitude"]) == (
        -80.5,
        40.761,
        -111.841,
    )
    assert moving["frequency_hz"] == 462.7e6
    source = store.find_session(second["id"])["source"]
    assert (source["latitude"], source["longitude"]) == (40.766, -111.836)
    assert (source["source_type"], source["error_margin_meters"]) == ("handheld", 5.0)


def test_a_table_may_serve_two_campaigns_and_several_cuts(store, tmp_path):
    files = write_table(tmp_path)
    import_levels(store, **files, campaign="powder", claim=replace(CLAIM, where={"test_grid": "0"}))
    other = import_levels(store, **files, campaign="powder-grid", claim=replace(CLAIM, where={"test_grid": "1"})).report
    assert (other.num_sessions, other.num_stations) == (1, 0)
    whole = import_levels(store, **files, campaign="powder", claim=CLAIM).report
    assert whole.num_sessions == 2
    (tmp_path / "cut").mkdir()
    cut = write_table(tmp_path / "cut", TABLE.replace(ROWS[0].encode() + b"\n", b""))
    assert import_levels(store, **cut, campaign="powder", claim=CLAIM).report.num_sessions == 0


def test_two_transmissions_of_one_second_have_two_names(store, tmp_path):
    later = ROWS[0].replace("40.765", "40.7655")
    import_levels(store, **write_table(tmp_path, TABLE + b"\n" + later.encode()), campaign="powder", claim=CLAIM)
    names = {session["session_name"] for session in store.list_sessions()}
    assert {"powder-20221123T132440", "powder-20221123T132440-2"} <= names


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"campaign": "a/b"}, InvalidIdentifier),
        ({"campaign": "x" * 128}, InvalidIdentifier),
        ({"claim": replace(CLAIM, frequency_hz=-1.0)}, InvalidTable),
        ({"error_margin_m": float("nan")}, InvalidSetting),
        ({"source_type": "hand/held"}, InvalidIdentifier),
        ({"claim": replace(CLAIM, where={"test_grid": "9"})}, InvalidTable),
        ({"claim": replace(CLAIM, time_zone="Mars/Olympus")}, InvalidSetting),
        ({"table": Path("nowhere.csv")}, NotFound),
    ],
)
def test_a_bad_table_import_adds_nothing(store, tmp_path, changes, error):
    with pytest.raises(error):
        import_levels(store, **(write_table(tmp_path) | {"campaign": "powder", "claim": CLAIM} | changes))
    assert store.list_sessions() == []


def test_the_real_table_imports_in_seconds_and_is_approved(store, shared_data):
    folder = shared_data / "powder_rss"
    files = {"table": folder / "single_tx.csv", "receivers": folder / "receivers.json"}
    started = time.process_time()
    report = import_levels(store, **files, campaign="powder", claim=CLAIM).report
    assert time.process_time() - started < 30
    # 47 levels were heard by buses that did not know where they were
    assert (report.num_sessions, report.num_measurements, report.num_stations) == (4039, 94_205 - 47, 40)
    store.decide([session["id"] for session in store.list_sessions()], ApprovalStatus.APPROVED, "tester", "published")
    snapshot = store.read_approved(DatasetSpec(campaigns=["powder"]))
    assert snapshot.rows["session_id"].nunique() == 4039
    assert len(snapshot.rows) == 94_205 - 47
    november = import_levels(
        store, **files, campaign="powder-november", claim=replace(CLAIM, where={"test_november": "1"})
    ).report
    assert (november.num_sessions, november.num_stations, november.num_sources) == (351, 0, 0)
