"""Least squares of arrival times with an unknown emission time, many sessions and many starts at once.

Belongs here: the cost, its starts and its descent. Does not belong here: choosing between its minima, and what is said
about them (``tdoa``).

Legend of shapes: S sessions, K starts or modes, T triples' meeting points, R receiver slots.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.area import compute_tail_cost, compute_tail_weight
from heimdall_assets.locating.bearings import BearingRows, compute_bearing_residuals, cross_bearings
from heimdall_assets.locating.hyperbola import intersect_hyperbolas
from heimdall_assets.signals.geodesy import FloatArray

MIN_TIMED = 3
"""Receivers with arrival times that a position needs: two unknowns and the emission time."""

MIN_ROWS = 2
"""Numbers that a position needs: differences of arrivals, or bearings, or one of each."""

NUM_STARTS = 4
"""Taken from the grid, and as many from triples of receivers."""

GRID_ANGLE_RAD = np.pi / 12
"""Spacing of the grid's rays."""

MAX_TRIPLED = 7
"""Receivers whose triples give starts: 35 triples; with more receivers the grid alone finds the minimum."""


@dataclass(frozen=True)
class DelayProblem:
    """Arrival times, and bearings where there are some, in one local frame a session; float64, metres.

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
    bearings: BearingRows | None = None


def compute_residuals(problem: DelayProblem, state: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return residuals (S, K, R) in m at states (S, K, 3), and east and north parts of the unit vectors."""
    de = state[..., 0, None] - problem.east_m[:, None]
    dn = state[..., 1, None] - problem.north_m[:, None]
    distance = np.maximum(np.sqrt(de * de + dn * dn + np.square(problem.up_m)[:, None]), 1.0)
    residual = problem.arrival_m[:, None] - distance - problem.correction_m[:, None] - state[..., 2, None]
    return residual, de / distance, dn / distance


def _compute_cost(problem: DelayProblem, state: FloatArray, residual: FloatArray) -> FloatArray:
    """Return twice the negative log likelihood with the area's prior, (S, K)."""
    z2 = np.square(residual / problem.sigma_m[:, None])
    loss = z2 if np.isinf(problem.scale) else problem.scale**2 * np.log1p(z2 / problem.scale**2)
    cost: FloatArray = loss.sum(axis=-1) + compute_tail_cost(compute_area_square(problem, state))
    if problem.bearings is not None:
        turned, _, _ = _compute_bearings(problem, state)
        z2 = np.square(turned / problem.bearings.sigma_rad[:, None])
        loss = z2 if np.isinf(problem.scale) else problem.scale**2 * np.log1p(z2 / problem.scale**2)
        cost = cost + loss.sum(axis=-1)
    return cost


