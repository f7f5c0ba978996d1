"""A place that who heard it contradicts: refused at import, left out of learning, unless somebody says why it is so."""

import json

import numpy as np
import pytest

from heimdall_assets.defs import warning_checks
from heimdall_assets.domain import ApprovalStatus, ImportBatch, Measurement, Origin, Position, Session
from heimdall_assets.errors import Refused
from heimdall_assets.formats import Stated
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.files import import_recordings
from heimdall_assets.pipeline.intake.identities import make_source, make_station
from heimdall_assets.pipeline.intake.iq_session import SessionClaim
from heimdall_assets.pipeline.intake.level_files import import_levels
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.pipeline.truth import check_truth
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets.tables.claim import TableClaim
from heimdall_assets_tests.formats.recordings import START, make_noise, make_npy
from heimdall_assets_tests.homes import make_places

TABLE = b"timestamp,tx_x_coord,tx_y_coord,A,B,C,D\n2026-11-20 10:00:00,4.4010,51.2010,-70,-98,-100,\n"
RECEIVERS = {"A": (51.20, 4.40), "B": (51.22, 4.40), "C": (51.20, 4.44), "D": (51.18, 4.36)}
SAID = r"session field-\S+: its source at 4\.40100, 51\.20100 is 6757 km from B, which heard it at 462\.7 MHz, expected"


@pytest.fixture
def stores(tmp_path):
    stores = make_places(tmp_path / "home").open_stores()
    yield stores
    stores.measurements.close()


def import_table(stores, folder, waiver=None, table=TABLE):
    (folder / "t.csv").write_bytes(table)
    listed = {name: {"latitude": place[0], "longitude": place[1]} for name, place in RECEIVERS.items()}
    (folder / "r.json").write_text(json.dumps(listed))
    files = {"table": folder / "t.csv", "receivers": folder / "r.json"}
    claim = TableClaim(frequency_hz=462.7e6, time_zone="UTC", real_levels=[-70.0])
    return import_levels(stores.measurements, **files, campaign="field", claim=claim, waiver=waiver).report


def approve(stores, **changes):
    ids = [row["id"] for row in stores.measurements.list_sessions()]
    return stores.measurements.decide(ids, ApprovalStatus.APPROVED, "ada", "positions by GPS", **changes)


def add_unchecked(stores, longitude):
    """Add a session as homes hold them from before anybody looked."""
    station = make_station("A", Position(latitude=45.0, longitude=7.0), ClockClass.NONE)
    source = make_source("X", Position(latitude=45.0, longitude=longitude))
    name = f"old {longitude:g}"
    session = Session(id=name, name=name, source_id=source.id, campaign="old", origin=Origin.MEASURED, start=START)
    heard = Measurement(
        id=f"m {name}", session_id=name, station_id=station.id, timestamp=START, frequency_hz=433e6,
        signal_strength_db=-80.0,
    )  # fmt: skip
    stores.measurements.add(ImportBatch([station], [source], [session], [heard]))


def test_a_table_with_swapped_coordinates_is_refused(stores, tmp_path):
    with pytest.raises(Refused, match=SAID + ".*latitude and longitude swapped.*--waive-truth REASON"):
        import_table(stores, tmp_path)
    with pytest.raises(Refused, match=SAID):
        import_table(stores, tmp_path, waiver=" ")
    assert stores.measurements.list_sessions() == []
    three = TABLE + b"2026-11-20 10:00:01,51.2010,4.4010,-70,-98,-100,\n2026-11-20 10:00:02,4.4,51.2,-70,,,\n"
    with pytest.raises(Refused, match=r"2 of 3 sessions are so"):
        import_table(stores, tmp_path, table=three)


def make_levels(turn=lambda latitude, longitude: (latitude, longitude), sources=None):
    """Return batch and places of 30 sessions of a network around 45 N 45 E: swapped, they are within reach."""
    rng = np.random.default_rng(7)
    places = 45.0 + rng.uniform(-1.0, 1.0, (5, 2)) * [0.4, 0.6]
    stations = [
        make_station(f"R{number}", Position(latitude=place[0], longitude=place[1]), ClockClass.NONE)
        for number, place in enumerate(places)
    ]
    true = 45.0 + rng.uniform(-1.0, 1.0, (30, 2)) * [0.4, 0.6]
    batch = ImportBatch(stations)
    for number, place in enumerate(true):
        said = turn(*(place if sources is None else true[sources[number]]))
        source = make_source(f"X{number}", Position(latitude=said[0], longitude=said[1]))
        session = Session(id=f"s{number}", name=f"s{number}", source_id=source.id, campaign="levels",
                          origin=Origin.MEASURED, start=START)  # fmt: skip
        batch.sources.append(source)
        batch.sessions.append(session)
        for station, receiver in zip(stations, places, strict=True):
            apart = np.hypot(*((place - receiver) * [111.0, 79.0]))
            batch.measurements.append(
                Measurement(
                    id=f"m{number}{station.name}", session_id=session.id, station_id=station.id, timestamp=START,
                    frequency_hz=433e6, signal_strength_db=float(-40.0 - 30.0 * np.log10(apart) + rng.normal(0.0, 6.0)),
                )
            )  # fmt: skip
    return batch


