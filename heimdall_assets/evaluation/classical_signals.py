"""What classical detection says of the signals: the answers of ``signals.detectors``, session by session.

Belongs here: one answer of a session from the tracks of its receivers, in the form of signal heads' answers. Does not
belong here: the detectors (``signals.detectors``), figures (``signal_figures``).
The receiver that is quieted most decides type, span and edges; the SNR is the median of all.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.signal_labels import NUM_FRAMES, SIGNAL_TYPES
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.detectors import choose_receiver, detect_type, estimate_snr_db, read_span

CERTAIN = 1.0
"""Probability of what a detector decides: it says yes or no."""


def detect_signals(sessions: SessionSet) -> dict[str, NDArray[np.float32]]:
    """Return the outputs that signal heads have, from classical detection; NaN where nothing was demodulated."""
    num = len(sessions)
    found: dict[str, NDArray[np.float32]] = {
        "signal_type": np.full((num, len(SIGNAL_TYPES)), np.nan, dtype=np.float32),
        "signal_span": np.full((num, NUM_FRAMES), np.nan, dtype=np.float32),
        "signal_edges": np.full((num, 2), np.nan, dtype=np.float32),
        "signal_countdown": np.full((num, NUM_FRAMES), np.nan, dtype=np.float32),
        "signal_snr_db": np.full((num, 1), np.nan, dtype=np.float32),
    }
    frame = np.arange(NUM_FRAMES)
    for row in range(num):
        tracks = _read_tracks(sessions, row)
        if not len(tracks):
            continue
        best = tracks[choose_receiver(tracks)]
        onset, end = read_span(best)
        found["signal_type"][row] = [CERTAIN * (kind == detect_type(best)) for kind in SIGNAL_TYPES]
        covered = np.minimum(end * NUM_FRAMES, frame + 1) - np.maximum(onset * NUM_FRAMES, frame)
        found["signal_span"][row] = np.clip(covered, 0.0, 1.0)
        found["signal_edges"][row] = onset, end
        found["signal_countdown"][row] = np.maximum(onset * NUM_FRAMES - frame, 0.0)
        found["signal_snr_db"][row] = np.median([estimate_snr_db(track) for track in tracks])
    return found


def _read_tracks(sessions: SessionSet, row: int) -> NDArray[Any]:
    """Return the tracks (N, NUM_ROWS, NUM_STEPS) of one session, none where nothing was demodulated."""
    mine = sessions.receivers(row)
    if sessions.tracks is None or sessions.track_row is None:
        return np.empty((0,))
    placed = np.isfinite(sessions.receiver_latitude[mine]) & np.isfinite(sessions.receiver_longitude[mine])
    chosen = sessions.track_row[mine][placed & sessions.tracked[mine]]
    return np.asarray(sessions.tracks[chosen], dtype=np.float64)
