"""Where arrivals leave a source, once that is no Gaussian: the whole likelihood along and across a long, bent ridge.

Where arrivals tell the direction well and the distance hardly, the probable places are a wedge that may have no far
end. It is summed on the hemisphere whose gnomonic projection is the plane: far points crowd towards its rim, where
reciprocal distance, the curvature of the wave front, is the coordinate in which arrivals err like a Gaussian.

Belongs here: the sum about one minimum, its middle, its ellipse. Does not belong here: finding minima
(``least_squares``), choosing between them (``tdoa``).

Legend of shapes: P places (minima), N nodes about each, R receiver slots. Places in m, or unit vectors on a sphere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.area import compute_tail_cost
from heimdall_assets.locating.bearings import wrap_angle
from heimdall_assets.locating.bounds import invert_information
from heimdall_assets.locating.sphere import measure_azimuth, measure_way, raise_plane, see_from
from heimdall_assets.signals.geodesy import FloatArray

NUM_RETURNS = 3
"""Gauss-Newton steps that lead from a straight line back onto the ridge."""

NUDGE = 1e-5
"""Step of a difference quotient, a share of the hemisphere: metres among kilometres."""

RIM = 0.5 * np.pi - 1e-6
"""Angle of the hemisphere's rim, infinitely far away."""

KEPT_COST = 3.1
"""An ellipse is drawn around what arrivals make no less likely than this by their cost. Chi-square of two degrees of
freedom has its 90 % quantile at 4.6; a smooth ellipse about one place holds more than what it is drawn around."""

KEPT_BEARING_COST = 4.0
"""The same where bearings tell of a place. They leave shapes nearer to an ellipse, which hold little beyond what it is
drawn around: with 3.1 ellipses held 85 % (four to seven bearings of 2 to 25 degrees), with 3.8 to 4.6 88 to 94 %."""

FAR_MASS = 0.02
"""Share of the probability that lies beyond its far end, for which no ellipse would be long enough."""

OPEN_SHARE = 0.7
"""Arrivals that are likeliest beyond this share of the way to the farthest place looked at tell no distance."""

NUM_ALONG, NUM_ACROSS = 31, 7
"""Nodes along a ridge, and across it at each of them."""

REACH_ALONG, REACH_ACROSS = 4.5, 1.499
"""How far nodes go to either side: along the ridge in sigmas, across it in roots of the kept cost, where one lies."""

NUM_FITTINGS, NUM_OUTERMOST = 25, 24
"""Steps of the fit of an ellipse, and nodes that it is fitted to."""

QUANTILE_90 = -2.0 * np.log(0.10)


@dataclass(frozen=True)
class Surroundings:
    """Sessions and one minimum of each, about their receivers' centres.

    Attributes:
        latitude, longitude: float64 (P,), degrees, centres of the receivers.
        extent_m: float64 (P,), root mean square distance of the receivers from there.
        receivers: float64 (P, R, 3), latitude, longitude in degrees, height above the source in m.
        arrival_m: float64 (P, R).
        weight: float64 (P, R), 1/m^2, of arrivals; 0: none.
        ground: bool (P, R), the wave follows the ground.
        area_en_m: float64 (P, 2), the area's middle.
        area_information: float64 (P, 2, 2), 1/m^2.
        farthest_m: float64 (P,).
        place_en_m: float64 (P, 2), the minimum.
        information: float64 (P, 2, 2), 1/m^2, of the arrivals there.
        correction_m: float64 (P, R), what the wave's way to the minimum is longer than on the sphere.
        bearing_rad: float64 (P, R), from true north; None: no session has bearings.
        bearing_weight: float64 (P, R), 1/rad^2; 0: none.
        bearing_turn_rad: float64 (P, R), what the azimuth to the minimum is more than on the sphere.
    """

    latitude: FloatArray
    longitude: FloatArray
    extent_m: FloatArray
    receivers: FloatArray
    arrival_m: FloatArray
    weight: FloatArray
    ground: NDArray[np.bool_]
    area_en_m: FloatArray
    area_information: FloatArray
    farthest_m: FloatArray
    place_en_m: FloatArray
    information: FloatArray
    correction_m: FloatArray
    bearing_rad: FloatArray | None = None
    bearing_weight: FloatArray | None = None
    bearing_turn_rad: FloatArray | None = None

    @property
    def kept_cost(self) -> FloatArray:
        """What the ellipse is drawn around, (P,): ``KEPT_COST``, or ``KEPT_BEARING_COST`` where there are bearings."""
        if self.bearing_weight is None:
            return np.full(len(self.latitude), KEPT_COST)
        return np.where((self.bearing_weight > 0.0).any(axis=1), KEPT_BEARING_COST, KEPT_COST)

    @property
    def weights(self) -> FloatArray:
        """Weights of all that ``_compute_residuals`` gives, (P, R), or (P, 2 R) where there are bearings."""
        if self.bearing_weight is None:
            return self.weight
        return np.concatenate([self.weight, self.bearing_weight], axis=1)


