"""Sessions against geometry, level budgets and what their truth says, and against themselves in another process."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from pyproj import Geod

from heimdall_assets.domain import Origin
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.physical import SIGNAL_SPEED_M_S, ClockClass
from heimdall_assets.simulation.network import (
    ITALIAN_STATIONS,
    count_signal_types,
    draw_signal_type,
    simulate_session,
)
from heimdall_assets.simulation.receivers import apply_receiver, draw_recording_traits, draw_station_traits
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.variation import make_rng

PLAIN = SimulationSpec(impairments=False, clock_bias_s=0.0, clock_jitter_s=0.0)


def change(**updates):
    return PLAIN.model_copy(update=updates)


def digest_session(session):
    digest = hashlib.sha256()
    for receiver in session.receivers:
        digest.update(receiver.recording.samples.tobytes())
        digest.update(receiver.measurement.model_dump_json().encode())
    digest.update(session.session.model_dump_json().encode())
    return digest.hexdigest()


def test_the_seven_stations():
    assert [station.name for station in ITALIAN_STATIONS][::6] == ["Aquila di Giaveno", "Milano Baggio"]
    assert len({station.id for station in ITALIAN_STATIONS}) == 7
    assert all(station.clock_class is ClockClass.GNSS_CALIBRATED for station in ITALIAN_STATIONS)
    assert ITALIAN_STATIONS[5].position.latitude == 44.395


def test_same_bytes_in_another_process_whatever_came_before():
    spec = SimulationSpec(rician_k_db=6.0, blocked_fraction=0.3, duration_s=0.2)
    here = digest_session(simulate_session(spec, 5))
    code = (
        "from heimdall_assets_tests.simulation.test_network import *\n"
        "spec = SimulationSpec(rician_k_db=6.0, blocked_fraction=0.3, duration_s=0.2)\n"
        "simulate_session(spec, 0); simulate_session(SimulationSpec(seed=1, duration_s=0.2), 5)\n"
        "print(digest_session(simulate_session(spec, 5)))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == here
    assert digest_session(simulate_session(spec, 6)) != here
    assert digest_session(simulate_session(spec.model_copy(update={"seed": 1}), 5)) != here


def test_session_is_labelled_and_its_truth_is_plain_json():
    session = simulate_session(SimulationSpec(rician_k_db=6.0, duration_s=0.2), 3)
    assert session.session.origin is Origin.SIMULATED
    assert session.source.source_type == "simulated"
    attributes = session.session.attributes
    assert json.loads(json.dumps(attributes, allow_nan=False)) == attributes
    assert attributes["signal_type"] == draw_signal_type(SimulationSpec(rician_k_db=6.0, duration_s=0.2), 3)
    assert 0.0 <= attributes["span"][0] < attributes["span"][1] <= 0.2
    receiver = attributes["truth"]["receivers"][0]
    wanted = {"delay_s", "excess_s", "blocked", "snr_db", "clock_error_s", "rate_error", "carrier_phase_rad", "station"}
    assert wanted <= set(receiver)
    assert {"iq_gain_db", "dc_dbfs", "adc_bits", "noise_figure_db", "season_gain_db"} <= set(receiver["station"])


def test_delays_are_ranges_on_the_ellipsoid():
    """Close to the ground the way is the geodesic and the climb; 1e-4 of it is left for the chord and the Earth."""
    session = simulate_session(change(duration_s=0.2), 1)
    source = session.source.position
    for receiver in session.receivers:
        place = receiver.station.position
        along_m = Geod(ellps="WGS84").inv(source.longitude, source.latitude, place.longitude, place.latitude)[2]
        expected_s = np.hypot(along_m, place.altitude_m) / SIGNAL_SPEED_M_S
        assert receiver.truth["delay_s"] == pytest.approx(expected_s, rel=1e-4)


def test_samples_are_delayed_copies_of_one_signal():
    """Without noise two recordings differ by the phase slope of their delay difference, at every frequency."""
    session = simulate_session(change(snr_min_db=90.0, snr_max_db=90.0, voice_fraction=1.0, tone_fraction=0.0), 2)
    spectra = [np.fft.fft(one.samples * np.hanning(24_000)) for one in session.recordings]
    frequency_hz = np.fft.fftfreq(24_000, 1 / 24_000.0)
    band = (np.abs(frequency_hz) < 2000.0) & (np.abs(spectra[0]) > 0.05 * np.abs(spectra[0]).max())
    cross = spectra[1][band] * spectra[0][band].conj()
    difference_s = session.receivers[1].truth["delay_s"] - session.receivers[0].truth["delay_s"]
    turned = cross * np.exp(2j * np.pi * frequency_hz[band] * difference_s)
    carrier = np.angle(turned.sum())
    assert np.abs(np.angle(turned * np.exp(-1j * carrier))).max() < 0.2
    phases = [one.truth["carrier_phase_rad"] for one in session.receivers[:2]]
    expected = phases[1] - phases[0] - 2 * np.pi * PLAIN.carrier_hz * difference_s
    assert np.angle(np.exp(1j * (carrier - expected))) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_snr_is_as_asked(snr_db):
    """Noise from the edges of the band, which the signal does not reach; signal from the rest."""
    errors_db = []
    for index in range(4):
        session = simulate_session(change(snr_min_db=snr_db, snr_max_db=snr_db), index)
        for receiver in session.receivers:
            power = np.square(np.abs(np.fft.fft(receiver.recording.samples)))
            frequency_hz = np.abs(np.fft.fftfreq(24_000, 1 / 24_000.0))
            density = power[frequency_hz > 9500.0].mean()
            signal = power.sum() - density * 24_000
            found_db = 10.0 * np.log10(signal / (density * 12_500))
            errors_db.append(found_db - snr_db)
            assert receiver.truth["snr_db"] == pytest.approx(snr_db)
            assert receiver.measurement.snr_db == pytest.approx(snr_db)
    assert abs(np.mean(errors_db)) < 0.1
    assert np.abs(errors_db).max() < 0.7


def test_levels_follow_the_link_budget():
    spec = change(shadowing_db=0.0, duration_s=0.2)
    for index in range(5):
        session = simulate_session(spec, index)
        keyed_db = 10.0 * np.log10(np.clip(np.diff(session.session.attributes["span"])[0] / 0.2, 0.1, 1.0))
        for receiver in session.receivers:
            one_km_db = 20.0 * np.log10(4.0 * np.pi * 1000.0 * 145.5e6 / 299_792_458.0)
            loss_db = one_km_db + 30.0 * np.log10(receiver.truth["range_m"] / 1000.0)
            assert receiver.measurement.signal_strength_db == pytest.approx(37.0 - loss_db + keyed_db, abs=0.3)


def test_shadowing_scatters_levels_by_its_sigma():
    shadowing = [
        receiver.truth["shadowing_db"]
        for index in range(60)
        for receiver in simulate_session(change(duration_s=0.1), index).receivers
    ]
    assert np.std(shadowing) == pytest.approx(6.6, rel=0.15)


def test_receivers_are_as_many_as_asked():
    spec = change(min_receivers=2, max_receivers=4, duration_s=0.1)
    counts = {len(simulate_session(spec, index).receivers) for index in range(20)}
    assert counts == {2, 3, 4}


def test_clock_errors_shift_the_stamps_only():
    exact = simulate_session(change(duration_s=0.1), 0)
    assert {one.start_unix_ns for one in exact.recordings} == {1_767_225_600_000_000_000}
    late = simulate_session(change(duration_s=0.1, clock_bias_s=1e-6, clock_jitter_s=1e-6), 0)
    for one, other in zip(exact.receivers, late.receivers, strict=True):
        shift_ns = other.recording.start_unix_ns - one.recording.start_unix_ns
        assert shift_ns == round(other.truth["clock_error_s"] * 1e9)
        assert 1 < abs(shift_ns) < 8000


def test_station_bias_stays_and_jitter_does_not():
    spec = SimulationSpec(duration_s=0.1)
    sessions = [simulate_session(spec, index) for index in range(30)]
    for place in range(7):
        assert len({one.receivers[place].truth["station"]["clock_bias_s"] for one in sessions}) == 1
    jitter = [receiver.truth["clock_jitter_s"] for one in sessions for receiver in one.receivers]
    assert np.std(jitter) == pytest.approx(70e-9, rel=0.15)
    biases = [draw_station_traits(SimulationSpec(seed=seed), 0).clock_bias_s for seed in range(300)]
    assert np.std(biases) == pytest.approx(30e-9, rel=0.15)


def test_clock_classes():
    ntp = simulate_session(change(clock_class="ntp", duration_s=0.1), 0)
    errors = [abs(one.truth["clock_error_s"]) for one in ntp.receivers]
    assert 0.9e-3 < min(errors) < max(errors) < 20.1e-3
    assert all(station.clock_class is ClockClass.NTP for station in ntp.stations)
    gnss = simulate_session(change(clock_class="gnss", duration_s=0.1), 0)
    assert all(0.9e-6 < one.truth["station"]["group_delay_s"] < 31e-6 for one in gnss.receivers)
    free = simulate_session(change(clock_class="none", duration_s=0.1), 0)
    assert all(one.start_unix_ns is None and one.timing_sigma_s is None for one in free.recordings)
    assert all(one.iq_start_unix_ns is None for one in free.measurements)


def test_rate_and_carrier_err_together():
    """One oscillator drives mixer and converter; what is left of the offset is the transmitter's, and half a hertz."""
    for index in range(6):
        session = simulate_session(SimulationSpec(duration_s=0.1), index)
        common_hz = session.session.attributes["truth"]["transmitter_offset_hz"]
        assert abs(common_hz) <= 2.5e-6 * 145.5e6
        for receiver in session.receivers:
            rate_error = receiver.recording.sample_rate_hz / 24_000.0 - 1.0
            assert 0.099e-6 < abs(rate_error) < 20.1e-6
            assert receiver.truth["offset_hz"] - common_hz == pytest.approx(-rate_error * 145.5e6, abs=2.5)


