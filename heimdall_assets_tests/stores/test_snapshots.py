"""Snapshots: only rows that may be trained on; every other is counted with what is wrong with it, and stops nobody."""

import json
import sqlite3
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from heimdall_assets.domain import (
    APPROVED_COLUMNS,
    SNAPSHOT,
    ApprovalStatus,
    Decibels,
    ImportBatch,
    Measurement,
    Origin,
    Position,
    Station,
    Word,
)
from heimdall_assets.fields import Stored, read_fields
from heimdall_assets.lineage.recorded import compare_rows
from heimdall_assets.physical import ClockClass
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database import snapshots
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.raw import rules as row_rules
from heimdall_assets.stores.database.raw.columns import gather
from heimdall_assets.stores.database.raw.rows import RawRows
from heimdall_assets.stores.database.raw.rules import find_reasons
from heimdall_assets.stores.objects.tables import decode_table, encode_table
from heimdall_assets_tests.stores.batches import START, make_batch, make_id
from heimdall_assets_tests.stores.test_measurements import ids, run_sql

EVERYTHING = DatasetSpec()
ALWAYS = {field.snapshot: field.dtype for field in SNAPSHOT if field.snapshot and not field.since}
"""The columns that every snapshot has."""


def gather_rows(columns: dict[str, list[object]], num_rows: int) -> RawRows:
    return RawRows({name: gather(values) for name, values in columns.items()}, num_rows)


def fill(store: MeasurementStore, batch: ImportBatch) -> None:
    store.add(batch)
    store.decide(ids(batch), ApprovalStatus.APPROVED, "ada", "heard clearly")


def test_tables_apart_say_what_the_rows_of_the_snapshot_say(store: MeasurementStore) -> None:
    batch = make_batch()
    fill(store, batch)
    moved = batch.measurements[1].id
    place = "receiver_latitude = 45.5, receiver_longitude = 7.5, receiver_altitude_asl = 300"
    run_sql(store, f"UPDATE {{p}}measurements SET {place} WHERE id = '{moved}'")
    rows = store.read_approved(EVERYTHING).rows.set_index("measurement_id").sort_index()
    apart = store.read_tables(EVERYTHING)
    joined = apart["measurements"].merge(apart["recording_sessions"], on="session_id")
    joined = joined.merge(apart["known_sources"], on="source_id").merge(apart["websdr_stations"], on="station_id")
    joined = joined.set_index("measurement_id").sort_index()
    assert joined.loc[moved, "receiver_latitude"] == 45.5
    shared = [name for name in rows if not name.startswith("approv")]
    assert not compare_rows(rows, joined, shared).any(axis=None)
    assert set(shared) <= set(joined)


def test_what_is_no_value_of_its_column_is_shown_as_it_is_written(store: MeasurementStore) -> None:
    if store.engine.dialect.name == "postgresql":
        pytest.skip("PostgreSQL takes no text for a number")
    batch = make_batch()
    fill(store, batch)
    run_sql(store, f"UPDATE {{p}}measurements SET snr_db = 'loud' WHERE id = '{batch.measurements[0].id}'")
    heard = store.read_tables(EVERYTHING)["measurements"].set_index("measurement_id")
    assert heard["snr_db"][batch.measurements[0].id] == "'loud'"
    assert isinstance(heard["snr_db"][batch.measurements[1].id], float)


