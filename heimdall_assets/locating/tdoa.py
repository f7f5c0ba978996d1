"""Positions from arrival times with an unknown emission time, from bearings, or from both, many sessions at once.

Weighted least squares, plain or with Cauchy's loss, from many starts: the cost of hyperbolas has several minima, and
starting in only one place costs more than any choice of iteration. The area where sources may be enters as two more
rows, so that a session never lacks an answer, and a source far outside the network gets the long ellipse it deserves.

Legend of shapes: S sessions, K starts or modes, R receiver slots.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from heimdall_assets.locating.area import Area, compute_area
from heimdall_assets.locating.arrays import PaddedSessions, pad_sessions, take_padded
from heimdall_assets.locating.branches import MIN_WEIGHT, join_places, weigh_modes
from heimdall_assets.locating.ellipses import compute_mahalanobis_square, learn_scale
from heimdall_assets.locating.least_squares import (
    MIN_TIMED,
    DelayProblem,
    choose_starts,
    compute_residuals,
    descend,
    linearise,
)
from heimdall_assets.locating.minima import Wave, compute_residual_scale, refine, state_problem
from heimdall_assets.locating.path_loss import MIN_HEARD, LevelModel, fit_level_model
from heimdall_assets.session_set import Branches, Predictions, SessionSet
from heimdall_assets.signals.geodesy import FloatArray

CAUCHY_SCALE = 1.5
"""Residual in sigmas where Cauchy's loss turns: 87 % efficient on Gaussian errors, and with few receivers clearly more
robust than the 95 % of 2.385 (Holland and Welsch, Communications in Statistics 6 (1977) 813)."""

BLOCKED_EXCESS_M = 600.0
"""Sigma that an oracle gives to a receiver without line of sight: 2 us, the long end of what is seen in cities."""

NUM_ITERATIONS = 15
CHUNK_SESSIONS = 1024


def locate_by_delays(
    sessions: SessionSet,
    reference: SessionSet | None = None,
    *,
    robust: bool,
    blocked: Literal["unknown", "dropped", "weighted"] = "unknown",
    source_altitude_m: float = 0.0,
    bearings: Literal["ignored", "alone", "joined"] = "ignored",
) -> Predictions:
    """Return positions from arrival times, or bearings, or both, by weighted least squares.

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
        bearings: what is looked at: arrivals alone, bearings alone, or both as one.

    Returns:
        Positions with covariance; refused are sessions with fewer than three arrivals, two bearings, or two arrivals
        and a bearing, of those looked at, or with all of them at one point.

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
    settings = _Settings(robust, blocked, source_altitude_m, levels, bearings)
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
    bearings: str = "ignored"

    @property
    def method(self) -> str:
        """What the answers are called."""
        if self.bearings != "ignored":
            return "bearings" if self.bearings == "alone" else "arrivals_and_bearings"
        if self.blocked != "unknown":
            return "oracle"
        return "tdoa_robust" if self.robust else "tdoa_least_squares"

    @property
    def wave(self) -> Wave:
        return Wave(self.source_altitude_m, CAUCHY_SCALE if self.robust else np.inf)


def _locate_all(sessions: SessionSet, reference: SessionSet | None, settings: _Settings) -> Predictions:
    """Return the sessions' positions, chunk by chunk so that memory stays flat."""
    parts = []
    for start in range(0, max(len(sessions), 1), CHUNK_SESSIONS):
        padded = pad_sessions(sessions.take(np.arange(start, min(start + CHUNK_SESSIONS, len(sessions)))))
        padded = _look_at(padded, settings.bearings)
        if settings.blocked != "unknown":
            padded = _doubt_blocked(padded, drop=settings.blocked == "dropped")
        parts.append(_locate(padded, compute_area(padded, reference), settings))
    return Predictions(
        latitude=np.concatenate([part.latitude for part in parts]),
        longitude=np.concatenate([part.longitude for part in parts]),
        covariance_m2=np.concatenate([part.covariance_m2 for part in parts]),
        method=settings.method,
        refused=np.concatenate([part.refused for part in parts]),
        branches=_join_branches([part.branches for part in parts]),
        without_area_deg=np.concatenate([part.without_area_deg for part in parts if part.without_area_deg is not None]),
    )


def _join_branches(parts: list[Branches | None]) -> Branches:
    """Return the branches of all chunks, sessions counted from the first chunk's."""
    known = [replace(part, session=part.session + CHUNK_SESSIONS * number) for number, part in enumerate(parts) if part]
    return Branches(
        **{item.name: np.concatenate([getattr(part, item.name) for part in known]) for item in fields(Branches)}
    )


def _learn_scale(reference: SessionSet, settings: _Settings) -> float:
    """Return what covariances must be multiplied by so that 90 % of the reference's ellipses hold, at least 1."""
    known = np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude)
    sessions = reference.take(np.flatnonzero(known))
    return learn_scale(compute_mahalanobis_square(sessions, _locate_all(sessions, reference, settings)))


def _look_at(padded: PaddedSessions, bearings: str) -> PaddedSessions:
    """Return the sessions without what is not looked at."""
    if bearings == "ignored":
        return replace(padded, bearing_sigma_rad=np.full_like(padded.bearing_sigma_rad, np.inf))
    if bearings == "alone":
        nobody = np.zeros_like(padded.timed)
        return replace(padded, timed=nobody, sigma_m=np.full_like(padded.sigma_m, np.inf))
    return padded


def _doubt_blocked(padded: PaddedSessions, drop: bool) -> PaddedSessions:
    """Return the sessions with blocked receivers down-weighted or, where at least three others remain, left out."""
    clear = padded.timed & ~padded.blocked
    enough = clear.sum(axis=1, keepdims=True) >= MIN_TIMED
    timed = np.where(enough & drop, clear, padded.timed)
    sigma = np.where(padded.blocked, np.hypot(padded.sigma_m, BLOCKED_EXCESS_M), padded.sigma_m)
    return replace(padded, timed=timed, sigma_m=np.where(timed, sigma, np.inf))


def _locate(padded: PaddedSessions, area: Area, settings: _Settings) -> Predictions:
    problem = state_problem(padded, area, padded.frame, settings.wave)
    starts = choose_starts(problem)
    modes, cost, _ = descend(problem, starts, NUM_ITERATIONS)
    cost_all = cost + _compute_level_cost(problem, padded, modes, settings.levels)
    # Robust weights would call a place that contradicts the arrivals uncertain, and so probable.
    gaussian = replace(problem, scale=np.inf)
    information, _, _ = linearise(gaussian, modes, *compute_residuals(gaussian, modes))
    # Sigmas that the residuals contradict cannot rule a mode out either.
    spread = compute_residual_scale(problem, modes, cost)
    weight = weigh_modes(modes, cost_all / spread[:, None], information)
    best = weigh_modes(modes, cost_all, information).argmax(axis=1)
    is_best = np.arange(modes.shape[1]) == best[:, None]
    session, mode = np.nonzero(is_best | (weight > MIN_WEIGHT))
    places = refine(take_padded(padded, session), area.take(session), modes[session, mode], settings.wave)
    with np.errstate(divide="ignore"):
        log_weight = np.log(weight[session, mode]) + places.log_excess
    return join_places(padded, session, is_best[session, mode], places, log_weight)


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
