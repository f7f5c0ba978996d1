"""A recording's signal over time: power, quieting and audio of its demodulated channel in 64 equal parts of it.

Belongs here: from a channel and its discriminator to one array of fixed shape, whatever rate and length a recording
has. Does not belong here: demodulation (``demodulation``), decisions on these numbers (``detectors``), learning.

Audio is looked at through frames of 32 ms every 5 ms, fine enough for the bursts of 40 ms that DTMF is made of (ITU-T
Q.24), with a line every 31 Hz, fine enough for its rows 73 Hz apart. A part of a long recording holds many frames:
powers are averaged over them, scores are the best that any of them reached.
Legend of shapes: J frames, K lines of the audio spectrum, T parts.
"""

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.signals.change_points import find_span
from heimdall_assets.signals.demodulation import WORK_RATE_HZ, Channel, discriminate_hz, iterate_channel

NUM_STEPS = 64
"""Equal parts of a recording, T."""

FRAME_S, HOP_S = 0.032, 0.005

AUDIO_HZ = (300.0, 3000.0)
"""Speech band of a narrow-band FM transmitter (ETSI EN 300 086)."""

NOISE_HZ = (3500.0, 5200.0)
"""Where no modulation is left and a discriminator's output is noise: what a squelch listens to."""

LINES_HZ = (500.0, 2300.0)
"""Part of the audio spectrum that is kept line by line: all signalling tones, and the heart of speech."""

DTMF_HZ = (697.0, 770.0, 852.0, 941.0, 1209.0, 1336.0, 1477.0, 1633.0)
"""Rows, then columns. Source: ITU-T Q.23 (1988), table 1."""

MAX_TWIST_DB = 8.0
"""Largest difference of a pair's two levels. Source: ITU-T Q.24 (1988), table A-1: 4 to 10 dB by country."""

PAIR_FRAMES, TONE_FRAMES = 4, 8
"""Frames in a row, 5 ms apart, that must show one pair, or one tone: a pair lasts 40 ms, speech changes sooner."""

QUIETEST = 1e-15
"""Added to powers of full scale, and to shares, before their logarithm: -150 dB, where no converter reaches."""

SLOWEST_HZ2 = 1.0
"""Added to squares of frequencies before their logarithm: a deviation of 1 Hz is none."""

NUM_AUDIO = round(FRAME_S * WORK_RATE_HZ)
LINE_HZ = WORK_RATE_HZ / NUM_AUDIO
FIRST_LINE, LAST_LINE = math.ceil(LINES_HZ[0] / LINE_HZ), math.floor(LINES_HZ[1] / LINE_HZ)

LEVEL, NOISE, AUDIO, ON, STEP, PAIR, TONE, LINES = range(8)
"""Rows of a track: power in the channel, dB of full scale; mean square of the discriminator in ``NOISE_HZ`` and in
``AUDIO_HZ``, dB of Hz^2; share that a carrier was on (``change_points``); length of a part, s; best share of the audio
that one DTMF pair, and that one tone held; and from ``LINES`` on the mean square of each line, dB of Hz^2."""

NUM_ROWS = LINES + LAST_LINE - FIRST_LINE + 1

SHORTEST_S = NUM_STEPS * HOP_S
"""In a shorter recording the parts would be finer than what is measured."""


def compute_track(
    samples: NDArray[np.complexfloating], sample_rate_hz: float, name: str = "recording"
) -> NDArray[np.float16]:
    """Return what a recording's demodulated channel does over time, float16 (NUM_ROWS, NUM_STEPS).

    A frame belongs to the part that its middle lies in; a part without one takes the frame nearest to its own middle.

    Args:
        samples: complex (N,), full scale 1.0.
        sample_rate_hz: rate of this recording; at least 12 kHz, else any.
        name: what to call the recording in an error.

    Raises:
        InvalidRecording: the recording is shorter than ``SHORTEST_S``, or its rate holds no channel.
    """
    duration_s = len(samples) / sample_rate_hz
    if duration_s < SHORTEST_S:
        raise InvalidRecording(
            f"{name}: {duration_s:.3g} s long, expected at least {SHORTEST_S:g} s for a track of {NUM_STEPS} parts"
        )
    sums, count = np.zeros((3, NUM_STEPS)), np.zeros(NUM_STEPS)
    middles, scores, lines = [], [], []
    for channel in iterate_channel(samples, sample_rate_hz, name):
        frequency_hz = discriminate_hz(channel.samples, channel.rate_hz)
        _add_powers(channel, frequency_hz, duration_s, sums, count)
        middle_s, power = _analyse_frames(channel, frequency_hz)
        middles.append(middle_s)
        scores.append(_score(power))
        lines.append(power[1][:, FIRST_LINE : LAST_LINE + 1])
    track = np.empty((NUM_ROWS, NUM_STEPS))
    means = sums / count
    track[LEVEL] = 10.0 * np.log10(means[0] + QUIETEST)
    track[NOISE : AUDIO + 1] = 10.0 * np.log10(means[1:] + SLOWEST_HZ2)
    start, end = find_span(track[LEVEL], track[NOISE])
    step = np.arange(NUM_STEPS)
    track[ON] = np.clip(np.minimum(end, step + 1) - np.maximum(start, step), 0.0, 1.0)
    track[STEP] = duration_s / NUM_STEPS
    joined = np.concatenate(scores), np.concatenate(lines)
    track[PAIR:] = _pool(np.concatenate(middles) / duration_s, *joined)
    return track.astype(np.float16)