@dataclass(frozen=True)
class Summed:
    """What is summed about P minima.

    Attributes:
        covariance: float64 (P, 2, 2), m^2, about the minimum; its 90 % ellipse is drawn around ``KEPT_COST``.
        log_area: float64 (P,), logarithm of the integral of probability over its value at the minimum, by 2 pi, m^2:
            of a Gaussian half the log determinant of its covariance.
        likeliest_en_m: float64 (P, 2), where arrivals alone put the source; NaN where they leave the distance open.
    """

    covariance: FloatArray
    log_area: FloatArray
    likeliest_en_m: FloatArray


def sum_surroundings(given: Surroundings) -> Summed:
    """Return how far each minimum's surroundings reach, and how probable they are."""
    scale = np.sqrt(3.0) * given.extent_m
    start, spread = _start(given, scale)
    values, vectors = np.linalg.eigh(spread)
    across, along = vectors[:, :, 0], vectors[:, :, 1]
    middle, length = np.zeros(len(scale)), np.sqrt(values[:, 1])
    place = given.place_en_m[:, None]
    at_place = _compute_misfit(given, place) + _compute_area_cost(given, place)
    for num_across in (1, NUM_ACROSS):  # the first walk finds how long the ridge is
        step = middle[:, None] + length[:, None] * np.linspace(-REACH_ALONG, REACH_ALONG, NUM_ALONG)
        line = start[:, None] + step[..., None] * along[:, None]
        ridge, width = _follow_ridge(given, scale, line, across)
        reach = np.linspace(-REACH_ACROSS, REACH_ACROSS, num_across) if num_across > 1 else np.zeros(1)
        outermost = np.sqrt(given.kept_cost)
        aside = width[..., None] * (outermost[:, None, None] * reach)
        chart = (ridge[:, :, None] + aside[..., None] * across[:, None, None]).reshape(len(scale), -1, 2)
        plane, log_stretch, inside = _project(chart, scale[:, None], given.farthest_m[:, None])
        # From beyond the rim a step leads anywhere.
        inside &= np.repeat(np.hypot(line[..., 0], line[..., 1]) < RIM, num_across, axis=1)
        inside |= ~inside.max(
            axis=1, keepdims=True
        )  # arrivals that put it beyond all that is heard have an ellipse too
        misfit = _compute_misfit(given, plane)
        cost = np.where(inside, misfit + _compute_area_cost(given, plane) - 2.0 * log_stretch, np.inf)
        cost = cost - 2.0 * np.repeat(np.log(width), num_across, axis=1)
        least = cost.min(axis=1, keepdims=True)
        mass = np.exp(-0.5 * (cost - least))
        total = mass.sum(axis=1, keepdims=True)
        mass /= total
        cell = length * (2.0 * REACH_ALONG / (NUM_ALONG - 1)) * (2.0 * REACH_ACROSS * outermost / (NUM_ACROSS - 1))
        log_area = np.log(total[:, 0] * cell / (2.0 * np.pi)) - 0.5 * (least - at_place)[:, 0]
        share = mass.reshape(len(scale), NUM_ALONG, num_across).sum(axis=2)
        middle = (share * step).sum(axis=1)
        variance = (share * np.square(step - middle[:, None])).sum(axis=1)
        length = np.sqrt(variance + np.square(length * REACH_ALONG / NUM_ALONG) / 3.0)
    kept = _choose(misfit, mass, given.kept_cost, np.hypot(*np.moveaxis(plane, -1, 0)))
    usable = np.where(inside, misfit, np.inf)
    likeliest = usable.argmin(axis=1)
    rows = np.arange(len(scale))
    # Where arrivals are the likelier, the farther, the least is at the end of the ridge.
    end = np.where(inside, np.hypot(*np.moveaxis(plane, -1, 0)), 0.0).max(axis=1)
    is_open = np.hypot(*plane[rows, likeliest].T) > OPEN_SHARE * np.minimum(end, given.farthest_m)
    return Summed(
        covariance=_enclose(see_from(given.latitude, given.longitude, plane, given.place_en_m), kept),
        log_area=log_area,
        likeliest_en_m=np.where(is_open[:, None], np.nan, plane[rows, likeliest]),
    )