def test_a_row_says_everything_that_is_known(store: MeasurementStore) -> None:
    batch = make_batch()
    fill(store, batch)
    snapshot = store.read_approved(EVERYTHING)
    rows = snapshot.rows
    assert rows.dtypes.astype(str).to_dict() == ALWAYS
    assert list(rows.columns) == list(ALWAYS)
    assert len(rows) == 6
    assert len(snapshot.left_out) == 0
    expected = batch.measurements[2]
    row = rows.set_index("measurement_id").loc[expected.id]
    session, source, station = batch.sessions[1], batch.sources[1], batch.stations[0]
    assert row["session_id"] == session.id
    assert row["session_name"] == "alps 1"
    assert (row["campaign"], row["origin"]) == ("alps", "measured")
    assert row["session_start"] == START + timedelta(minutes=1)
    assert row["session_attributes"] == '{"number":1,"season":"spring"}'
    assert (row["source_id"], row["source_name"]) == (source.id, "source 1")
    assert (row["source_latitude"], row["source_longitude"], row["source_altitude_m"]) == (45.5, 7.501, 12.0)
    assert row["source_error_margin_m"] == 15.0
    assert (row["station_id"], row["station_name"], row["clock_class"]) == (station.id, "station 0", "gnss")
    assert (row["receiver_latitude"], row["receiver_longitude"], row["receiver_altitude_m"]) == (45.0, 7.0, 200.0)
    assert row["timestamp"] == expected.timestamp
    for name in ("frequency_hz", "signal_strength_db", "snr_db", "frequency_offset_hz", "duration_s"):
        assert row[name] == getattr(expected, name)
    for name in ("iq_data_location", "iq_data_format", "iq_sample_rate_hz", "iq_samples_count", "iq_start_unix_ns"):
        assert row[name] == getattr(expected, name)
    event = store.list_approval_events(session.id)[-1]
    approved_by = store.read_names()[row["approved_by"]]
    assert (approved_by, row["approval_reason"], row["approval_event_id"]) == (
        "ada",
        "heard clearly",
        event["id"],
    )
    assert row["approved_at"].isoformat() == event["decided_at"]


def test_the_view_shows_the_same_rows(store: MeasurementStore) -> None:
    fill(store, make_batch())
    prefix = "heimdall." if store.engine.dialect.name == "postgresql" else ""
    with store.engine.connect() as connection:
        result = connection.execute(text(f"SELECT * FROM {prefix}approved_measurements"))
        view = pd.DataFrame(result.fetchall(), columns=list(result.keys()))
    rows = store.read_approved(EVERYTHING).rows
    assert list(view.columns) == list(APPROVED_COLUMNS)
    view = view.sort_values(["session_id", "station_id"], ignore_index=True)
    for name in ("measurement_id", "receiver_altitude_m", "signal_strength_db", "approved_by", "session_attributes"):
        assert view[name].tolist() == rows[name].tolist(), name


def test_a_snapshot_is_the_same_bytes_every_time(store: MeasurementStore) -> None:
    fill(store, make_batch(num_sessions=8, num_stations=5))
    first, second = (store.read_approved(EVERYTHING).rows for _ in range(2))
    assert encode_table(first) == encode_table(second)
    pd.testing.assert_frame_equal(decode_table(encode_table(first)), first)
    keys = list(zip(first["session_id"], first["station_id"], strict=True))
    assert keys == sorted(keys)


def test_sessions_that_are_not_approved_are_counted(store: MeasurementStore) -> None:
    batch = make_batch(num_sessions=4)
    store.add(batch)
    store.decide(ids(batch)[:1], ApprovalStatus.APPROVED, "ada", "heard")
    store.decide(ids(batch)[1:2], ApprovalStatus.REJECTED, "ada", "unheard")
    snapshot = store.read_approved(EVERYTHING)
    assert set(snapshot.rows["session_id"]) == set(ids(batch)[:1])
    assert snapshot.num_undecided == {"pending": 4, "rejected": 2}
    store.decide(ids(batch)[:1], ApprovalStatus.REJECTED, "ada", "withdrawn")
    snapshot = store.read_approved(EVERYTHING)
    assert len(snapshot.rows) == 0
    assert snapshot.rows.dtypes.astype(str).to_dict() == ALWAYS


def test_a_dataset_chooses_campaign_and_origin(store: MeasurementStore) -> None:
    fill(store, make_batch())
    fill(store, make_batch(num_sessions=2, campaign="virtual", origin=Origin.SIMULATED))
    counts = {
        name: len(store.read_approved(DatasetSpec(**choice)).rows)
        for name, choice in {
            "everything": {},
            "alps": {"campaigns": ["alps"]},
            "both": {"campaigns": ["alps", "virtual"]},
            "nobody": {"campaigns": ["nobody"]},
            "measured": {"origin": "measured"},
            "simulated": {"origin": "simulated"},
            "none": {"campaigns": ["alps"], "origin": "simulated"},
        }.items()
    }
    assert counts == {
        "everything": 10,
        "alps": 6,
        "both": 10,
        "nobody": 0,
        "measured": 6,
        "simulated": 4,
        "none": 0,
    }


