"""FM demodulation of complex IQ: one channel about the carrier, its power, and the frequency that it had each instant.

Belongs here: samples -> a channel at one rate, whatever the receiver's -> discriminator output in Hz. Does not belong
here: what is read off that over a recording (``signal_track``), whose signal it is (``detectors``).

The discriminator turns by the angle between neighbouring samples, so neither gain nor carrier phase reaches its output,
and a constant carrier gives its own frequency exactly.
Source: Carlson, Crilly 2010, "Communication Systems", section 5.3 (discriminators), 10.2 (noise behind them).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.physical import CHANNEL_HZ

PASS_HZ = 6_000.0
"""Half the channel that is demodulated: what a KiwiSDR's 12 kHz hold of a 12.5 kHz channel; so all see the same."""

EDGE_HZ = 750.0
"""Below ``PASS_HZ`` the filter falls as a raised cosine over this width: it rings for a millisecond, no longer."""

WORK_RATE_HZ = 2.0 * CHANNEL_HZ
"""Rate that a channel is resampled to: the product of neighbouring samples is twice as wide as the channel."""

TUNE_HZ = 4_000.0
"""The carrier is looked for this far about the middle: 20 ppm of 145 MHz is 3 kHz, and 2.5 ppm of the transmitter's."""

TUNE_STEP_HZ = 25.0
"""Resolution of the spectrum that the carrier is looked for in."""

CHUNK_S, MARGIN_S = 4.0, 0.02
"""A long recording is demodulated in parts of this length, each with so much more on both sides."""

_FLOOR_QUANTILE = 0.25  # of the spectrum's powers: noise, as long as the signal fills less than three quarters of it


@dataclass(frozen=True)
class Channel:
    """A part of a recording as its channel.

    Attributes:
        samples: complex64 (L,), full scale 1.0, the carrier near 0 Hz.
        rate_hz: of ``samples``: ``WORK_RATE_HZ`` but for rounding the length to whole samples.
        start_s: time of sample 0 from the recording's start.
        core_s: from when to when it counts; the rest is margin that a neighbouring part tells better.
    """

    samples: NDArray[np.complex64]
    rate_hz: float
    start_s: float
    core_s: tuple[float, float]


def find_carrier_hz(samples: NDArray[np.complexfloating], sample_rate_hz: float) -> float:
    """Return how far from the middle the signal lies: the centroid of its power above the noise, Hz.

    FM spectra of tones, pairs and speech lie evenly about their carrier. Where nothing rises above the noise it is 0.

    Examples:
        >>> tone = np.exp(2j * np.pi * 1500.0 / 24_000.0 * np.arange(24_000))
        >>> round(find_carrier_hz(tone, 24_000.0))
        1500
    """
    size = min(len(samples), max(16, round(sample_rate_hz / TUNE_STEP_HZ)))
    window = np.hanning(size).astype(np.float32)
    num = len(samples) // size
    power = np.zeros(size)
    for start in range(0, num, 64):
        block = samples[start * size : min(start + 64, num) * size].reshape(-1, size) * window
        power += np.square(np.abs(fft.fft(block, axis=1))).sum(axis=0)
    frequency_hz = fft.fftfreq(size, 1.0 / sample_rate_hz)
    reach = np.abs(frequency_hz) <= min(TUNE_HZ + PASS_HZ, 0.5 * sample_rate_hz)
    floor = np.quantile(power[reach], _FLOOR_QUANTILE)
    excess = np.where(reach, np.maximum(power - 2.0 * floor, 0.0), 0.0)
    total = excess.sum()
    return float(np.clip((excess * frequency_hz).sum() / total, -TUNE_HZ, TUNE_HZ)) if total > 0.0 else 0.0


def iterate_channel(
    samples: NDArray[np.complexfloating], sample_rate_hz: float, name: str = "recording"
) -> Iterator[Channel]:
    """Yield a recording's channel in parts: tuned to the carrier, filtered to 12 kHz, resampled to ``WORK_RATE_HZ``.

    Raises:
        InvalidRecording: a rate that holds no channel.
    """
    if samples.ndim != 1 or not np.iscomplexobj(samples):
        raise InvalidRecording(f"{name}: found {samples.dtype} {samples.shape}, expected complex (N,)")
    # Recorders of 12 kHz give 11 998.5: as near as their crystals let them.
    if not sample_rate_hz >= 2.0 * PASS_HZ * (1.0 - 1e-3):
        raise InvalidRecording(
            f"{name}: sample rate {sample_rate_hz:.6g} Hz, expected at least {2.0 * PASS_HZ:.6g} Hz, the "
            "channel that is demodulated"
        )
    carrier_hz = find_carrier_hz(samples, sample_rate_hz)
    num, chunk, margin = len(samples), round(CHUNK_S * sample_rate_hz), round(MARGIN_S * sample_rate_hz)
    num_chunks = max(1, round(num / chunk))
    edges = np.arange(num_chunks + 1) * num // num_chunks
    for first, last in pairwise(edges):
        begin, end = max(0, int(first) - margin), min(num, int(last) + margin)
        part, rate_hz = _cut_channel(samples[begin:end], sample_rate_hz, carrier_hz)
        core_s = (float(first / sample_rate_hz), float(last / sample_rate_hz))
        yield Channel(part, rate_hz, begin / sample_rate_hz, core_s)


def _cut_channel(
    samples: NDArray[np.complexfloating], sample_rate_hz: float, carrier_hz: float
) -> tuple[NDArray[np.complex64], float]:
    """Return the channel about ``carrier_hz`` at about ``WORK_RATE_HZ``, and the exact rate."""
    num = len(samples)
    num_out = max(2, round(num * WORK_RATE_HZ / sample_rate_hz))
    step_hz = sample_rate_hz / num
    spectrum = fft.fft(np.asarray(samples, dtype=np.complex64))
    half = math.floor(PASS_HZ / step_hz)
    offset = np.arange(-half, half + 1)
    place = np.rint(carrier_hz / step_hz).astype(np.int64) + offset
    inside = (2 * place >= -num) & (2 * place < num)  # what the receiver did not record is not made up
    rise = np.clip((PASS_HZ - np.abs(offset) * step_hz) / EDGE_HZ, 0.0, 1.0)
    weight = np.where(inside, np.square(np.sin(0.5 * np.pi * rise)), 0.0).astype(np.float32)
    out = np.zeros(num_out, dtype=np.complex64)
    out[offset % num_out] = spectrum[place % num] * weight
    return fft.ifft(out) * np.float32(num_out / num), sample_rate_hz * num_out / num


def discriminate_hz(samples: NDArray[np.complexfloating], rate_hz: float) -> NDArray[np.float32]:
    """Return the frequency between each sample and the one before, float32 (L - 1,), Hz, within half the rate.

    Examples:
        A constant carrier gives its own frequency, whatever its gain and phase:

        >>> tone = 0.01j * np.exp(2j * np.pi * 1234.5 / 25_000.0 * np.arange(5))
        >>> np.round(discriminate_hz(tone, 25_000.0), 2).tolist()
        [1234.5, 1234.5, 1234.5, 1234.5]
    """
    turn = samples[1:] * np.conj(samples[:-1])
    angle: NDArray[Any] = np.angle(turn)
    return (angle * (rate_hz / (2.0 * math.pi))).astype(np.float32)
