"""Positions from arrival times with an unknown emission time, many sessions at once.

Weighted least squares, plain or with Cauchy's loss, from many starts: the cost of hyperbolas has several minima, and
starting in only one place costs more than any choice of iteration. The area where sources may be enters as two more
rows, so that a session never lacks an answer, and a source far outside the network gets the long ellipse it deserves.

Legend of shapes: S sessions, K starts or modes, R receiver slots.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from heimdall_assets.locating.area import Area, compute_area
from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m, pad_sessions
from heimdall_assets.locating.bounds import invert_information
from heimdall_assets.locating.ellipses import compute_mahalanobis_square, learn_scale
from heimdall_assets.locating.least_squares import (
    MIN_TIMED,
    DelayProblem,
    choose_starts,
    compute_residuals,
    descend,
    linearise,
)
from heimdall_assets.locating.path_loss import MIN_HEARD, LevelModel, fit_level_model
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame, compute_distance_m, compute_range_m

CAUCHY_SCALE = 1.5
"""Residual in sigmas where Cauchy's loss turns: 87 % efficient on Gaussian errors, and with few receivers clearly more
robust than the 95 % of 2.385 (Holland and Welsch, Communications in Statistics 6 (1977) 813)."""

BLOCKED_EXCESS_M = 600.0
"""Sigma that an oracle gives to a receiver without line of sight: 2 us, the long end of what is seen in cities."""

NUM_ITERATIONS = 15
NUM_RECENTRINGS = 2
CHUNK_SESSIONS = 1024

RESIDUAL_QUANTILE = 0.90
"""Residuals above this quantile of chi-square say that the stated sigmas are too small; the covariance then grows."""


def locate_by_delays(
    sessions: SessionSet,
    reference: SessionSet | None = None,
    *,
    robust: bool,
    blocked: Literal["unknown", "dropped", "weighted"] = "unknown",
    source_altitude_m: float = 0.0,
) -> Predictions:
    """Return positions from arrival times by weighted least squares.

    Three receivers can leave two positions that explain the delays alike: the more probable one, by area and levels,
    is taken, and the covariance reaches to the other in proportion to its probability. Where residuals are larger
    than the stated sigmas allow, the covariance grows with them.

    Args:
        sessions: S sessions.
        reference: sessions with known sources: the area is learned from them, and the covariance grows until 90 % of
            their errors are within the 90 % ellipse. None: the receivers' own surroundings, sigmas as stated.
        robust: Cauchy's loss instead of squares.
        blocked: what to do with receivers that ``sessions.blocked`` marks (only a simulation knows): ``dropped``
            leaves them out while at least three others remain; kept ones, and all of them with ``weighted``, get
            ``BLOCKED_EXCESS_M`` as additional sigma.
        source_altitude_m: height of the sources above the ellipsoid.

    Returns:
        Positions with covariance; sessions with fewer than three timed receivers, or with all of them at one point,
        are refused.

    Examples:
        Seven receivers, 30 dB, clocks without error: every source is found to within 300 m.

        >>> from heimdall_assets.signals.geodesy import compute_distance_m
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> spec = SimulationSpec(snr_min_db=30.0, snr_max_db=30.0, clock_bias_s=0.0, clock_jitter_s=0.0)
        >>> sessions = simulate_observations(spec, np.arange(20))
        >>> found = locate_by_delays(sessions, robust=False)
        >>> truth = (sessions.source_latitude, sessions.source_longitude)
        >>> bool((compute_distance_m(found.latitude, found.longitude, *truth) < 300.0).all())
        True
    """
    levels = LevelModel() if reference is None else fit_level_model(reference)
    settings = _Settings(robust, blocked, source_altitude_m, levels)
    found = _locate_all(sessions, reference, settings)
    if reference is None:
        return found
    return replace(found, covariance_m2=found.covariance_m2 * _learn_scale(reference, settings))


@dataclass(frozen=True)
class _Settings:
    robust: bool
    blocked: str
    source_altitude_m: float
    levels: LevelModel


def _locate_all(sessions: SessionSet, reference: SessionSet | None, settings: _Settings) -> Predictions:
    """Return the sessions' positions, chunk by chunk so that memory stays flat."""
    parts = []
    for start in range(0, max(len(sessions), 1), CHUNK_SESSIONS):
        padded = pad_sessions(sessions.take(np.arange(start, min(start + CHUNK_SESSIONS, len(sessions)))))
        if settings.blocked != "unknown":
            padded = _doubt_blocked(padded, drop=settings.blocked == "dropped")
        parts.append(_locate(padded, compute_area(padded, reference), settings))
    return Predictions(
        latitude=np.concatenate([part.latitude for part in parts]),
        longitude=np.concatenate([part.longitude for part in parts]),
        covariance_m2=np.concatenate([part.covariance_m2 for part in parts]),
        method="oracle"
        if settings.blocked != "unknown"
        else "tdoa_robust"
        if settings.robust
        else "tdoa_least_squares",
        refused=np.concatenate([part.refused for part in parts]),
    )


