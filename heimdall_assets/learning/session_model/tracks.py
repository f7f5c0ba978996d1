"""Signal tracks of sessions as one padded array: what signal heads read, and what is said of what they answer.

Belongs here: which sessions have tracks, where in the receiver slots they stand, names of the outputs. Does not belong
here: how a track is computed (``signals.signal_track``), what is read off it (``signal_heads``), torch.
Legend of shapes: S sessions, R receiver slots of the widest one.
"""

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.signal_labels import NUM_FRAMES, SIGNAL_TYPES
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.signal_track import NUM_ROWS, NUM_STEPS

OUTPUTS = {
    "signal_type": f"(batch, {len(SIGNAL_TYPES)}) float32, probability of {', '.join(SIGNAL_TYPES)}",
    "signal_span": f"(batch, {NUM_FRAMES}) float32, probability that each equal part of the recording is transmission",
    "signal_edges": "(batch, 2) float32, onset and end as shares of the recording",
    "signal_countdown": f"(batch, {NUM_FRAMES}) float32, frames until the onset, if it lies within, 0 after it",
    "signal_snr_db": "(batch, 1) float32, median of the receivers' SNR in 12.5 kHz, dB",
}
"""Outputs of an exported model, in the order of ``TASKS``, and what they hold; NaN where nothing was demodulated."""


def list_tracked(sessions: SessionSet) -> NDArray[np.int64]:
    """Return the sessions that have a signal track at a known place: what heads learn from and answer."""
    usable = sessions.tracked & np.isfinite(sessions.receiver_latitude) & np.isfinite(sessions.receiver_longitude)
    total = np.concatenate([[0], np.cumsum(usable)])
    return np.flatnonzero(total[sessions.offsets[1:]] > total[sessions.offsets[:-1]])


def collect_tracks(sessions: SessionSet) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return tracks (S, R, NUM_ROWS, NUM_STEPS), 0 where there is none, and which are there (S, R)."""
    counts = sessions.num_receivers
    tracked = np.zeros((len(sessions), max(int(counts.max(initial=0)), 1)), dtype=np.bool_)
    row = np.repeat(np.arange(len(sessions)), counts)
    column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    tracked[row, column] = sessions.tracked
    tracks = np.zeros((*tracked.shape, NUM_ROWS, NUM_STEPS), dtype=np.float32)
    if sessions.tracks is not None and sessions.track_row is not None:
        tracks[tracked] = sessions.tracks[sessions.track_row[sessions.tracked]]
    return tracks, tracked
