"""What is known of a session's signal: type, span, edges, countdown, SNR, each only where somebody knows it.

Belongs here: labels from the strata of sessions. Does not belong here: heads and losses
(``session_model.signal_heads``), figures (``signal_figures``). Only a simulation or whoever imports says what was sent
and when: nothing is read off a recording here, so that no label is a guess. Frames are the ``NUM_FRAMES`` equal parts
of a recording.
Legend of shapes: S sessions, F frames.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.physical import SignalType
from heimdall_assets.session_set import SessionSet

NUM_FRAMES = 32
SIGNAL_TYPES = (SignalType.VOICE, SignalType.TONE, SignalType.DTMF)
NO_TYPE = -1

TASKS = ("type", "span", "edges", "countdown", "snr")

UNKNOWN = "unknown"
"""What the stratum ``signal_type`` holds for a session that does not say."""

LABEL_STRATA: dict[str, Any] = {
    "signal_type": UNKNOWN,
    "span_start_s": np.nan,
    "span_end_s": np.nan,
    "duration_s": np.nan,
    "true_snr_db": np.nan,
}
"""Strata that labels are made of, and what stands in them where nobody knows."""

SPAN_SLACK = 1e-3
"""A span may end this share of a recording after it, and one that ends nearer than this to its rim ends with it:
receivers' clocks do not count seconds alike."""


def make_signal_labels(sessions: SessionSet) -> dict[str, NDArray[Any]]:
    """Return labels of S sessions: type int64 (S,), span (S, F), edges (S, 2), countdown (S, F), snr (S, 1), float32.

    Span is the share of each frame that the transmission covers, edges are onset and end as shares of the recording,
    countdown is the number of frames until the onset, in frames before it, snr the median of the receivers' in dB. NaN,
    or ``NO_TYPE``, where nobody knows, or where what they say is no span of the recording.
    """
    num = len(sessions)
    columns = {name: sessions.strata.get(name, np.full(num, missing)) for name, missing in LABEL_STRATA.items()}
    kind = np.full(num, NO_TYPE, dtype=np.int64)
    for number, signal in enumerate(SIGNAL_TYPES):
        kind[columns["signal_type"] == signal.value] = number
    start, end, duration, snr_db = (
        np.asarray(columns[name], dtype=np.float64)
        for name in ("span_start_s", "span_end_s", "duration_s", "true_snr_db")
    )
    with np.errstate(invalid="ignore"):
        known = (duration > 0.0) & (start >= 0.0) & (start < end) & (end <= duration * (1.0 + SPAN_SLACK))
    edges = np.stack([start, end], 1) / np.where(known, duration, 1.0)[:, None]
    edges = np.where(edges < SPAN_SLACK, 0.0, np.where(edges > 1.0 - SPAN_SLACK, 1.0, edges))
    edges = np.where(known[:, None], edges, np.nan)
    frame = np.arange(NUM_FRAMES)
    onset, stop = edges[:, [0]] * NUM_FRAMES, edges[:, [1]] * NUM_FRAMES
    left = onset - frame
    floats = {
        "span": np.clip(np.minimum(stop, frame + 1) - np.maximum(onset, frame), 0.0, 1.0),
        "edges": edges,
        "countdown": np.where(left > 0, left, np.nan),
        "snr": np.where(np.isfinite(snr_db), snr_db, np.nan)[:, None],
    }
    return {"type": kind, **{name: values.astype(np.float32) for name, values in floats.items()}}


def list_labelled(labels: dict[str, NDArray[Any]]) -> list[str]:
    """Return the tasks that at least one session has a label of."""
    return [name for name in TASKS if mark_labelled(labels, name).any()]


def mark_labelled(labels: dict[str, NDArray[Any]], task: str) -> NDArray[np.bool_]:
    """Return which sessions (S,) have a label of ``task``."""
    marked: NDArray[np.bool_] = labels["type"] != NO_TYPE if task == "type" else np.isfinite(labels[task]).any(axis=1)
    return marked