def test_a_moving_receiver_is_where_its_measurement_says(store: MeasurementStore) -> None:
    batch = make_batch(num_sessions=1, num_stations=1)
    bus = Station(id=make_id("bus"), name="bus 1")
    heard = Measurement(
        id=make_id("heard by bus"),
        session_id=batch.sessions[0].id,
        station_id=bus.id,
        timestamp=START,
        frequency_hz=1e8,
        signal_strength_db=-80.0,
        receiver_position=Position(latitude=40.76, longitude=-111.83, altitude_m=1400.0),
    )
    fill(store, replace(batch, stations=[*batch.stations, bus], measurements=[*batch.measurements, heard]))
    row = store.read_approved(EVERYTHING).rows.set_index("measurement_id").loc[heard.id]
    assert (row["receiver_latitude"], row["receiver_longitude"], row["receiver_altitude_m"]) == (40.76, -111.83, 1400.0)
    run_sql(store, "UPDATE {p}measurements SET receiver_latitude = NULL, receiver_longitude = NULL")
    snapshot = store.read_approved(EVERYTHING)
    assert len(snapshot.rows) == 1
    assert snapshot.left_out["reason"].tolist() == ["station_latitude: found nothing, expected a number from -90 to 90"]


# --- rows that may not be trained on

BAD_ROWS = {
    # change of one measurement, its station, source or session: what its reason says
    "measurements SET receiver_latitude = 91, receiver_longitude = 7": "own_latitude: found 91.0",
    "measurements SET receiver_latitude = 45": "receiver position: found one coordinate",
    "measurements SET frequency_hz = 0": "frequency_hz: found 0.0, expected a number above 0",
    "measurements SET frequency_hz = -1": "frequency_hz: found -1.0",
    "measurements SET signal_strength_db = 1e9": "signal_strength_db: found 1000000000.0",
    "measurements SET signal_strength_db = NULL, iq_data_location = NULL": "neither a level nor an IQ recording",
    "measurements SET arrival_unix_ns = 1795168800000000000": "arrival_sigma_s: found nothing with arrival_unix_ns",
    "measurements SET bearing_sigma_deg = 3": "bearing_sigma_deg: found 3.0 with bearing_deg nothing, expected both or",
    "measurements SET bearing_deg = 3, bearing_sigma_deg = 0": "bearing_sigma_deg: found 0.0, expected a number",
    "measurements SET bearing_deg = 361, bearing_sigma_deg = 3": "bearing_deg: found 361.0, expected a number from",
    "measurements SET arrival_unix_ns = 1, arrival_sigma_s = 1e-7, iq_data_location = 'a.npy'": (
        "arrival_unix_ns: found one in a session that has IQ recordings, whose arrivals count from another zero"
    ),
    "measurements SET iq_data_location = '../../etc/passwd'": "iq_data_location: found '../../etc/passwd'",
    "measurements SET iq_data_location = 'gs://bucket/key'": "iq_data_location: found 'gs://bucket/key'",
    "measurements SET iq_data_location = ''": "iq_data_location: found ''",
    "measurements SET iq_sample_rate = -24000": "iq_sample_rate_hz: found -24000.0, expected a number above 0",
    "measurements SET iq_sample_rate = 0": "iq_sample_rate_hz: found 0.0",
    "measurements SET iq_samples_count = 1000000000000": "iq_samples_count: found 1000000000000",
    "measurements SET iq_samples_count = -5": "iq_samples_count: found -5",
    "measurements SET duration_seconds = -2": "duration_s: found -2.0",
    "measurements SET attributes = 'no json'": "measurement_attributes: found 'no json', expected a JSON object",
    "measurements SET attributes = '[1]'": "measurement_attributes: found '[1]'",
    "measurements SET attributes = '{\"a\": NaN}'": "measurement_attributes: found",
    "websdr_stations SET latitude = NULL": "station_latitude: found nothing",
    "websdr_stations SET longitude = 180.5": "station_longitude: found 180.5, expected a number from -180 to 180",
    "websdr_stations SET altitude_asl = 1e7": "station_altitude_m: found 10000000.0",
    "websdr_stations SET clock_class = 'sundial'": "clock_class: found 'sundial', expected gnss_calibrated or gnss",
    "known_sources SET is_validated = false": "source_is_validated: found",
    "known_sources SET latitude = NULL": "source_latitude: found nothing",
    "known_sources SET latitude = -90.001": "source_latitude: found -90.001",
    "known_sources SET longitude = 1e300": "source_longitude: found 1e+300",
    "known_sources SET error_margin_meters = -1": "source_error_margin_m: found -1.0",
    "recording_sessions SET status = 'in_progress'": "session_status: found 'in_progress', expected completed",
    "recording_sessions SET origin = 'guessed'": "origin: found 'guessed', expected measured or simulated",
    "recording_sessions SET campaign = ''": "campaign: found '', expected a text",
    "recording_sessions SET attributes = ''": "session_attributes: found ''",
}
ONLY_POSTGRESQL = {
    "measurements SET signal_strength_db = 'NaN'": "signal_strength_db: found nan",
    "measurements SET snr_db = '-Infinity'": "snr_db: found -inf",
    "measurements SET frequency_hz = 'Infinity'": "frequency_hz: found inf",
    "measurements SET receiver_latitude = 'NaN', receiver_longitude = 7": "own_latitude: found nan",
    "measurements SET timestamp = 'infinity'": "timestamp: found 'infinity', expected a time",
    "measurements SET timestamp = '0044-03-15 12:00:00 BC'": "timestamp: found '0044-03-15",
    "recording_sessions SET session_start = '9999-01-01 00:00:00'": "session_start: found '9999-01-01",
    "known_sources SET latitude = 'NaN'": "source_latitude: found nan",
}
ONLY_SQLITE = {  # which keeps any type in any column
    "measurements SET signal_strength_db = 'loud'": "signal_strength_db: found 'loud'",
    "measurements SET frequency_hz = x'00ff'": "frequency_hz: found b'",
    "measurements SET timestamp = 'yesterday'": "timestamp: found 'yesterday'",
    "measurements SET timestamp = 1715949015": "timestamp: found",
    "measurements SET iq_samples_count = 1.5": "iq_samples_count: found 1.5, expected an integer",
    "measurements SET iq_start_unix_ns = 1e30": "iq_start_unix_ns: found 1e+30, expected an integer",
    "measurements SET iq_data_location = x'80ff', iq_data_format = NULL": "iq_data_location: found b'",
    "measurements SET iq_data_location = CAST(x'80ff' AS TEXT)": "iq_data_location: found '",
    "measurements SET signal_strength_db = 9e999": "signal_strength_db: found inf",
    "websdr_stations SET name = x'00'": "station_name: found b'",
    "known_sources SET is_validated = 'perhaps'": "source_is_validated: found 'perhaps', expected true",
    "known_sources SET latitude = '45,5'": "source_latitude: found '45,5'",
}


