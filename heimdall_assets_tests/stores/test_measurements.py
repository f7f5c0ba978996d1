"""The database of measurements: what was added is there once, who decided what is kept, and a changed ledger shows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from heimdall_assets.domain import ApprovalStatus, ImportBatch, Origin, SessionStatus
from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.people import name_people
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.measurements import ImportReport, MeasurementStore
from heimdall_assets_tests.stores.batches import START, make_batch, make_id, make_measurement
from heimdall_assets_tests.stores.processes import run_at_once

APPROVED, REJECTED, PENDING = ApprovalStatus.APPROVED, ApprovalStatus.REJECTED, ApprovalStatus.PENDING
EVERYTHING = DatasetSpec()


def ids(batch: ImportBatch) -> list[str]:
    return [session.id for session in batch.sessions]


def run_sql(store: MeasurementStore, statement: str, **values: object) -> None:
    """Run plain SQL on ours, as somebody with the database's password could."""
    is_postgresql = store.engine.dialect.name == "postgresql"
    with store.engine.begin() as connection:
        connection.execute(text(statement.replace("{p}", "heimdall." if is_postgresql else "")), values)


def unlock_ledger(store: MeasurementStore) -> None:
    """Take the triggers away, as an attacker would."""
    if store.engine.dialect.name == "postgresql":
        run_sql(store, "ALTER TABLE heimdall.approval_events DISABLE TRIGGER USER")
    else:
        for change in ("update", "delete", "replace"):
            run_sql(store, f"DROP TRIGGER approval_events_no_{change}")


# --- adding


def test_what_is_added_is_found(store: MeasurementStore) -> None:
    batch = make_batch(num_sessions=3, num_stations=2)
    assert store.add(batch) == ImportReport(2, 3, 3, 6, num_unchanged=0)
    found = store.find_session("alps 1")
    assert found == store.find_session(batch.sessions[1].id)
    assert found["id"] == batch.sessions[1].id
    assert found["session_start"] == (START + timedelta(minutes=1)).isoformat()
    assert found["attributes"] == {"season": "spring", "number": 1}
    assert found["approval_status"] == "pending"
    assert found["num_measurements"] == 2
    assert found["source"]["error_margin_meters"] == 15.0
    assert found["source"]["is_validated"] is True
    assert {station["name"] for station in found["stations"]} == {"station 0", "station 1"}
    heard = {row["id"]: row for row in found["measurements"]}
    for measurement in batch.measurements[2:4]:
        row = heard[measurement.id]
        assert row["timestamp"] == measurement.timestamp.isoformat()
        assert row["signal_strength_db"] == measurement.signal_strength_db
        assert row["iq_start_unix_ns"] == measurement.iq_start_unix_ns
        assert row["iq_data_location"] == measurement.iq_data_location
        assert row["attributes"] == measurement.attributes
    assert [row["name"] for row in store.list_stations()] == ["station 0", "station 1"]
    assert [row["name"] for row in store.list_sources()] == ["source 0", "source 1", "source 2"]


