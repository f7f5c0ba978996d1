"""A recording as a picture: its spectrum, its spectrogram and its level over time.

Belongs here: what is drawn of samples. Does not belong here: the features that models take (``signals.spectrogram``).
"""

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.drawing import COLOURS, encode_png, new_figure
from heimdall_assets.physical import Recording

_NUM_FFT = 1024
_MAX_COLUMNS = 600
_FLOOR = 1e-15


def draw_recording(recording: Recording, title: str) -> bytes:
    """Return a PNG: mean spectrum in dB of full scale a bin, spectrogram, and level of every 10 ms."""
    samples, rate_hz = recording.samples, recording.sample_rate_hz
    power_TF = compute_power(samples, _NUM_FFT)
    frequency_khz = np.fft.fftshift(np.fft.fftfreq(power_TF.shape[1], 1e3 / rate_hz))
    duration_s = recording.duration_s
    figure = new_figure(9.0, 7.5)
    spectrum, picture, level = figure.subplots(3, 1, height_ratios=[1.0, 1.6, 0.8])
    figure.suptitle(title, fontsize=10)
    mean_db = 10 * np.log10(power_TF.mean(axis=0) + _FLOOR)
    spectrum.plot(frequency_khz, mean_db, color=COLOURS[0], linewidth=0.8)
    spectrum.set(xlabel="kHz from the centre", ylabel="dBFS a bin", xlim=(frequency_khz[0], frequency_khz[-1]))
    shown = 10 * np.log10(power_TF.T + _FLOOR)
    low, high = np.percentile(shown, [5, 99.8])
    picture.imshow(
        shown,
        aspect="auto",
        origin="lower",
        extent=(0.0, duration_s, frequency_khz[0], frequency_khz[-1]),
        vmin=low,
        vmax=max(high, low + 1.0),
        cmap="cividis",
        interpolation="nearest",
    )
    picture.set(xlabel="s", ylabel="kHz from the centre")
    block = max(round(0.01 * rate_hz), 1)
    whole = np.abs(samples[: len(samples) // block * block].reshape(-1, block)) ** 2
    time_s, level_db = np.arange(len(whole)) * block / rate_hz, 10 * np.log10(whole.mean(axis=1) + _FLOOR)
    level.plot(time_s, level_db, color=COLOURS[1], linewidth=0.8)
    level.set(xlabel="s", ylabel="dBFS", xlim=(0.0, duration_s))
    return encode_png(figure)


def compute_power(samples: NDArray[np.complex64], num_fft: int) -> NDArray[np.float64]:
    """Return the power of each bin in units of full scale, (T, F), lowest frequency first, at most 600 times.

    Short recordings get shorter transforms; in between, what is not shown is not averaged either, for it is a picture.
    """
    num_fft = min(num_fft, 1 << (max(len(samples), 1).bit_length() - 1))
    num_columns = max(len(samples) // num_fft, 1)
    starts = np.unique(np.linspace(0, len(samples) - num_fft, min(num_columns, _MAX_COLUMNS)).astype(np.int64))
    window = np.hanning(num_fft + 2)[1:-1]
    blocks = np.stack([samples[start : start + num_fft] for start in starts]) * window
    spectrum = np.fft.fftshift(np.fft.fft(blocks, axis=1), axes=1) / window.sum()
    power: NDArray[np.float64] = np.abs(spectrum) ** 2
    return power
