"""Metrics: how far a model lies from the truth, from the baselines and from what physics allows, as JSON.

Belongs here: every figure of a model's table. Does not belong here: fitting anything (``calibration``), drawing
(``figures.diagnostics``), wording (``model_card``).
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.comparison import compare_paired
from heimdall_assets.evaluation.model_card import render_metrics_table
from heimdall_assets.evaluation.residuals import Residuals, compute_chi_square_quantile, compute_residuals
from heimdall_assets.evaluation.strata import assign_strata, list_groups
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.specs import EvaluationSpec

__all__ = ["compare_paired", "compute_metrics", "evaluate_predictions", "render_metrics_table", "summarise_bound"]

NUM_ENCE_BINS = 10
_BOUND_DRAWS = 64


def evaluate_predictions(
    sessions: SessionSet,
    predictions: Predictions,
    baselines: dict[str, Predictions],
    bound_m: NDArray[np.float64] | None,
    spec: EvaluationSpec,
    train_sites: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return every figure of one model on one set of sessions, JSON values only, None where undefined.

    Args:
        sessions: judged sessions; those without truth are counted and left out.
        predictions: the model's, row by row with ``sessions``.
        baselines: name -> predictions of the same sessions.
        bound_m: float64, what physics allows: (S, 3) Cramer-Rao covariance (var east, var north, cov) in m^2, or (S,)
            its root mean square distance in m; NaN where a session has none; None: unknown.
        spec: levels, radii, bootstrap.
        train_sites: sites that the model was trained on, for seen / unseen.

    Returns:
        The keys of ``compute_metrics`` for the model at the top; ``baselines``: name -> the same keys and ``skill``,
        ``skill_low``, ``skill_high`` (1 - model / baseline of medians where both answer); ``worse_than``: baselines
        whose median the model does not reach; ``best_baseline``; ``bound`` and its ``ratio`` as
        ``median_error_over_bound``; ``strata``; ``label_error_m``.

    Raises:
        InvalidInput: no session has a truth, or ``compute_residuals`` refuses the predictions.
    """
    residuals = compute_residuals(sessions, predictions)
    if not residuals.has_truth.any():
        raise InvalidInput(
            f"evaluation: found no truth in {say_count(len(sessions), 'session')}, expected at least one"
        )
    others = {name: compute_residuals(sessions, other) for name, other in sorted(baselines.items())}
    groups = sessions.strata.get("site")

    metrics = compute_metrics(residuals, spec)
    metrics["method"] = predictions.method
    metrics["num_without_truth"] = int((~residuals.has_truth).sum())
    metrics["label_error_m"] = _median(sessions.error_margin_m[residuals.has_truth])
    metrics["bound"] = None if bound_m is None else summarise_bound(bound_m, residuals, spec, groups)
    metrics["median_error_over_bound"] = None if metrics["bound"] is None else metrics["bound"]["ratio"]
    metrics["baselines"] = {
        name: compute_metrics(other, spec) | _compute_skill(residuals, other, groups, spec)
        for name, other in others.items()
    }
    metrics["worse_than"] = [
        name for name, row in metrics["baselines"].items() if row["skill"] is not None and row["skill"] < 0
    ]
    ranked = sorted(
        (row["median_m"], name) for name, row in metrics["baselines"].items() if row["median_m"] is not None
    )
    metrics["best_baseline"] = ranked[0][1] if ranked else None
    best = others[metrics["best_baseline"]] if ranked else None
    metrics["strata"] = {
        name: _tabulate(labels, residuals, best, bound_m, spec)
        for name, labels in assign_strata(sessions, train_sites).items()
    }
    return metrics