def test_adding_again_adds_nothing_and_takes_no_decision_back(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    store.decide(ids(batch)[:1], APPROVED, "ada", "heard")
    assert store.add(batch) == ImportReport(0, 0, 0, 0, num_unchanged=2 + 3 + 3 + 6)
    assert store.find_session(ids(batch)[0])["approval_status"] == "approved"
    doubled = replace(batch, stations=batch.stations * 2, measurements=batch.measurements * 2)
    assert store.add(doubled).num_unchanged == 14


def test_other_words_under_a_known_id_are_refused_and_nothing_is_added(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    more = make_batch(num_sessions=4)
    moved = more.sources[2].model_copy(update={"error_margin_m": 16.0})
    changed = replace(more, sources=[*more.sources[:2], moved, more.sources[3]])
    with pytest.raises(Refused, match=r"known_sources .*: found error_margin_meters 16.0, expected 15.0 as stored"):
        store.add(changed)
    assert len(store.list_sessions()) == 3
    assert len(store.list_sources()) == 3
    twice = make_batch(campaign="other")
    with pytest.raises(Refused, match="session_name"):
        store.add(replace(twice, sessions=[*twice.sessions, twice.sessions[0].model_copy(update={"name": "x"})]))
    assert len(store.list_sessions()) == 3


@pytest.mark.parametrize(
    ("part", "problem"),
    [("sources", "known_source_id"), ("sessions", "recording_session_id"), ("stations", "websdr_station_id")],
)
def test_rows_that_point_at_nothing_are_refused(store: MeasurementStore, part: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=f"{problem} .*: found no such row"):
        store.add(replace(make_batch(), **{part: []}))
    assert store.list_sessions() == []
    assert store.list_stations() == []


def test_one_station_is_heard_once_in_a_session(store: MeasurementStore) -> None:
    batch = make_batch()
    again = batch.measurements[0].model_copy(update={"id": make_id("second")})
    with pytest.raises(InvalidInput, match="session alps 0: found 2 measurements of station station 0, expected one"):
        store.add(replace(batch, measurements=[*batch.measurements, again]))
    store.add(batch)
    with pytest.raises(InvalidInput, match="found 2 measurements of station station 0"):
        store.add(ImportBatch(measurements=[again]))


def test_only_a_decision_approves(store: MeasurementStore) -> None:
    batch = make_batch()
    sneaky = batch.sessions[0].model_copy(update={"approval_status": APPROVED})
    with pytest.raises(InvalidInput, match="expected pending"):
        store.add(replace(batch, sessions=[sneaky, *batch.sessions[1:]]))


def test_an_approved_session_does_not_grow(store: MeasurementStore) -> None:
    full = make_batch(num_sessions=1, num_stations=3)
    store.add(replace(full, measurements=full.measurements[:2]))
    store.decide(ids(full), APPROVED, "ada", "heard")
    with pytest.raises(Refused, match="session alps 0: is approved and would get new measurements"):
        store.add(full)
    store.decide(ids(full), REJECTED, "ada", "another receiver turned up")
    assert store.add(full).num_measurements == 1


def test_attributes_are_plain_json(store: MeasurementStore) -> None:
    batch = make_batch(num_sessions=1)
    for value in (float("nan"), {1, 2}, b"bytes"):
        odd = batch.sessions[0].model_copy(update={"attributes": {"value": value}})
        with pytest.raises(InvalidInput, match="session alps 0: found attributes that are no JSON"):
            store.add(replace(batch, sessions=[odd]))


def test_times_without_a_zone_are_utc(store: MeasurementStore) -> None:
    batch = make_batch(num_sessions=1)
    plain = batch.sessions[0].model_copy(update={"start": datetime(2024, 5, 17, 1, 2, 3)})
    store.add(replace(batch, sessions=[plain]))
    assert store.find_session("alps 0")["session_start"] == "2024-05-17T01:02:03+00:00"


# --- finding


def test_sessions_are_listed_by_status_and_campaign(store: MeasurementStore) -> None:
    first, second = make_batch(), make_batch(num_sessions=2, campaign="coast", origin=Origin.SIMULATED)
    store.add(first)
    store.add(second)
    store.decide(ids(first)[:2], APPROVED, "ada", "heard")
    rows = store.list_sessions()
    assert [row["session_name"] for row in rows] == ["alps 0", "coast 0", "alps 1", "coast 1", "alps 2"]
    assert {row["num_measurements"] for row in rows} == {2}
    assert [row["session_name"] for row in store.list_sessions(campaign="coast")] == ["coast 0", "coast 1"]
    assert [row["session_name"] for row in store.list_sessions(APPROVED)] == ["alps 0", "alps 1"]
    assert store.list_sessions(APPROVED, "coast") == []
    assert store.resolve_sessions(["coast 1", ids(first)[0]]) == [ids(second)[1], ids(first)[0]]


def test_an_unknown_or_ambiguous_session_is_named(store: MeasurementStore) -> None:
    for name in ("nobody", "", "' OR 1=1 --", "x" * 1000):
        with pytest.raises(NotFound, match="found no session"):
            store.find_session(name)
    with pytest.raises((NotFound, InvalidInput)):
        store.find_session("a\x00b")
    batch = make_batch()
    twin = batch.sessions[0].model_copy(update={"id": make_id("twin")})
    store.add(replace(batch, sessions=[*batch.sessions, twin]))
    with pytest.raises(InvalidInput, match="session alps 0: found 2 of this name, expected an id"):
        store.find_session("alps 0")
    assert store.find_session(twin.id)["id"] == twin.id
    assert len(store.read_session_rows("no such id")) == 0


# --- deciding


def test_every_change_of_mind_is_one_event(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    before = datetime.now(UTC)
    assert store.decide(ids(batch), APPROVED, " ada ", "heard clearly") == 3
    assert store.decide([ids(batch)[0], ids(batch)[0]], APPROVED, "bob", "again") == 0
    assert store.decide([ids(batch)[0]], REJECTED, "bob", "wrong transmitter") == 1
    assert store.decide([ids(batch)[0]], PENDING, "ada", "will look again") == 1
    assert store.decide(ids(batch)[1:], PENDING, "ada", "too early") == 2
    assert store.decide([], APPROVED, "ada", "nothing") == 0
    events = name_people(store.list_approval_events(ids(batch)[0]), store.read_names)
    assert [(event["decision"], event["decided_by"], event["reason"]) for event in events] == [
        ("approved", "ada", "heard clearly"),
        ("rejected", "bob", "wrong transmitter"),
        ("pending", "ada", "will look again"),
    ]
    assert all(before <= datetime.fromisoformat(event["decided_at"]) <= datetime.now(UTC) for event in events)
    assert [event["id"] for event in store.list_approval_events()] == [1, 2, 3, 4, 5, 6, 7]
    assert name_people(store.find_session("alps 0")["approval_events"], store.read_names) == events
    assert {row["approval_status"] for row in store.list_sessions()} == {"pending"}
    assert store.check_ledger() == []


@pytest.mark.parametrize(
    ("by", "reason"), [("", "why"), ("  ", "why"), ("ada", ""), ("ada", "\n\t"), ("a\x00b", "why")]
)
def test_a_decision_has_a_name_and_a_reason(store: MeasurementStore, by: str, reason: str) -> None:
    batch = make_batch()
    store.add(batch)
    with pytest.raises(Refused, match="expected a text that is not blank"):
        store.decide(ids(batch), APPROVED, by, reason)
    assert store.list_approval_events() == []


def test_a_decision_about_an_unknown_session_decides_nothing(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    with pytest.raises(NotFound, match="session nobody"):
        store.decide([*ids(batch), "nobody"], APPROVED, "ada", "heard")
    assert store.list_approval_events() == []
    assert {row["approval_status"] for row in store.list_sessions()} == {"pending"}


# --- the ledger


FORGERIES = {
    "who": "UPDATE {p}approval_events SET decided_by = 'eve' WHERE id = 2",
    "what": "UPDATE {p}approval_events SET decision = 'approved' WHERE id = 4",
    "why": "UPDATE {p}approval_events SET reason = 'x' WHERE id = 1",
    "whose": "UPDATE {p}approval_events SET recording_session_id = (SELECT MAX(recording_session_id) FROM "
    "{p}approval_events) WHERE recording_session_id = (SELECT MIN(recording_session_id) FROM {p}approval_events)",
    "when": "UPDATE {p}approval_events SET decided_at = '2020-01-01 00:00:00.000000' WHERE id = 3",
    "one taken out": "DELETE FROM {p}approval_events WHERE id = 2",
    "the first taken out": "DELETE FROM {p}approval_events WHERE id = 1",
    "the last taken out": "DELETE FROM {p}approval_events WHERE id = 4",
    "all taken out": "DELETE FROM {p}approval_events",
    "one put in": "INSERT INTO {p}approval_events SELECT 5, recording_session_id, 'approved', decided_by, decided_at, "
    "reason FROM {p}approval_events WHERE id = 4",
    "garbage": "UPDATE {p}approval_events SET decided_at = '2020-01-01 99:00' WHERE id = 3",
    "moved": "UPDATE {p}approval_events SET id = 9 WHERE id = 4",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_every_forged_row_is_found(store: MeasurementStore, forgery: str) -> None:
    batch = make_batch()
    store.add(batch)
    store.decide(ids(batch), APPROVED, "ada", "heard")
    store.decide(ids(batch)[:1], REJECTED, "bob", "wrong place")
    assert store.check_ledger() == []
    unlock_ledger(store)
    try:
        run_sql(store, FORGERIES[forgery])
    except DBAPIError:
        assert forgery == "garbage"  # PostgreSQL takes no such time
        return
    assert store.check_ledger() != []


def test_a_gap_in_the_ledger_is_named(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    store.decide(ids(batch), APPROVED, "ada", "heard")
    unlock_ledger(store)
    run_sql(store, "DELETE FROM {p}approval_events WHERE id = 2")
    assert store.check_ledger()[0] == "approval_events: found event 3 after 1, expected 2"


def test_a_status_without_a_decision_is_found_and_not_believed(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    run_sql(store, "UPDATE {p}recording_sessions SET approval_status = 'approved' WHERE id = :id", id=ids(batch)[0])
    assert store.check_ledger() == [
        f"session {ids(batch)[0]}: found approval_status approved, expected pending by approval_events"
    ]
    snapshot = store.read_approved(EVERYTHING)
    assert len(snapshot.rows) == 0
    reasons = {"approval_status: found approved, expected the last of approval_events, None"}
    assert set(snapshot.left_out["reason"]) == reasons
    assert store.decide(ids(batch)[:1], APPROVED, "ada", "heard") == 1  # now somebody answers for it
    assert store.check_ledger() == []
    assert len(store.read_approved(EVERYTHING).rows) == 2


# --- the fingerprint


def test_the_fingerprint_follows_the_approved_set_alone(store: MeasurementStore) -> None:
    batch = make_batch()
    empty = store.compute_fingerprint(EVERYTHING)
    store.add(batch)
    assert store.compute_fingerprint(EVERYTHING) == empty  # pending sessions are no part of it
    seen = [empty]
    for decide in (
        lambda: store.decide(ids(batch)[:1], APPROVED, "ada", "heard"),
        lambda: store.decide(ids(batch)[1:2], APPROVED, "ada", "heard"),
        lambda: store.decide(ids(batch)[:1], REJECTED, "ada", "withdrawn"),
        lambda: store.decide(ids(batch)[:1], APPROVED, "ada", "heard after all"),
    ):
        decide()
        seen.append(store.compute_fingerprint(EVERYTHING))
        store.decide(ids(batch)[2:], REJECTED, "ada", "unheard")
        store.decide(ids(batch)[2:], PENDING, "ada", "maybe")
        assert store.compute_fingerprint(EVERYTHING) == seen[-1]
    assert len(set(seen)) == len(seen)
    store.decide(ids(batch), REJECTED, "ada", "all withdrawn")
    assert store.compute_fingerprint(EVERYTHING) == empty


def test_the_fingerprint_looks_at_its_dataset_alone(store: MeasurementStore) -> None:
    measured, simulated = make_batch(), make_batch(campaign="virtual", origin=Origin.SIMULATED)
    for batch in (measured, simulated):
        store.add(batch)
    store.decide(ids(measured), APPROVED, "ada", "heard")
    before = store.compute_fingerprint(DatasetSpec(campaigns=["alps"]))
    assert before == store.compute_fingerprint(DatasetSpec(origin="measured")) == store.compute_fingerprint(EVERYTHING)
    store.decide(ids(simulated), APPROVED, "ada", "simulated well")
    assert before == store.compute_fingerprint(DatasetSpec(campaigns=["alps"]))
    assert before == store.compute_fingerprint(DatasetSpec(origin="measured"))
    assert before != store.compute_fingerprint(EVERYTHING)


def test_the_order_of_addition_does_not_matter(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(replace(batch, measurements=[]))
    store.add(ImportBatch(measurements=batch.measurements[::-1]))
    store.decide(ids(batch), APPROVED, "ada", "heard")
    rows = store.read_approved(EVERYTHING).rows
    keys = list(zip(rows["session_id"], rows["station_id"], strict=True))
    assert keys == sorted(keys)


def test_a_session_that_is_not_completed_changes_the_fingerprint(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    store.decide(ids(batch), APPROVED, "ada", "heard")
    before = store.compute_fingerprint(EVERYTHING)
    run_sql(store, "UPDATE {p}recording_sessions SET status = 'failed' WHERE id = :id", id=ids(batch)[0])
    assert store.compute_fingerprint(EVERYTHING) != before
    assert set(store.read_approved(EVERYTHING).left_out["session_id"]) == {ids(batch)[0]}
    assert SessionStatus.FAILED == "failed"


# --- processes at once


def add_and_decide(url: str, campaign: str) -> int:
    store = MeasurementStore(url)
    batch = make_batch(num_sessions=5, campaign=campaign)
    store.add(batch)
    changed = sum(store.decide([name], APPROVED, campaign, "heard") for name in ids(batch))
    shared = make_batch(num_sessions=3)
    store.add(shared)
    return changed + store.decide(ids(shared), APPROVED, campaign, "also heard")


def test_processes_that_write_at_once_lose_nothing(store: MeasurementStore, database_url: str) -> None:
    changed = run_at_once(add_and_decide, *[(database_url, f"campaign {number}") for number in range(3)])
    assert sum(changed) == 3 * 5 + 3  # the shared sessions were approved by exactly one of them
    assert store.check_ledger() == []
    assert len(store.list_sessions(APPROVED)) == 18
    assert len(store.read_approved(EVERYTHING).rows) == 36


def test_a_measurement_of_any_station_can_join_a_pending_session(store: MeasurementStore) -> None:
    batch, more = make_batch(num_sessions=1, num_stations=1), make_batch(num_sessions=1, num_stations=2)
    store.add(batch)
    late = make_measurement(more.sessions[0], more.stations[1])
    assert store.add(ImportBatch(stations=more.stations, measurements=[late])) == ImportReport(
        1, 0, 0, 1, num_unchanged=1
    )


def test_more_measurements_are_looked_for_than_a_query_holds(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    known = {one.id for one in batch.measurements}
    assert store.find_measurements({*known, *(f"nobody {number}" for number in range(40_000))}) == known
