"""Calibration, split conformal where sessions suffice: one factor on the covariance, so that ellipses hold.

Belongs here: fitting and applying the factor. It is fitted on the validation split and stored with the model; never on
the test split. The label's own variance is added, not scaled: it is no error of the model.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.residuals import Residuals, compute_chi_square_quantile, compute_residuals
from heimdall_assets.session_set import Predictions, SessionSet

_LOG_SCALE_LIMIT = math.log(1e12)


def fit_variance_scale(predictions: Predictions, sessions: SessionSet) -> float:
    """Return the factor on the covariance under which the errors are likeliest.

    Without label errors it is the mean squared Mahalanobis distance over 2.

    Raises:
        InvalidInput: no session has truth and a stated covariance, or every error is zero.

    Examples:
        Errors of 300 m on both axes where 100 m are stated: the covariance is 9 times too small.

        >>> from heimdall_assets.signals.geodesy import LocalFrame
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> sessions = simulate_observations(SimulationSpec(), np.arange(30))
        >>> frame = LocalFrame(sessions.source_latitude, sessions.source_longitude)
        >>> latitude, longitude, _ = frame.to_geodetic(300.0, 300.0)
        >>> answers = Predictions(latitude, longitude, np.full((30, 3), [1e4, 1e4, 0.0]), "shifted")
        >>> round(fit_variance_scale(answers, sessions), 2)
        9.0
    """
    energy, eigenvalues, label_m2 = _decompose(compute_residuals(sessions, predictions), predictions.method)
    # Below a micrometre an error is the rounding of degrees.
    if energy.max() < 1e-12:
        raise InvalidInput(f"calibration of {predictions.method}: found every error zero, expected errors to fit on")

    from scipy.optimize import minimize_scalar  # slow to load

    def compute_nll(log_scale: float) -> float:
        variance = math.exp(log_scale) * eigenvalues + label_m2[:, None]
        return float(np.sum(np.log(variance) + energy / variance))

    found = minimize_scalar(compute_nll, bounds=(-_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT), method="bounded",
                            options={"xatol": 1e-10})  # fmt: skip
    return math.exp(found.x)


def fit_conformal_scale(predictions: Predictions, sessions: SessionSet, level: float = 0.90) -> float:
    """Return the factor on the covariance under which a new session's ``level`` ellipse holds with that probability.

    Split conformal: each calibration session's score is the smallest factor whose ellipse reaches the truth; the
    factor is the ceil((n + 1) level)-th smallest score. For exchangeable sessions coverage is at least ``level`` and
    at most ``level`` + 1 / (n + 1), whatever the distribution of errors.

    Raises:
        InvalidInput: ``level`` is not inside (0, 1), or fewer than level / (1 - level) sessions: no finite factor can
            promise it.

    Source: Vovk et al., Algorithmic Learning in a Random World (2005); Lei et al., Distribution-Free Predictive
    Inference for Regression, JASA 113 (2018), theorem 2.2.

    Examples:
        Every error is 424 m where 100 m are stated an axis: the square of the 90 % ellipse must grow
        by 18 / 4.605.

        >>> from heimdall_assets.signals.geodesy import LocalFrame
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> sessions = simulate_observations(SimulationSpec(), np.arange(30))
        >>> frame = LocalFrame(sessions.source_latitude, sessions.source_longitude)
        >>> latitude, longitude, _ = frame.to_geodetic(300.0, 300.0)
        >>> answers = Predictions(latitude, longitude, np.full((30, 3), [1e4, 1e4, 0.0]), "shifted")
        >>> round(fit_conformal_scale(answers, sessions, level=0.9), 2)
        3.91
    """
    if not 0.0 < level < 1.0:
        raise InvalidInput(f"conformal level {level}: expected more than 0 and less than 1")
    energy, eigenvalues, label_m2 = _decompose(compute_residuals(sessions, predictions), predictions.method)
    # A hair less than the product: 0.9 * 10 must be rank 9, not 10, whatever its binary rounding.
    rank = math.ceil((len(energy) + 1) * level - 1e-9)
    if rank > len(energy):
        needed = math.ceil(level / (1.0 - level) - 1e-9)
        raise InvalidInput(
            f"calibration of {predictions.method}: found {say_count(len(energy), 'session')}, expected at least "
            f"{needed} for a {100 * level:g} % ellipse"
        )
    scores = _compute_scores(energy, eigenvalues, label_m2, compute_chi_square_quantile(level))
    # A factor of zero would state certainty.
    return max(float(np.sort(scores)[rank - 1]), math.exp(-_LOG_SCALE_LIMIT))


def scale_covariance(predictions: Predictions, scale: float) -> Predictions:
    """Return ``predictions`` with the covariance times ``scale``.

    Raises:
        InvalidInput: ``scale`` is not a positive finite number.

    Examples:
        Twice as wide is four times the covariance:

        >>> answers = Predictions(np.array([45.0]), np.array([7.0]), np.array([[100.0, 100.0, 0.0]]), "guess")
        >>> scale_covariance(answers, 4.0).covariance_m2.tolist()
        [[400.0, 400.0, 0.0]]
    """
    if not (math.isfinite(scale) and scale > 0):
        raise InvalidInput(f"covariance scale {scale}: expected a positive finite number")
    return replace(predictions, covariance_m2=np.asarray(predictions.covariance_m2, np.float64) * scale)


def fit_calibration(
    predictions: Predictions, sessions: SessionSet, level: float = 0.90
) -> dict[str, float | int | str]:
    """Return the calibration to store with a model, JSON values: conformal where sessions suffice, else likelihood.

    ``method`` says which; ``scale`` is what to multiply the covariance with; both candidates are recorded.

    Raises:
        InvalidInput: neither can be fitted.
    """
    residuals = compute_residuals(sessions, predictions)
    variance_scale = fit_variance_scale(predictions, sessions)
    num_sessions = int(residuals.is_sure.sum())
    found: dict[str, float | int | str] = {
        "num_sessions": num_sessions, "level": level, "variance_scale": variance_scale,
    }  # fmt: skip
    if num_sessions + 1e-9 < level / (1.0 - level):
        return found | {"method": "variance", "scale": variance_scale}
    scale = fit_conformal_scale(predictions, sessions, level)
    return found | {"method": "conformal", "scale": scale}


def _decompose(
    residuals: Residuals, method: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return squared errors along each covariance's axes (n, 2), eigenvalues (n, 2), label variance (n,), in m^2."""
    sure = residuals.is_sure
    if not sure.any():
        raise InvalidInput(
            f"calibration of {method}: found no session with truth and covariance, expected at least one"
        )
    stated = residuals.stated_m2[sure]
    matrix = np.stack([stated[:, [0, 2]], stated[:, [2, 1]]], axis=1)
    eigenvalues, axes = np.linalg.eigh(matrix)
    error = np.stack([residuals.east_m[sure], residuals.north_m[sure]], axis=1)
    energy = np.einsum("nij,ni->nj", axes, error) ** 2
    # eigh may round the smaller eigenvalue of a long thin ellipse below zero.
    eigenvalues = np.maximum(eigenvalues, 1e-12 * eigenvalues[:, 1:])
    return energy, eigenvalues, residuals.variance_east_m2[sure] - stated[:, 0]


def _compute_scores(
    energy: NDArray[np.float64], eigenvalues: NDArray[np.float64], label_m2: NDArray[np.float64], quantile: float
) -> NDArray[np.float64]:
    """Return the smallest factor whose ellipse reaches each truth, float64 (n,); 0: the label's error alone does."""
    low = np.full(len(energy), -_LOG_SCALE_LIMIT)
    high = np.full(len(energy), _LOG_SCALE_LIMIT)
    for _ in range(80):
        middle = 0.5 * (low + high)
        distance = np.sum(energy / (np.exp(middle)[:, None] * eigenvalues + label_m2[:, None]), axis=1)
        reached = distance <= quantile
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.where(high <= -_LOG_SCALE_LIMIT + 1e-9, 0.0, np.exp(high))
