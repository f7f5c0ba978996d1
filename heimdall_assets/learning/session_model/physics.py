"""What arrival times and levels say of a position, in torch: ranges, residuals, costs, one least-squares step.

Belongs here: geometry, least squares and the late-arrival likelihood. Does not belong here: searching
(``gauss_newton``), learned numbers.
Only element-wise operations, sums, gathers and ``topk``: ONNX Runtime carries all of it. Everything is float32 in
kilometres around a session's own origin (subtracted in float64 before); a closed-form two-column QR keeps it finite.

Legend of shapes: B sessions, S states (starts) of each, R receiver slots. Upper factor (u11, u12, u22) of an
information matrix: U' U = information, 1/km.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

EARTH_RADIUS_KM = 6371.0088
"""Mean radius (IUGG 1980, Moritz, "Geodetic Reference System 1980"); it only bends the plane that sources lie on."""

FARTHEST_KM = 3000.0
"""The plane is bent with a parabola, which holds up to about here; farther points are bent no further."""

AREA_TAIL = 3.0
"""Squared sigmas where the prior's tails begin, as in ``locating.area``: to arrivals it is a hypothesis."""

BEARING_SCALE = 1.5
"""Residual of a bearing in sigmas where Cauchy's loss turns, as in ``locating.tdoa``."""

LATE_FRACTION, LATE_MEAN_KM = 0.25, 0.45
"""Share and mean excess path (1.5 us) of late arrivals that the search assumes; learned weights do the rest."""

LEVEL_EXPONENT = 3.0
"""Path loss with which levels choose between two solutions."""

LOGIT_PROBIT = 1.702
"""Scale at which the logistic function is closest to the normal distribution's (Bowling et al. 2009, eq. 2)."""


class LevelLaw(NamedTuple):
    """How levels follow distance, dB: a session's power at 1 km, less the log-distance law, and scatter.

    Attributes:
        sigma_db: scatter of one level about the law (unless measured: 6.6 dB shadowing, 4.5 dB receiver gain).
        power_db: mean level at 1 km.
        power_sigma_db: how much that differs between sessions.
        late_loss_db: how much weaker late arrivals are at the same distance; 0: levels do not tell.
    """

    sigma_db: float = 8.0
    power_db: float = 0.0
    power_sigma_db: float = 100.0
    late_loss_db: float = 0.0


DELAY_AXES = "BR3 BR BR BR B2 B3 BR BR BR2 BR"
"""Axes of the fields of ``Delays``, for ``learning.repetition``."""


class Delays(NamedTuple):
    """What the solver knows. Receivers without a delay have weight 0 and sigma 1; entries are always finite.

    Attributes:
        receivers: (B, R, 3) east, north, up in km.
        ground: (B, R), 1 where the wave follows the ground, else 0.
        arrival: (B, R), arrival times as km, with an arbitrary zero per session.
        weight: (B, R), 1/km^2; 0: no delay.
        mean: (B, 2), the prior's, km.
        factor: (B, 3), upper factor of the prior's information, 1/km.
        level: (B, R), dB; only to choose between minima that explain the delays alike.
        heard: (B, R), 1 where there is a level, else 0.
        bearing: (B, R, 2), unit vectors in the plane that bearings point along; None: there are none.
        bearing_weight: (B, R), 1/rad^2; 0: no bearing.
    """

    receivers: Tensor
    ground: Tensor
    arrival: Tensor
    weight: Tensor
    mean: Tensor
    factor: Tensor
    level: Tensor
    heard: Tensor
    bearing: Tensor | None = None
    bearing_weight: Tensor | None = None

    def detach(self) -> "Delays":
        return Delays(*(None if item is None else item.detach() for item in self))  # type: ignore[arg-type]


