"""Tables of arrivals and bearings from a file through the database and the graph to a released model and positions."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from heimdall_assets.cli import main
from heimdall_assets.domain import ApprovalStatus, Measurement
from heimdall_assets.errors import InvalidTable
from heimdall_assets.learning.assembly import assemble_sessions
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.level_files import TableImport, import_levels
from heimdall_assets.pipeline.prediction.outside import find_outside
from heimdall_assets.pipeline.prediction.stored import locate_stored, predict_stored
from heimdall_assets.pipeline.prediction.tables import locate_table, predict_table
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.simulation.bearings import add_bearings
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import DatasetSpec, SimulationSpec, TimingSpec
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.tables.claim import ObservedClaim, TableClaim
from heimdall_assets_tests.cli.test_bad_input import run
from heimdall_assets_tests.formats.recordings import make_noise, make_npy
from heimdall_assets_tests.homes import make_places, release
from heimdall_assets_tests.learning.learning_cases import make_approved
from heimdall_assets_tests.variation import shift_seed

START_S = 1_795_168_800
CLAIM = TableClaim(frequency_hz=868.1e6, observed=ObservedClaim(north="true"))


def simulate(num: int) -> SessionSet:
    spec = SimulationSpec(seed=shift_seed(71), min_receivers=4, snr_min_db=5.0, snr_max_db=30.0)
    return add_bearings(simulate_observations(spec, np.arange(num)), seed=shift_seed(72))


def write_table(sessions: SessionSet, folder: Path, *without: str) -> dict[str, Path]:
    """A gateway's log: a row a receiver, arrivals in ns since 1970, and where its receivers stand."""
    row = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    timed = np.isfinite(sessions.arrival_s)
    since_ns = np.where(timed, np.rint(np.nan_to_num(sessions.arrival_s) * 1e9), 0).astype(np.int64)
    unix_ns = (START_S + 60 * row) * 10**9 + since_ns
    frame = pd.DataFrame(
        {
            "session": [f"u{index:04d}" for index in row],
            "time": START_S + 60 * row,
            "receiver": sessions.station_id,
            "arrival": [str(value) if known else "" for value, known in zip(unix_ns, timed, strict=True)],
            "arrival_sigma_ns": np.hypot(sessions.arrival_sigma_s, sessions.timing_sigma_s) * 1e9,
            "bearing": sessions.bearing_deg,
            "bearing_sigma_deg": sessions.bearing_sigma_deg,
            "latitude": sessions.source_latitude[row].round(7),
            "longitude": sessions.source_longitude[row].round(7),
        }
    )
    frame.drop(columns=list(without)).to_csv(folder / "log.csv", index=False)
    columns = ("latitude", "longitude", "altitude_m")
    places = zip(*(getattr(sessions, f"receiver_{name}").tolist() for name in columns), strict=True)
    named = {
        name: dict(zip(columns, place, strict=True))
        for name, place in zip(sessions.station_id.tolist(), places, strict=True)
    }
    (folder / "receivers.json").write_text(json.dumps(named))
    return {"table": folder / "log.csv", "receivers": folder / "receivers.json"}


def take_in(store: MeasurementStore, files: dict[str, Path], **said: Any) -> TableImport:
    found = import_levels(store, **files, campaign="gateways", claim=CLAIM, **said)
    ids = [row["id"] for row in store.list_sessions(campaign="gateways")]
    store.decide(ids, ApprovalStatus.APPROVED, "me", "a test")
    return found


@pytest.fixture
def store(tmp_path):
    store = MeasurementStore(f"sqlite:///{tmp_path / 'heimdall.db'}")
    store.upgrade()
    yield store
    store.close()


def test_arrivals_and_bearings_come_through_the_database_as_they_were_written(store, tmp_path):
    sessions = simulate(6)
    files = write_table(sessions, tmp_path)
    take_in(store, files)
    rows = store.read_approved(DatasetSpec()).rows
    assert rows["arrival_unix_ns"].dtype == "Int64"
    found = assemble_sessions(rows, None, None, None, TimingSpec())
    names = {name: index for index, name in enumerate(rows.drop_duplicates("session_id")["session_name"])}
    for number in range(6):
        mine = found.receivers(names[f"u{number:04d}"])
        stations = rows.drop_duplicates("station_id").set_index("station_id")["station_name"]
        order = np.argsort(stations[found.station_id[mine]].to_numpy())
        theirs = sessions.receivers(number)
        expected = np.argsort(sessions.station_id[theirs])
        arrival_s = sessions.arrival_s[theirs][expected]
        np.testing.assert_allclose(
            found.arrival_s[mine][order], arrival_s - np.nanmin(arrival_s), atol=1.01e-9, equal_nan=True
        )
        np.testing.assert_allclose(found.bearing_deg[mine][order], sessions.bearing_deg[theirs][expected])
    timed = np.isfinite(found.arrival_s)
    assert (found.timing_sigma_s[timed] == 0.0).all()
    assert import_levels(store, **files, campaign="gateways", claim=CLAIM).report.num_sessions == 0


