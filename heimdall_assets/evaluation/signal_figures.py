"""How well the signal tasks are done, each figure beside what one would score without looking.

Belongs here: figures of type, span, edges, countdown and SNR, JSON values. Does not belong here: labels
(``signal_labels``), wording (``model_card``).
The baselines know the training labels and no recording: the commonest type, the mean span of each frame, and, as errors
are mean absolute ones, the median, which no other constant beats.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.signal_labels import NO_TYPE, SIGNAL_TYPES, make_signal_labels
from heimdall_assets.session_set import SessionSet

Floats = NDArray[np.floating[Any]]


def evaluate_signals(
    sessions: SessionSet, signals: dict[str, Floats], reference: SessionSet | None = None
) -> dict[str, dict[str, Any]]:
    """Return task -> its figures and the baseline's (``baseline_...``, None where there is none), JSON values.

    Sessions count where they have a label and the model an answer.

    Args:
        sessions: judged.
        signals: ``signal_type`` (S, 3), ``signal_span`` (S, F), ``signal_edges`` (S, 2), ``signal_countdown`` (S, F),
            ``signal_snr_db`` (S, 1), row by row with ``sessions``; NaN: no answer.
        reference: sessions that the model was fitted on, for the baselines; None: there are none.
    """
    labels = make_signal_labels(sessions)
    known = None if reference is None else make_signal_labels(reference)
    edges, constant = labels["edges"], None if known is None else _compute_medians(known)
    inside = np.stack([edges[:, 0] > 0.0, edges[:, 1] < 1.0], axis=1)
    found = {
        "type": _evaluate_types(signals["signal_type"], labels["type"], None if known is None else known["type"]),
        "span": _evaluate_spans(signals["signal_span"], labels["span"], None if known is None else known["span"]),
    }
    for column, name in enumerate(("onset", "end")):
        guess = None if constant is None else constant["edges"][column]
        said, true = signals["signal_edges"][:, column], edges[:, column]
        found[name] = _evaluate_numbers(said, true, guess)
        within = _evaluate_numbers(said, np.where(inside[:, column], true, np.nan), guess)
        found[name] |= {f"inside_{key}": value for key, value in within.items()}
    for name, output in (("countdown", "signal_countdown"), ("snr", "signal_snr_db")):
        found[name] = _evaluate_numbers(signals[output], labels[name], None if constant is None else constant[name])
    reading = np.array([_compute_median(sessions.snr_db[sessions.receivers(row)]) for row in range(len(sessions))])
    stated = _evaluate_numbers(reading.reshape(len(sessions), 1), labels["snr"], None)
    found["snr"]["receivers_own_mean_absolute_error"] = stated["mean_absolute_error"]
    return found


def evaluate_spans(probability: Floats, covered: Floats) -> dict[str, Any]:
    """Return precision, recall and F1 of frames at 0.5, and mean probability inside minus outside the transmission.

    Args:
        probability: (S, F), predicted.
        covered: (S, F), share of each frame that the transmission covers; rows where either has NaN are left out.

    Examples:
        Half of what is called transmission is one, and all of the transmission is called so:

        >>> found = evaluate_spans(np.array([[0.9, 0.9, 0.1, 0.1]]), np.array([[1.0, 0.0, 0.0, 0.0]]))
        >>> found["precision"], found["recall"], round(found["f1"], 3)
        (0.5, 1.0, 0.667)
    """
    known = np.isfinite(covered).all(axis=1) & np.isfinite(probability).all(axis=1)
    said, true = probability[known] > 0.5, covered[known] > 0.5
    hits, claimed, wanted = float((said & true).sum()), float(said.sum()), float(true.sum())
    inside, outside = probability[known][true], probability[known][~true]
    separable = bool(len(inside)) and bool(len(outside))
    return {
        "num_sessions": int(known.sum()),
        "precision": hits / claimed if claimed else None,
        "recall": hits / wanted if wanted else None,
        "f1": 2.0 * hits / (claimed + wanted) if claimed + wanted else None,
        "separation": float(inside.mean() - outside.mean()) if separable else None,
    }


def _evaluate_spans(probability: Floats, covered: Floats, reference: Floats | None) -> dict[str, Any]:
    found = evaluate_spans(probability, covered)
    names = [name for name in found if name != "num_sessions"]
    if reference is None or not np.isfinite(reference).any():
        return found | {f"baseline_{name}": None for name in names}
    answered = np.isfinite(probability).all(axis=1, keepdims=True)
    mean = np.where(answered, np.nanmean(reference, axis=0), np.nan)
    baseline = evaluate_spans(mean, covered)
    return found | {f"baseline_{name}": baseline[name] for name in names}


def _evaluate_types(
    probability: Floats, kind: NDArray[np.integer[Any]], reference: NDArray[np.integer[Any]] | None
) -> dict[str, Any]:
    """Return accuracy, its mean over the types that occur, and the recall of each, beside the commonest type's."""
    judged = np.logical_and(np.isfinite(probability).all(axis=1), kind != NO_TYPE)
    said, true = probability[judged].argmax(axis=1), kind[judged]
    named = {number: SIGNAL_TYPES[number].value for number in np.unique(true)}
    recalls = {name: float((said[true == number] == number).mean()) for number, name in named.items()}
    found: dict[str, Any] = {
        "num_sessions": int(judged.sum()),
        "accuracy": float((said == true).mean()) if len(true) else None,
        "balanced_accuracy": float(np.mean(list(recalls.values()))) if recalls else None,
        "recall": recalls,
        "baseline_accuracy": None,
        "baseline_balanced_accuracy": None,
    }
    labelled = np.empty(0, dtype=np.int64) if reference is None else reference[reference != NO_TYPE]
    if len(labelled) and len(true):
        commonest = np.bincount(labelled).argmax()
        found["baseline_accuracy"] = float((true == commonest).mean())
        found["baseline_balanced_accuracy"] = float(commonest in named) / len(named)
    return found


def _evaluate_numbers(said: Floats, true: Floats, guess: Any) -> dict[str, Any]:
    """Return the mean absolute error over what is labelled and answered, and that of the constant ``guess``."""
    judged = np.isfinite(said) & np.isfinite(true)
    rows = judged if judged.ndim == 1 else judged.any(axis=1)
    found: dict[str, Any] = {"num_sessions": int(rows.sum()), "mean_absolute_error": None}
    found["baseline_mean_absolute_error"] = None
    if not judged.any():
        return found
    found["mean_absolute_error"] = float(np.abs(said - true)[judged].mean())
    if guess is not None:
        error = np.abs(np.broadcast_to(guess, true.shape) - true)[judged]
        found["baseline_mean_absolute_error"] = float(error.mean()) if np.isfinite(error).all() else None
    return found


def _compute_medians(labels: dict[str, NDArray[Any]]) -> dict[str, Floats]:
    """Return the median of each column of the numeric labels; the smallest where no session has one, or NaN."""
    medians = {}
    for name in ("edges", "countdown", "snr"):
        found = np.array([_compute_median(column) for column in labels[name].T])
        known = found[np.isfinite(found)]
        medians[name] = np.where(np.isfinite(found), found, known.min() if len(known) else np.nan)
    return medians


def _compute_median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