def _add_powers(
    channel: Channel, frequency_hz: NDArray[np.float32], duration_s: float, sums: NDArray[Any], count: NDArray[Any]
) -> None:
    """Add the power of the channel and the squares of its discriminator's two bands to the parts they belong to."""
    num = len(frequency_hz)
    time_s = channel.start_s + (np.arange(num) + 0.5) / channel.rate_hz
    core = (time_s >= channel.core_s[0]) & (time_s < channel.core_s[1])
    step = np.minimum((time_s[core] / duration_s * NUM_STEPS).astype(np.int64), NUM_STEPS - 1)
    spectrum, line_hz = fft.rfft(frequency_hz), fft.rfftfreq(num, 1.0 / channel.rate_hz)
    signals = [np.abs(channel.samples[1:])]
    for low_hz, high_hz in (NOISE_HZ, AUDIO_HZ):
        band = np.where((line_hz >= low_hz) & (line_hz <= high_hz), spectrum, 0.0)
        signals.append(fft.irfft(band, n=num))
    for row, values in enumerate(signals):
        sums[row] += np.bincount(step, np.square(values[core], dtype=np.float64), NUM_STEPS)
    count += np.bincount(step, minlength=NUM_STEPS)


def _analyse_frames(
    channel: Channel, frequency_hz: NDArray[np.float32]
) -> tuple[NDArray[Any], tuple[NDArray[Any], NDArray[Any]]]:
    """Return the middles (J,) of frames in s, and the mean square of the eight DTMF tones (J, 8) and lines (J, K)."""
    hop = round(HOP_S * channel.rate_hz)
    first = math.ceil((channel.core_s[0] - channel.start_s - 0.5 * FRAME_S) * channel.rate_hz / hop) * hop
    frames = np.lib.stride_tricks.sliding_window_view(frequency_hz, NUM_AUDIO)[max(first, 0) :: hop]
    middle_s = channel.start_s + (max(first, 0) + hop * np.arange(len(frames)) + 0.5 * NUM_AUDIO) / channel.rate_hz
    core = middle_s < channel.core_s[1]
    window, probes = _make_probes()
    windowed = frames[core] * window
    scale = 2.0 / (NUM_AUDIO * np.square(window, dtype=np.float64).sum())
    spectrum = np.square(np.abs(fft.rfft(windowed, axis=1)), dtype=np.float64) * scale
    tones = np.square(np.abs(windowed @ probes), dtype=np.float64) * (2.0 / float(window.sum()) ** 2)
    return middle_s[core], (tones, spectrum)


@lru_cache(maxsize=1)
def _make_probes() -> tuple[NDArray[np.float32], NDArray[np.complex64]]:
    """Return the Hann window of a frame, and the eight tones of DTMF to correlate it with (Goertzel's sums)."""
    place = np.arange(NUM_AUDIO)
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * place / NUM_AUDIO)
    probes = np.exp(-2j * np.pi * np.array(DTMF_HZ) / WORK_RATE_HZ * place[:, None])
    return window.astype(np.float32), probes.astype(np.complex64)


def _score(power: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[np.float64]:
    """Return which share of its audio one DTMF pair, and one tone, held in each frame and those about it, (J, 2)."""
    tones, spectrum = power
    low, high = (round(edge / LINE_HZ) for edge in AUDIO_HZ)
    audio = spectrum[:, low : high + 1].sum(axis=1) + SLOWEST_HZ2
    row, column = tones[:, :4].argmax(axis=1), tones[:, 4:].argmax(axis=1)
    each = np.arange(len(tones))
    strengths = tones[each, row], tones[each, 4 + column]
    level_db = 10.0 * np.log10(np.array(strengths) + SLOWEST_HZ2)
    even = np.abs(level_db[0] - level_db[1]) <= MAX_TWIST_DB
    pair = np.where(even, np.minimum((strengths[0] + strengths[1]) / audio, 1.0), 0.0)
    # A tone's power lies in the line nearest to it and its two neighbours (98 % of it at worst, Hann window).
    near = spectrum[:, low - 1 : high] + spectrum[:, low : high + 1] + spectrum[:, low + 1 : high + 2]
    peak = near.argmax(axis=1)
    tone = np.minimum(near[each, peak] / audio, 1.0)
    return np.stack(
        [_hold(pair, 4 * row + column, 0, PAIR_FRAMES), _hold(tone, peak, 1, TONE_FRAMES)],
        axis=1,
    )


def _hold(score: NDArray[np.float64], what: NDArray[np.int64], slack: int, num: int) -> NDArray[np.float64]:
    """Return the least score of each run of ``num`` frames in a row, at its middle; 0 where they show other things."""
    held = np.zeros_like(score)
    if len(score) < num:
        return held
    runs = np.lib.stride_tricks.sliding_window_view(score, num).min(axis=1)
    shown = np.lib.stride_tricks.sliding_window_view(what, num)
    same = shown.max(axis=1) - shown.min(axis=1) <= slack
    held[num // 2 : num // 2 + len(runs)] = np.where(same, runs, 0.0)
    return held


def _pool(place: NDArray[np.float64], score: NDArray[np.float64], lines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best score and the mean lines of each part, (2 + K, T), from those of frames.

    Args:
        place: (J,), middles of the frames as shares of the recording, rising.
        score: (J, 2).
        lines: (J, K), Hz^2.
    """
    edges = np.searchsorted(place, np.arange(NUM_STEPS + 1) / NUM_STEPS)
    nearest = np.abs(place - (np.arange(NUM_STEPS)[:, None] + 0.5) / NUM_STEPS).argmin(axis=1)
    pooled = np.empty((2 + lines.shape[1], NUM_STEPS))
    for step, (first, last) in enumerate(pairwise(edges)):
        mine = slice(first, last) if last > first else slice(nearest[step], nearest[step] + 1)
        pooled[:2, step] = score[mine].max(axis=0)
        pooled[2:, step] = 10.0 * np.log10(lines[mine].mean(axis=0) + SLOWEST_HZ2)
    return pooled
