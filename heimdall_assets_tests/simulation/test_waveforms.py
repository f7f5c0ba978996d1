"""Transmissions against what standards and physics say of them."""

import itertools

import numpy as np
import pytest

from heimdall_assets.physical import SignalType
from heimdall_assets.simulation.waveforms import (
    DTMF_KEYS,
    compute_key_envelope,
    get_dtmf_pair_hz,
    modulate_fm,
    synthesize_waveform,
)
from heimdall_assets_tests.variation import make_rng

RATE_HZ = 24_000.0


def synthesize(signal_type, seed, duration_s=1.0):
    return synthesize_waveform(make_rng(seed), signal_type, duration_s, RATE_HZ, 0.02)


def measure_deviation_hz(wave):
    """Instantaneous frequency from the samples themselves, where the transmitter is on."""
    keyed = np.abs(wave.samples) > 0.5
    turns = np.angle(wave.samples[1:] * wave.samples[:-1].conj()) / (2 * np.pi)
    return (turns * RATE_HZ)[keyed[1:] & keyed[:-1]]


def find_waves(signal_type, condition, num, duration_s=1.0):
    found = []
    for seed in range(400):
        wave = synthesize(signal_type, seed, duration_s)
        if condition(wave):
            found.append(wave)
        if len(found) == num:
            return found
    raise AssertionError("too few")


def is_whole(wave):
    return wave.truth["tail_s"] == 0.0


@pytest.mark.parametrize(("has_ctcss", "expected_hz"), [(False, 800.0), (True, 732.0)])
def test_voice_has_the_rms_deviation_of_voice(has_ctcss, expected_hz):
    waves = find_waves(
        SignalType.VOICE,
        lambda wave: (
            is_whole(wave) and wave.truth["peak_deviation_hz"] == 2500.0 and (wave.truth["ctcss_hz"] > 0.0) == has_ctcss
        ),
        25,
    )
    rms_hz = [np.std(measure_deviation_hz(wave)) for wave in waves]
    assert np.sqrt(np.mean(np.square(rms_hz))) == pytest.approx(expected_hz, rel=0.06)
    assert max(np.abs(measure_deviation_hz(wave)).max() for wave in waves) <= 2500.0 * 1.001
    for wave, rms in zip(waves, rms_hz, strict=True):
        assert wave.rms_bandwidth_hz == pytest.approx(rms, rel=0.05)


def test_rms_bandwidth_is_the_centred_second_moment_of_the_spectrum():
    """What decides delays, computed the other way: from the power spectrum."""
    wave = find_waves(SignalType.VOICE, lambda wave: is_whole(wave) and wave.span_s == (0.0, 1.0), 1)[0]
    inside = wave.samples[480:-480]
    power = np.square(np.abs(np.fft.fft(inside * np.hanning(len(inside)))))
    frequency_hz = np.fft.fftfreq(len(inside), 1 / RATE_HZ)
    mean = (power * frequency_hz).sum() / power.sum()
    spread = np.sqrt((power * np.square(frequency_hz - mean)).sum() / power.sum())
    assert spread == pytest.approx(wave.rms_bandwidth_hz, rel=0.25)  # the window prefers the middle


def test_tone_deviates_like_a_sine():
    wave = find_waves(SignalType.TONE, is_whole, 1)[0]
    deviation_hz = measure_deviation_hz(wave)
    assert np.std(deviation_hz) == pytest.approx(2500.0 / np.sqrt(2.0), rel=0.02)  # 1769 Hz
    spectrum = np.abs(np.fft.rfft(deviation_hz - deviation_hz.mean()))
    peak_hz = spectrum.argmax() * RATE_HZ / len(deviation_hz)
    assert peak_hz == pytest.approx(wave.truth["tone_hz"], abs=2.0)