def compute_ranges(point: Tensor, receivers: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """Return ranges (B, S, R) in km from sources at sea level to receivers, and horizontal unit vectors (B, S, R, 2).

    Args:
        point: (B, S, 2) east and north in km.
        receivers: (B, R, 3) east, north, up in km in the same tangent plane.
        ground: (B, R), 1 where the wave follows the ground (its arc), else 0 (its chord).

    Source: sagitta d^2 / 2R of the sphere under its tangent plane; arc = chord (1 + chord^2 / 24 R^2 + ...).
    """
    plane = point.unsqueeze(2) - receivers[..., :2].unsqueeze(1)
    sagitta = point.square().sum(-1).clamp_max(FARTHEST_KM**2) / (2.0 * EARTH_RADIUS_KM)
    up = -sagitta.unsqueeze(-1) - receivers[..., 2].unsqueeze(1)
    # One metre inside the root: its gradient is finite where a source stands at a receiver.
    chord = (plane.square().sum(-1) + up.square() + 1e-6).sqrt()
    bend = chord.square().clamp_max(FARTHEST_KM**2) / (24.0 * EARTH_RADIUS_KM**2)
    return chord * (1.0 + ground.unsqueeze(1) * bend), plane / chord.unsqueeze(-1)


def solve_rows(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return least-squares (e, n) of rows a e + b n = r, and the upper factor (..., 3) of their information.

    Two-column Gram-Schmidt QR: in float32 it holds where the normal equations' determinant cancels (when data inform
    one direction only). ``a`` and ``b`` must each hold something that is not zero.

    Source: Golub and Van Loan, Matrix Computations, 4th edition, section 5.2.7.
    """
    r11 = a.square().sum(-1).sqrt()
    q1 = a / r11.unsqueeze(-1)
    r12 = (q1 * b).sum(-1)
    rest = b - r12.unsqueeze(-1) * q1
    r22 = rest.square().sum(-1).sqrt()
    q2 = rest / r22.unsqueeze(-1)
    y1 = (q1 * r).sum(-1)
    north = (q2 * (r - y1.unsqueeze(-1) * q1)).sum(-1) / r22
    return (y1 - r12 * north) / r11, north, torch.stack([r11, r12, r22], -1)


def apply_factor(factor: Tensor, vector: Tensor) -> Tensor:
    """Return U v for upper factors (..., 3) and vectors (..., 2): a deviation in units of sigma."""
    return torch.stack(
        [factor[..., 0] * vector[..., 0] + factor[..., 1] * vector[..., 1], factor[..., 2] * vector[..., 1]], -1
    )


def compute_covariance(factor: Tensor) -> Tensor:
    """Return variance east, variance north, covariance (..., 3) of information U' U given by upper factors (..., 3)."""
    slope = factor[..., 1] / factor[..., 0]
    north = 1.0 / factor[..., 2].square()
    return torch.stack([1.0 / factor[..., 0].square() + slope.square() * north, north, -slope * north], -1)


def score_late_arrivals(
    residual: Tensor, sigma: Tensor, odds: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return cost, slope, curvature and probability of being late for residuals (...) in km, where late is positive.

    ``odds`` (...) is what else is known of being late, as a log likelihood ratio; None: nothing.

    A share of arrivals is late by an exponential excess on top of Gaussian noise; cost is -2 log of that mixture and
    slope and curvature are halves of its derivatives, the latter made positive so that it can serve as a weight.

    Source: exponentially modified Gaussian (Grushka 1972, eq. 9), its normal tail as a logistic function.
    """
    mean = sigma.clamp_min(LATE_MEAN_KM)
    z = residual / sigma
    tail = LOGIT_PROBIT * (z - sigma / mean)
    share = torch.full_like(sigma, LATE_FRACTION).logit() + (0.0 if odds is None else odds)
    direct = -nn.functional.softplus(share) - 0.5 * math.log(2.0 * math.pi) - sigma.log() - 0.5 * z.square()
    late = -nn.functional.softplus(-share) - mean.log() - residual / mean + 0.5 * (sigma / mean).square()
    late = late - nn.functional.softplus(-tail)
    logit = late - direct
    probability = logit.sigmoid()
    below = torch.sigmoid(-tail)
    slope = (1.0 - probability) * z / sigma + probability * (1.0 / mean - LOGIT_PROBIT * below / sigma)
    curvature = (1.0 - probability + LOGIT_PROBIT**2 * probability * below * (1.0 - below)) / sigma.square()
    cost = -2.0 * (direct + nn.functional.softplus(logit))
    return cost, slope, curvature + 0.02 / (sigma.square() + mean.square()), probability


def compute_mean(value: Tensor, weight: Tensor, dim: int = -1) -> Tensor:
    """Return the weighted mean along ``dim``; 0 where all weights are 0."""
    return (value * weight).sum(dim) / weight.sum(dim).clamp_min(1e-20)


def compute_prior_rows(state: Tensor, delays: Delays) -> Tensor:
    """Return deviations (B, S, 2) of states from the prior, in its sigmas."""
    return apply_factor(delays.factor.unsqueeze(1), delays.mean.unsqueeze(1) - state)


def compute_prior_cost(state: Tensor, delays: Delays) -> Tensor:
    """Return twice the negative log density (B, S) of the prior at states (B, S, 2), but for a constant.

    Bearings count in it: like the prior they say where, and nothing of when. As sharp as the Gaussian in its middle,
    with the tails of a bivariate Cauchy distribution: the curvature of a wave front from far outside is as likely as
    any other, so the prior pulls nothing that arrivals put there.

    Source: Student's bivariate density of one degree of freedom, (1 + z^2)^(-3/2).
    """
    cost = AREA_TAIL * (compute_prior_rows(state, delays).square().sum(-1) / AREA_TAIL).log1p()
    return cost if delays.bearing_weight is None else cost + compute_bearing_cost(state, delays)


def compute_bearing_residuals(state: Tensor, delays: Delays) -> tuple[Tensor, Tensor]:
    """Return bearings less azimuths (B, S, R) in rad at states (B, S, 2), and slopes of azimuths (B, S, R, 2), 1/km.

    The angle between two directions, by its half: tan(x / 2) = sin x / (1 + cos x), so that nothing wraps.
    """
    assert delays.bearing is not None
    east, north = (state.unsqueeze(2) - delays.receivers[..., :2].unsqueeze(1)).unbind(-1)
    # One metre inside the root, as in ranges.
    square = east.square() + north.square() + 1e-6
    along, across = delays.bearing.unsqueeze(1).unbind(-1)  # to the east, to the north
    length = square.sqrt()
    sine, cosine = (along * north - across * east) / length, (along * east + across * north) / length
    residual = 2.0 * torch.atan(sine / (1.0 + cosine).clamp_min(1e-6))
    return residual, torch.stack([north / square, -east / square], -1)


def compute_bearing_cost(state: Tensor, delays: Delays) -> Tensor:
    """Return the cost (B, S) of bearings at states (B, S, 2), with Cauchy's tails: half a turn is an outlier."""
    assert delays.bearing_weight is not None
    square = delays.bearing_weight.unsqueeze(1) * compute_bearing_residuals(state, delays)[0].square()
    return (BEARING_SCALE**2 * (square / BEARING_SCALE**2).log1p()).sum(-1)


def compute_delay_residuals(state: Tensor, delays: Delays) -> tuple[Tensor, Tensor]:
    """Return arrivals less ranges (B, S, R) at states (B, S, 2), and unit vectors (B, S, R, 2)."""
    ranges, unit = compute_ranges(state, delays.receivers, delays.ground)
    return delays.arrival.unsqueeze(1) - ranges, unit


def sum_squares(state: Tensor, residual: Tensor, delays: Delays) -> Tensor:
    """Return the least-squares cost (B, S) of residuals (B, S, R), the emission time eliminated, and of the prior."""
    weight = delays.weight.unsqueeze(1)
    residual = residual - compute_mean(residual, weight).unsqueeze(-1)
    return (weight * residual.square()).sum(-1) + compute_prior_cost(state, delays)


def compute_cost(state: Tensor, delays: Delays) -> Tensor:
    """Return the least-squares cost (B, S) at states (B, S, 2)."""
    return sum_squares(state, compute_delay_residuals(state, delays)[0], delays)


def compute_level_cost(state: Tensor, delays: Delays, law: LevelLaw) -> Tensor:
    """Return twice the negative log likelihood (B, S) of the levels at states (B, S, 2), but for a constant.

    The session's power is eliminated: the mean of what levels and ``law`` say of it, by their variances.

    Source: log-distance law, Rappaport 2002, eq. 4.69.
    """
    ranges, _ = compute_ranges(state, delays.receivers, delays.ground)
    heard = delays.heard.unsqueeze(1)
    excess = delays.level.unsqueeze(1) + 10.0 * LEVEL_EXPONENT * ranges.clamp_min(0.01).log10() - law.power_db
    prior = (law.sigma_db / law.power_sigma_db) ** 2
    power = (heard * excess).sum(-1) / (heard.sum(-1) + prior)
    cost = (heard * (excess - power.unsqueeze(-1)).square()).sum(-1) + prior * power.square()
    return cost / law.sigma_db**2


def compute_step(
    state: Tensor, delays: Delays, damping: Tensor | None, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return least-squares steps (B, S, 2) and the upper factors (B, S, 3) of the information at states (B, S, 2).

    Args:
        state: where to linearise.
        delays: what is known.
        damping: (B, S), relative to the mean information; None: none (not 0: a root has no gradient there).
        weight: (B, S, R) instead of the delays' own, the same for every state.
    """
    residual, unit = compute_delay_residuals(state, delays)
    weight = delays.weight.unsqueeze(1).expand_as(residual) if weight is None else weight
    east, north, factor = solve_rows(*make_rows(state, unit, residual, weight, delays, damping))
    return torch.stack([east, north], -1), factor


def make_rows(
    state: Tensor, unit: Tensor, residual: Tensor, weight: Tensor, delays: Delays, damping: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return columns a, b and right side r, each (B, S, rows): whitened delays, prior, bearings and damping.

    Means over the receivers are taken out, which is what an unknown emission time does to the information. The prior
    counts the less, the farther a state is from it.

    Source: iteratively reweighted least squares, the cost's derivative by the square (Holland and Welsch 1977).
    """
    root = weight.clamp_min(1e-20).sqrt() * (weight > 0)
    centred = unit - compute_mean(unit, weight.unsqueeze(-1), dim=2).unsqueeze(2)
    r = root * (residual - compute_mean(residual, weight).unsqueeze(-1))
    prior = compute_prior_rows(state, delays)
    trust = (1.0 + prior.square().sum(-1, keepdim=True) / AREA_TAIL).rsqrt()
    factor = delays.factor.unsqueeze(1) * trust
    zero = torch.zeros_like(state[..., 0])
    a = torch.cat([root * centred[..., 0], torch.stack([factor[..., 0], zero], -1)], -1)
    b = torch.cat([root * centred[..., 1], factor[..., 1:]], -1)
    r = torch.cat([r, trust * prior], -1)
    if delays.bearing_weight is not None:
        turned, slope = compute_bearing_residuals(state, delays)
        weighed = delays.bearing_weight.unsqueeze(1)
        tail = 1.0 + weighed * turned.square() / BEARING_SCALE**2
        root = weighed.clamp_min(1e-20).sqrt() * (weighed > 0) * tail.rsqrt()
        a, b = torch.cat([a, root * slope[..., 0]], -1), torch.cat([b, root * slope[..., 1]], -1)
        r = torch.cat([r, root * turned], -1)
    if damping is None:
        return a, b, r
    push = (0.5 * damping * (a.square() + b.square()).sum(-1)).sqrt()
    return (
        torch.cat([a, torch.stack([push, zero], -1)], -1),
        torch.cat([b, torch.stack([zero, push], -1)], -1),
        torch.cat([r, torch.stack([zero, zero], -1)], -1),
    )
