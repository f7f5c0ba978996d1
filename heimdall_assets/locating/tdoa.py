"""Positions from arrival times with an unknown emission time, many sessions at once.

Weighted least squares, plain or with Cauchy's loss, from many starts: the cost of hyperbolas has several minima, and
starting in only one place costs more than any choice of iteration. The area where sources may be enters as two more
rows, so that a session never lacks an answer, and a source far outside the network gets the long ellipse it deserves.

Legend of shapes: S sessions, K starts or modes, R receiver slots.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from heimdall_assets.domain import Predictions, SessionSet
from heimdall_assets.locating.area import Area, compute_area
from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m, pad_sessions
from heimdall_assets.locating.bounds import PathLoss, invert_information
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame, compute_distance_m, compute_range_m

CAUCHY_SCALE = 2.385
"""Residual in sigmas where Cauchy's loss turns: 95 % efficient on Gaussian errors (Holland and Welsch,
Communications in Statistics 6 (1977) 813)."""

MIN_TIMED = 3
"""Receivers with arrival times that a position needs: two unknowns and the emission time."""

NUM_STARTS = 8
NUM_ITERATIONS = 15
NUM_RECENTRINGS = 2
CHUNK_SESSIONS = 1024

RESIDUAL_QUANTILE = 0.90
"""Residuals above this quantile of chi-square say that the stated sigmas are too small; the covariance then grows."""

UNCALIBRATED_LEVEL_DB = 8.0
"""Scatter of one level when choosing between two solutions: 6.6 dB shadowing and 4.5 dB unknown receiver gain."""


@dataclass(frozen=True)
class _Problem:
    """Arrival times in one local frame a session; float64, metres.

    ``correction_m`` (S, R) is what the wave's true way is longer than the frame's straight line.
    """

    east_m: FloatArray
    north_m: FloatArray
    up_m: FloatArray
    correction_m: FloatArray
    arrival_m: FloatArray
    sigma_m: FloatArray
    timed: NDArray[np.bool_]
    prior_en_m: FloatArray  # (S, 2)
    prior_information: FloatArray  # (S, 2, 2)
    scale: float  # Cauchy's, inf for plain least squares


def locate_by_delays(
    sessions: SessionSet,
    reference: SessionSet | None = None,
    *,
    robust: bool,
    drop_blocked: bool = False,
    source_altitude_m: float = 0.0,
) -> Predictions:
    """Return positions from arrival times by weighted least squares.

    Three receivers can leave two positions that explain the delays alike: the one that the area and the levels favour
    is taken, and the covariance reaches to the other in proportion to its probability. Where residuals are larger
    than the stated sigmas allow, the covariance grows with them.

    Args:
        sessions: S sessions.
        reference: sessions with known sources, to learn the area from; None: the receivers' own surroundings.
        robust: Cauchy's loss instead of squares.
        drop_blocked: leave out receivers that ``sessions.blocked`` marks while at least three others remain (what
            only a simulation knows); where fewer remain they stay, with the excess that most of them have as sigma.
        source_altitude_m: height of the sources above the ellipsoid.

    Returns:
        Positions with covariance; sessions with fewer than three timed receivers, or with all of them at one point,
        are refused.
    """
    method = "oracle" if drop_blocked else "tdoa_robust" if robust else "tdoa_least_squares"
    parts = []
    for start in range(0, max(len(sessions), 1), CHUNK_SESSIONS):
        chosen = np.arange(start, min(start + CHUNK_SESSIONS, len(sessions)))
        padded = pad_sessions(sessions.take(chosen))
        if drop_blocked:
            padded = _set_blocked_aside(padded)
        parts.append(_locate(padded, compute_area(padded, reference), robust, source_altitude_m, method))
    return Predictions(
        latitude=np.concatenate([part.latitude for part in parts]),
        longitude=np.concatenate([part.longitude for part in parts]),
        covariance_m2=np.concatenate([part.covariance_m2 for part in parts]),
        method=method,
        refused=np.concatenate([part.refused for part in parts]),
    )


def _set_blocked_aside(padded: PaddedSessions) -> PaddedSessions:
    """Return the sessions without the arrivals of blocked receivers, where at least three arrivals remain."""
    clear = padded.timed & ~padded.blocked
    enough = clear.sum(axis=1, keepdims=True) >= MIN_TIMED
    timed = np.where(enough, clear, padded.timed)
    sigma = np.where(timed, padded.sigma_m, np.inf)
    return replace(padded, timed=timed, sigma_m=np.where(timed & padded.blocked, np.hypot(sigma, 1000.0), sigma))


def _locate(padded: PaddedSessions, area: Area, robust: bool, altitude_m: float, method: str) -> Predictions:
    problem = _state_problem(padded, area, padded.frame, altitude_m, robust)
    starts = _choose_starts(problem)
    modes, cost, information = _descend(problem, starts, NUM_ITERATIONS)
    spread = _compute_residual_scale(problem, cost)
    weight = _weigh_modes(modes, cost + _compute_level_cost(problem, padded, modes), information, spread)
    best = weight.argmax(axis=1)
    rows = np.arange(len(best))
    away = modes[..., :2] - modes[rows, best, None, :2]
    between = np.einsum("sk,ski,skj->sij", weight, away, away)

    latitude, longitude, _ = padded.frame.to_geodetic(modes[rows, best, 0][:, None], modes[rows, best, 1][:, None])
    emission = modes[rows, best, 2]
    for _ in range(NUM_RECENTRINGS):
        frame = LocalFrame(latitude, longitude)
        problem = _state_problem(padded, area, frame, altitude_m, robust)
        state = np.stack([np.zeros_like(emission), np.zeros_like(emission), emission], axis=-1)[:, None]
        state, cost, information = _descend(problem, state, 4)
        latitude, longitude, _ = frame.to_geodetic(state[:, :, 0], state[:, :, 1])
        emission = state[:, 0, 2]
    spread = _compute_residual_scale(problem, cost)[:, None, None]
    covariance = spread * invert_information(information[:, 0]) + between
    refused = (padded.timed.sum(axis=1) < MIN_TIMED) | (
        compute_extent_m(padded.east_m, padded.north_m, padded.timed)[:, 0] <= SAME_POINT_M
    )
    columns = np.stack([covariance[:, 0, 0], covariance[:, 1, 1], covariance[:, 0, 1]], axis=1)
    refused |= ~np.isfinite(columns).all(axis=1)
    return Predictions(
        latitude=np.where(refused, np.nan, latitude[:, 0]),
        longitude=np.where(refused, np.nan, longitude[:, 0]),
        covariance_m2=np.where(refused[:, None], np.nan, columns),
        method=method,
        refused=refused,
    )


def _state_problem(padded: PaddedSessions, area: Area, frame: LocalFrame, altitude_m: float, robust: bool) -> _Problem:
    """Return the arrival times in ``frame``, whose straight lines are corrected to the wave's ways at its centre."""
    east, north, _ = frame.to_local(padded.latitude, padded.longitude)
    up = padded.altitude_m - altitude_m
    plane = np.hypot(compute_distance_m(frame.latitude, frame.longitude, padded.latitude, padded.longitude), up)
    frequency = np.where(padded.follows_ground, 0.0, np.inf)
    true = compute_range_m(
        frame.latitude, frame.longitude, altitude_m, padded.latitude, padded.longitude, padded.altitude_m, frequency
    )
    prior = frame.to_local(area.latitude[:, None], area.longitude[:, None])
    return _Problem(
        east_m=east,
        north_m=north,
        up_m=up,
        correction_m=true - plane,
        arrival_m=padded.arrival_m,
        sigma_m=padded.sigma_m,
        timed=padded.timed,
        prior_en_m=np.concatenate(prior[:2], axis=1),
        prior_information=area.information(),
        scale=CAUCHY_SCALE if robust else np.inf,
    )