def test_dtmf_keys_have_the_frequencies_of_q23():
    assert [get_dtmf_pair_hz(key) for key in "15#D"] == [(697, 1209), (770, 1336), (941, 1477), (941, 1633)]
    assert len(set(DTMF_KEYS)) == 16
    wave = find_waves(SignalType.DTMF, is_whole, 1)[0]
    deviation_hz = measure_deviation_hz(wave)
    on = np.abs(deviation_hz) > 1.0
    assert on.mean() == pytest.approx(0.5, abs=0.05)
    assert np.std(deviation_hz[on]) == pytest.approx(1251.0, rel=0.04)
    edges = np.flatnonzero(np.diff(np.convolve(on, np.ones(24), "same") > 0))
    first, last = next((a, b) for a, b in itertools.pairwise(edges) if b - a > 800 and on[(a + b) // 2])
    assert (last - first) / RATE_HZ == pytest.approx(0.040, abs=0.002)
    digit = deviation_hz[first + 20 : last - 20]
    spectrum = np.abs(np.fft.rfft(digit * np.hanning(len(digit)), 48_000))
    heard_hz = sorted(
        np.argmax(np.where((np.arange(24_001) // 2 > low) & (np.arange(24_001) // 2 < high), spectrum, 0.0)) / 2.0
        for low, high in ((600, 1050), (1050, 1750))
    )
    assert any(np.allclose(heard_hz, get_dtmf_pair_hz(key), atol=15.0) for key in wave.truth["keys"])


@pytest.mark.parametrize("signal_type", [SignalType.VOICE, SignalType.TONE, SignalType.DTMF])
def test_no_carrier_stays_unmodulated(signal_type):
    for seed in range(60):
        assert synthesize(signal_type, seed).rms_bandwidth_hz > 400.0


@pytest.mark.parametrize("signal_type", [SignalType.VOICE, SignalType.TONE, SignalType.DTMF])
def test_energy_stays_in_the_channel(signal_type):
    for seed in range(8):
        wave = synthesize(signal_type, seed)
        if wave.truth["peak_deviation_hz"] > 2500.0:
            continue
        power = np.square(np.abs(np.fft.fft(wave.samples)))
        frequency_hz = np.fft.fftfreq(len(wave.samples), 1 / RATE_HZ)
        assert power[np.abs(frequency_hz) > 6250.0].sum() < 3e-3 * power.sum()


def test_transmissions_begin_and_end_where_the_span_says():
    num_begun = num_ended = 0
    for seed in range(60):
        wave = synthesize(SignalType.VOICE, seed)
        time_s = np.arange(len(wave.samples)) / RATE_HZ + wave.start_s
        on = (np.abs(wave.samples) > 0.5) & (time_s >= 0) & (time_s < 1)
        assert time_s[on][0] == pytest.approx(wave.span_s[0], abs=0.006)
        assert time_s[on][-1] == pytest.approx(wave.span_s[1], abs=0.006)
        num_begun += wave.span_s[0] > 0
        num_ended += wave.span_s[1] < 1
    assert 5 < num_begun < 27
    assert 5 < num_ended < 27


def test_key_ramps_within_five_milliseconds():
    time_s = np.linspace(0.0, 1.0, 10_001)
    envelope = compute_key_envelope(time_s, 0.2, 0.7)
    assert envelope[time_s <= 0.2].max() == 0.0
    np.testing.assert_allclose(envelope[(time_s > 0.2051) & (time_s < 0.6949)], 1.0)
    assert np.all(np.diff(envelope[time_s < 0.4]) >= 0)


def test_constant_deviation_is_a_tone():
    samples = modulate_fm(np.full(1000, 300.0), 24_000.0)
    np.testing.assert_allclose(np.abs(samples), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.angle(samples[1:] * samples[:-1].conj()), 2 * np.pi * 300 / 24_000, atol=1e-5)


def test_unknown_signals_are_refused():
    with pytest.raises(ValueError, match="unknown"):
        synthesize(SignalType.UNKNOWN, 0)