def test_each_bad_row_is_left_out_alone_with_its_reason(store: MeasurementStore) -> None:
    dialect = store.engine.dialect.name
    bad_rows = BAD_ROWS | (ONLY_SQLITE if dialect == "sqlite" else ONLY_POSTGRESQL)
    batch = make_batch(num_sessions=len(bad_rows) + 1, num_stations=1)
    # Each session gets a station of its own, so that a bad one is bad for one row.
    own = [
        batch.stations[0].model_copy(update={"id": make_id("own", number), "name": f"own {number}"})
        for number in range(len(batch.sessions))
    ]
    heard = [
        measurement.model_copy(update={"station_id": station.id})
        for measurement, station in zip(batch.measurements, own, strict=True)
    ]
    fill(store, replace(batch, stations=own, measurements=heard))
    targets = {
        "measurements": [item.id for item in heard],
        "websdr_stations": [item.id for item in own],
        "known_sources": [item.id for item in batch.sources],
        "recording_sessions": [item.id for item in batch.sessions],
    }
    for number, change in enumerate(bad_rows):
        change = change.replace(":", r"\:")
        run_sql(store, f"UPDATE {{p}}{change} WHERE id = :target", target=targets[change.partition(" ")[0]][number])
    snapshot = store.read_approved(EVERYTHING)
    reasons = dict(zip(snapshot.left_out["measurement_id"], snapshot.left_out["reason"], strict=True))
    for number, (change, expected) in enumerate(bad_rows.items()):
        assert expected in reasons.get(heard[number].id, "kept"), change
    assert snapshot.rows["measurement_id"].tolist() == [heard[-1].id]
    assert len(reasons) == len(bad_rows)
    assert not any("\n" in reason for reason in reasons.values())
    for session in batch.sessions:  # each can be looked at, and none stops the program
        store.find_session(session.id)
        store.read_session_rows(session.id)


