"""Spectrograms against tones of known frequency and level, and against float64 arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from heimdall_assets.errors import InvalidInput, InvalidRecording
from heimdall_assets.signals.spectrogram import (
    Statistics,
    compute_full_spectrogram,
    compute_mel_bank,
    compute_mfcc,
    compute_spectrogram,
    convert_hz_to_mel,
    convert_mel_to_hz,
    fit_statistics,
)
from heimdall_assets.specs import FeatureSpec
from heimdall_assets_tests.variation import make_rng

RATE_HZ = 24_000.0
SPEC = FeatureSpec()


def make_tone(frequency_hz, amplitude=1.0, num=24_000, rate_hz=RATE_HZ):
    return (amplitude * np.exp(2j * np.pi * frequency_hz / rate_hz * np.arange(num))).astype(np.complex64)


def make_noise(num=24_000, sigma=0.1, seed=0):
    generator = make_rng(seed)
    return (sigma * (generator.standard_normal(num) + 1j * generator.standard_normal(num))).astype(np.complex64)


def find_row(frequency_hz, spec=SPEC):
    """Row whose triangle is highest at a frequency, from the mel formula alone."""
    edges = np.linspace(convert_hz_to_mel(spec.f_min_hz), convert_hz_to_mel(spec.f_max_hz), spec.num_mels + 2)
    return int(np.abs(edges[1:-1] - convert_hz_to_mel(frequency_hz)).argmin())


def compute_reference(samples, rate_hz, spec):
    """The same picture in float64, transform by transform, with every mel weight."""
    window = signal.get_window("hann", spec.n_fft)
    full_scale = spec.n_fft * np.square(window).sum()
    num = (len(samples) - spec.n_fft) // spec.hop + 1
    num = spec.num_frames if spec.frames == "strict" else num
    bank = compute_mel_bank(rate_hz, spec.n_fft, spec.num_mels, spec.f_min_hz, spec.f_max_hz)
    half = spec.n_fft // 2
    channels = np.zeros((2, half + 1, num))
    for index in range(num):
        frame = samples[index * spec.hop : index * spec.hop + spec.n_fft].astype(np.complex128) * window
        if spec.channels == "signed":
            power = np.square(np.abs(np.fft.fft(frame))) / full_scale
            channels[0, :half, index] = power[:half]
            channels[1, 1:, index] = power[: half - 1 : -1]
        else:
            for place, part in enumerate((frame.real, frame.imag)):
                power = np.square(np.abs(np.fft.fft(part))) / full_scale
                channels[place, :half, index] = power[:half]
                channels[place, 1:, index] += power[: half - 1 : -1]
    edges = [index * num // spec.num_frames for index in range(spec.num_frames + 1)]
    frames = [np.arange(edges[index], edges[index + 1]) for index in range(spec.num_frames)]
    pooled = np.stack([channels[:, :, run].mean(axis=2) for run in frames], axis=-1)
    mel = np.einsum("mk,ckf->cmf", bank, pooled)
    mel = np.concatenate([mel, mel.sum(axis=0, keepdims=True)])
    return np.clip(10.0 * np.log10(mel + 1e-10), spec.floor_db, 0.0)


@pytest.mark.parametrize("frames", ["pooled", "strict"])
@pytest.mark.parametrize("channels", ["signed", "iq"])
@pytest.mark.parametrize(("rate_hz", "f_max_hz"), [(24_000.0, 6000.0), (12_001.1, 6000.0), (48_000.0, 24_000.0)])
def test_fast_path_equals_float64(frames, channels, rate_hz, f_max_hz):
    spec = FeatureSpec(frames=frames, channels=channels, f_max_hz=f_max_hz)
    samples = make_noise() + make_tone(0.1 * rate_hz, 0.3, rate_hz=rate_hz)
    picture = compute_spectrogram(samples, rate_hz, spec)
    assert picture.shape == (3, 128, 32)
    assert picture.dtype == np.float32
    assert np.abs(picture - compute_reference(samples, rate_hz, spec)).max() < 1e-3


@given(frequency_hz=st.floats(100.0, 5800.0), sign=st.sampled_from([-1, 1]))
@settings(max_examples=20, deadline=None)
def test_tone_lands_in_its_row_and_on_its_side(frequency_hz, sign):
    picture = compute_spectrogram(make_tone(sign * frequency_hz), RATE_HZ, SPEC)
    this, other = (0, 1) if sign > 0 else (1, 0)
    assert abs(int(picture[this].mean(axis=1).argmax()) - find_row(frequency_hz)) <= 1
    assert picture[this].max() - picture[other].max() > 60.0
    row = find_row(frequency_hz)
    np.testing.assert_allclose(picture[2, row], picture[this, row], atol=1e-3)


@pytest.mark.parametrize("level_db", [0.0, -20.0, -60.0])
@pytest.mark.parametrize("channels", ["signed", "iq"])
def test_rows_of_a_tone_add_up_to_its_level(level_db, channels):
    tone = make_tone(1000.7, 10.0 ** (level_db / 20.0))
    picture = compute_spectrogram(tone, RATE_HZ, FeatureSpec(channels=channels))
    near = slice(find_row(900.0), find_row(1100.0))
    total_db = 10.0 * np.log10((10.0 ** (picture[2, near] / 10.0)).sum(axis=0))
    np.testing.assert_allclose(total_db, level_db, atol=0.02)


def test_third_channel_is_the_same_in_both_modes():
    samples = make_noise()
    signed = compute_spectrogram(samples, RATE_HZ, SPEC)
    parts = compute_spectrogram(samples, RATE_HZ, FeatureSpec(channels="iq"))
    np.testing.assert_allclose(signed[2], parts[2], atol=2e-3)


def test_fm_is_not_erased():
    """Frequency modulation has a constant envelope; only complex samples show it."""
    time_s = np.arange(24_000) / RATE_HZ
    fm = np.exp(1j * 2.5 * np.sin(2 * np.pi * 1000.0 * time_s)).astype(np.complex64)
    picture = compute_spectrogram(fm, RATE_HZ, SPEC)
    for order in (1, 2, 3):
        assert picture[0, find_row(order * 1000.0)].mean() > picture[0, find_row(order * 1000.0 - 500.0)].mean() + 20.0


def test_pooling_averages_power_over_the_whole_recording():
    burst = make_tone(1000.0)
    burst[12_000:] = 0
    picture = compute_spectrogram(burst, RATE_HZ, SPEC)
    row = picture[2].max(axis=1).argmax()
    assert picture[2, row, :12].min() > -3.0
    assert picture[2, row, 20:].max() == pytest.approx(-100.0, abs=0.1)


def test_empty_rows_stay_at_the_floor():
    """2048 points at 192 kHz leave 4 of 128 rows up to 96 kHz without a frequency, and 21 with a single one."""
    bank = compute_mel_bank(192_000.0, 2048, 128, 0.0, 96_000.0)
    counts = (bank > 0).sum(axis=1)
    assert [(counts == 0).sum(), (counts == 1).sum()] == [4, 21]
    picture = compute_spectrogram(make_noise(40_000), 192_000.0, FeatureSpec(f_max_hz=96_000.0))
    assert np.all(picture[:, counts == 0] == -100.0)
    assert np.all(picture[:, counts > 0] > -100.0)


def test_mel_weights_are_a_partition():
    bank = compute_mel_bank(24_000.0, 2048, 128, 0.0, 6000.0)
    bins_hz = np.arange(1025) * 24_000.0 / 2048
    first, last = convert_mel_to_hz(np.linspace(0.0, convert_hz_to_mel(6000.0), 130))[[1, -2]]
    inside = (bins_hz >= first) & (bins_hz <= last)
    np.testing.assert_allclose(bank.sum(axis=0)[inside], 1.0, atol=1e-12)


def test_full_spectrogram_has_375_frames_and_follows_time():
    samples = np.zeros(192_000, dtype=np.complex64)
    samples[96_000:] = make_tone(3000.0, num=96_000, rate_hz=192_000.0)
    picture = compute_full_spectrogram(samples, 192_000.0, SPEC)
    assert picture.shape == (128, 375)
    level = picture.max(axis=0)
    assert level[:180].max() < -99.0
    assert level[195:370].min() > -4.0
    assert np.ptp(level[195:370]) < 0.01


@given(num=st.integers(2048, 30_000))
@settings(max_examples=15, deadline=None)
def test_full_spectrogram_of_any_length(num):
    picture = compute_full_spectrogram(make_noise(num), RATE_HZ, SPEC)
    assert picture.shape == (128, -(-num // 512))
    assert np.isfinite(picture).all()


def test_mfcc_is_the_cosine_transform_of_the_picture():
    samples = make_noise()
    coefficients = compute_mfcc(samples, RATE_HZ, SPEC)
    assert coefficients.shape == (13, 32)
    picture = compute_spectrogram(samples, RATE_HZ, SPEC)[2].astype(np.float64)
    place = (np.arange(128) + 0.5) / 128
    for order in (0, 1, 12):
        scale = np.sqrt((1.0 if order == 0 else 2.0) / 128)
        expected = scale * (np.cos(np.pi * order * place)[:, None] * picture).sum(axis=0)
        np.testing.assert_allclose(coefficients[order], expected, rtol=1e-4, atol=1e-3)
    with pytest.raises(InvalidInput, match="num_coefficients 129"):
        compute_mfcc(samples, RATE_HZ, SPEC, 129)


def test_guards_name_the_recording():
    with pytest.raises(InvalidRecording, match=r"torino.*10000 Hz.*12000 Hz"):
        compute_spectrogram(make_noise(), 10_000.0, SPEC, name="torino")
    with pytest.raises(InvalidRecording, match=r"torino.*hold 31 transforms.*17920 samples"):
        compute_spectrogram(make_noise(17_919), RATE_HZ, SPEC, name="torino")
    assert compute_spectrogram(make_noise(17_920), RATE_HZ, SPEC).shape == (3, 128, 32)
    with pytest.raises(InvalidRecording, match="float32"):
        compute_spectrogram(np.zeros(24_000, dtype=np.float32), RATE_HZ, SPEC)
    with pytest.raises(InvalidRecording, match="at least one transform"):
        compute_full_spectrogram(make_noise(100), RATE_HZ, SPEC)


def test_statistics_standardise_each_channel():
    generator = make_rng(1)
    pictures = (generator.normal(size=(700, 3, 8, 4)) * [[[[3.0]], [[1.0]], [[0.5]]]] - 50.0).astype(np.float16)
    statistics = fit_statistics(pictures)
    scaled = statistics.apply(pictures).astype(np.float64)
    np.testing.assert_allclose(scaled.mean(axis=(0, 2, 3)), 0.0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=(0, 2, 3)), 1.0, atol=1e-4)
    some = fit_statistics(pictures, np.array([5, 3]))
    np.testing.assert_allclose(some.mean, pictures[[3, 5]].astype(np.float64).mean(axis=(0, 2, 3)))


def test_statistics_that_cannot_scale_are_refused():
    with pytest.raises(InvalidInput, match="never changes"):
        fit_statistics(np.full((3, 3, 8, 4), -100.0, dtype=np.float32))
    with pytest.raises(InvalidInput, match="no spectrogram"):
        fit_statistics(np.zeros((0, 3, 8, 4), dtype=np.float32))
    with pytest.raises(InvalidInput, match="finite"):
        Statistics(np.array([0.0, np.nan, 0.0]), np.ones(3))