def _follow_ridge(
    given: Surroundings, scale: FloatArray, line: FloatArray, across: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return points of the chart (P, N, 2) from which arrivals differ least, each beside one of a line's, and sigmas.

    The sigma (P, N) is that of the arrivals across the ridge, at most the hemisphere's radius.
    """
    nudge = NUDGE * across[:, None]
    aside, sigma = np.zeros(line.shape[:2]), np.ones(line.shape[:2])
    for _ in range(NUM_RETURNS):
        points = line + aside[..., None] * across[:, None]
        here, there = (
            _compute_residuals(given, _project(chart, scale[:, None], given.farthest_m[:, None])[0])
            for chart in (points, points + nudge)
        )
        slope = _wrap_rows(given, there - here) / NUDGE
        weight = given.weights[:, None]
        information = (weight * np.square(slope)).sum(axis=-1) + 1.0
        aside = np.clip(aside - (weight * slope * here).sum(axis=-1) / information, -RIM, RIM)
        sigma = 1.0 / np.sqrt(information)
    return line + aside[..., None] * across[:, None], sigma


def _start(given: Surroundings, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the minimum in the chart (P, 2) and a Gaussian about it there (P, 2, 2), no wider than the hemisphere."""
    # A metre to the east of the middle there is no direction either, but a number.
    place = given.place_en_m + np.where(np.hypot(*given.place_en_m.T) < 1.0, 1.0, 0.0)[:, None] * np.array([1.0, 0.0])
    distance = np.hypot(*place.T)
    angle = np.arctan2(distance, scale)
    out = place / distance[:, None]
    across = np.stack([-out[:, 1], out[:, 0]], axis=1)
    # Lengths in m that one unit of the chart has there, outwards and across.
    stretch = np.stack([scale / np.square(np.cos(angle)), distance / angle], axis=1)
    axes = np.stack([out, across], axis=2) * stretch[:, None]
    jacobian = np.einsum("pik,pjk->pij", axes, np.stack([out, across], axis=2))
    information = np.einsum("pki,pkl,plj->pij", jacobian, given.information, jacobian) + np.eye(2)
    return angle[:, None] * out, invert_information(information)


def _project(
    chart: FloatArray, scale: FloatArray, farthest_m: FloatArray
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return places (P, N, 2) of points of the chart, log of their square m a unit of it, and which are near enough.

    The chart is the hemisphere, azimuthal and equidistant about its pole.
    """
    angle = np.maximum(np.hypot(chart[..., 0], chart[..., 1]), 1e-9)
    bounded = np.minimum(angle, RIM)
    distance = scale * np.tan(bounded)
    log_stretch = 2.0 * np.log(scale / np.cos(bounded)) + np.log(np.tan(bounded) / bounded)
    return chart * (distance / angle)[..., None], log_stretch, (angle < RIM) & (distance < farthest_m)


def _compute_misfit(given: Surroundings, plane: FloatArray) -> FloatArray:
    """Return twice the negative log likelihood (P, N) of arrivals and bearings at places (P, N, 2)."""
    misfit: FloatArray = (given.weights[:, None] * np.square(_compute_residuals(given, plane))).sum(axis=-1)
    return misfit


def _compute_residuals(given: Surroundings, plane: FloatArray) -> FloatArray:
    """Return residuals (P, N, R) in m of arrivals at places (P, N, 2), the emission time eliminated.

    Where there are bearings, their residuals in rad follow: (P, N, 2 R).
    """
    vector = raise_plane(given.latitude[:, None], given.longitude[:, None], plane)
    way = measure_way(vector, given.receivers, given.ground)
    residual = given.arrival_m[:, None] - way - given.correction_m[:, None]
    weight = given.weight[:, None]
    total = np.maximum(weight.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    residual -= (weight * residual).sum(axis=-1, keepdims=True) / total
    if given.bearing_rad is None or given.bearing_turn_rad is None:
        return residual
    azimuth = measure_azimuth(vector, given.receivers) + given.bearing_turn_rad[:, None]
    return np.concatenate([residual, wrap_angle(given.bearing_rad[:, None] - azimuth)], axis=-1)


def _wrap_rows(given: Surroundings, change: FloatArray) -> FloatArray:
    """Return changes (P, N, ...) of residuals, those of bearings the short way round."""
    if given.bearing_rad is None:
        return change
    num = given.weight.shape[1]
    return np.concatenate([change[..., :num], wrap_angle(change[..., num:])], axis=-1)


def _compute_area_cost(given: Surroundings, plane: FloatArray) -> FloatArray:
    off = plane - given.area_en_m[:, None]
    return compute_tail_cost(np.einsum("pni,pij,pnj->pn", off, given.area_information, off))


def _choose(misfit: FloatArray, mass: FloatArray, cost: FloatArray, distance: FloatArray) -> NDArray[np.bool_]:
    """Return nodes (P, N) that data allow at a cost (P,), less those beyond ``FAR_MASS``; the densest one anyway.

    What arrivals allow holds the truth as often at any distance; what is probable would, the farther, the less.
    """
    order = np.argsort(-distance, axis=1, kind="stable")
    beyond = np.cumsum(np.take_along_axis(mass, order, axis=1), axis=1)
    near = np.zeros(mass.shape, dtype=bool)
    np.put_along_axis(near, order, beyond > FAR_MASS, axis=1)
    allowed = misfit - np.where(mass > 0.0, misfit, np.inf).min(axis=1, keepdims=True) <= cost[:, None]
    kept: NDArray[np.bool_] = (allowed & near & (mass > 0.0)) | (mass == mass.max(axis=1, keepdims=True))
    return kept


def _enclose(points: FloatArray, kept: NDArray[np.bool_]) -> FloatArray:
    """Return the covariance (P, 2, 2) whose 90 % ellipse about 0 is the smallest around the kept points (P, N, 2).

    Source: the smallest centred ellipse is the dual of a D-optimal design, found by multiplying weights (Titterington,
    Biometrika 62 (1975) 313).
    """
    points = np.where(kept[..., None], points, 0.0)
    hull = _find_outermost(points)
    share = np.full(hull.shape[:2], 1.0 / NUM_OUTERMOST)
    for _ in range(NUM_FITTINGS):
        inverse = invert_information(_fatten(np.einsum("pn,pni,pnj->pij", share, hull, hull)))
        share = share * (np.einsum("pni,pij->pnj", hull, inverse) * hull).sum(axis=-1) / 2.0
        share /= share.sum(axis=1, keepdims=True)
    matrix = _fatten(np.einsum("pn,pni,pnj->pij", share, hull, hull))
    square = (np.einsum("pni,pij->pnj", points, invert_information(matrix)) * points).sum(axis=-1)
    reach = np.maximum(square.max(axis=1), 1.0)
    covariance: FloatArray = matrix * (reach / QUANTILE_90)[:, None, None]
    return covariance


def _fatten(matrix: FloatArray) -> FloatArray:
    """Return moments (P, 2, 2) in m^2 with a metre, or 10 m in 1000 km, added: points on one line have an ellipse."""
    least = np.maximum(1.0, 1e-10 * np.trace(matrix, axis1=1, axis2=2))
    fat: FloatArray = matrix + least[:, None, None] * np.eye(2)
    return fat


def _find_outermost(points: FloatArray) -> FloatArray:
    """Return the points (P, H, 2) of (P, N, 2) that lie farthest out in H directions of their own ellipse."""
    inverse = invert_information(_fatten(np.einsum("pni,pnj->pij", points, points)))
    angle = np.arange(NUM_OUTERMOST) * (np.pi / NUM_OUTERMOST)
    root = np.linalg.cholesky(inverse)  # columns whiten
    direction = np.einsum("pij,hj->pih", root, np.stack([np.cos(angle), np.sin(angle)], axis=1))
    outermost = np.abs(points @ direction).argmax(axis=1)
    hull: FloatArray = np.take_along_axis(points, outermost[..., None], axis=1)
    return hull
