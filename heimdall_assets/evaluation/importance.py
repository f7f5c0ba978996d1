"""Importance of inputs: by how much a model errs more when one kind of input comes from another session.

Belongs here: exchanging inputs between sessions, the errors before and after, their picture. Does not belong here:
which sessions are asked (``pipeline.experiments``). After Breiman (2001), Random Forests, section 10, with sessions in
place of rows: what a session's receivers saw stays together, so that an exchanged input is one that might have been.

Sessions exchange with others of as many receivers (and, for correlations, as many pairs); one that has no such other
keeps its own, and is no part of the figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.drawing import COLOURS, WIDTH_IN, encode_svg, new_figure
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.session_set import PairSet, Predictions, SessionSet
from heimdall_assets.specs import ModelSpec

GROUPS = {
    "levels": ("level_db", "snr_db"),
    "arrivals": ("arrival_s", "arrival_sigma_s", "coherence"),
    "spectrograms": ("feature_row",),
    "correlations": ("coherence", "curvature", "lag_step_s", "correlation"),
    "bearings": ("bearing_deg", "bearing_sigma_deg"),
}
"""Kind of input -> its columns, of receivers; those of ``correlations`` are of pairs."""

NUM_EXCHANGES = 2
"""Of each kind, whose errors are taken together."""

Columns = TypeVar("Columns", SessionSet, PairSet)


@dataclass(frozen=True)
class Exchange:
    """Which session takes its inputs from which: int64 (E,) each, no session from itself."""

    to: NDArray[np.int64]
    source: NDArray[np.int64]


def list_read(model: ModelSpec) -> list[str]:
    """Return the kinds of input that a model of this architecture reads; another's exchange would change nothing."""
    if model.kind == "single_receiver":
        return ["spectrograms"]
    read = {"spectrograms": model.use_spectrograms, "correlations": model.use_correlations}
    return [name for name in GROUPS if read.get(name, True)]


def compute_importance(
    predict: Callable[[SessionSet], Predictions], sessions: SessionSet, names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return of each kind of input that is there: median errors with and without exchange, their difference, counts.

    It costs ``NUM_EXCHANGES`` predictions of all sessions for each kind, and one more.

    Args:
        predict: sessions to positions.
        sessions: to judge on, with truth; a hundred are enough.
        names: of ``GROUPS``, those to exchange.
        seed: of the exchanges: the same one, the same figures.
    """
    before = compute_residuals(sessions, predict(sessions)).error_m
    found = {}
    for name in names:
        if not _is_there(sessions, name):
            continue
        rng = np.random.default_rng([seed, *name.encode()])
        own, others, num_refused = [], [], 0
        for _ in range(NUM_EXCHANGES):
            exchange = draw_exchange(sessions, name, rng)
            after = compute_residuals(sessions, predict(exchange_inputs(sessions, name, exchange))).error_m
            own.append(before[exchange.to])
            others.append(after[exchange.to])
            num_refused += int((np.isfinite(own[-1]) & ~np.isfinite(others[-1])).sum())
        found[name] = _describe(np.concatenate(own), np.concatenate(others), num_refused)
    return found


def _describe(own: NDArray[np.float64], others: NDArray[np.float64], num_refused: int) -> dict[str, Any]:
    both = np.isfinite(own) & np.isfinite(others)
    start, end = (float(np.median(values[both])) if both.any() else None for values in (own, others))
    return {
        "num_exchanged": len(own) // NUM_EXCHANGES,
        "num_refused": num_refused,
        "median_m": start,
        "exchanged_median_m": end,
        "increase_m": None if start is None or end is None else end - start,
    }


def draw_exchange(sessions: SessionSet, name: str, rng: np.random.Generator) -> Exchange:
    """Return an exchange among sessions of as many receivers, drawn anew: one random circle through each such group."""
    sizes = sessions.num_receivers[:, None]
    if name == "correlations" and sessions.pairs is not None:
        sizes = np.concatenate([sizes, sessions.pairs.num_pairs[:, None]], axis=1)
    to, source = [], []
    _, group = np.unique(sizes, axis=0, return_inverse=True)
    for number in range(group.max(initial=-1) + 1):
        members = rng.permutation(np.flatnonzero(group.reshape(-1) == number))
        if len(members) > 1:
            to.append(members)
            source.append(np.roll(members, 1))
    return Exchange(_join(to), _join(source))


def _join(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def exchange_inputs(sessions: SessionSet, name: str, exchange: Exchange) -> SessionSet:
    """Return the sessions with one kind of input taken from others."""
    if name == "correlations":
        pairs = sessions.pairs
        return sessions if pairs is None else replace(sessions, pairs=_exchange(pairs, pairs.offsets, name, exchange))
    return _exchange(sessions, sessions.offsets, name, exchange)


def _exchange(columns: Columns, offsets: NDArray[np.int64], name: str, exchange: Exchange) -> Columns:
    rows_to, rows_from = _list_rows(offsets, exchange.to), _list_rows(offsets, exchange.source)
    taken = {}
    for column in GROUPS[name]:
        values = getattr(columns, column)
        if values is not None:
            taken[column] = values.copy()
            taken[column][rows_to] = values[rows_from]
    return replace(columns, **taken)


def _list_rows(offsets: NDArray[np.int64], sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    return _join([np.arange(offsets[session], offsets[session + 1]) for session in sessions])


def _is_there(sessions: SessionSet, name: str) -> bool:
    if name == "spectrograms":
        return bool((sessions.feature_row >= 0).any())
    if name == "correlations":
        return sessions.pairs is not None and len(sessions.pairs.first) > 0
    values = getattr(sessions, GROUPS[name][0])
    return values is not None and bool(np.isfinite(values).any())


def plot_importance(importance: dict[str, Any]) -> bytes:
    """Return the median error with each kind of input exchanged, beside the one without, as SVG."""
    figure = new_figure(WIDTH_IN, 0.9 + 0.4 * max(len(importance), 1))
    axes = figure.add_subplot()
    names = [name for name, row in importance.items() if row["increase_m"] is not None]
    for place, name in enumerate(names):
        row = importance[name]
        axes.plot([row["median_m"], row["exchanged_median_m"]], [place, place], "-", color=COLOURS[0], linewidth=2.0)
        axes.plot([row["median_m"]], [place], "|", color="black", markersize=12)
        axes.plot([row["exchanged_median_m"]], [place], "o", color=COLOURS[0], markersize=6)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="median error (m); bar: as it is, dot: from another session", ylim=(len(names) - 0.5, -0.5))
    axes.grid(True, axis="x", alpha=0.3)
    return encode_svg(figure)