def _learn_scale(reference: SessionSet, settings: _Settings) -> float:
    """Return what covariances must be multiplied by so that 90 % of the reference's ellipses hold, at least 1."""
    known = np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude)
    sessions = reference.take(np.flatnonzero(known))
    return learn_scale(compute_mahalanobis_square(sessions, _locate_all(sessions, reference, settings)))


def _doubt_blocked(padded: PaddedSessions, drop: bool) -> PaddedSessions:
    """Return the sessions with blocked receivers down-weighted or, where at least three others remain, left out."""
    clear = padded.timed & ~padded.blocked
    enough = clear.sum(axis=1, keepdims=True) >= MIN_TIMED
    timed = np.where(enough & drop, clear, padded.timed)
    sigma = np.where(padded.blocked, np.hypot(padded.sigma_m, BLOCKED_EXCESS_M), padded.sigma_m)
    return replace(padded, timed=timed, sigma_m=np.where(timed, sigma, np.inf))


def _locate(padded: PaddedSessions, area: Area, settings: _Settings) -> Predictions:
    problem = _state_problem(padded, area, padded.frame, settings)
    starts = choose_starts(problem)
    modes, cost, _ = descend(problem, starts, NUM_ITERATIONS)
    cost_all = cost + _compute_level_cost(problem, padded, modes, settings.levels)
    # Robust weights would call a place that contradicts the arrivals uncertain, and so probable.
    gaussian = replace(problem, scale=np.inf)
    information, _, _ = linearise(gaussian, modes, *compute_residuals(gaussian, modes))
    best = _weigh_modes(modes, cost_all, information).argmax(axis=1)
    rows = np.arange(len(best))
    # Sigmas that the residuals contradict cannot rule a mode out either.
    spread = _compute_residual_scale(problem, modes, cost)
    weight = _weigh_modes(modes, cost_all / spread[:, None], information)
    away = modes[..., :2] - modes[rows, best, None, :2]
    between = np.einsum("sk,ski,skj->sij", weight, away, away)

    latitude, longitude, _ = padded.frame.to_geodetic(modes[rows, best, 0][:, None], modes[rows, best, 1][:, None])
    emission = modes[rows, best, 2]
    for _ in range(NUM_RECENTRINGS):
        frame = LocalFrame(latitude, longitude)
        problem = _state_problem(padded, area, frame, settings)
        state = np.stack([np.zeros_like(emission), np.zeros_like(emission), emission], axis=-1)[:, None]
        state, cost, information = descend(problem, state, 4)
        latitude, longitude, _ = frame.to_geodetic(state[:, :, 0], state[:, :, 1])
        emission = state[:, 0, 2]
    spread = _compute_residual_scale(problem, state, cost)[:, None, None]
    local = spread * invert_information(information[:, 0])
    covariance = local + _compute_bend(problem, state, local) + between
    refused = (padded.timed.sum(axis=1) < MIN_TIMED) | (
        compute_extent_m(padded.east_m, padded.north_m, padded.timed)[:, 0] <= SAME_POINT_M
    )
    columns = np.stack([covariance[:, 0, 0], covariance[:, 1, 1], covariance[:, 0, 1]], axis=1)
    refused |= ~np.isfinite(columns).all(axis=1)
    return Predictions(
        latitude=np.where(refused, np.nan, latitude[:, 0]),
        longitude=np.where(refused, np.nan, longitude[:, 0]),
        covariance_m2=np.where(refused[:, None], np.nan, columns),
        method="",
        refused=refused,
    )


def _state_problem(padded: PaddedSessions, area: Area, frame: LocalFrame, settings: _Settings) -> DelayProblem:
    """Return the arrival times in ``frame``, whose straight lines are corrected to the wave's ways at its centre."""
    east, north, _ = frame.to_local(padded.latitude, padded.longitude)
    altitude_m = settings.source_altitude_m
    up = padded.altitude_m - altitude_m
    plane = np.hypot(compute_distance_m(frame.latitude, frame.longitude, padded.latitude, padded.longitude), up)
    frequency = np.where(padded.follows_ground, 0.0, np.inf)
    true = compute_range_m(
        frame.latitude, frame.longitude, altitude_m, padded.latitude, padded.longitude, padded.altitude_m, frequency
    )
    prior = frame.to_local(area.latitude[:, None], area.longitude[:, None])
    return DelayProblem(
        east_m=east,
        north_m=north,
        up_m=up,
        correction_m=true - plane,
        arrival_m=padded.arrival_m,
        sigma_m=padded.sigma_m,
        timed=padded.timed,
        prior_en_m=np.concatenate(prior[:2], axis=1),
        prior_information=area.information(),
        scale=CAUCHY_SCALE if settings.robust else np.inf,
    )