def test_a_station_heard_twice_is_left_out_twice(quick_path) -> None:  # type: ignore[no-untyped-def]
    store = MeasurementStore(f"sqlite:///{quick_path / 'h.db'}")
    store.upgrade()
    batch = make_batch(num_sessions=2, num_stations=2)
    fill(store, batch)
    run_sql(
        store,
        "UPDATE measurements SET websdr_station_id = :a WHERE id = :b",
        a=batch.stations[0].id,
        b=batch.measurements[1].id,
    )
    snapshot = store.read_approved(EVERYTHING)
    assert set(snapshot.left_out["measurement_id"]) == {batch.measurements[0].id, batch.measurements[1].id}
    assert set(snapshot.left_out["reason"]) == {
        f"station_id: found {batch.stations[0].id} 2 times in a session, expected once"
    }
    assert set(snapshot.rows["session_id"]) == {batch.sessions[1].id}


def test_rows_of_nobody_are_left_out(quick_path) -> None:  # type: ignore[no-untyped-def]
    store = MeasurementStore(f"sqlite:///{quick_path / 'h.db'}")
    store.upgrade()
    batch = make_batch(num_sessions=2, num_stations=2)
    fill(store, batch)
    with sqlite3.connect(quick_path / "h.db") as connection:  # which checks no foreign keys
        connection.execute("DELETE FROM known_sources WHERE id = ?", (batch.sources[0].id,))
        connection.execute("DELETE FROM websdr_stations WHERE id = ?", (batch.stations[0].id,))
    connection.close()
    snapshot = store.read_approved(EVERYTHING)
    assert len(snapshot.rows) == 1
    assert snapshot.left_out["reason"].str.contains("expected a text|expected a station of websdr_stations").all()


def test_a_session_of_any_status_can_be_looked_at(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    rows = store.read_session_rows(ids(batch)[0])
    assert len(rows) == 2
    assert rows.dtypes.astype(str).to_dict() == ALWAYS
    assert rows["approved_by"].isna().all()
    assert rows["source_latitude"].tolist() == [45.5, 45.5]
    run_sql(store, "UPDATE {p}known_sources SET is_validated = false WHERE id = :id", id=batch.sources[0].id)
    rows = store.read_session_rows(ids(batch)[0])
    assert len(rows) == 2
    assert rows["source_latitude"].isna().all()  # nobody vouches for it: it is no truth
    assert rows["source_longitude"].isna().all()


# --- the rules alone, on anything

ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.decimals(allow_nan=True, places=2)
)


