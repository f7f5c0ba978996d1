"""Signal tracks of sessions as one padded array: what signal heads read.

Belongs here: which sessions have tracks, and where in the receiver slots they stand. Does not belong here: how a track
is computed (``signals.signal_track``), what is read off it (``signal_heads``).
Legend of shapes: S sessions, R receiver slots of the widest one.
"""

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.signal_track import NUM_ROWS, NUM_STEPS


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
