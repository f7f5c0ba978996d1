"""Residuals: how far each answer lies from the truth, and how far it said it would.

Belongs here: what evaluation, calibration and plots share about one set of predictions beside its truth.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import LocalFrame


@dataclass(frozen=True)
class Residuals:
    """Errors of S sessions, row by row with the ``SessionSet``; NaN where there is no answer or no truth.

    Attributes:
        error_m: float64 (S,), geodesic distance from the truth in metres.
        east_m, north_m: float64 (S,), answer minus truth along the geodesic, in the answer's local frame, metres.
        variance_east_m2, variance_north_m2, covariance_en_m2: float64 (S,), stated, with the label's own variance.
        stated_m2: float64 (S, 3), as stated, without the label's variance.
        has_truth: bool (S,), the source's position is known.
        answered: bool (S,), there is a truth and the method did not refuse.
        is_sure: bool (S,), answered, and the method states a covariance.
    """

    error_m: NDArray[np.float64]
    east_m: NDArray[np.float64]
    north_m: NDArray[np.float64]
    variance_east_m2: NDArray[np.float64]
    variance_north_m2: NDArray[np.float64]
    covariance_en_m2: NDArray[np.float64]
    stated_m2: NDArray[np.float64]
    has_truth: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    is_sure: NDArray[np.bool_]

    @property
    def determinant_m4(self) -> NDArray[np.float64]:
        """Determinant of the covariance with the label's variance, float64 (S,), m^4."""
        return self.variance_east_m2 * self.variance_north_m2 - self.covariance_en_m2**2

    @property
    def mahalanobis_squared(self) -> NDArray[np.float64]:
        """Squared Mahalanobis distance of the truth, float64 (S,); chi-square with 2 degrees of freedom if honest."""
        numerator = (
            self.variance_north_m2 * self.east_m**2
            - 2.0 * self.covariance_en_m2 * self.east_m * self.north_m
            + self.variance_east_m2 * self.north_m**2
        )
        return numerator / self.determinant_m4

    @property
    def sigma_m(self) -> NDArray[np.float64]:
        """Stated one-sigma error of one axis, root of the mean of both variances, float64 (S,), metres."""
        return np.sqrt(0.5 * (self.variance_east_m2 + self.variance_north_m2))


def compute_chi_square_quantile(level: float) -> float:
    """Return the quantile of chi-square with 2 degrees of freedom, -2 ln(1 - level).

    Examples:
        >>> [round(compute_chi_square_quantile(level), 3) for level in (0.5, 0.9, 0.95)]  # as in any table
        [1.386, 4.605, 5.991]
    """
    return -2.0 * math.log1p(-level)


def compute_residuals(sessions: SessionSet, predictions: Predictions) -> Residuals:
    """Return how far ``predictions`` lie from the truth of ``sessions``.

    The label's one-sigma error is added to both axes' variance: no method can be nearer to a truth than the truth is.

    Raises:
        InvalidInput: row counts differ; an answer is not finite though it was not refused; a stated covariance is
            neither wholly NaN (none stated) nor positive definite.

    Examples:
        Answers 300 m east and 400 m north of the truths:

        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> sessions = simulate_observations(SimulationSpec(), np.arange(2))
        >>> frame = LocalFrame(sessions.source_latitude, sessions.source_longitude)
        >>> latitude, longitude, _ = frame.to_geodetic(300.0, 400.0)
        >>> answers = Predictions(latitude, longitude, np.full((2, 3), [9e4, 16e4, 0.0]), "shifted")
        >>> compute_residuals(sessions, answers).error_m.round(1).tolist()
        [500.0, 500.0]
        >>> compute_residuals(sessions, answers).mahalanobis_squared.round(2).tolist()  # one sigma on either axis
        [2.0, 2.0]
    """
    num_sessions = len(sessions)
    latitude = np.asarray(predictions.latitude, dtype=np.float64)
    longitude = np.asarray(predictions.longitude, dtype=np.float64)
    stated = np.asarray(predictions.covariance_m2, dtype=np.float64)
    if latitude.shape != (num_sessions,) or longitude.shape != (num_sessions,) or stated.shape != (num_sessions, 3):
        raise InvalidInput(
            f"predictions of {predictions.method}: found shapes {latitude.shape}, {longitude.shape}, {stated.shape}, "
            f"expected ({num_sessions},), ({num_sessions},), ({num_sessions}, 3)"
        )
    refused = np.zeros(num_sessions, bool) if predictions.refused is None else np.asarray(predictions.refused, bool)
    finite = np.isfinite(latitude) & np.isfinite(longitude)
    _check_rows(~refused & ~finite, sessions, predictions.method, "a position that is not finite", "one, or a refusal")

    has_truth = np.isfinite(sessions.source_latitude) & np.isfinite(sessions.source_longitude)
    answered = has_truth & ~refused
    states_none = np.isnan(stated).all(axis=1)
    determinant = stated[:, 0] * stated[:, 1] - stated[:, 2] ** 2
    is_definite = (stated[:, 0] > 0) & (stated[:, 1] > 0) & (determinant > 0) & np.isfinite(determinant)
    _check_rows(
        answered & ~states_none & ~is_definite,
        sessions,
        predictions.method,
        "a covariance that is not positive definite",
        "positive definite, or NaN for none",
    )

    error_m, east_m, north_m = np.full((3, num_sessions), np.nan)
    east, north, _ = LocalFrame(latitude[answered], longitude[answered]).to_local(
        sessions.source_latitude[answered], sessions.source_longitude[answered]
    )
    # Around the answer: there the covariance is stated, and there length and direction of the geodesic are exact.
    error_m[answered], east_m[answered], north_m[answered] = np.hypot(east, north), -east, -north
    is_sure = answered & ~states_none
    own = np.where(is_sure[:, None], stated, np.nan)
    label_m2 = np.square(sessions.error_margin_m)
    return Residuals(
        error_m=error_m,
        east_m=east_m,
        north_m=north_m,
        variance_east_m2=own[:, 0] + label_m2,
        variance_north_m2=own[:, 1] + label_m2,
        covariance_en_m2=own[:, 2],
        stated_m2=own,
        has_truth=has_truth,
        answered=answered,
        is_sure=is_sure,
    )


def _check_rows(bad: NDArray[np.bool_], sessions: SessionSet, method: str, found: str, expected: str) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InvalidInput(
            f"predictions of {method}, session {sessions.session_id[first]} (and {int(bad.sum()) - 1} more): "
            f"found {found}, expected {expected}"
        )