def compute_metrics(residuals: Residuals, spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of one method, JSON values, None where undefined.

    Percentiles are over answered sessions; ``accuracy`` is the share of all sessions with truth, refused ones missed;
    coverage, likelihood and calibration are over sessions with a stated covariance, the label's error added to it.

    Examples:
        >>> from heimdall_assets.evaluation.residuals import compute_residuals
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> sessions = simulate_observations(SimulationSpec(), np.arange(4))
        >>> exact = Predictions(
        ...     sessions.source_latitude, sessions.source_longitude, np.full((4, 3), [1e4, 1e4, 0.0]), "oracle"
        ... )
        >>> figures = compute_metrics(compute_residuals(sessions, exact), EvaluationSpec())
        >>> figures["median_m"], figures["accuracy"]["30"], figures["coverage_90"]
        (0.0, 1.0, 1.0)
    """
    error = residuals.error_m[residuals.answered]
    metrics: dict[str, Any] = {
        "num_sessions": int(residuals.has_truth.sum()),
        "num_refused": int((residuals.has_truth & ~residuals.answered).sum()),
        "num_without_uncertainty": int((residuals.answered & ~residuals.is_sure).sum()),
        "mean_m": float(error.mean()) if error.size else None,
        "rmse_m": float(np.sqrt(np.mean(error**2))) if error.size else None,
        "max_m": float(error.max()) if error.size else None,
    }
    for name, level in {"median_m": 0.5, "p68_m": 0.68, "p90_m": 0.9, "p95_m": 0.95}.items():
        metrics[name] = float(np.quantile(error, level)) if error.size else None
    metrics["accuracy"] = {
        f"{radius:g}": float((error <= radius).sum() / residuals.has_truth.sum()) for radius in spec.accuracy_radii_m
    }
    return metrics | _compute_calibration(residuals, spec)


def _compute_calibration(residuals: Residuals, spec: EvaluationSpec) -> dict[str, Any]:
    """Return how honest the stated covariances are."""
    sure = residuals.is_sure
    coverage = [f"coverage_{100 * level:g}" for level in spec.coverage_levels]
    names = [*coverage, "nll", "ence", "mean_squared_z", "sharpness_m"]
    names += ["calibration_error_east_m", "calibration_error_north_m"]
    if not sure.any():
        return dict.fromkeys(names)
    squared = residuals.mahalanobis_squared[sure]
    east, north = residuals.east_m[sure], residuals.north_m[sure]
    var_east, var_north = residuals.variance_east_m2[sure], residuals.variance_north_m2[sure]
    nll = 0.5 * (squared + np.log(residuals.determinant_m4[sure])) + np.log(2.0 * np.pi)
    values = [float((squared <= compute_chi_square_quantile(level)).mean()) for level in spec.coverage_levels]
    values += [
        float(nll.mean()),
        _compute_ence(np.concatenate([east, north]), np.concatenate([var_east, var_north])),
        float(squared.mean() / 2.0),
        float(np.median(np.sqrt(0.5 * (residuals.stated_m2[sure, 0] + residuals.stated_m2[sure, 1])))),
        float(abs(np.sqrt(np.mean(east**2)) - np.sqrt(var_east.mean()))),
        float(abs(np.sqrt(np.mean(north**2)) - np.sqrt(var_north.mean()))),
    ]
    return dict(zip(names, values, strict=True))


def _compute_ence(error: NDArray[np.float64], variance: NDArray[np.float64]) -> float:
    """Return the expected normalised calibration error over bins of equal count by stated variance.

    Source: Levi et al., Evaluating and Calibrating Uncertainty Prediction in Regression Tasks, arXiv:1905.11659,
    equation 8.
    """
    order = np.argsort(variance, kind="stable")
    bins = np.array_split(order, min(NUM_ENCE_BINS, len(order)))
    stated = np.array([np.sqrt(variance[rows].mean()) for rows in bins])
    found = np.array([np.sqrt(np.mean(error[rows] ** 2)) for rows in bins])
    return float(np.mean(np.abs(stated - found) / stated))


def _compute_skill(
    model: Residuals, baseline: Residuals, groups: NDArray[Any] | None, spec: EvaluationSpec
) -> dict[str, Any]:
    both = model.answered & baseline.answered
    if not both.any():
        return {"num_compared": 0, "skill": None, "skill_low": None, "skill_high": None}
    found = compare_paired(
        model.error_m[both], baseline.error_m[both], spec, None if groups is None else np.asarray(groups)[both]
    )
    ratio, low, high = found["ratio"], found["ratio_low"], found["ratio_high"]
    return {
        "num_compared": found["num_sessions"],
        "skill": None if ratio is None else 1.0 - ratio,
        "skill_low": None if high is None else 1.0 - high,
        "skill_high": None if low is None else 1.0 - low,
    }


def summarise_bound(
    bound_m: NDArray[np.float64], residuals: Residuals, spec: EvaluationSpec, groups: NDArray[Any] | None = None
) -> dict[str, Any]:
    """Return what an efficient method would score on the answered sessions whose bound is known, and the ratio to it.

    A method that reaches the bound has errors spread as a Gaussian of the Cramer-Rao covariance, so its median and
    p90 follow from draws of it (a covariance), or of a circular one of the same root mean square distance (metres).

    Args:
        bound_m: float64 (S,) metres or (S, 3) covariances in m^2; NaN or infinite: unknown.
        residuals: of the method, S sessions.
        spec: radii, seed, confidence.
        groups: (S,) labels of sessions that belong together (one transmitting site); None: each stands for itself.

    Returns:
        ``num_sessions``, ``median_m``, ``p90_m``, ``rmse_m`` of the bound, ``accuracy`` at the radii, ``ratio`` (the
        method's median, ``method_median_m``, over the bound's) and ``session_ratio`` (median over sessions of error
        over the session's root mean square bound; 0.83 where a circular bound is reached); ``median_low_m``: what the
        median of a method that reaches the bound falls below by chance no oftener than ``spec.confidence`` leaves
        open, so that a method below it has used what the bound does not know.

    Raises:
        InvalidInput: not (S,) metres or (S, 3) covariances.
    """
    bound = np.asarray(bound_m, dtype=np.float64)
    num_sessions = len(residuals.error_m)
    if bound.shape not in {(num_sessions,), (num_sessions, 3)}:
        raise InvalidInput(f"bound: found shape {bound.shape}, expected ({num_sessions},) or ({num_sessions}, 3)")
    rms = bound if bound.ndim == 1 else np.sqrt(bound[:, 0] + bound[:, 1])
    known = residuals.answered & np.isfinite(rms) & (rms > 0)
    if not known.any():
        names = ["median_m", "p90_m", "rmse_m", "accuracy", "ratio", "session_ratio", "method_median_m", "median_low_m"]
        return {"num_sessions": 0, **dict.fromkeys(names)}
    covariance = np.stack([0.5 * rms**2, 0.5 * rms**2, np.zeros_like(rms)], axis=1) if bound.ndim == 1 else bound
    drawn = _draw_distances(covariance[known], spec.seed)
    error, median = residuals.error_m[known], float(np.median(drawn))
    num_groups = int(known.sum()) if groups is None else len(np.unique(np.asarray(groups)[known]))
    return {
        "num_sessions": int(known.sum()),
        "median_m": median,
        "p90_m": float(np.quantile(drawn, 0.9)),
        "rmse_m": float(np.sqrt(np.mean(rms[known] ** 2))),
        "accuracy": {f"{radius:g}": float((drawn <= radius).mean()) for radius in spec.accuracy_radii_m},
        "ratio": float(np.median(error) / median),
        "session_ratio": float(np.median(error / rms[known])),
        "method_median_m": float(np.median(error)),
        "median_low_m": float(np.quantile(drawn, _find_low_level(num_groups, spec.confidence))),
    }


def _find_low_level(num_groups: int, confidence: float) -> float:
    """Return the level of the quantile below which a median of so many independent draws falls by chance.

    Source: the count of draws below a distribution's median is binomial with p = 1/2, so that the median lies between
    its quantiles 1/2 -+ z / (2 sqrt n) (Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2).
    """
    return float(max(0.5 - ndtri(0.5 + 0.5 * confidence) / (2.0 * np.sqrt(num_groups)), 0.0))


def _draw_distances(covariance_m2: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return lengths of Gaussian errors, float64 (S * draws,), metres."""
    generator = np.random.default_rng(seed)
    first, second = generator.standard_normal((2, len(covariance_m2), _BOUND_DRAWS))
    spread_east = np.sqrt(covariance_m2[:, 0])
    slope = covariance_m2[:, 2] / spread_east
    spread_north = np.sqrt(np.maximum(covariance_m2[:, 1] - slope**2, 0.0))
    east = spread_east[:, None] * first
    north = slope[:, None] * first + spread_north[:, None] * second
    distance: NDArray[np.float64] = np.hypot(east, north)
    return distance.ravel()


def _tabulate(
    labels: NDArray[np.str_],
    residuals: Residuals,
    best: Residuals | None,
    bound_m: NDArray[np.float64] | None,
    spec: EvaluationSpec,
) -> dict[str, dict[str, Any]]:
    """Return group -> its count and its main figures."""
    table: dict[str, dict[str, Any]] = {}
    for label in list_groups(labels[residuals.has_truth]):
        rows = residuals.has_truth & (labels == label)
        error = residuals.error_m[rows & residuals.answered]
        sure = rows & residuals.is_sure
        squared = residuals.mahalanobis_squared[sure]
        row: dict[str, Any] = {
            "num_sessions": int(rows.sum()),
            "num_refused": int((rows & ~residuals.answered).sum()),
            "median_m": _median(error),
            "p90_m": float(np.quantile(error, 0.9)) if error.size else None,
            "coverage_90": float((squared <= compute_chi_square_quantile(0.9)).mean()) if squared.size else None,
            "mean_squared_z": float(squared.mean() / 2.0) if squared.size else None,
        }
        if best is not None:
            row["best_baseline_median_m"] = _median(best.error_m[rows & best.answered])
        if bound_m is not None:
            bound = np.asarray(bound_m, np.float64)
            rms = bound if bound.ndim == 1 else np.sqrt(bound[:, 0] + bound[:, 1])
            known = rows & residuals.answered & np.isfinite(rms) & (rms > 0)
            row["session_ratio"] = _median(residuals.error_m[known] / rms[known])
        table[label] = row
    return table


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if values.size else None
