"""Blocked ways in sessions with IQ: weaker by the loss in samples, levels, SNR and truth, and later by the excess."""

import numpy as np
import pytest

from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.signals.delays import compute_delays
from heimdall_assets.simulation.network import simulate_session
from heimdall_assets.specs import DelaySpec, SimulationSpec
from heimdall_assets_tests.variation import shift_seed

LOSS_DB = 15.0
PLAIN = SimulationSpec(
    seed=shift_seed(42),
    impairments=False,
    clock_bias_s=0.0,
    clock_jitter_s=0.0,
    shadowing_db=0.0,
    blocked_fraction=0.4,
    duration_s=0.5,
)
IN_SIGHT_DB = {"snr_min_db": 35.0, "snr_max_db": 35.0}


def change(**updates):
    return PLAIN.model_copy(update=updates)


def measure_signal_db(recording):
    """Power within the channel above the noise that its edges hold, dB."""
    power = np.square(np.abs(np.fft.fft(recording.samples))) / len(recording.samples) ** 2
    frequency_hz = np.abs(np.fft.fftfreq(len(power), 1 / recording.sample_rate_hz))
    density = power[frequency_hz > 9500.0].mean()
    return 10.0 * np.log10(power.sum() - density * len(power))


@pytest.mark.parametrize("changes", [{}, IN_SIGHT_DB], ids=["link budget", "drawn SNR"])
def test_samples_level_snr_and_truth_lose_the_same(changes):
    count = {True: 0, False: 0}
    for index in range(4):
        clear = simulate_session(change(source_power_dbm=60.0, **changes), index)
        weaker = simulate_session(change(source_power_dbm=60.0, blocked_loss_db=LOSS_DB, **changes), index)
        for before, after in zip(clear.receivers, weaker.receivers, strict=True):
            loss_db = LOSS_DB if after.truth["blocked"] else 0.0
            count[after.truth["blocked"]] += 1
            assert after.truth["blocked_loss_db"] == loss_db
            for found in (
                before.measurement.signal_strength_db - after.measurement.signal_strength_db,
                before.measurement.snr_db - after.measurement.snr_db,
                before.truth["level_dbm"] - after.truth["level_dbm"],
                before.truth["snr_db"] - after.truth["snr_db"],
            ):
                assert found == pytest.approx(loss_db, abs=1e-9)
            in_samples_db = measure_signal_db(before.recording) - measure_signal_db(after.recording)
            assert in_samples_db == pytest.approx(loss_db, abs=0.2)
            if not after.truth["blocked"]:
                np.testing.assert_array_equal(before.recording.samples, after.recording.samples)
    assert min(count.values()) >= 5


def test_the_log_distance_law_holds_for_what_is_left_of_the_level():
    one_km_db = 20.0 * np.log10(4.0 * np.pi * 1000.0 * 145.5e6 / 299_792_458.0)
    for index in range(3):
        session = simulate_session(change(blocked_loss_db=LOSS_DB), index)
        keyed_db = 10.0 * np.log10(np.diff(session.session.attributes["span"])[0] / 0.5)
        for one in session.receivers:
            law_dbm = 37.0 - one_km_db - 30.0 * np.log10(one.truth["range_m"] / 1000.0) + keyed_db
            expected_dbm = law_dbm - LOSS_DB * one.truth["blocked"]
            assert one.measurement.signal_strength_db == pytest.approx(expected_dbm, abs=0.3)


def test_the_delay_estimate_shows_the_excess():
    """With the true range taken off, what is left between two receivers is the difference of their detours."""
    spec = change(blocked_loss_db=LOSS_DB, blocked_excess_s=3e-6, voice_fraction=1.0, tone_fraction=0.0, **IN_SIGHT_DB)
    errors, excesses = [], []
    for index in range(4):
        session = simulate_session(spec, index)
        found = compute_delays(session.recordings, [one.position for one in session.stations], DelaySpec())
        range_s = np.array([one.truth["range_m"] for one in session.receivers]) / SIGNAL_SPEED_M_S
        excess_s = np.array([one.truth["excess_s"] for one in session.receivers])
        known = np.isfinite(found.arrival_s)
        late_s = (found.arrival_s - range_s)[known]
        weight = found.arrival_sigma_s[known] ** -2
        late_s -= np.average(late_s - excess_s[known], weights=weight)
        errors += list((late_s - excess_s[known]) / found.arrival_sigma_s[known])
        excesses += list(excess_s[known] / found.arrival_sigma_s[known])
    assert len(errors) > 20
    assert np.sqrt(np.mean(np.square(errors))) < 1.5
    assert np.max(excesses) > 20.0  # what was found is many times what noise could have done
