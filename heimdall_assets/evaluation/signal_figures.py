"""How well signals are told: the heads beside classical detection and beside an answer without looking, with intervals.

Belongs here: figures of type, span, onset, end, countdown and SNR, JSON values. Does not belong here: labels
(``signal_labels``), classical answers (``classical_signals``), wording (``signals_table``).
Without looking, one knows the training labels and no recording: the commonest type, the mean span of each frame, and,
as errors are mean absolute ones, the median, which no other constant beats.
Every figure is a function of sums over sessions, so that a bootstrap over sessions is one product with their sums; the
difference of two methods is drawn with the same sessions for both.
Legend of shapes: S sessions, K sums, D draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.classical_signals import detect_signals
from heimdall_assets.evaluation.signal_labels import NO_TYPE, SIGNAL_TYPES, make_signal_labels
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import EvaluationSpec

Floats = NDArray[np.floating[Any]]

CLEAR_SNR_DB = 10.0
"""Sessions whose median receiver hears this SNR in 12.5 kHz, or more, are judged apart as well."""

METHODS = ("model", "classical", "without_looking")


@dataclass(frozen=True)
class Figure:
    """One way to judge a task.

    Attributes:
        name: as it stands in the metrics.
        task: whose label it needs.
        is_error: whether less of it is better.
        compute: sums (D, K) -> figure (D,), NaN where undefined.
        count: answers (S, ...), labels -> sums of each session (S, K), NaN in rows that are not judged.
    """

    name: str
    task: str
    is_error: bool
    compute: Callable[[Floats], Floats]
    count: Callable[[Floats, dict[str, NDArray[Any]]], Floats]


def evaluate_signals(
    sessions: SessionSet, signals: dict[str, Floats], reference: SessionSet | None, spec: EvaluationSpec
) -> dict[str, Any]:
    """Return ``all`` and ``clear`` (``CLEAR_SNR_DB`` and more) -> figure -> its values and intervals, JSON values.

    Each figure has ``num_sessions``, and of each of ``METHODS`` value, low and high (None where undefined);
    ``over_...`` is by how much the model is better than another method, with its interval; ``is_worth`` whether that
    lies above zero for every other method that has an answer.

    Args:
        sessions: judged; they count where they have a label and the model an answer.
        signals: the model's answers, ``tracks.OUTPUTS`` row by row with ``sessions``; NaN: no answer.
        reference: sessions that the model was fitted on; None: nobody can answer without looking.
        spec: number of draws, confidence, seed.
    """
    labels = make_signal_labels(sessions)
    answers = {"model": signals, "classical": detect_signals(sessions)}
    if reference is not None:
        answers["without_looking"] = _answer_blindly(make_signal_labels(reference), len(sessions))
    with np.errstate(invalid="ignore"):
        clear = labels["snr"][:, 0] >= CLEAR_SNR_DB
    found: dict[str, Any] = {"clear_snr_db": CLEAR_SNR_DB}
    for name, chosen in (("all", np.ones(len(sessions), dtype=np.bool_)), ("clear", clear)):
        found[name] = {figure.name: _judge(figure, answers, labels, chosen, spec) for figure in FIGURES}
    stated = [np.nanmedian(values) if np.isfinite(values := sessions.snr_db[sessions.receivers(row)]).any() else np.nan
              for row in range(len(sessions))]  # fmt: skip
    error = np.abs(np.array(stated) - labels["snr"][:, 0])
    found["snr_stated_error_db"] = float(np.nanmean(error)) if np.isfinite(error).any() else None
    return found


def _judge(
    figure: Figure,
    answers: dict[str, dict[str, Floats]],
    labels: dict[str, NDArray[Any]],
    chosen: NDArray[np.bool_],
    spec: EvaluationSpec,
) -> dict[str, Any]:
    sums = {name: figure.count(answer[_OUTPUT[figure.task]], labels) for name, answer in answers.items()}
    judged = chosen & np.isfinite(sums["model"]).all(axis=1)
    found: dict[str, Any] = {"num_sessions": int(judged.sum()), "is_error": figure.is_error}
    rng, num = np.random.default_rng(spec.seed), int(judged.sum())
    draws = rng.multinomial(num, np.full(num, 1.0 / num), spec.num_bootstrap) if num else np.zeros((0, 0))
    values, spread = {}, {}
    for name in METHODS:
        mine = sums[name][judged] if name in sums else np.full((num, 1), np.nan)
        known = num > 0 and bool(np.isfinite(mine).all())
        values[name] = float(figure.compute(mine.sum(axis=0, keepdims=True))[0]) if known else np.nan
        spread[name] = figure.compute(draws @ mine) if known else np.full(1, np.nan)
        found[name] = _describe(values[name], spread[name], spec)
    sign = -1.0 if figure.is_error else 1.0
    worth = []
    for name in METHODS[1:]:
        gain = _describe(sign * (values["model"] - values[name]), sign * (spread["model"] - spread[name]), spec)
        found[f"over_{name}"] = gain
        worth.append(gain)
    lows = [gain["low"] for gain in worth if gain["low"] is not None]
    found["is_worth"] = min(lows) > 0.0 if lows else None
    return found


def _describe(value: float, spread: Floats, spec: EvaluationSpec) -> dict[str, float | None]:
    """Return value, low and high of the interval; draws in which a figure is undefined are left out."""
    drawn, tail = spread[np.isfinite(spread)], 0.5 * (1.0 - spec.confidence)
    if not np.isfinite(value) or not len(drawn):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return {"value": value, "low": float(low), "high": float(high)}


def count_type(probability: Floats, labels: dict[str, NDArray[Any]]) -> Floats:
    """Return of each session, type by type, whether it is one and whether that was said, (S, 6)."""
    kind = labels["type"]
    judged = np.isfinite(probability).all(axis=1) & (kind != NO_TYPE)
    said = np.where(judged, np.nan_to_num(probability).argmax(axis=1), NO_TYPE)
    each = np.arange(len(SIGNAL_TYPES))
    is_one = kind[:, None] == each
    sums = np.concatenate([is_one, is_one & (said[:, None] == each)], axis=1).astype(np.float64)
    sums[~judged] = np.nan
    return sums


def count_span(probability: Floats, labels: dict[str, NDArray[Any]]) -> Floats:
    """Return of each session frames rightly called transmission at 0.5, called so, and that are, (S, 3)."""
    covered = labels["span"]
    judged = np.isfinite(covered).all(axis=1) & np.isfinite(probability).all(axis=1)
    with np.errstate(invalid="ignore"):
        said, true = probability > 0.5, covered > 0.5
    sums = np.stack([(said & true).sum(axis=1), said.sum(axis=1), true.sum(axis=1)], axis=1).astype(np.float64)
    sums[~judged] = np.nan
    return sums


def count_error(said: Floats, true: Floats) -> Floats:
    """Return the sum of absolute errors and the number of labels of each session, (S, 2)."""
    known = np.isfinite(true)
    judged = known.any(axis=1) & np.isfinite(np.where(known, said, 0.0)).all(axis=1)
    error = np.where(known, np.abs(said - np.where(known, true, 0.0)), 0.0).sum(axis=1)
    sums = np.stack([error, known.sum(axis=1)], axis=1).astype(np.float64)
    sums[~judged] = np.nan
    return sums


def _count_edge(column: int) -> Callable[[Floats, dict[str, NDArray[Any]]], Floats]:
    """Return how one edge is counted where it lies within the recording; at its rim there is nothing to find."""

    def count(said: Floats, labels: dict[str, NDArray[Any]]) -> Floats:
        edge = labels["edges"][:, [column]]
        with np.errstate(invalid="ignore"):
            inside = (edge > 0.0) if column == 0 else (edge < 1.0)
        return count_error(said[:, [column]], np.where(inside, edge, np.nan))

    return count


def _count_edges(said: Floats, labels: dict[str, NDArray[Any]]) -> Floats:
    return count_error(said, labels["edges"])


def _divide(over: Any, under: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(under > 0, over / under, np.nan)


def _mean_recall(sums: Floats) -> Floats:
    recall = _divide(sums[:, 3:], sums[:, :3])
    known = np.isfinite(recall)
    return _divide(np.where(known, recall, 0.0).sum(axis=1), known.sum(axis=1))


def _recall_of(number: int) -> Callable[[Floats], Floats]:
    return lambda sums: _divide(sums[:, 3 + number], sums[:, number])


def _mean_error(sums: Floats) -> Floats:
    return _divide(sums[:, 0], sums[:, 1])


_OUTPUT = {
    "type": "signal_type",
    "span": "signal_span",
    "edges": "signal_edges",
    "countdown": "signal_countdown",
    "snr": "signal_snr_db",
}

FIGURES = (
    Figure(
        "accuracy", "type", False, lambda sums: _divide(sums[:, 3:].sum(axis=1), sums[:, :3].sum(axis=1)), count_type
    ),
    Figure("mean_recall", "type", False, _mean_recall, count_type),
    *(
        Figure(f"recall_{kind.value}", "type", False, _recall_of(number), count_type)
        for number, kind in enumerate(SIGNAL_TYPES)
    ),
    Figure("span_f1", "span", False, lambda sums: _divide(2.0 * sums[:, 0], sums[:, 1] + sums[:, 2]), count_span),
    Figure("span_precision", "span", False, lambda sums: _divide(sums[:, 0], sums[:, 1]), count_span),
    Figure("span_recall", "span", False, lambda sums: _divide(sums[:, 0], sums[:, 2]), count_span),
    Figure("edges_error", "edges", True, _mean_error, _count_edges),
    Figure("onset_error", "edges", True, _mean_error, _count_edge(0)),
    Figure("end_error", "edges", True, _mean_error, _count_edge(1)),
    Figure(
        "countdown_error", "countdown", True, _mean_error, lambda said, labels: count_error(said, labels["countdown"])
    ),
    Figure("snr_error_db", "snr", True, _mean_error, lambda said, labels: count_error(said, labels["snr"])),
)
"""In the order in which they are told; errors of edges are shares of the recording, of the countdown frames."""


def _answer_blindly(known: dict[str, NDArray[Any]], num: int) -> dict[str, Floats]:
    """Return for ``num`` sessions the answer that training labels ``known`` alone allow, NaN where there are none."""
    kind = known["type"][known["type"] != NO_TYPE]
    commonest = np.full(len(SIGNAL_TYPES), np.nan)
    if len(kind):
        commonest = np.eye(len(SIGNAL_TYPES))[np.bincount(kind, minlength=len(SIGNAL_TYPES)).argmax()]
    rows = {
        "signal_type": commonest,
        "signal_span": _reduce(known["span"], np.mean),
        "signal_edges": _reduce(known["edges"], np.median),
        "signal_countdown": _reduce(known["countdown"], np.median),
        "signal_snr_db": _reduce(known["snr"], np.median),
    }
    return {name: np.tile(row, (num, 1)) for name, row in rows.items()}


def _reduce(values: Floats, reduce: Callable[[Any], Any]) -> Floats:
    """Return ``reduce`` of each column's known values; where a column has none, the smallest of the others, or NaN."""
    found = np.array(
        [reduce(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan for column in values.T]
    )
    known = found[np.isfinite(found)]
    return np.where(np.isfinite(found), found, known.min() if len(known) else np.nan)