@given(data=st.data(), num_rows=st.integers(1, 3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_value_stops_the_rules(data: st.DataObject, num_rows: int) -> None:
    columns = {field.read_as: [None] * num_rows for field in SNAPSHOT}
    for name in data.draw(st.sets(st.sampled_from(list(columns)), max_size=8)):
        columns[name] = data.draw(st.lists(ANYTHING, min_size=num_rows, max_size=num_rows))
    reasons = find_reasons(gather_rows(columns, num_rows), needs_truth=True, needs_decision=False)
    assert all(isinstance(reason, str) for reason in reasons)  # no drawn row is complete


class Later(Word):
    """A column of each kind that a later migration could bring."""

    is_lit: Annotated[bool | None, Stored(snapshot=True, since="0002")] = None
    num_clips: Annotated[int | None, Stored(snapshot=True, since="0002")] = None
    loss_db: Annotated[Decibels | None, Stored(snapshot=True, since="0002")] = None
    polarization: Annotated[str | None, Stored(snapshot=True, since="0002")] = None
    calibrated_at: Annotated[datetime | None, Stored(snapshot=True, since="0002")] = None
    clock: Annotated[ClockClass | None, Stored(snapshot=True, since="0002")] = None


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch, store: MeasurementStore) -> dict[str, list[object]]:
    """Columns of two usable rows as the database gives them, with none in those that came later."""
    fill(store, make_batch(num_sessions=1, num_stations=2))
    read = list[RawRows]()
    monkeypatch.setattr(snapshots, "find_reasons", lambda raw, **_: read.append(raw) or np.full(raw.num_rows, None))
    store.read_approved(EVERYTHING)
    fields = (*SNAPSHOT, *read_fields("measurements", Later))
    monkeypatch.setattr(snapshots, "SNAPSHOT", fields)
    monkeypatch.setattr(row_rules, "SNAPSHOT", fields)
    known = {field.read_as: read[0].values(field.read_as) for field in SNAPSHOT}
    return known | {name: [None, None] for name in Later.model_fields}


def judge(columns: dict[str, list[object]]) -> tuple[list[object], pd.DataFrame]:
    raw = gather_rows(columns, 2)
    reasons = find_reasons(raw, needs_truth=True, needs_decision=True)
    return list(reasons), snapshots._part_rows(raw, reasons)[0]


@pytest.mark.parametrize(
    ("name", "good", "kept", "bad", "reason"),
    [
        ("is_lit", 1, True, "perhaps", "is_lit: found 'perhaps', expected true or false"),
        ("num_clips", 7, 7, 1.5, "num_clips: found 1.5, expected an integer"),
        ("loss_db", -3, -3.0, 1001, "loss_db: found 1001, expected a number from -1000 to 1000"),
        ("polarization", "vertical", "vertical", "", "polarization: found '', expected a text"),
        ("calibrated_at", "2026-01-02", pd.Timestamp("2026-01-02", tz="UTC"), "soon", "calibrated_at: found 'soon'"),
        ("clock", "ntp", "ntp", "sundial", "clock: found 'sundial', expected gnss_calibrated or gnss"),
    ],
)
def test_a_later_column_of_any_kind_is_judged_and_kept(later, name, good, kept, bad, reason) -> None:  # type: ignore[no-untyped-def]
    reasons, rows = judge(later)
    assert reasons == [None, None]
    assert list(rows.columns) == list(ALWAYS)  # nobody has a value: as before it came
    reasons, rows = judge({**later, name: [good, None]})
    assert reasons == [None, None]
    (field,) = [field for field in snapshots.SNAPSHOT if field.read_as == name]
    assert list(rows.columns) == [*ALWAYS, name]
    assert str(rows[name].dtype) == field.dtype
    assert rows[name].dropna().tolist() == [kept]
    reasons, rows = judge({**later, name: [bad, None]})
    assert reasons[1] is None
    assert reason in str(reasons[0])
    assert list(rows.columns) == list(ALWAYS)  # the only row with a value is left out


@given(value=st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=50, deadline=None)
def test_integers_keep_their_last_digit(value: int) -> None:
    raw = gather_rows({"a": [value, None, 2**63, 1.5, "7", True]}, 6)
    found = raw.integers("a")
    assert found[0] == value
    assert pd.isna(found[1:4]).all()


# --- volume


def test_four_thousand_sessions_take_seconds(store: MeasurementStore) -> None:
    num_sessions, num_stations = (4039, 15) if store.engine.dialect.name == "sqlite" else (1000, 15)
    batch = make_batch(num_sessions=num_sessions, num_stations=num_stations)
    spent = {}
    for name, step in {
        "add": lambda: store.add(batch),
        "decide": lambda: store.decide(ids(batch), ApprovalStatus.APPROVED, "ada", "heard"),
        "fingerprint": lambda: store.compute_fingerprint(EVERYTHING),
        "read": lambda: store.read_approved(EVERYTHING),
        "list": lambda: store.list_sessions(),
        "check": lambda: store.check_ledger(),
    }.items():
        start = time.process_time()
        result = step()
        spent[name] = time.process_time() - start
        if name == "read":
            assert len(result.rows) == num_sessions * num_stations
            assert np.isfinite(result.rows["receiver_latitude"]).all()
            assert json.loads(result.rows["session_attributes"].iloc[0])["season"] == "spring"
    # A quarter of this is usual; more means that something is asked row by row.
    assert sum(spent.values()) < 20, spent