def test_a_clock_class_adds_its_error_to_the_stated_sigma(store, tmp_path):
    take_in(store, write_table(simulate(2), tmp_path, "bearing", "bearing_sigma_deg"), clock_class=ClockClass.GNSS)
    found = assemble_sessions(store.read_approved(DatasetSpec()).rows, None, None, None, TimingSpec())
    assert (found.timing_sigma_s == 30e-6).all()
    assert found.bearing_deg is None


def test_an_arrival_of_a_recording_and_a_ready_made_one_contradict_each_other():
    heard = {"id": "m", "session_id": "s", "station_id": "w", "timestamp": "2026-11-20T10:00:00Z", "frequency_hz": 1e6}
    arrival = {"arrival_unix_ns": 5, "arrival_sigma_s": 1e-7}
    with pytest.raises(ValidationError, match="found an IQ recording and a ready-made arrival, expected one of them"):
        Measurement(**heard, **arrival, iq_data_location="sha256:" + "0" * 64)
    with pytest.raises(ValidationError, match="found 5 with None, expected arrival_unix_ns with arrival_sigma_s"):
        Measurement(**heard, arrival_unix_ns=5)
    rows = make_approved([{"station_id": "a", **arrival}, {"station_id": "b"}])
    recorded = pd.DataFrame({"measurement_id": ["m00001"], "arrival_s": [1e-6], "arrival_sigma_s": [1e-7]})
    with pytest.raises(InvalidTable, match="measurement m00000: found a ready-made arrival in session s0, which has"):
        assemble_sessions(rows, None, recorded, None, TimingSpec())


def test_a_table_goes_through_the_graph_to_a_release_that_looks_at_it(tmp_path):
    places = make_places(tmp_path / "home")
    stores = places.open_stores()
    sessions = simulate(60)
    take_in(stores.measurements, write_table(sessions, tmp_path))
    made = release(places)
    version = made["version"]
    metrics = json.loads(stores.releases.read_file(version, "metrics.json"))
    assert {"bearings", "arrivals_and_bearings", "tdoa_robust"} <= set(metrics["baselines"])
    assert metrics["median_m"] < 1000.0
    assert metrics["bound"]["median_m"] < metrics["baselines"]["bearings"]["median_m"]
    assert "all is as it was released" in run(tmp_path / "home", "verify", version, code=0)
    for found in (locate_stored(stores, "u0003"), predict_stored(stores, version, "u0003")):
        truth = (sessions.source_latitude[3], sessions.source_longitude[3])
        assert compute_distance_m(found["latitude"], found["longitude"], *truth) < 5000.0
    unknown = write_table(sessions.take(np.arange(3)), tmp_path, "latitude", "longitude")
    claim = replace(CLAIM, observed=replace(CLAIM.observed, needs_truth=False))
    located = locate_table(*unknown.values(), claim)
    asked = predict_table(stores, version, *unknown.values(), claim)
    assert [one["session"] for one in located] == [one["session"] for one in asked] == ["u0000", "u0001", "u0002"]
    for one, other in zip(located, asked, strict=True):
        assert one["error_m"] is None
        assert compute_distance_m(one["latitude"], one["longitude"], other["latitude"], other["longitude"]) < 5000.0
    stores.measurements.close()


def test_arrivals_that_put_transmitters_elsewhere_than_stated_are_told_of_at_import(tmp_path):
    stores = make_places(tmp_path / "home").open_stores()
    sessions = simulate(8)
    right = take_in(stores.measurements, write_table(sessions, tmp_path))
    assert right.remarks == []
    moved = replace(sessions, source_latitude=sessions.source_latitude + np.where(np.arange(8) == 3, 0.4, 0.0))
    stores.measurements.close()
    stores = make_places(tmp_path / "other").open_stores()
    (remark,) = take_in(stores.measurements, write_table(moved, tmp_path)).remarks
    stores.measurements.close()
    assert remark.startswith("arrivals and bearings put 1 of 8 sessions that were looked at elsewhere than stated")
    assert re.search(r"farthest: u0003, 4[45]\.\d km away, \d+ sigma$", remark)