def test_carrier_stands_where_the_truth_says():
    spec = SimulationSpec(voice_fraction=0.0, tone_fraction=1.0, snr_min_db=40.0, snr_max_db=40.0)
    session = simulate_session(spec, 0)
    for receiver in session.receivers[:3]:
        samples = receiver.recording.samples
        turns = np.angle(samples[1:] * samples[:-1].conj()) / (2 * np.pi) * receiver.recording.sample_rate_hz
        start, end = (np.array(session.session.attributes["span"]) * 24_000).astype(int)
        middle = turns[start + 500 : end - 2500]
        assert middle.mean() == pytest.approx(receiver.truth["offset_hz"], abs=40.0)


def test_mix_is_as_asked_and_counted():
    counts = count_signal_types(SimulationSpec(), range(2000))
    assert counts["voice"] == pytest.approx(1800, abs=45)
    assert counts["tone"] == pytest.approx(100, abs=35)
    assert counts["dtmf"] == pytest.approx(100, abs=35)
    assert count_signal_types(SimulationSpec(voice_fraction=0.0, tone_fraction=0.0), range(10)) == {"dtmf": 10}


def test_converter_steps_images_and_offset():
    spec = SimulationSpec()
    station = draw_station_traits(spec, 0)
    generator = make_rng(0)
    traits = draw_recording_traits(generator, spec, station, 24_000)
    plain = traits.__class__(**{**traits.dump(), "gain_step_db": 0.0, "dropped_samples": 0})
    tone = (0.5 * np.exp(2j * np.pi * 0.1 * np.arange(24_000))).astype(np.complex64)
    out, clipped = apply_receiver(tone, station, plain)
    assert clipped == 0.0
    steps = out.view(np.float32) * 2.0 ** (station.adc_bits - 1)
    np.testing.assert_array_equal(steps, np.rint(steps))
    spectrum = np.abs(np.fft.fft(out)) / 24_000
    gain, skew = 10.0 ** (station.iq_gain_db / 20.0), np.radians(station.iq_phase_deg)
    assert spectrum[-2400] == pytest.approx(0.25 * abs(1 - gain * np.exp(1j * skew)), abs=2e-5)
    assert spectrum[0] == pytest.approx(10.0 ** (station.dc_dbfs / 20.0), abs=2e-5)
    loud, share = apply_receiver(4.0 * tone, station, plain)
    assert share > 0.5
    assert np.abs(loud.view(np.float32)).max() <= 1.0
    gap = plain.__class__(**{**plain.dump(), "dropped_start": 100, "dropped_samples": 50})
    assert not apply_receiver(tone, station, gap)[0][100:150].any()


def test_blocked_receivers_hear_later():
    spec = change(blocked_fraction=0.5, duration_s=0.1)
    receivers = [one for index in range(10) for one in simulate_session(spec, index).receivers]
    assert {one.truth["blocked"] for one in receivers} == {True, False}
    for one in receivers:
        late_s = one.truth["delay_s"] - one.truth["range_m"] / SIGNAL_SPEED_M_S
        assert late_s == pytest.approx(one.truth["excess_s"], abs=1e-15)
        assert (late_s > 1e-12) == one.truth["blocked"]


def test_other_rates_and_durations():
    session = simulate_session(change(sample_rate_hz=12_500.0, duration_s=2.5, snr_min_db=30.0, snr_max_db=30.0), 0)
    assert [len(one.samples) for one in session.recordings] == [31_250] * 7
    assert session.recordings[0].samples.dtype == np.complex64
    assert session.measurements[0].duration_s == pytest.approx(2.5)


def test_what_cannot_be_simulated_is_refused():
    with pytest.raises(InvalidSetting, match="at most 7"):
        simulate_session(SimulationSpec(max_receivers=8), 0)
    with pytest.raises(InvalidSetting, match="index -1"):
        simulate_session(SimulationSpec(), -1)
