"""Errors in units of their own covariance, and how much larger a covariance must be to hold them."""

import math

import numpy as np

from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame

SCALE_PROBABILITY = 0.90
"""The ellipse that is made to hold what it promises: the one that is shown."""

MIN_SQUARES = 20
"""Errors that a scale is learned from; the 90 % quantile of fewer is their maximum."""


def compute_mahalanobis_square(sessions: SessionSet, predictions: Predictions) -> FloatArray:
    """Return each session's squared error in units of its own covariance, float64 (S,); NaN where either is missing.

    Examples:
        An answer two sigmas north of the truth:

        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> sessions = simulate_observations(SimulationSpec(), np.arange(1))
        >>> north, _, _ = LocalFrame(sessions.source_latitude, sessions.source_longitude).to_geodetic(0.0, 200.0)
        >>> answer = Predictions(north, sessions.source_longitude, np.array([[1e4, 1e4, 0.0]]), "shifted")
        >>> compute_mahalanobis_square(sessions, answer).round(3).tolist()
        [4.0]
    """
    known = np.isfinite(predictions.latitude) & np.isfinite(predictions.longitude)
    frame = LocalFrame(np.where(known, predictions.latitude, 0.0), np.where(known, predictions.longitude, 0.0))
    east, north, _ = frame.to_local(sessions.source_latitude, sessions.source_longitude)
    see, snn, sen = np.where(known, predictions.covariance_m2.T, np.array([[1.0], [1.0], [0.0]]))
    square = (snn * east**2 - 2.0 * sen * east * north + see * north**2) / (see * snn - sen**2)
    return np.where(known, square, np.nan)


def learn_scale(square: FloatArray) -> float:
    """Return what covariances must be multiplied by so that 90 % of the errors lie within the 90 % ellipse, at least 1.

    Args:
        square: float64 (S,), squared errors in units of their covariance; NaN ones are left out. Fewer than
            ``MIN_SQUARES`` of them teach nothing: 1.

    Examples:
        Errors twice as large as stated, so four times in the square:

        >>> honest = -2.0 * np.log1p(-(np.arange(1000) + 0.5) / 1000.0)  # quantiles of chi-square, 2 degrees of freedom
        >>> round(learn_scale(honest), 1), round(learn_scale(4.0 * honest), 1), learn_scale(0.25 * honest)
        (1.0, 4.0, 1.0)
    """
    square = square[np.isfinite(square)]
    if len(square) < MIN_SQUARES:
        return 1.0
    return max(float(np.quantile(square, SCALE_PROBABILITY)) / (-2.0 * math.log1p(-SCALE_PROBABILITY)), 1.0)
