"""How far a source may be where arrivals hardly tell: ellipses of long, bent ridges, in torch.

The same sum as ``locating.posterior``, whose docstring says why: along a ridge on the hemisphere of which the plane is
the gnomonic projection, and an ellipse around what arrivals allow.

Belongs here: widths of one solution. Does not belong here: finding it (``gauss_newton``), learned numbers.
Legend of shapes: B sessions, N points, A nodes along a ridge, C across it, R receiver slots. Lengths are km.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from heimdall_assets.learning.repetition import Context, Values, repeat
from heimdall_assets.learning.session_model.physics import (
    AREA_TAIL,
    BEARING_SCALE,
    DELAY_AXES,
    Delays,
    apply_factor,
    compute_bearing_cost,
    compute_bearing_residuals,
    compute_covariance,
    compute_mean,
    compute_ranges,
    compute_step,
    solve_rows,
)

WIDE_SHARE, WIDEST_SHARE = 0.02, 0.3
"""A sigma above the first share of the way to the source makes its ellipse be summed. Up to it a ridge is as good as
straight, and its ellipse holds no more than what it is drawn around; above the second one it holds much more."""

NUM_ALONG, NUM_ACROSS = 31, 7
KEPT_COST, FAR_MASS = 3.1, 0.02
"""As in ``locating.posterior``, for the widest; what is straight is kept up to chi-square's own quantile."""

KEPT_BEARING_COST = 4.0
"""The same where there are bearings, as in ``locating.posterior``."""

REACH_ALONG, REACH_ACROSS = 4.5, 1.499
"""Sigmas along the ridge, and roots of the cost that is kept across it."""

NUM_RETURNS = 3

FOLLOW_AXES = f"Ba Ba B2 B B Ba2 B2 {DELAY_AXES}"
"""Way aside and sigma across; the chart, the line, the direction across it, and the delays; for ``repeat``."""

LIKELY, OTHER_REACH = 0.1, 1.2
"""A second place of this probability is reached by the ellipse, a little beyond its middle."""

FARTHEST_KM = 2350.0
"""One hop of sporadic E (ITU-R P.534); the plane that sources lie on holds to about here."""

AREA_SPREADS = 2.0
"""Sigma of the area about the receivers, in their spread: what a learned prior says must not end a ridge."""

SAME_POINT_KM = 1e-3
"""Receivers closer than this stand at one point, and arrivals tell nothing."""

QUANTILE_90 = -2.0 * math.log(0.10)
LENGTHS = (1.02, 1.08, 1.15, 1.25, 1.4, 1.7)
"""Half axes that are tried, in the distance of the farthest point."""