def _compute_residuals(problem: _Problem, state: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return residuals (S, K, R) in m at states (S, K, 3), and east and north parts of the unit vectors."""
    de = state[..., 0, None] - problem.east_m[:, None]
    dn = state[..., 1, None] - problem.north_m[:, None]
    distance = np.maximum(np.sqrt(de * de + dn * dn + np.square(problem.up_m)[:, None]), 1.0)
    residual = problem.arrival_m[:, None] - distance - problem.correction_m[:, None] - state[..., 2, None]
    return residual, de / distance, dn / distance


def _compute_cost(problem: _Problem, state: FloatArray, residual: FloatArray) -> FloatArray:
    """Return twice the negative log likelihood with the area's prior, (S, K)."""
    z2 = np.square(residual / problem.sigma_m[:, None])
    loss = z2 if np.isinf(problem.scale) else problem.scale**2 * np.log1p(z2 / problem.scale**2)
    off = state[..., :2] - problem.prior_en_m[:, None]
    return loss.sum(axis=-1) + np.einsum("ski,sij,skj->sk", off, problem.prior_information, off)


def _choose_starts(problem: _Problem) -> FloatArray:
    """Return the best starts (S, NUM_STARTS, 3) of a polar grid around the receivers, sigmas blunted to its spacing."""
    count = np.maximum(problem.timed.sum(axis=1), 1)
    centre_e = np.where(problem.timed, problem.east_m, 0.0).sum(axis=1) / count
    centre_n = np.where(problem.timed, problem.north_m, 0.0).sum(axis=1) / count
    square = np.square(problem.east_m - centre_e[:, None]) + np.square(problem.north_m - centre_n[:, None])
    radius = np.maximum(np.sqrt(np.where(problem.timed, square, 0.0).sum(axis=1) / count), 1.0)
    rings = np.geomspace(0.15, 6.0, 9)
    angle = (2 * np.arange(24) + np.arange(9)[:, None] % 2) * (np.pi / 24)
    grid = np.stack([rings[:, None] * np.cos(angle), rings[:, None] * np.sin(angle)], axis=-1).reshape(-1, 2)
    grid = np.concatenate([[[0.01, 0.01]], grid])
    points = np.stack([centre_e, centre_n], axis=1)[:, None] + radius[:, None, None] * grid
    blunt = np.hypot(problem.sigma_m, 0.15 * radius[:, None])
    state = _solve_emission(problem, points, blunt)
    residual, _, _ = _compute_residuals(problem, state)
    cost = _compute_cost(replace(problem, sigma_m=np.where(problem.timed, blunt, np.inf)), state, residual)
    order = np.argpartition(cost, NUM_STARTS, axis=1)[:, :NUM_STARTS]
    return _solve_emission(problem, np.take_along_axis(points, order[..., None], axis=1), problem.sigma_m)


def _solve_emission(problem: _Problem, points: FloatArray, sigma_m: FloatArray) -> FloatArray:
    """Return ``points`` (S, K, 2) with the lower median of the timed residuals as emission range, (S, K, 3)."""
    state = np.concatenate([points, np.zeros((*points.shape[:2], 1))], axis=-1)
    residual, _, _ = _compute_residuals(problem, state)
    ordered = np.sort(np.where(problem.timed[:, None], residual, np.inf), axis=-1)
    middle = np.maximum(problem.timed.sum(axis=1) - 1, 0) // 2
    median = np.take_along_axis(ordered, np.broadcast_to(middle[:, None, None], (*points.shape[:2], 1)), axis=-1)
    state[..., 2:] = np.where(np.isfinite(median), median, 0.0)
    return state


def _descend(problem: _Problem, state: FloatArray, num_iterations: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return states after damped reweighted Gauss-Newton steps, their cost (S, K) and information (S, K, 2, 2).

    A step is taken where it lowers the cost, else the damping grows (Levenberg and Marquardt).
    """
    damping = np.full(state.shape[:2], 1e-2)
    residual, unit_e, unit_n = _compute_residuals(problem, state)
    cost = _compute_cost(problem, state, residual)
    for _ in range(num_iterations):
        information, gradient, shift = _linearise(problem, state, residual, unit_e, unit_n)
        trace = 0.5 * damping * (information[..., 0, 0] + information[..., 1, 1])
        damped = information + trace[..., None, None] * np.eye(2)
        move = np.einsum("skij,skj->ski", _invert(damped), gradient)
        tried = state.copy()
        tried[..., :2] += move
        tried[..., 2] += shift[..., 0] - shift[..., 1] * move[..., 0] - shift[..., 2] * move[..., 1]
        new_residual, new_e, new_n = _compute_residuals(problem, tried)
        new_cost = _compute_cost(problem, tried, new_residual)
        better = new_cost <= cost
        state = np.where(better[..., None], tried, state)
        cost = np.where(better, new_cost, cost)
        residual, unit_e, unit_n = (
            np.where(better[..., None], new, old)
            for new, old in ((new_residual, residual), (new_e, unit_e), (new_n, unit_n))
        )
        damping = np.clip(np.where(better, damping * 0.2, damping * 8.0), 1e-9, 1e6)
    information, _, _ = _linearise(problem, state, residual, unit_e, unit_n)
    return state, cost, information


def _linearise(
    problem: _Problem, state: FloatArray, residual: FloatArray, unit_e: FloatArray, unit_n: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return information (S, K, 2, 2), gradient (S, K, 2) with the emission time eliminated, and what gives it back.

    The last, (S, K, 3): weighted means of residual and unit vectors; the emission range moves by the first less the
    others times the step.
    """
    weight = 1.0 / np.square(problem.sigma_m)[:, None]
    if np.isfinite(problem.scale):
        weight = weight / (1.0 + np.square(residual / problem.sigma_m[:, None]) / problem.scale**2)
    weight = np.broadcast_to(weight, residual.shape)
    total = np.maximum(weight.sum(axis=-1), np.finfo(np.float64).tiny)
    means = [(weight * values).sum(axis=-1) / total for values in (residual, unit_e, unit_n)]
    r, e, n = (values - mean[..., None] for values, mean in zip((residual, unit_e, unit_n), means, strict=True))
    see, snn, sen = (weight * e * e).sum(-1), (weight * n * n).sum(-1), (weight * e * n).sum(-1)
    information = (
        np.stack([np.stack([see, sen], -1), np.stack([sen, snn], -1)], -2) + problem.prior_information[:, None]
    )
    pull = np.einsum("sij,skj->ski", problem.prior_information, problem.prior_en_m[:, None] - state[..., :2])
    gradient = np.stack([(weight * e * r).sum(-1), (weight * n * r).sum(-1)], axis=-1) + pull
    return information, gradient, np.stack(means, axis=-1)


def _invert(matrix: FloatArray) -> FloatArray:
    """Return the inverse of positive definite 2x2 matrices (..., 2, 2)."""
    a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    determinant = np.maximum(a * c - b * b, np.finfo(np.float64).tiny)
    return np.stack([np.stack([c, -b], -1), np.stack([-b, a], -1)], -2) / determinant[..., None, None]


def _compute_residual_scale(problem: _Problem, cost: FloatArray) -> FloatArray:
    """Return by how much residuals show variances to be too small, (S,), at least 1.

    Chi-square per degree of freedom of the best state (the area's two rows count as measured), where it is above its
    ``RESIDUAL_QUANTILE``.
    """
    freedom = np.maximum(problem.timed.sum(axis=1) - 1, 1)
    least = cost.min(axis=1)
    return np.where(least > chi2.ppf(RESIDUAL_QUANTILE, freedom), np.maximum(least / freedom, 1.0), 1.0)


def _compute_level_cost(problem: _Problem, padded: PaddedSessions, modes: FloatArray) -> FloatArray:
    """Return twice the negative log likelihood of the levels at each mode, (S, K); 0 with fewer than three of them."""
    distance = np.sqrt(
        np.square(modes[..., 0, None] - problem.east_m[:, None])
        + np.square(modes[..., 1, None] - problem.north_m[:, None])
        + np.square(problem.up_m)[:, None]
    )
    heard = padded.heard[:, None]
    error = padded.level_db[:, None] + 10.0 * PathLoss().exponent * np.log10(np.maximum(distance, 1.0))
    count = np.maximum(heard.sum(axis=-1), 1)
    mean = np.where(heard, error, 0.0).sum(axis=-1) / count
    square = np.where(heard, np.square(error - mean[..., None]), 0.0).sum(axis=-1)
    return np.where(heard.sum(axis=-1) >= MIN_TIMED, square / UNCALIBRATED_LEVEL_DB**2, 0.0)


def _weigh_modes(modes: FloatArray, cost: FloatArray, information: FloatArray, spread: FloatArray) -> FloatArray:
    """Return the probability of each mode, (S, K), a mode found from several starts counted once.

    Source: Laplace's approximation, exp(-cost / 2) / sqrt(det information).
    """
    determinant = information[..., 0, 0] * information[..., 1, 1] - np.square(information[..., 0, 1])
    log_weight = -0.5 * cost / spread[:, None] - 0.5 * np.log(np.maximum(determinant, np.finfo(np.float64).tiny))
    away = modes[:, :, None, :2] - modes[:, None, :, :2]
    square = np.einsum("sabi,saij,sabj->sab", away, information, away)
    same = (square < 1.0) | (np.square(away).sum(axis=-1) < SAME_POINT_M**2)
    same |= same.transpose(0, 2, 1)
    better = (cost[:, None, :] < cost[:, :, None]) | (
        (cost[:, None, :] == cost[:, :, None]) & np.tri(cost.shape[1], k=-1, dtype=bool)
    )
    log_weight = np.where((same & better).any(axis=2), -np.inf, log_weight)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)
