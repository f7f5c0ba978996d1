"""Minima of arrival times, each in a frame of its own: where it is, how wide it is, and what the area did to it.

Belongs here: one minimum. Does not belong here: finding them (``least_squares``), what lies between several
(``branches``).

Legend of shapes: P minima, each of a session of its own here, S sessions, K modes, R receiver slots.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.area import Area, compute_tail_cost
from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m, take_padded
from heimdall_assets.locating.bearings import state_bearings, wrap_angle
from heimdall_assets.locating.bounds import invert_information
from heimdall_assets.locating.least_squares import (
    MIN_ROWS,
    DelayProblem,
    compute_area_square,
    compute_residuals,
    descend,
    linearise,
    weigh_bearings_at,
)
from heimdall_assets.locating.posterior import Surroundings, sum_surroundings
from heimdall_assets.locating.sphere import compute_sphere_azimuth_rad, compute_sphere_way_m
from heimdall_assets.signals.geodesy import (
    FloatArray,
    LocalFrame,
    compute_azimuth_deg,
    compute_distance_m,
    compute_range_m,
)

NUM_RECENTRINGS = 2
NUM_ALONE = 4
"""Steps without the area, from where it holds a minimum."""

WIDE_SHARE = 0.04
"""A sigma above this share of the way to the source makes its ellipse be summed: curvature is no longer small there."""

RESIDUAL_QUANTILE = 0.90
"""Residuals above this quantile of chi-square say that the stated sigmas are too small; the covariance then grows."""


@dataclass(frozen=True)
class Wave:
    """How arrivals are read.

    Attributes:
        source_altitude_m: height of the sources above the ellipsoid.
        scale: Cauchy's, in sigmas; inf for plain least squares.
    """

    source_altitude_m: float
    scale: float


@dataclass(frozen=True)
class Minima:
    """P minima, each with its own surroundings.

    Attributes:
        latitude, longitude: float64 (P,), degrees.
        covariance: float64 (P, 2, 2), m^2.
        log_excess: float64 (P,), logarithm of how much more probable they are than by Laplace's approximation.
        alone_deg: float64 (P, 2), where arrivals put them without the area; NaN where they leave the distance open.
    """

    latitude: FloatArray
    longitude: FloatArray
    covariance: FloatArray
    log_excess: FloatArray
    alone_deg: FloatArray


def refine(padded: PaddedSessions, area: Area, modes: FloatArray, wave: Wave) -> Minima:
    """Return minima (P, 3) of P sessions in frames of their own, each with its covariance."""
    latitude, longitude, _ = padded.frame.to_geodetic(modes[:, 0][:, None], modes[:, 1][:, None])
    emission = modes[:, 2]
    for _ in range(NUM_RECENTRINGS):
        frame = LocalFrame(latitude, longitude)
        problem = state_problem(padded, area, frame, wave)
        state = np.stack([np.zeros_like(emission), np.zeros_like(emission), emission], axis=-1)[:, None]
        state, cost, information = descend(problem, state, 4)
        latitude, longitude, _ = frame.to_geodetic(state[:, :, 0], state[:, :, 1])
        emission = state[:, 0, 2]
    alone, _, _ = descend(replace(problem, prior_information=0.0 * problem.prior_information), state, NUM_ALONE)
    spread = compute_residual_scale(problem, state, cost)
    local = spread[:, None, None] * invert_information(information[:, 0])
    covariance = local + _compute_bend(problem, state, local)
    alone_deg = np.concatenate(frame.to_geodetic(alone[:, :, 0], alone[:, :, 1])[:2], axis=1)
    found = Minima(latitude[:, 0], longitude[:, 0], covariance, np.zeros(len(spread)), alone_deg)
    wide = np.flatnonzero(_find_wide(padded, found, local))
    if not len(wide):
        return found
    surroundings = _view_surroundings(take_padded(padded, wide), area.take(wide), found, problem, state, spread, wide)
    summed = sum_surroundings(surroundings)
    log_laplace = 0.5 * np.linalg.slogdet(local[wide] / spread[wide, None, None])[1]
    found.covariance[wide], found.log_excess[wide] = summed.covariance, summed.log_area - log_laplace
    frame = LocalFrame(surroundings.latitude, surroundings.longitude)
    found.alone_deg[wide] = np.stack(frame.to_geodetic(*summed.likeliest_en_m.T)[:2], axis=1)
    return found


def _find_wide(padded: PaddedSessions, found: Minima, local: FloatArray) -> NDArray[np.bool_]:
    """Return which minima (P,) have a sigma that is no small part of the way to them: no Gaussian holds there."""
    distance = compute_distance_m(
        found.latitude, found.longitude, padded.frame.latitude[:, 0], padded.frame.longitude[:, 0]
    )
    extent = np.hypot(*compute_extent_m(padded.east_m, padded.north_m, padded.observed).T)
    major = np.sqrt(np.linalg.eigvalsh(np.where(np.isfinite(local), local, 1e18))[:, 1])
    usable = (padded.num_rows >= MIN_ROWS) & (extent > SAME_POINT_M)
    wide: NDArray[np.bool_] = usable & (major > WIDE_SHARE * (distance + extent))
    return wide


def _view_surroundings(
    padded: PaddedSessions,
    area: Area,
    found: Minima,
    problem: DelayProblem,
    state: FloatArray,
    spread: FloatArray,
    wide: NDArray[np.int64],
) -> Surroundings:
    """Return the wide minima (P,) among those of ``problem``; outliers weigh there what they weigh at the minimum."""
    residual, _, _ = compute_residuals(problem, state)
    weight = 1.0 / np.square(problem.sigma_m)
    gaussian = replace(problem, prior_information=0.0 * problem.prior_information)
    information, _, _ = linearise(gaussian, state, *compute_residuals(gaussian, state))
    if np.isfinite(problem.scale):
        weight = weight / (1.0 + np.square(residual[:, 0] / problem.sigma_m) / problem.scale**2)
    latitude, longitude = padded.frame.latitude[:, 0], padded.frame.longitude[:, 0]
    frame = LocalFrame(latitude, longitude)
    place = np.stack(frame.to_local(found.latitude[wide], found.longitude[wide])[:2], axis=1)
    middle = np.stack(frame.to_local(area.latitude, area.longitude)[:2], axis=1)
    height = problem.up_m[wide]
    receivers = np.stack([padded.latitude, padded.longitude, height], axis=2)
    degrees = np.stack([found.latitude[wide], found.longitude[wide]], axis=1)
    frequency = np.where(padded.follows_ground, 0.0, np.inf)
    way = compute_range_m(
        degrees[:, :1],
        degrees[:, 1:],
        padded.altitude_m - height,
        padded.latitude,
        padded.longitude,
        padded.altitude_m,
        frequency,
    )
    return Surroundings(
        latitude=latitude,
        longitude=longitude,
        extent_m=np.hypot(*compute_extent_m(padded.east_m, padded.north_m, padded.observed).T),
        receivers=receivers,
        arrival_m=padded.arrival_m,
        weight=weight[wide] / spread[wide, None],
        ground=padded.follows_ground,
        area_en_m=middle,
        area_information=area.information(),
        farthest_m=area.farthest_m,
        place_en_m=place,
        information=information[wide, 0] / spread[wide, None, None],
        correction_m=way - compute_sphere_way_m(degrees, receivers, padded.follows_ground),
        **_view_bearings(padded, problem, state, spread, wide, degrees),
    )


def _view_bearings(
    padded: PaddedSessions,
    problem: DelayProblem,
    state: FloatArray,
    spread: FloatArray,
    wide: NDArray[np.int64],
    degrees: FloatArray,
) -> dict[str, FloatArray]:
    """Return what ``Surroundings`` hold of the bearings of the wide minima (P,), at ``degrees`` (P, 2)."""
    if problem.bearings is None:
        return {}
    weight = weigh_bearings_at(problem, state)[:, 0]
    true_deg = compute_azimuth_deg(padded.latitude, padded.longitude, degrees[:, :1], degrees[:, 1:])
    receivers = np.stack([padded.latitude, padded.longitude, np.zeros_like(padded.latitude)], axis=2)
    turn = wrap_angle(np.radians(true_deg) - compute_sphere_azimuth_rad(degrees, receivers))
    return {
        "bearing_rad": padded.bearing_rad,
        "bearing_weight": weight[wide] / spread[wide, None],
        "bearing_turn_rad": turn,
    }


def state_problem(padded: PaddedSessions, area: Area, frame: LocalFrame, wave: Wave) -> DelayProblem:
    """Return arrival times and bearings in ``frame``, straight lines in it corrected to the wave's ways."""
    east, north, _ = frame.to_local(padded.latitude, padded.longitude)
    altitude_m = wave.source_altitude_m
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
        scale=wave.scale,
        bearings=state_bearings(padded, frame),
    )


def compute_residual_scale(problem: DelayProblem, state: FloatArray, cost: FloatArray) -> FloatArray:
    """Return by how much residuals show variances to be too small, (S,), at least 1.

    Where chi-square of the best state is above its ``RESIDUAL_QUANTILE``, the stated sigmas are not believed: their
    common scale is estimated from the residuals, and few residuals tell it badly, so the ellipse is that of Hotelling.

    Source: with f degrees of freedom the 90 % region has radius^2 2 s^2 F(2, f) instead of chi-square(2).
    """
    from scipy.special import chdtri, fdtri  # slow to load; whoever only lists the graph needs no scipy

    num_rows = np.maximum(problem.timed.sum(axis=1) - 1, 0)
    if problem.bearings is not None:
        num_rows = num_rows + np.isfinite(problem.bearings.sigma_rad).sum(axis=1)
    freedom = np.maximum(num_rows - MIN_ROWS, 1)
    prior = compute_tail_cost(compute_area_square(problem, state))
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
