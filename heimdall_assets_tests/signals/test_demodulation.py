"""Demodulation: a constant carrier's frequency is exact, gain, phase and rate do not matter, noise obeys its law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.signals.change_points import UNQUIETED_DB, find_span
from heimdall_assets.signals.demodulation import (
    CHUNK_S,
    MARGIN_S,
    WORK_RATE_HZ,
    discriminate_hz,
    find_carrier_hz,
    iterate_channel,
)
from heimdall_assets.signals.detectors import estimate_snr_db, read_span
from heimdall_assets.signals.signal_track import (
    AUDIO,
    LEVEL,
    LINES,
    NOISE,
    NUM_ROWS,
    NUM_STEPS,
    ON,
    TONE,
    compute_track,
)
from heimdall_assets.simulation.waveforms import compute_key_envelope, modulate_fm
from heimdall_assets_tests.signal_cases import DEVIATION_HZ, RATE_HZ, add_noise, hear, make_time_s
from heimdall_assets_tests.variation import make_rng


@given(
    frequency_hz=st.floats(-12_000.0, 12_000.0),
    gain_db=st.floats(-80.0, 20.0),
    phase=st.floats(0.0, 2.0 * np.pi),
)
def test_a_constant_carrier_gives_its_own_frequency_whatever_its_gain_and_phase(frequency_hz, gain_db, phase):
    turns = frequency_hz / WORK_RATE_HZ * np.arange(64)
    carrier = 10.0 ** (gain_db / 20.0) * np.exp(1j * (2.0 * np.pi * turns + phase))
    np.testing.assert_allclose(discriminate_hz(carrier, WORK_RATE_HZ), frequency_hz, atol=2e-3)


@pytest.mark.parametrize("rate_hz", [12_000.0, 11_998.5, 24_000.0, 48_000.0, 192_000.0])
@pytest.mark.parametrize("carrier_hz", [-3_000.0, 0.0, 812.5])
def test_the_channel_keeps_the_carrier_whatever_the_rate(rate_hz, carrier_hz):
    time_s = make_time_s(0.5, rate_hz)
    (channel,) = iterate_channel(np.exp(2j * np.pi * carrier_hz * time_s), rate_hz)
    assert channel.rate_hz == pytest.approx(WORK_RATE_HZ, rel=1e-3)
    middle = slice(500, -500)
    found_hz = discriminate_hz(channel.samples, channel.rate_hz)[middle]
    assert found_hz.std() < 0.5
    tuned_hz = find_carrier_hz(np.exp(2j * np.pi * carrier_hz * time_s), rate_hz)
    assert found_hz.mean() + tuned_hz == pytest.approx(carrier_hz, abs=1.1)  # tuned to whole lines of 2 Hz
    np.testing.assert_allclose(np.abs(channel.samples[middle]), 1.0, atol=0.01)


def test_what_lies_beside_the_channel_is_not_heard():
    rate_hz = 192_000.0
    time_s = make_time_s(0.5, rate_hz)
    alone = compute_track(np.exp(2j * np.pi * 500.0 * time_s), rate_hz).astype(np.float64)
    beside = np.exp(2j * np.pi * 500.0 * time_s) + 3.0 * np.exp(2j * np.pi * 20_000.0 * time_s)
    np.testing.assert_allclose(compute_track(beside, rate_hz).astype(np.float64)[LEVEL], alone[LEVEL], atol=0.1)


def test_gain_and_phase_reach_no_row_but_the_level():
    tone_hz = DEVIATION_HZ * np.sin(2.0 * np.pi * 1000.0 * make_time_s())
    samples = add_noise(modulate_fm(tone_hz, RATE_HZ), 20.0)
    one = compute_track(samples, RATE_HZ).astype(np.float64)
    other = compute_track(samples * (0.01 * np.exp(1.2j)), RATE_HZ).astype(np.float64)
    np.testing.assert_allclose(other[LEVEL], one[LEVEL] - 40.0, atol=0.05)
    np.testing.assert_allclose(other[NOISE:], one[NOISE:], atol=0.1)


def test_one_transmission_at_three_rates_gives_one_track():
    """The noise is another in each; what is compared is powers of the modulation."""
    tracks = []
    for rate_hz in (24_000.0, 48_000.0, 192_000.0):
        tone_hz = DEVIATION_HZ * np.sin(2.0 * np.pi * 1000.0 * make_time_s(1.0, rate_hz))
        tracks.append(hear(tone_hz, 30.0, rate_hz).astype(np.float64))
    for track in tracks:
        np.testing.assert_allclose(track[AUDIO], 10.0 * np.log10(0.5 * DEVIATION_HZ**2), atol=0.3)
        np.testing.assert_allclose(track[LEVEL], 0.0, atol=0.3)
        assert (track[TONE][3:-3] > 0.95).all()


def test_parts_of_a_long_recording_join_without_a_seam():
    rate_hz, duration_s = 12_500.0, 3.0 * CHUNK_S
    tone_hz = DEVIATION_HZ * np.sin(2.0 * np.pi * 1000.0 * make_time_s(duration_s, rate_hz))
    samples = modulate_fm(tone_hz, rate_hz).astype(np.complex64)
    parts = list(iterate_channel(samples, rate_hz))
    assert [part.core_s for part in parts] == [(0.0, 4.0), (4.0, 8.0), (8.0, 12.0)]
    assert parts[1].start_s == pytest.approx(4.0 - MARGIN_S)
    track = compute_track(samples, rate_hz).astype(np.float64)
    assert track[AUDIO].std() < 0.05
    assert (track[TONE] > 0.9).all()
    assert track[LINES:].max(axis=0).std() < 0.1


@pytest.mark.parametrize("rate_hz", [12_000.0, 24_000.0, 192_000.0])
def test_noise_without_a_carrier_is_unquieted_whatever_its_power(rate_hz):
    rng = make_rng(1)
    noise = rng.normal(size=int(2 * rate_hz)) + 1j * rng.normal(size=int(2 * rate_hz))
    for gain in (1.0, 1e-3):
        power = 10.0 ** (compute_track(gain * noise, rate_hz).astype(np.float64)[NOISE] / 10.0)
        assert 10.0 * np.log10(power.mean()) == pytest.approx(UNQUIETED_DB, abs=1.0)


@pytest.mark.parametrize("rate_hz", [12_000.0, 24_000.0, 192_000.0])
@pytest.mark.parametrize("snr_db", [8.0, 10.0, 20.0, 30.0])
def test_quieting_follows_its_law(rate_hz, snr_db):
    carrier = np.exp(2j * np.pi * 300.0 * make_time_s(2.0, rate_hz))
    track = compute_track(add_noise(carrier, snr_db, rate_hz), rate_hz)
    assert estimate_snr_db(track) == pytest.approx(snr_db, abs=0.5)


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (0.21, 1.0), (0.0, 0.633), (0.3, 0.7)])
@pytest.mark.parametrize("snr_db", [5.0, 10.0, 40.0])
def test_a_key_pressed_and_released_is_found_to_some_milliseconds(start_s, end_s, snr_db):
    time_s = make_time_s()
    key = compute_key_envelope(time_s, -1.0 if start_s == 0.0 else start_s, 2.0 if end_s == 1.0 else end_s)
    track = hear(DEVIATION_HZ * np.sin(2.0 * np.pi * 1000.0 * time_s), snr_db, key=key)
    np.testing.assert_allclose(read_span(track), [start_s, end_s], atol=0.012)
    assert track[ON].max() == 1.0


def test_a_recording_without_a_change_is_all_transmission():
    assert find_span(np.full(NUM_STEPS, -50.0), np.full(NUM_STEPS, 40.0)).tolist() == [0.0, NUM_STEPS]


def test_what_is_too_short_or_too_slow_is_refused_by_name():
    with pytest.raises(InvalidRecording, match=r"A\.npy: 0\.25 s long, expected at least 0\.32 s"):
        compute_track(np.ones(6_000, dtype=np.complex64), 24_000.0, "A.npy")
    with pytest.raises(InvalidRecording, match=r"A\.npy: sample rate 8000 Hz, expected at least 12000 Hz"):
        compute_track(np.ones(8_000, dtype=np.complex64), 8_000.0, "A.npy")
    with pytest.raises(InvalidRecording, match=r"A\.npy: found float64 .*, expected complex"):
        compute_track(np.ones(24_000), 24_000.0, "A.npy")


def test_dropped_samples_leave_a_track_of_numbers():
    """A receiver that drops blocks writes zeros: no phase, no power."""
    samples = add_noise(modulate_fm(np.zeros(24_000), RATE_HZ), 20.0)
    samples[5_000:6_000] = 0.0
    track = compute_track(samples, RATE_HZ)
    assert track.shape == (NUM_ROWS, NUM_STEPS)
    assert np.isfinite(track).all()