def _compute_residual_scale(problem: DelayProblem, state: FloatArray, cost: FloatArray) -> FloatArray:
    """Return by how much residuals show variances to be too small, (S,), at least 1.

    Where chi-square of the best state is above its ``RESIDUAL_QUANTILE``, the stated sigmas are not believed: their
    common scale is estimated from the residuals, and few residuals tell it badly, so the ellipse is that of Hotelling.

    Source: with f degrees of freedom the 90 % region has radius^2 2 s^2 F(2, f) instead of chi-square(2).
    """
    from scipy.special import chdtri, fdtri  # slow to load; whoever only lists the graph needs no scipy

    freedom = np.maximum(problem.timed.sum(axis=1) - MIN_TIMED, 1)
    off = state[..., :2] - problem.prior_en_m[:, None]
    prior = np.einsum("ski,sij,skj->sk", off, problem.prior_information, off)
    best = cost.argmin(axis=1)[:, None]
    square = np.take_along_axis(cost - prior, best, axis=1)[:, 0]
    widening = 2.0 * fdtri(2, freedom, 0.90) / chdtri(2, 0.10)
    scale = np.maximum(square / freedom, 1.0) * widening
    return np.where(square > chdtri(freedom, 1.0 - RESIDUAL_QUANTILE), scale, 1.0)


def _compute_bend(problem: DelayProblem, state: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return what the bend of a long ridge adds to the covariance across it, (S, 2, 2).

    One sigma along the major axis, to either side, a Gauss-Newton step across it leads back onto the ridge, by delta.
    A parabola with delta at one sigma of a Gaussian has a second moment of 3 delta^2.
    """
    values, vectors = np.linalg.eigh(covariance)
    across, along = vectors[..., 0], vectors[..., 1]
    length = np.sqrt(values[:, 1])
    sides = np.repeat(state, 2, axis=1)
    sides[..., :2] += length[:, None, None] * along[:, None] * np.array([-1.0, 1.0])[:, None]
    gaussian = replace(problem, scale=np.inf)
    information, gradient, _ = linearise(gaussian, sides, *compute_residuals(gaussian, sides))
    stiffness = np.einsum("si,skij,sj->sk", across, information, across)
    delta = np.clip(np.einsum("si,ski->sk", across, gradient) / stiffness, -length[:, None], length[:, None])
    variance = 3.0 * np.square(delta).mean(axis=1)
    spread: FloatArray = variance[:, None, None] * across[:, :, None] * across[:, None, :]
    return spread


def _compute_level_cost(
    problem: DelayProblem, padded: PaddedSessions, modes: FloatArray, model: LevelModel
) -> FloatArray:
    """Return twice the negative log likelihood of the levels at each mode, (S, K); 0 with fewer than three of them."""
    square = (
        np.square(modes[..., 0, None] - problem.east_m[:, None])
        + np.square(modes[..., 1, None] - problem.north_m[:, None])
        + np.square(problem.up_m)[:, None]
    )
    cost = model.read_levels(padded).compute_cost(square)
    return np.where(padded.heard.sum(axis=1)[:, None] >= MIN_HEARD, cost, 0.0)


def _weigh_modes(modes: FloatArray, cost: FloatArray, information: FloatArray) -> FloatArray:
    """Return the probability of each mode, (S, K), a mode found from several starts counted once.

    Source: Laplace's approximation, exp(-cost / 2) / sqrt(det information).
    """
    determinant = information[..., 0, 0] * information[..., 1, 1] - np.square(information[..., 0, 1])
    log_weight = -0.5 * cost - 0.5 * np.log(np.maximum(determinant, np.finfo(np.float64).tiny))
    away = modes[:, :, None, :2] - modes[:, None, :, :2]
    square = np.einsum("sabi,saij,sabj->sab", away, information, away)
    same = (square < 1.0) | (np.square(away).sum(axis=-1) < SAME_POINT_M**2)
    same |= same.transpose(0, 2, 1)
    better = (cost[:, None, :] < cost[:, :, None]) | (
        (cost[:, None, :] == cost[:, :, None]) & np.tri(cost.shape[1], k=-1, dtype=bool)
    )
    log_weight = np.where((same & better).any(axis=2), -np.inf, log_weight)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    share: FloatArray = weight / weight.sum(axis=1, keepdims=True)
    return share