def test_coordinates_swapped_within_reach_are_told_by_levels():
    assert check_truth(make_levels()) == make_levels()
    swapped = make_levels(lambda latitude, longitude: (longitude, latitude))
    said = (
        r"session s0: levels fit better with latitude and longitude swapped at \d\d% of 30 sites: the loudest receiver"
    )
    with pytest.raises(Refused, match=said + r" is .*\(30 of 30 sessions are so\).*--waive-truth REASON"):
        check_truth(swapped)
    waived = check_truth(swapped, "relays on a mountain")
    assert {session.attributes["truth_waived"] for session in waived.sessions} == {"relays on a mountain"}


def test_the_check_passes_where_levels_follow_the_stated_places(stores):
    stores.measurements.add(make_levels())
    approve(stores)
    result, _ = take_snapshot(stores, DatasetSpec())
    check = warning_checks.levels_follow_stated_places(result.manifest, stores)
    assert check.passed, check.description
    assert "(30 sites), expected over 60 %" in check.description


def test_the_check_tells_of_rows_that_were_joined_wrongly(stores):
    stores.measurements.add(make_levels(sources=np.random.default_rng(8).permutation(30)))
    approve(stores)
    result, _ = take_snapshot(stores, DatasetSpec())
    check = warning_checks.levels_follow_stated_places(result.manifest, stores)
    assert not check.passed
    assert "rows joined wrongly, or numbers that are no levels" in check.description


def test_the_check_says_where_there_is_too_little_to_compare(stores):
    add_unchecked(stores, 7.1)
    approve(stores)
    result, _ = take_snapshot(stores, DatasetSpec())
    check = warning_checks.levels_follow_stated_places(result.manifest, stores)
    assert check.passed
    assert "levels at 0 sites: too few to compare places by" in check.description


def test_recordings_of_a_source_beyond_the_horizon_are_refused(stores, tmp_path):
    (tmp_path / "A.npy").write_bytes(make_npy(make_noise(9600)))
    stated = Stated(sample_rate_hz=48_000.0, start_unix_ns=1_772_625_600 * 10**9, frequency_hz=145.5e6)
    receivers = {"A": Position(latitude=45.0, longitude=7.0)}
    claim = SessionClaim("call", make_source("X", Position(latitude=7.0, longitude=45.0)), "field", receivers)
    with pytest.raises(Refused, match=r"session call: its source at 7\.00000, 45\.00000 is 5\d{3} km from A"):
        import_recordings(stores.measurements, stores.objects, claim, [tmp_path / "A.npy"], stated)
    assert stores.measurements.list_sessions() == []


def test_a_waived_truth_is_learned_from_and_the_ledger_says_why(stores, tmp_path):
    assert import_table(stores, tmp_path, waiver="a satellite").num_sessions == 1
    attributes = stores.measurements.list_sessions()[0]["attributes"]
    assert attributes["truth_waived"] == "a satellite"
    assert attributes["truth_contradicted"].startswith("its source at 4.40100")
    approve(stores)
    assert stores.measurements.list_approval_events()[0]["reason"] == "positions by GPS [truth waived: a satellite]"
    assert stores.measurements.check_ledger() == []
    result, snapshot = take_snapshot(stores, DatasetSpec())
    assert (len(snapshot.rows), len(snapshot.left_out)) == (3, 0)
    check = warning_checks.truth_agrees_with_receivers(result.manifest, stores)
    assert check.passed
    assert "1 session waived" in check.description


def test_what_was_never_checked_is_left_out_said_and_may_be_waived(stores):
    add_unchecked(stores, 7.1)
    add_unchecked(stores, 77.0)
    approve(stores)
    result, snapshot = take_snapshot(stores, DatasetSpec())
    assert list(snapshot.rows["session_id"]) == ["old 7.1"]
    left_out = load_table(stores.objects, result.manifest.artifacts["left_out"])
    assert list(left_out["session_id"]) == ["old 77"]
    assert left_out["reason"][0].startswith("truth: its source at 45.00000, 77.00000 is 5")
    check = warning_checks.truth_agrees_with_receivers(result.manifest, stores)
    assert not check.passed
    assert "1 session left out" in check.description
    assert "session old 77: its source at" in check.description
    # approved already: the waiver is a further decision, and a new snapshot holds the session
    with pytest.raises(Refused, match="found ' ' for why"):
        approve(stores, waiver=" ")
    assert stores.measurements.decide(["old 77"], ApprovalStatus.APPROVED, "ada", "GPS", "moon bounce") == 1
    result, snapshot = take_snapshot(stores, DatasetSpec())
    assert set(snapshot.rows["session_id"]) == {"old 7.1", "old 77"}
    assert warning_checks.truth_agrees_with_receivers(result.manifest, stores).passed
