"""A release in a folder answers by itself, with the numbers of ``heimdall predict``, and says what it cannot use."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.errors import CannotLocate, CorruptObject, InvalidInput, NotFound
from heimdall_assets.inference import Predictor, Receiver, Recording
from heimdall_assets.inference.release import COUNTS, read_release
from heimdall_assets.locating.estimates import measure_offset
from heimdall_assets.pipeline.prediction.stored import predict_stored, read_session
from heimdall_assets.pipeline.stages.recordings import decode_row
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import DelaySpec, ExportSpec, FeatureSpec, RecordingSpec, SimulationSpec, TimingSpec
from heimdall_assets.stores.objects.tables import list_records, nullable
from heimdall_assets_tests.inference.light import ASK, BLOCK, HEAVY, run_program

SAME = ("latitude", "longitude", "method", "ellipse_90", "sigma_east_m", "sigma_north_m", "alternatives", "area")


@pytest.fixture(scope="module")
def home(released_home, tmp_path_factory):
    places, summary = released_home(tmp_path_factory.mktemp("light") / "home")
    away = tmp_path_factory.mktemp("elsewhere") / "model"
    shutil.copytree(summary["folder"], away)
    return places.open_stores(), away, places.home


@pytest.fixture(scope="module")
def predictor(home) -> Predictor:
    return Predictor(home[1])


def tell_receivers(stores, name) -> list[Receiver]:
    """The receivers of a stored session, as somebody without the database would tell them."""
    _, rows, _ = read_session(stores, name)
    found = []
    for row in list_records(rows):
        data = stores.objects.read_location(row["iq_data_location"], max_bytes=10**9)
        known = {name: row[name] for name in ("frequency_hz", "clock_class")}
        known |= {
            name: nullable(row[column])
            for name, column in (
                ("level_db", "signal_strength_db"),
                ("snr_db", "snr_db"),
                ("carrier_offset_hz", "frequency_offset_hz"),
            )
        }
        places = {name: row[f"receiver_{name}"] for name in ("latitude", "longitude", "altitude_m")}
        recording = decode_row(data, row, max_samples=10**9)
        found.append(Receiver(name=row["station_id"], **known, **places, recording=recording))
    return found


@pytest.fixture(scope="module")
def sessions(home) -> list[str]:
    return [row["id"] for row in home[0].measurements.list_sessions()][:3]


ARRIVALS = [
    {"name": name, "latitude": latitude, "longitude": longitude, "frequency_hz": 145.5e6, "arrival_unix_ns": arrival,
     "arrival_sigma_s": 50e-9, "clock_class": "gnss_calibrated"}
    for name, latitude, longitude, arrival in (
        ("A", 45.05, 7.60, 1_764_600_000_000_012_345), ("B", 44.40, 8.95, 1_764_600_000_000_223_344),
        ("C", 45.48, 9.12, 1_764_600_000_000_301_210), ("D", 44.90, 8.60, 1_764_600_000_000_170_900),
    )
]  # fmt: skip


def test_answers_from_recordings_are_those_of_the_home_to_the_last_bit(home, predictor, sessions):
    stores, *_ = home
    for name in sessions:
        said = predict_stored(stores, "latest", name)
        found = predictor.locate(tell_receivers(stores, name)).describe()
        assert {key: found[key] for key in SAME} == {key: said[key] for key in SAME}
        assert (found["version"], found["signal"]) == (said["version"], said["signal"])


def test_order_of_receivers_says_nothing(home, predictor, sessions):
    told = [Receiver(**one) for one in ARRIVALS]
    assert predictor.locate(told[::-1]) == predictor.locate(told)


def test_a_refused_recording_costs_no_other_and_is_told(home, predictor, sessions):
    told = tell_receivers(home[0], sessions[0])
    silent = Recording(np.zeros(24_000, dtype=np.complex64), 24_000.0)
    told[1] = replace(told[1], recording=silent)
    answer = predictor.locate(told)
    assert np.isfinite(answer.estimate.latitude)
    [line] = answer.refused
    assert line.startswith(f"{told[1].name}: left out: ")
    assert "silent" in line


def test_free_clocks_have_no_arrival_and_that_is_told(home, predictor, sessions):
    told = [replace(one, clock_class="none") for one in tell_receivers(home[0], sessions[0])]
    [line] = predictor.locate(told).refused
    assert line.endswith("no arrival time: 0 of 4 recordings of the session are timed by a shared clock, expected 2")


def test_what_holds_nothing_gets_no_narrow_answer(predictor):
    answer = predictor.locate([Receiver(name="A", latitude=45.0, longitude=8.0, frequency_hz=145e6)])
    assert answer.estimate.ellipse(0.9).semi_minor_m > 10_000.0


def test_receivers_at_unknown_places_are_refused_with_the_reasons(predictor, home):
    lost = simulate_observations(SimulationSpec(), np.arange(1))
    nowhere = np.full(len(lost.station_id), np.nan)
    with pytest.raises(CannotLocate, match="1 session: none holds what this model locates from"):
        predictor.answer(replace(lost, receiver_latitude=nowhere))


def test_a_ready_made_arrival_beside_recordings_is_refused(home, predictor, sessions):
    told = tell_receivers(home[0], sessions[0])
    told[0] = replace(told[0], recording=None, arrival_unix_ns=10**18, arrival_sigma_s=1e-6)
    with pytest.raises(InvalidInput, match="another zero"):
        predictor.locate(told)


def test_no_receiver_and_one_twice_are_refused(predictor):
    with pytest.raises(InvalidInput, match="found 0 receivers"):
        predictor.locate([])
    with pytest.raises(InvalidInput, match="receiver A: stands 2 times"):
        predictor.locate([Receiver(**ARRIVALS[0])] * 2)


def test_many_sessions_and_one_give_the_same(home, predictor):
    many = simulate_observations(SimulationSpec(), np.arange(5))
    found = predictor.predict(many)
    for row in range(5):
        one = predictor.answer(many.take(np.array([row]))).estimate
        # Sums of float32 over a batch are others: as far apart as an export may be from the network.
        apart_m = measure_offset(one, (float(found.latitude[row]), float(found.longitude[row])))
        assert apart_m[1] < ExportSpec().max_position_error_sigma
    with pytest.raises(InvalidInput, match="found 5, expected 1"):
        predictor.answer(many)


def test_a_changed_file_is_not_opened(home, tmp_path: Path):
    for name in ("model.onnx", "provenance.json"):
        folder = tmp_path / name
        shutil.copytree(home[1], folder)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(CorruptObject, match=f"{name}: its SHA-256 is another than SHA256SUMS says"):
            Predictor(folder)


@pytest.mark.parametrize("name", ["model.onnx", "provenance.json", "SHA256SUMS"])
def test_a_missing_file_is_named(home, tmp_path: Path, name):
    shutil.copytree(home[1], tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(NotFound, match=name):
        Predictor(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.onnx", "provenance.json"])
def test_a_file_that_is_none_is_one_line_even_with_its_right_sum(home, tmp_path: Path, name):
    folder = tmp_path / "model"
    shutil.copytree(home[1], folder)
    (folder / name).write_bytes(b"[1, 2]")
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    digest = hashlib.sha256(b"[1, 2]").hexdigest()
    lines = [f"{digest}  {name}" if line.endswith(f"  {name}") else line for line in sums]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    with pytest.raises(CorruptObject) as caught:
        Predictor(folder)
    assert "\n" not in str(caught.value)


def test_settings_of_a_release_are_those_of_the_specs(home):
    """Canonical JSON writes 6000.0 as 6000; what stands in for a spec has each number of the type that the spec has."""
    release = read_release(home[1])
    for spec in (FeatureSpec, DelaySpec, RecordingSpec, TimingSpec):
        settings = release.read_settings(spec.__name__)
        for name, value in spec.model_validate(release.specs[spec.__name__]):
            found = getattr(settings, name)
            assert (found, type(found)) == (value, type(value)), (spec.__name__, name)
            assert (type(value) is int) == (name in COUNTS)


def test_a_fresh_process_loads_nothing_else(home):
    program = "import heimdall_assets.inference, sys; print(*{name.split('.')[0] for name in sys.modules})"
    assert not set(HEAVY) & set(run_program(program).split())


def test_it_answers_where_the_rest_cannot_be_imported(home, predictor, tmp_path: Path):
    (tmp_path / "asked.json").write_text(json.dumps(ARRIVALS))
    program = BLOCK + ASK + "print(json.dumps(ask(*sys.argv[1:])))"
    found = json.loads(run_program(program, str(home[1]), str(tmp_path / "asked.json"), folder=tmp_path))
    assert found == json.loads(json.dumps(predictor.locate([Receiver(**one) for one in ARRIVALS]).describe()))


def test_heimdall_predict_loads_no_torch(home, sessions):
    program = (
        "import sys; from heimdall_assets.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "print('torch' in sys.modules, 'onnx' in sys.modules)"
    )
    said = run_program(program, "predict", "latest", sessions[0], "--json", HEIMDALL_HOME=str(home[2]))
    assert said.endswith("}\nFalse False\n")