def _compute_bearings(problem: DelayProblem, state: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return residuals (S, K, R) in rad of the bearings at states (S, K, 3), and the slopes of azimuths in rad/m."""
    assert problem.bearings is not None
    de = state[..., 0, None] - problem.east_m[:, None]
    dn = state[..., 1, None] - problem.north_m[:, None]
    return compute_bearing_residuals(problem.bearings, de, dn)


def compute_area_square(problem: DelayProblem, state: FloatArray) -> FloatArray:
    """Return squared sigmas (S, K) of states (S, K, 3) from the middle of the area."""
    off = state[..., :2] - problem.prior_en_m[:, None]
    square: FloatArray = np.einsum("ski,sij,skj->sk", off, problem.prior_information, off)
    return square


def choose_starts(problem: DelayProblem) -> FloatArray:
    """Return the best starts (S, K, 3): of a polar grid, and of what triples of receivers agree on, or mirrored.

    Where there are bearings, the best places where two of them cross come as well.
    """
    rows = problem.bearings
    observed = problem.timed if rows is None else problem.timed | np.isfinite(rows.sigma_rad)
    count = np.maximum(observed.sum(axis=1), 1)
    centre_e = np.where(observed, problem.east_m, 0.0).sum(axis=1) / count
    centre_n = np.where(observed, problem.north_m, 0.0).sum(axis=1) / count
    square = np.square(problem.east_m - centre_e[:, None]) + np.square(problem.north_m - centre_n[:, None])
    radius = np.maximum(np.sqrt(np.where(observed, square, 0.0).sum(axis=1) / count), 1.0)
    grid = np.stack([centre_e, centre_n], axis=1)[:, None] + radius[:, None, None] * _make_polar_grid()
    # A grid point is never right to better than its spacing, so sharper sigmas would rank by luck.
    blunt = np.where(problem.timed, np.hypot(problem.sigma_m, 0.15 * radius[:, None]), np.inf)
    triples, real = _intersect_triples(problem)
    coarse = problem if rows is None else replace(problem, bearings=replace(rows, sigma_rad=_blunt_angles(rows)))
    from_grid = _take_best(coarse, grid, np.ones(grid.shape[:2], dtype=bool), blunt)
    from_triples = _take_best(problem, triples, real, problem.sigma_m)
    mirrored = from_grid.copy()
    mirrored[..., :2] = _mirror(problem, from_grid[..., :2], np.stack([centre_e, centre_n], axis=1))
    met = np.concatenate([from_triples, mirrored], axis=1)[:, :NUM_STARTS]
    starts = np.concatenate([from_grid, np.where(real.max(axis=1)[:, None, None], met, mirrored)], axis=1)
    if rows is None:
        return starts
    crossed, is_real = cross_bearings(rows, problem.east_m, problem.north_m)
    from_crossings = _take_best(problem, crossed, is_real, problem.sigma_m)
    others = from_grid[:, : from_crossings.shape[1]]
    return np.concatenate([starts, np.where(is_real.max(axis=1)[:, None, None], from_crossings, others)], axis=1)


def _blunt_angles(rows: BearingRows) -> FloatArray:
    """Return sigmas of bearings as wide as the grid's angular spacing."""
    return np.where(np.isfinite(rows.sigma_rad), np.hypot(rows.sigma_rad, GRID_ANGLE_RAD / 2.0), np.inf)


def _mirror(problem: DelayProblem, points: FloatArray, centre: FloatArray) -> FloatArray:
    """Return points (S, K, 2) on the other side of the timed receivers' main axis through their centre (S, 2).

    Receivers on one line, of which no triple meets anywhere, hear either side alike.
    """
    de = np.where(problem.timed, problem.east_m - centre[:, :1], 0.0)
    dn = np.where(problem.timed, problem.north_m - centre[:, 1:], 0.0)
    angle = 0.5 * np.arctan2(2.0 * (de * dn).sum(axis=1), (de * de - dn * dn).sum(axis=1))
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    aside = np.einsum("ski,si->sk", points - centre[:, None], across)
    mirrored: FloatArray = points - 2.0 * aside[..., None] * across[:, None]
    return mirrored


def _make_polar_grid() -> FloatArray:
    """Return points (G, 2) around the origin, in units of the receivers' spread."""
    rings = np.geomspace(0.15, 20.0, 10)
    angle = (2 * np.arange(24) + np.arange(10)[:, None] % 2) * (GRID_ANGLE_RAD / 2.0)
    points = np.stack([rings[:, None] * np.cos(angle), rings[:, None] * np.sin(angle)], axis=-1)
    return np.concatenate([[[0.01, 0.01]], points.reshape(-1, 2)])


def _intersect_triples(problem: DelayProblem) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return where each triple among the first timed receivers meets, (S, T, 2), and which of these are real.

    First is westernmost, so that the order in which receivers are given changes nothing.
    """
    order = np.argsort(np.where(problem.timed, problem.east_m, np.inf), axis=1, kind="stable")[:, :MAX_TRIPLED]
    if order.shape[1] < MIN_TIMED:
        return np.zeros((len(order), 1, 2)), np.zeros((len(order), 1), dtype=bool)

    def pick(values: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(values, order, axis=1)[:, triple]

    triple = np.array(list(combinations(range(order.shape[1]), 3)))
    arrival_m = problem.arrival_m - problem.correction_m
    places, real = intersect_hyperbolas(
        pick(problem.east_m), pick(problem.north_m), pick(problem.up_m), pick(arrival_m)
    )
    real &= pick(problem.timed).min(axis=-1, keepdims=True)
    return places.reshape(len(order), -1, 2), real.reshape(len(order), -1)


def _take_best(problem: DelayProblem, points: FloatArray, real: NDArray[np.bool_], sigma_m: FloatArray) -> FloatArray:
    """Return the ``NUM_STARTS`` real points (S, K, 2) of least cost at the given sigmas, with an emission range."""
    state = _solve_emission(problem, points)
    residual, _, _ = compute_residuals(problem, state)
    cost = np.where(real, _compute_cost(replace(problem, sigma_m=sigma_m), state, residual), np.inf)
    order = np.argsort(cost, axis=1, kind="stable")[:, :NUM_STARTS]
    order = np.where(np.isfinite(np.take_along_axis(cost, order, axis=1)), order, order[:, :1])
    return np.take_along_axis(state, order[..., None], axis=1)


def _solve_emission(problem: DelayProblem, points: FloatArray) -> FloatArray:
    """Return ``points`` (S, K, 2) with the lower median of the timed residuals as emission range, (S, K, 3)."""
    state = np.concatenate([points, np.zeros((*points.shape[:2], 1))], axis=-1)
    residual, _, _ = compute_residuals(problem, state)
    ordered = np.sort(np.where(problem.timed[:, None], residual, np.inf), axis=-1)
    middle = np.maximum(problem.timed.sum(axis=1) - 1, 0) // 2
    median = np.take_along_axis(ordered, np.broadcast_to(middle[:, None, None], (*points.shape[:2], 1)), axis=-1)
    state[..., 2:] = np.where(np.isfinite(median), median, 0.0)
    return state


def descend(problem: DelayProblem, state: FloatArray, num_iterations: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return states after damped reweighted Gauss-Newton steps, their cost (S, K) and information (S, K, 2, 2).

    A step is taken where it lowers the cost, else the damping grows (Levenberg and Marquardt).
    """
    damping = np.full(state.shape[:2], 1e-2)
    residual, unit_e, unit_n = compute_residuals(problem, state)
    cost = _compute_cost(problem, state, residual)
    for _ in range(num_iterations):
        information, gradient, shift = linearise(problem, state, residual, unit_e, unit_n)
        trace = 0.5 * damping * (information[..., 0, 0] + information[..., 1, 1])
        damped = information + trace[..., None, None] * np.eye(2)
        move = np.einsum("skij,skj->ski", _invert(damped), gradient)
        tried = state.copy()
        tried[..., :2] += move
        tried[..., 2] += shift[..., 0] - shift[..., 1] * move[..., 0] - shift[..., 2] * move[..., 1]
        new_residual, new_e, new_n = compute_residuals(problem, tried)
        new_cost = _compute_cost(problem, tried, new_residual)
        better = new_cost <= cost
        state = np.where(better[..., None], tried, state)
        cost = np.where(better, new_cost, cost)
        residual, unit_e, unit_n = (
            np.where(better[..., None], new, old)
            for new, old in ((new_residual, residual), (new_e, unit_e), (new_n, unit_n))
        )
        damping = np.clip(np.where(better, damping * 0.2, damping * 8.0), 1e-9, 1e6)
    information, _, _ = linearise(problem, state, residual, unit_e, unit_n)
    return state, cost, information


def linearise(
    problem: DelayProblem, state: FloatArray, residual: FloatArray, unit_e: FloatArray, unit_n: FloatArray
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
    tail = compute_tail_weight(compute_area_square(problem, state))
    prior = tail[..., None, None] * problem.prior_information[:, None]
    information = np.stack([np.stack([see, sen], -1), np.stack([sen, snn], -1)], -2) + prior
    pull = np.einsum("skij,skj->ski", prior, problem.prior_en_m[:, None] - state[..., :2])
    gradient = np.stack([(weight * e * r).sum(-1), (weight * n * r).sum(-1)], axis=-1) + pull
    if problem.bearings is not None:
        more, steeper = _linearise_bearings(problem, state)
        information, gradient = information + more, gradient + steeper
    return information, gradient, np.stack(means, axis=-1)


def _linearise_bearings(problem: DelayProblem, state: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return information (S, K, 2, 2) and gradient (S, K, 2) of the bearings at states (S, K, 3)."""
    assert problem.bearings is not None
    residual, *slopes = _compute_bearings(problem, state)
    weight = weigh_bearings(problem, residual)
    slope = np.stack(slopes, axis=-1)
    information: FloatArray = np.einsum("skr,skri,skrj->skij", weight, slope, slope)
    gradient: FloatArray = np.einsum("skr,skri,skr->ski", weight, slope, residual)
    return information, gradient


def weigh_bearings(problem: DelayProblem, residual: FloatArray) -> FloatArray:
    """Return weights (S, K, R), 1/rad^2, of bearings with residuals (S, K, R) in rad: an outlier's is small."""
    assert problem.bearings is not None
    sigma = problem.bearings.sigma_rad[:, None]
    tail = np.square(residual / sigma) / problem.scale**2 if np.isfinite(problem.scale) else 0.0
    weight: FloatArray = 1.0 / np.square(sigma) / (1.0 + tail)
    return weight


def weigh_bearings_at(problem: DelayProblem, state: FloatArray) -> FloatArray:
    """Return weights (S, K, R), 1/rad^2, of the bearings at states (S, K, 3)."""
    return weigh_bearings(problem, _compute_bearings(problem, state)[0])


def _invert(matrix: FloatArray) -> FloatArray:
    """Return the inverse of positive definite 2x2 matrices (..., 2, 2)."""
    a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    determinant = np.maximum(a * c - b * b, np.finfo(np.float64).tiny)
    return np.stack([np.stack([c, -b], -1), np.stack([-b, a], -1)], -2) / determinant[..., None, None]
