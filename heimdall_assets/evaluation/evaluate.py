"""Evaluate: a model beside every classical estimator and the physical bound, on the same sessions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.metrics import evaluate_predictions
from heimdall_assets.evaluation.signal_figures import evaluate_signals
from heimdall_assets.locating.bounds import compute_session_bounds
from heimdall_assets.locating.classical import ESTIMATORS
from heimdall_assets.locating.path_loss import PathLoss, fit_level_model
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.specs import EvaluationSpec


@dataclass(frozen=True)
class Evaluation:
    """What a model said of S sessions, what the baselines said, what physics allows, and the figures."""

    metrics: dict[str, Any]
    predictions: Predictions
    baselines: dict[str, Predictions]
    bound_m: NDArray[np.float64]


def evaluate_model(
    predict: Callable[[SessionSet], Predictions],
    sessions: SessionSet,
    reference: SessionSet | None,
    spec: EvaluationSpec,
    predict_signals: Callable[[SessionSet], dict[str, NDArray[Any]] | None] | None = None,
) -> Evaluation:
    """Return the evaluated of ``predict`` on ``sessions``.

    Args:
        predict: sessions to positions.
        sessions: to judge on.
        reference: the sessions the model was fitted on, from which the baselines take their area, path loss and
            station offsets, and the bound the law of levels; None: they take the stations' geometry and stated
            defaults, and the bound is that of the delays alone.
        spec: levels, radii, bootstrap.
        predict_signals: sessions to what the signal heads say; None, or giving None: the model has no such heads.
    """
    predictions = predict(sessions)
    baselines = {name: ESTIMATORS[name](sessions, reference) for name in _list_asked(sessions)}
    path_loss = _find_path_loss(sessions, reference)
    bound_covariance, bound_m = compute_session_bounds(sessions, path_loss)
    train_sites = None if reference is None else set(reference.strata.get("site", np.array([], dtype=str)).tolist())
    metrics = evaluate_predictions(sessions, predictions, baselines, bound_covariance, spec, train_sites)
    metrics["bound_path_loss"] = None if path_loss is None else asdict(path_loss)
    signals = None if predict_signals is None else predict_signals(sessions)
    if signals is not None:
        metrics["signals"] = evaluate_signals(sessions, signals, reference, spec)
    return Evaluation(metrics, predictions, baselines, bound_m)


def _list_asked(sessions: SessionSet) -> list[str]:
    """Return the estimators that are asked: those of bearings where there are some, of both where arrivals are too."""
    directed = sessions.bearing_deg is not None and bool(np.isfinite(sessions.bearing_deg).any())
    timed = bool(np.isfinite(sessions.arrival_s).any())
    of_bearings = {"bearings": directed, "arrivals_and_bearings": directed and timed}
    return [name for name in ESTIMATORS if of_bearings.get(name, True)]


def _find_path_loss(sessions: SessionSet, reference: SessionSet | None) -> PathLoss | None:
    """Return the law that levels of the reference follow; None where it has none, or none are judged."""
    if reference is None or not (np.isfinite(reference.level_db).any() and np.isfinite(sessions.level_db).any()):
        return None
    return fit_level_model(reference).path_loss
