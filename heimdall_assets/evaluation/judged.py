"""Judged sessions: what a model said of each, how far off that was, and the figures over them.

Belongs here: a row a session, and what many rows come to; rows of several judgements may be put together. Does not
belong here: which sessions are judged (``pipeline.monitoring``), figures that need a bootstrap (``metrics``).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.evaluation.residuals import compute_chi_square_quantile, compute_residuals
from heimdall_assets.locating.classical import ESTIMATORS
from heimdall_assets.session_set import Predictions, SessionSet

BASELINES = ("tdoa_robust", "bearings", "log_distance")
"""The classical estimators, the first that answers a session is its baseline: arrivals, bearings, levels."""

COVERAGE_LEVEL = 0.90


def judge_sessions(
    predict: Callable[[SessionSet], Predictions], sessions: SessionSet, reference: SessionSet
) -> pd.DataFrame:
    """Return a row for each session: what the model said, the truth, both errors.

    Args:
        predict: sessions to positions.
        sessions: to judge on; without a truth a session has no errors.
        reference: the sessions that the model was fitted on, from which the baseline takes area and path loss.
    """
    said = predict(sessions)
    residuals = compute_residuals(sessions, said)
    baseline, baseline_error_m = _ask_baselines(sessions, reference)
    refused = np.zeros(len(sessions), bool) if said.refused is None else np.asarray(said.refused, bool)
    return pd.DataFrame(
        {
            "session_id": pd.array(sessions.session_id.astype(str), dtype="string"),
            "latitude": said.latitude,
            "longitude": said.longitude,
            "variance_east_m2": said.covariance_m2[:, 0],
            "variance_north_m2": said.covariance_m2[:, 1],
            "covariance_en_m2": said.covariance_m2[:, 2],
            "refused": refused,
            "source_latitude": sessions.source_latitude,
            "source_longitude": sessions.source_longitude,
            "error_margin_m": sessions.error_margin_m,
            "error_m": residuals.error_m,
            "squared_sigmas": np.where(residuals.is_sure, residuals.mahalanobis_squared, np.nan),
            "baseline": baseline,
            "baseline_error_m": baseline_error_m,
        }
    )


def _ask_baselines(sessions: SessionSet, reference: SessionSet) -> tuple[Any, NDArray[np.float64]]:
    """Return which estimator answered each session first, and its error."""
    names = np.full(len(sessions), None, dtype=object)
    error_m = np.full(len(sessions), np.nan)
    for name in BASELINES:
        if name == "bearings" and (sessions.bearing_deg is None or not np.isfinite(sessions.bearing_deg).any()):
            continue
        said = ESTIMATORS[name](sessions, reference)
        answers = np.isfinite(said.latitude) & np.isfinite(said.longitude)
        if said.refused is not None:
            answers &= ~np.asarray(said.refused, bool)
        first = answers & np.array([known is None for known in names], dtype=np.bool_)
        names[first] = name
        error_m[first] = compute_residuals(sessions, said).error_m[first]
    return pd.array(names, dtype="string"), error_m


def summarize_judged(table: pd.DataFrame) -> dict[str, Any]:
    """Return the figures over judged sessions, JSON values, None where undefined.

    ``skill`` is 1 - model / baseline of median errors on the sessions that both answered.

    Examples:
        >>> table = pd.DataFrame({
        ...     "refused": [False, False, True], "error_m": [100.0, 300.0, np.nan],
        ...     "squared_sigmas": [1.0, 9.0, np.nan], "baseline_error_m": [400.0, 400.0, 400.0],
        ... })
        >>> figures = summarize_judged(table)
        >>> figures["median_m"], figures["coverage_90"], figures["skill"], round(figures["refused_share"], 3)
        (200.0, 0.5, 0.5, 0.333)
    """
    error_m = table["error_m"].to_numpy(np.float64)
    other_m = table["baseline_error_m"].to_numpy(np.float64)
    squared = table["squared_sigmas"].to_numpy(np.float64)
    answered, sure = np.isfinite(error_m), np.isfinite(squared)
    both = answered & np.isfinite(other_m)
    covered = squared[sure] <= compute_chi_square_quantile(COVERAGE_LEVEL)
    mine_m, its_m = _quantile(error_m[both], 0.5), _quantile(other_m[both], 0.5)
    return {
        "num_sessions": len(table),
        "num_refused": int(table["refused"].sum()),
        "num_with_error": int(answered.sum()),
        "num_sure": int(sure.sum()),
        "refused_share": float(table["refused"].mean()) if len(table) else None,
        "median_m": _quantile(error_m[answered], 0.5),
        "p90_m": _quantile(error_m[answered], 0.9),
        "coverage_90": float(covered.mean()) if sure.any() else None,
        "baseline_median_m": its_m,
        "skill": 1.0 - mine_m / its_m if mine_m is not None and its_m else None,
    }


def _quantile(values: NDArray[np.float64], level: float) -> float | None:
    return float(np.quantile(values, level)) if values.size else None


def say_figures(figures: Mapping[str, Any]) -> str:
    """Return the figures in a line for people."""

    def say(name: str, unit: str) -> str:
        value = figures[name]
        return "unknown" if value is None else f"{value:,.3g}{unit}" if unit else f"{value:.0%}"

    return (
        f"median error {say('median_m', ' m')} (classical {say('baseline_median_m', ' m')}), 90 % ellipses hold "
        f"{say('coverage_90', '')}, refused {say('refused_share', '')}"
    )