class Chart(NamedTuple):
    """A hemisphere over the plane: under its pole ``centre`` (B, 2), its radius ``scale`` (B,), edge ``rim`` (B,)."""

    centre: Tensor
    scale: Tensor
    rim: Tensor

    def project(self, chart: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return places (B, N, 2) of points of the chart, log of their square km a unit of it, and distances (B, N)."""
        angle = (chart.square().sum(-1) + 1e-12).sqrt()
        bounded = torch.minimum(angle, self.rim.unsqueeze(1))
        distance = self.scale.unsqueeze(1) * torch.tan(bounded)
        stretch = 2.0 * (self.scale.unsqueeze(1) / torch.cos(bounded)).log() + (torch.tan(bounded) / bounded).log()
        return self.centre.unsqueeze(1) + chart * (distance / angle).unsqueeze(-1), stretch, distance

    def push(self, chart: Tensor, direction: Tensor) -> Tensor:
        """Return how places (B, N, 2) move with points of the chart that move along ``direction`` (B, N, 2)."""
        angle = (chart.square().sum(-1, keepdim=True) + 1e-12).sqrt()
        bounded = torch.minimum(angle, self.rim[:, None, None])
        out = chart / angle
        outwards = (out * direction).sum(-1, keepdim=True)
        scale = self.scale[:, None, None]
        return scale * (
            out * outwards / torch.cos(bounded).square() + (direction - out * outwards) * torch.tan(bounded) / bounded
        )

    def raise_place(self, place: Tensor) -> Tensor:
        """Return points of the chart (B, 2) over places (B, 2)."""
        away = place - self.centre
        distance = (away.square().sum(-1, keepdim=True) + 1e-8).sqrt()
        return away / distance * torch.atan(distance / self.scale.unsqueeze(-1))


def widen_ridge(position: Tensor, factor: Tensor, delays: Delays) -> Tensor:
    """Return upper factors (B, 3) of the information, lower where a ridge is wider than its curvature at one place.

    Args:
        position: (B, 2), the most probable place.
        factor: (B, 3), of the information there.
        delays: what is known; weights are those of the information.
    """
    observed, num_rows, keep = _count_rows(delays)
    centre = compute_mean(delays.receivers[..., :2], observed.unsqueeze(-1), dim=1)
    away = (delays.receivers[..., :2] - centre.unsqueeze(1)).square().sum(-1)
    extent = compute_mean(away, observed).add(1e-8).sqrt()
    scale = math.sqrt(3.0) * extent
    chart = Chart(centre, scale, torch.atan(1.05 * FARTHEST_KM / scale))
    start = chart.raise_place(position)
    along, length = _find_axis(chart, start, factor)
    across = torch.stack([-along[:, 1], along[:, 0]], -1)
    covariance = compute_covariance(factor)
    major = (0.5 * (covariance[:, 0] + covariance[:, 1]) + _compute_half(covariance)).sqrt()
    share_of_way = major / ((position - centre).square().sum(-1).sqrt() + extent)
    bent = ((share_of_way - WIDE_SHARE) / (WIDEST_SHARE - WIDE_SHARE)).clamp(0.0, 1.0).unsqueeze(-1)
    kept_cost = QUANTILE_90 + (keep - QUANTILE_90) * bent
    middle = torch.zeros_like(length)
    for num_across in (1, NUM_ACROSS):  # the first walk finds how long the ridge is
        ends = torch.linspace(-REACH_ALONG, REACH_ALONG, NUM_ALONG, dtype=position.dtype, device=position.device)
        step = middle.unsqueeze(1) + length.unsqueeze(1) * ends
        line = start.unsqueeze(1) + step.unsqueeze(-1) * along.unsqueeze(1)
        ridge, width = _follow(chart, line, across, delays)
        reach = torch.linspace(-REACH_ACROSS, REACH_ACROSS, num_across, dtype=position.dtype, device=position.device)
        reach = reach * kept_cost.sqrt() if num_across > 1 else 0.0 * reach * kept_cost
        aside = width.unsqueeze(-1) * reach.unsqueeze(1)
        points = (ridge.unsqueeze(2) + aside.unsqueeze(-1) * across[:, None, None]).flatten(1, 2)
        place, stretch, distance = chart.project(points)
        misfit = (delays.weight.unsqueeze(1) * _compute_residuals(place, delays)[0].square()).sum(-1)
        if delays.bearing_weight is not None:
            misfit = misfit + compute_bearing_cost(place, delays)
        sigma = AREA_SPREADS * extent.unsqueeze(1)
        area = AREA_TAIL * ((distance / sigma).square() / AREA_TAIL).log1p()
        starts = (line.square().sum(-1) < chart.rim.square().unsqueeze(1)).repeat_interleave(num_across, dim=1)
        inside = starts & (points.square().sum(-1) < chart.rim.square().unsqueeze(1)) & (distance < FARTHEST_KM)
        cost = misfit + area - 2.0 * stretch - 2.0 * width.log().repeat_interleave(num_across, dim=1)
        mass = torch.where(inside, -0.5 * cost, -1e9).softmax(1)
        share = mass.unflatten(1, (NUM_ALONG, num_across)).sum(-1)
        middle = (share * step).sum(1)
        variance = (share * (step - middle.unsqueeze(1)).square()).sum(1)
        length = (variance + (length * REACH_ALONG / NUM_ALONG).square() / 3.0).sqrt()
    reached = chart.project(ridge)[2]
    beyond = ((reached.unsqueeze(1) >= reached.unsqueeze(2)).to(share.dtype) * share.unsqueeze(1)).sum(-1)
    near = (beyond > FAR_MASS).repeat_interleave(NUM_ACROSS, dim=1)
    allowed = misfit - torch.where(inside, misfit, 1e9).amin(1, keepdim=True) <= kept_cost
    kept = inside & near & allowed
    wide_factor = _enclose(place - position.unsqueeze(1), kept)
    wide = (
        (share_of_way > WIDE_SHARE)
        & (num_rows > 1.5)
        & (extent > SAME_POINT_KM)
        & kept.any(1)
        & wide_factor.isfinite().all(-1)
    )
    return torch.where(wide.unsqueeze(-1), wide_factor, factor)


def _count_rows(delays: Delays) -> tuple[Tensor, Tensor, float | Tensor]:
    """Return which receivers tell of the place (B, R), by how many numbers (B,), and the cost that is kept (B, 1)."""
    timed = (delays.weight > 0).to(delays.weight.dtype)
    num_rows = (timed.sum(1) - 1.0).clamp_min(0.0)
    if delays.bearing_weight is None:
        return timed, num_rows, KEPT_COST
    directed = (delays.bearing_weight > 0).to(timed.dtype)
    keep = torch.where(directed.amax(1, keepdim=True) > 0, KEPT_BEARING_COST, KEPT_COST)
    return torch.maximum(timed, directed), num_rows + directed.sum(1), keep


def reach_others(position: Tensor, factor: Tensor, modes: Tensor, delays: Delays, cost: Tensor) -> Tensor:
    """Return upper factors (B, 3) of ellipses that reach to the other places that explain a session as well.

    Args:
        position: (B, 2), the answer.
        factor: (B, 3), of its information.
        modes: (B, S, 2), minima of the cost, some of them found more than once.
        delays: what is known.
        cost: (B, S), of the modes.

    Source: Laplace's approximation, exp(-cost / 2) / sqrt(det information); second moment of a mixture.
    """
    own = compute_step(modes, delays, None)[1]
    order = torch.arange(modes.shape[1], device=modes.device)
    apart = apply_factor(own.unsqueeze(1), modes.unsqueeze(2) - modes.unsqueeze(1)).square().sum(-1)
    ahead = (cost.unsqueeze(1) < cost.unsqueeze(2)) | (
        (cost.unsqueeze(1) == cost.unsqueeze(2)) & (order < order.unsqueeze(1))
    )
    again = ((apart < 1.0) & ahead).any(-1)
    weight = torch.where(again, -1e9, -0.5 * cost - (own[..., 0] * own[..., 2]).log()).softmax(1)
    away = modes - position.unsqueeze(1)
    # Gradual, not at once: what differs by rounding alone must not differ in its ellipse.
    square = apply_factor(factor.unsqueeze(1), away).square().sum(-1)
    # The answer's own minimum, which learned corrections moved it from, is no second place.
    home = square.argmin(1)[:, None, None].expand(-1, 1, modes.shape[1])
    square = torch.minimum(square, apart.gather(1, home)[:, 0])
    outside = (2.5 * square / QUANTILE_90 - 2.0).clamp(0.0, 1.0)
    likely = (2.0 * weight / LIKELY - 1.0).clamp(0.0, 1.0)
    more = (OTHER_REACH / QUANTILE_90 - weight).clamp_min(0.0)
    reach = (outside * (weight + likely * more)).double()
    away, east, north, both = away.double(), *compute_covariance(factor.double()).unbind(-1)
    east = east + (reach * away[..., 0].square()).sum(1)
    north = north + (reach * away[..., 1].square()).sum(1)
    both = both + (reach * away[..., 0] * away[..., 1]).sum(1)
    u22 = north.rsqrt()
    u11 = (east - both.square() / north).clamp_min(1e-12).rsqrt()
    return torch.stack([u11, -both / north * u11, u22], -1).to(factor.dtype)


def _compute_half(covariance: Tensor) -> Tensor:
    """Return half the difference of the eigenvalues of symmetric matrices (B, 3): first, second diagonal, beside it."""
    return ((0.5 * (covariance[:, 0] - covariance[:, 1])).square() + covariance[:, 2].square()).sqrt()


def _find_axis(chart: Chart, start: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return in the chart the direction (B, 2) that is known worst at ``start`` (B, 2), and its sigma (B,)."""
    one, zero = torch.ones_like(start[:, 0]), torch.zeros_like(start[:, 0])
    axes = torch.stack([one, zero], -1), torch.stack([zero, one], -1)
    east, north = (chart.push(start.unsqueeze(1), axis.unsqueeze(1))[:, 0] for axis in axes)
    rows = [
        torch.stack([factor[:, 0] * side[:, 0] + factor[:, 1] * side[:, 1], factor[:, 2] * side[:, 1]], -1)
        for side in (east, north)
    ]
    # No wider than the hemisphere.
    matrix = torch.stack(
        [rows[0].square().sum(-1) + 1.0, rows[1].square().sum(-1) + 1.0, (rows[0] * rows[1]).sum(-1)], -1
    )
    half, mean = 0.5 * (matrix[:, 0] - matrix[:, 1]), 0.5 * (matrix[:, 0] + matrix[:, 1])
    radius = _compute_half(matrix)
    best = torch.where(
        (half >= 0).unsqueeze(-1),
        torch.stack([radius + half, matrix[:, 2]], -1),
        torch.stack([matrix[:, 2], radius - half], -1),
    )
    best = torch.where((radius > 1e-9 * mean).unsqueeze(-1), best, axes[0])
    best = best / (best.square().sum(-1, keepdim=True) + 1e-20).sqrt()
    worst = torch.stack([-best[:, 1], best[:, 0]], -1)
    # The product of eigenvalues over the larger one: their difference would cancel.
    determinant = matrix[:, 0] * matrix[:, 1] - matrix[:, 2].square()
    least = (determinant / (mean + radius)).clamp_min(1.0)
    return worst, least.rsqrt()


def _compute_residuals(place: Tensor, delays: Delays) -> tuple[Tensor, Tensor]:
    """Return residuals (B, N, R) of arrivals, the emission time eliminated, and unit vectors (B, N, R, 2), centred."""
    ranges, unit = compute_ranges(place, delays.receivers, delays.ground)
    weight = delays.weight.unsqueeze(1)
    residual = delays.arrival.unsqueeze(1) - ranges
    residual = residual - compute_mean(residual, weight).unsqueeze(-1)
    return residual, unit - compute_mean(unit, weight.unsqueeze(-1), dim=2).unsqueeze(2)


def _follow(chart: Chart, line: Tensor, across: Tensor, delays: Delays) -> tuple[Tensor, Tensor]:
    """Return points of the chart (B, A, 2) beside a line's that fit arrivals best, and sigmas (B, A) across there."""
    start = torch.zeros_like(line[..., 0]), torch.ones_like(line[..., 0])
    aside, sigma = repeat(_step_aside, NUM_RETURNS, start, (*chart, line, across, *delays), FOLLOW_AXES)
    return line + aside.unsqueeze(-1) * across.unsqueeze(1).expand_as(line), sigma


def _step_aside(values: Values, context: Context) -> Values:
    """Return values of ``FOLLOW_AXES`` one step of least squares nearer to the ridge."""
    aside, _ = values
    chart, (line, across), delays = Chart(*context[:3]), context[3:5], Delays(*context[5:])  # type: ignore[arg-type]
    assert line is not None
    assert across is not None
    direction = across.unsqueeze(1).expand_as(line)
    points = line + aside.unsqueeze(-1) * direction
    residual, unit = _compute_residuals(chart.project(points)[0], delays)
    slope = (unit * chart.push(points, direction).unsqueeze(2)).sum(-1)
    information = (delays.weight.unsqueeze(1) * slope.square()).sum(-1) + 1.0
    gradient = (delays.weight.unsqueeze(1) * slope * residual).sum(-1)
    if delays.bearing_weight is not None:
        turned, rise = compute_bearing_residuals(chart.project(points)[0], delays)
        rise = (rise * chart.push(points, direction).unsqueeze(2)).sum(-1)
        weight = delays.bearing_weight.unsqueeze(1)
        weight = weight / (1.0 + weight * turned.square() / BEARING_SCALE**2)
        information = information + (weight * rise.square()).sum(-1)
        gradient = gradient + (weight * rise * turned).sum(-1)
    step = gradient / information
    return (aside + step).clamp(-1.5, 1.5), information.rsqrt()


def _enclose(points: Tensor, kept: Tensor) -> Tensor:
    """Return upper factors (B, 3) of the information whose 90 % ellipse about 0 holds the kept points (B, N, 2).

    Along the direction of the points, and of the lengths that are tried the one of the smallest area.
    """
    points = torch.where(kept.unsqueeze(-1), points, 0.0)
    square = points.square().sum(-1)
    farthest = square.argmax(1)[:, None, None].expand(-1, 1, 2)
    first = points.gather(1, farthest)[:, 0]
    first = first / (first.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    along, across = _turn(points, first)
    lean = (along * across).sum(1) / (along.square().sum(1) + 1e-12)
    first = first + lean.unsqueeze(-1) * torch.stack([-first[:, 1], first[:, 0]], -1)
    first = first / (first.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    along, across = _turn(points, first)
    length = along.abs().amax(1).clamp_min(1e-3)
    tried = torch.stack([share * length for share in LENGTHS], -1)
    room = 1.0 - (along.unsqueeze(-1) / tried.unsqueeze(1)).square()
    breadth = (across.square().unsqueeze(-1) / room).amax(1).sqrt().clamp_min(1e-3)
    best = (tried * breadth).argmin(1, keepdim=True)
    major, minor = (half.gather(1, best) / math.sqrt(QUANTILE_90) for half in (tried, breadth))
    second = torch.stack([-first[:, 1], first[:, 0]], -1)
    rows = torch.stack([first / major, second / minor], 1)
    return solve_rows(rows[..., 0], rows[..., 1], torch.zeros_like(rows[..., 0]))[2]


def _turn(points: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Return parts (B, N) of points (B, N, 2) along unit vectors (B, 2) and across them."""
    along = (points * first.unsqueeze(1)).sum(-1)
    return along, points[..., 1] * first[:, :1] - points[..., 0] * first[:, 1:]