def test_a_position_that_nobody_can_have_heard_is_told_of(tmp_path):
    """One receiver on the other side of Greenwich: the arrivals agree on a place a thousand kilometres away."""
    files = write_table(simulate(1), tmp_path, "latitude", "longitude", "bearing", "bearing_sigma_deg")
    listed = json.loads(files["receivers"].read_text())
    claim = replace(CLAIM, observed=replace(CLAIM.observed, needs_truth=False))
    (right,) = locate_table(*files.values(), claim)
    assert right["remarks"] == []
    for place in listed.values():
        place["longitude"] += 25.0
    first = next(iter(listed.values()))
    first["longitude"] -= 50.0
    files["receivers"].write_text(json.dumps(listed))
    (wrong,) = locate_table(*files.values(), claim)
    assert "which heard it at 868.1 MHz, expected at most" in wrong["remarks"][0]
    assert "(radio horizon): a receiver's place, a clock or an arrival is wrong" in wrong["remarks"][0]


def test_a_model_says_that_it_does_not_look_at_bearings():
    plain = make_approved([{"station_id": "a"}, {"station_id": "b"}])
    directed = plain.assign(bearing_deg=12.0, bearing_sigma_deg=3.0)
    assert find_outside(plain, directed).remarks == [
        "bearings, trained without: they are not looked at (heimdall locate does)"
    ]
    assert find_outside(directed, directed).remarks == []
    arrived = plain.assign(arrival_unix_ns=5, arrival_sigma_s=1e-7)
    assert find_outside(plain, arrived).remarks == ["arrival times, trained without"]


def test_the_command_line_locates_a_table_without_a_home(tmp_path):
    files = write_table(simulate(3), tmp_path, "latitude", "longitude")
    home, said = tmp_path / "home", ["--receivers", files["receivers"], "--frequency-hz", "868.1e6"]
    assert "say --north true, or magnetic with --declination-deg" in run(home, "locate", files["table"], *said)
    said += ["--north", "true"]
    told = run(home, "locate", files["table"], *said, code=0)
    assert "3 sessions" in told
    assert told.count("arrivals_and_bearings") == 3
    found = json.loads(run(home, "locate", files["table"], *said, "--json", code=0))
    assert [one["session"] for one in found] == ["u0000", "u0001", "u0002"]
    assert not home.exists()
    lines = files["table"].read_text().splitlines()
    files["table"].write_text("\n".join([lines[0], lines[1].replace(lines[1].split(",")[5], "")]) + "\n")
    lonely = run(home, "locate", files["table"], *said)
    assert lonely.startswith(
        "Error: session u0000: 1 receivers with 1 usable delays and no finite level; expected at least 3 delays, 2"
    )
    assert "found options about a table, expected none, or a file that ends in .csv" in run(home, "locate", "u1", *said)
    assert "there is none" in run(home, "locate", tmp_path / "gone.csv", *said)


def test_what_cannot_be_located_is_called_as_whoever_asks_calls_it(tmp_path):
    files = write_table(simulate(1), tmp_path)
    lines = files["table"].read_text().splitlines()
    files["table"].write_text("\n".join([lines[0], lines[1].replace(lines[1].split(",")[5], "")]) + "\n")
    said = ["--receivers", files["receivers"], "--frequency-hz", "868.1e6", "--north", "true"]
    home = tmp_path / "home"
    run(home, "import", "observations", files["table"], *said, code=0)
    assert run(home, "locate", "u0000").startswith("Error: session u0000: 1 receivers with ")
    recording = tmp_path / "A.npy"
    recording.write_bytes(make_npy(make_noise(24_000)))
    stated = ["--receiver", "A,45.1,8", "--rate-hz", "24000", "--start", "2026-11-20T10:00:00Z"]
    arguments = ["locate", str(recording), *stated, "--frequency-hz", "145.5e6"]
    alone = CliRunner().invoke(main, arguments, env={"HEIMDALL_HOME": str(home)}).stderr.splitlines()[-1]
    assert alone.startswith("Error: these recordings: 1 receivers with ")


def test_the_command_line_imports_a_table_and_says_what_it_took_it_for(tmp_path):
    files = write_table(simulate(3), tmp_path)
    arguments = ["import", "observations", files["table"], "--receivers", files["receivers"], "--north", "true"]
    arguments += ["--frequency-hz", "868.1e6", "--campaign", "gateways"]
    environment = {"HEIMDALL_HOME": str(tmp_path / "home")}
    told = CliRunner().invoke(main, [str(part) for part in arguments], env=environment).stdout.splitlines()
    assert told[0].startswith("added: 7 stations, 3 sources, 3 sessions")
    assert "taken as: arrivals in ns since 1970" in told
    shown = run(tmp_path / "home", "sessions", "show", "u0001", code=0)
    assert "arrival ns" in shown
    assert "bearing deg" in shown
