"""Confusion: which type of signal was sent and which one was said, session by session counted.

Belongs here: the counts, as a table and as a picture. Does not belong here: how well signals are told
(``signal_figures``).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.drawing import WIDTH_IN, encode_svg, new_figure
from heimdall_assets.evaluation.signal_labels import NO_TYPE, SIGNAL_TYPES, make_signal_labels
from heimdall_assets.session_set import SessionSet

NAMES = tuple(kind.value for kind in SIGNAL_TYPES)


def count_confusion(sessions: SessionSet, probability: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many sessions of each type, row by row, were said to be of each type, int64 (T, T).

    Args:
        sessions: with labels; one without counts nowhere.
        probability: (S, T) of each type; NaN: no answer, which counts nowhere.
    """
    kind = make_signal_labels(sessions)["type"]
    judged = (kind != NO_TYPE) & np.isfinite(probability).all(axis=1)
    counts = np.zeros((len(NAMES), len(NAMES)), np.int64)
    np.add.at(counts, (kind[judged], probability[judged].argmax(axis=1)), 1)
    return counts


def encode_confusion(counts: NDArray[np.int64]) -> bytes:
    """Return the counts as CSV: a row for each type that was sent, a column for each that was said."""
    rows = [[name, *map(str, row)] for name, row in zip(NAMES, counts, strict=True)]
    lines = [",".join(row) for row in (["sent", *NAMES], *rows)]
    return ("\n".join(lines) + "\n").encode()


def plot_confusion(counts: NDArray[np.int64]) -> bytes:
    """Return the counts as SVG; the darker, the larger a share of its row."""
    figure = new_figure(WIDTH_IN * 0.8, WIDTH_IN * 0.7)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.pcolormesh(
        np.arange(len(NAMES) + 1) - 0.5, np.arange(len(NAMES) + 1) - 0.5, shares, cmap="Blues", vmin=0, vmax=1
    )
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.annotate(str(count), (column, row), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(NAMES)), NAMES)
    axes.set_yticks(range(len(NAMES)), NAMES)
    axes.set(xlabel="said", ylabel="sent", ylim=(len(NAMES) - 0.5, -0.5))
    return encode_svg(figure)
