"""Classical detection of what was sent and when, from signal tracks: nothing learned, thresholds from standards.

Belongs here: a pair test for DTMF, a test for a single tone, SNR from quieting, and which receiver to believe. Does not
belong here: the tracks (``signal_track``), figures (``evaluation``).
Legend of shapes: N recordings, T parts of each.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.physical import CHANNEL_HZ, SignalType
from heimdall_assets.signals.demodulation import WORK_RATE_HZ
from heimdall_assets.signals.signal_track import NOISE, NOISE_HZ, NUM_STEPS, ON, PAIR, TONE

MIN_PAIR_SHARE = 0.5
"""Of a frame's audio that a pair holds while its key is pressed; noise and speech spread theirs over 2.7 kHz."""

MIN_TONE_SHARE = 0.5
"""The same of a single tone."""

MIN_TONE_TIME = 0.5
"""Share of a transmission that a single tone lasts; a vowel does not."""


def detect_type(track: NDArray[Any]) -> SignalType:
    """Return what one recording's track (NUM_ROWS, T) holds: DTMF where any key is heard, a tone, else voice.

    Source: ITU-T Q.24 (1988): a key is a pair of tones of nearly one level that lasts 40 ms.
    """
    on = track[ON] > 0.5
    if (track[PAIR] >= MIN_PAIR_SHARE).any():
        return SignalType.DTMF
    lasting = (track[TONE][on] >= MIN_TONE_SHARE).mean() if on.any() else 0.0
    return SignalType.TONE if lasting >= MIN_TONE_TIME else SignalType.VOICE


def read_span(track: NDArray[Any]) -> NDArray[np.float64]:
    """Return onset and end of the carrier as shares of the recording, float64 (2,), from the parts that it was on."""
    on = np.asarray(track[ON], dtype=np.float64)
    first, last = int(on.argmax()), NUM_STEPS - 1 - int(on[::-1].argmax())
    full = np.flatnonzero(on >= 1.0)
    if not len(full):
        return np.array([first, last + 1]) / NUM_STEPS
    onset = full[0] - on[: full[0]].sum()
    end = full[-1] + 1 + on[full[-1] + 1 :].sum()
    return np.array([onset, end]) / NUM_STEPS


def estimate_snr_db(track: NDArray[Any]) -> float:
    """Return the SNR of one recording in 12.5 kHz, the mean over all of it, from how far a carrier quiets the noise.

    A discriminator turns white noise N0 beside a carrier C into frequency noise of density f^2 N0 / C: what it shows
    between two frequencies tells N0 / C. It holds above threshold, some 5 dB; below, clicks make it too low.

    Source: Carlson, Crilly 2010, "Communication Systems", eq. 10.2-7; 2 sin(pi f / r) r / 2 pi in the place of f for
    differences at rate r.
    """
    on = np.asarray(track[ON], dtype=np.float64)
    noise_hz2 = 10.0 ** (float(np.median(track[NOISE][on > 0.5] if (on > 0.5).any() else track[NOISE])) / 10.0)
    return 10.0 * math.log10(compute_quieting_hz3() / (CHANNEL_HZ * noise_hz2)) + 10.0 * math.log10(
        max(on.mean(), 1e-3)
    )


def compute_quieting_hz3() -> float:
    """Return the integral over ``NOISE_HZ`` of the discriminator's squared response, Hz^3."""
    rate = WORK_RATE_HZ

    def integrate(edge_hz: float) -> float:
        # of (r / pi)^2 sin(pi f / r)^2
        return (rate / math.pi) ** 2 * (
            edge_hz / 2.0 - rate / (4.0 * math.pi) * math.sin(2.0 * math.pi * edge_hz / rate)
        )

    return integrate(NOISE_HZ[1]) - integrate(NOISE_HZ[0])


def choose_receiver(tracks: NDArray[Any]) -> int:
    """Return which of a session's N tracks is quieted most, the one to believe (selection diversity)."""
    on = np.asarray(tracks[:, ON], dtype=np.float64) > 0.5
    noise = np.where(on, np.asarray(tracks[:, NOISE], dtype=np.float64), np.nan)
    return int(np.argmin([np.median(row[~np.isnan(row)]) if not np.isnan(row).all() else np.inf for row in noise]))
