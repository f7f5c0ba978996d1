"""Position from arrival times as a differentiable layer: many starts, damped Gauss-Newton, one attached last step.

Belongs here: geometry, least squares and the late-arrival likelihood in torch. Does not belong here: learned numbers.
Only element-wise operations, sums, gathers and ``topk``: ONNX Runtime carries all of it. Everything is float32 in
kilometres around a session's own origin (subtracted in float64 before); a closed-form two-column QR keeps it finite.

Legend of shapes: B sessions, S states (starts) of each, R receiver slots. Upper factor (u11, u12, u22) of an
information matrix: U' U = information, 1/km.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

EARTH_RADIUS_KM = 6371.0088
"""Mean radius (IUGG 1980, Moritz, "Geodetic Reference System 1980"); it only bends the plane that sources lie on."""

FARTHEST_KM = 3000.0
"""The plane is bent with a parabola, which holds up to about here; farther points are bent no further."""

SLACK = 1.0 + 1e-5
"""Two float32 costs closer than this are equal."""

DAMPING_DOWN, DAMPING_UP = 0.2, 8.0
"""Levenberg-Marquardt factors after a step that lowered the cost, and after one that did not."""

LATE_FRACTION, LATE_MEAN_KM = 0.25, 0.45
"""Share and mean excess path (1.5 us) of late arrivals that the search assumes; learned weights do the rest."""

LEVEL_EXPONENT, LEVEL_SIGMA_DB = 3.0, 8.0
"""Path loss and scatter (6.6 dB shadowing, 4.5 dB receiver gain) with which levels choose between two solutions."""

LOGIT_PROBIT = 1.702
"""Scale at which the logistic function is closest to the normal distribution's (Bowling et al. 2009, eq. 2)."""


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
    """

    receivers: Tensor
    ground: Tensor
    arrival: Tensor
    weight: Tensor
    mean: Tensor
    factor: Tensor
    level: Tensor
    heard: Tensor

    def detach(self) -> "Delays":
        return Delays(*(item.detach() for item in self))


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


class GaussNewton(nn.Module):
    """Most probable position from arrival times and a Gaussian prior, and the information's upper factor.

    Several starts matter more than iterations: hyperbolas meet in more than one place.
    """

    grid: Tensor

    def __init__(self, num_starts: int = 6, num_iterations: int = 5, num_late_iterations: int = 7) -> None:
        super().__init__()
        self.num_starts, self.num_iterations, self.num_late_iterations = num_starts, num_iterations, num_late_iterations
        self.register_buffer("grid", make_polar_grid(), persistent=False)

    def search(self, delays: Delays, spread: Tensor) -> Tensor:
        """Return local minima (B, S, 2) in km of the least-squares cost, best first; carries no gradient.

        Args:
            delays: what is known.
            spread: (B,), km, size of the network: the grid's unit.
        """
        delays, spread = delays.detach(), spread.detach()
        state = delays.mean.unsqueeze(1) + spread[:, None, None] * self.grid
        # A grid point is never right to better than its spacing, so sharper weights would rank by luck.
        blunt = delays.weight / (1.0 + delays.weight * (0.15 * spread).square().unsqueeze(-1))
        cost = compute_cost(state, delays._replace(weight=blunt))
        state = gather_states(state, cost.topk(self.num_starts, dim=1, largest=False).indices)
        state = self.descend(state, delays, self.num_iterations)
        cost = compute_cost(state, delays) + compute_level_cost(state, delays)
        return gather_states(state, cost.topk(self.num_starts, dim=1, largest=False).indices)

    def descend(self, state: Tensor, delays: Delays, num_iterations: int) -> Tensor:
        """Return states (B, S, 2) after Levenberg-Marquardt iterations, each taken only where it lowers the cost."""

        def improve(state: Tensor, damping: Tensor, cost: Tensor, residual: Tensor, unit: Tensor) -> tuple[Tensor, ...]:
            weight = delays.weight.unsqueeze(1).expand_as(residual)
            east, north, _ = solve_rows(*make_rows(state, unit, residual, weight, delays, damping))
            tried = state + torch.stack([east, north], -1)
            new_residual, new_unit = compute_delay_residuals(tried, delays)
            new_cost = sum_squares(tried, new_residual, delays)
            better = new_cost <= cost * SLACK
            wide = better.unsqueeze(-1)
            return (
                torch.where(wide, tried, state),
                (damping * torch.where(better, DAMPING_DOWN, DAMPING_UP)).clamp(1e-7, 1e4),
                torch.where(better, new_cost, cost),
                torch.where(wide, new_residual, residual),
                torch.where(wide.unsqueeze(-1), new_unit, unit),
            )

        residual, unit = compute_delay_residuals(state, delays)
        cost = sum_squares(state, residual, delays)
        start = (state.clone(), torch.full_like(cost, 1e-2), cost, residual, unit)
        return repeat(improve, num_iterations, start)[0]

    def search_late(
        self, delays: Delays, sigma: Tensor, modes: Tensor, odds: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return states (B, S, 2), emission ranges (B, S) and costs (B, S) where some arrivals may be late.

        Starts are the given modes (B, K, 2), and the first of them with each receiver left out in turn.

        Args:
            delays: what is known; its weights only say which receivers have a delay.
            sigma: (B, R), km.
            modes: (B, K, 2), from ``search``.
            odds: (B, R), log likelihood ratios of each receiver being late from other data; None: there are none.
        """
        delays = delays.detach()
        timed = (delays.weight > 0).to(sigma.dtype)
        late = (sigma, torch.zeros_like(sigma) if odds is None else odds.detach(), timed)
        left_out = delays.weight.unsqueeze(1) * (
            1.0 - torch.eye(sigma.shape[1], dtype=sigma.dtype, device=sigma.device)
        )
        first = modes[:, :1].expand(-1, sigma.shape[1], -1)
        for _ in range(2):
            first = first + compute_step(first, delays, torch.full_like(first[..., 0], 1e-3), left_out)[0]
        state = torch.cat([modes, first], 1)
        weight = torch.cat([delays.weight.unsqueeze(1).expand(-1, modes.shape[1], -1), left_out], 1)
        emission = compute_mean(compute_delay_residuals(state, delays)[0], weight)

        def improve(
            state: Tensor, emission: Tensor, damping: Tensor, cost: Tensor, unit: Tensor, target: Tensor, weight: Tensor
        ) -> tuple[Tensor, ...]:
            east, north, _ = solve_rows(*make_rows(state, unit, target, weight, delays, damping))
            lean = compute_mean(unit, weight.unsqueeze(-1), dim=2)
            shift = compute_mean(target, weight) - lean[..., 0] * east - lean[..., 1] * north
            tried = state + torch.stack([east, north], -1)
            new_cost, new_unit, new_target, new_weight = _view_late(tried, emission + shift, delays, late)
            better = new_cost <= cost + 1e-5 * cost.abs()
            wide = better.unsqueeze(-1)
            return (
                torch.where(wide, tried, state),
                emission + torch.where(better, shift, 0.0),
                (damping * torch.where(better, DAMPING_DOWN, DAMPING_UP)).clamp(1e-7, 1e4),
                torch.where(better, new_cost, cost),
                torch.where(wide.unsqueeze(-1), new_unit, unit),
                torch.where(wide, new_target, target),
                torch.where(wide, new_weight, weight),
            )

        start = (state, emission, torch.full_like(emission, 1e-2), *_view_late(state, emission, delays, late))
        state, emission, _, cost, *_ = repeat(improve, self.num_late_iterations, start)
        return state, emission, cost + compute_level_cost(state, delays)

    def forward(self, delays: Delays, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return position (B, 2) in km and the upper factor (B, 3) of its information, attached to the graph.

        The descent from ``starts`` (B, S, 2) carries no gradient; the last, undamped step carries the implicit one.
        """
        fixed = delays.detach()
        state = self.descend(starts.detach(), fixed, self.num_iterations)
        cost = compute_cost(state, fixed) + compute_level_cost(state, fixed)
        state = gather_states(state, cost.argmin(1, keepdim=True))
        step, _ = compute_step(state, delays, None)
        better = compute_cost((state + step).detach(), fixed) <= compute_cost(state, fixed) * SLACK
        state = state + step - torch.where(better.unsqueeze(-1), torch.zeros_like(step), step.detach())
        _, factor = compute_step(state, delays, None)
        return state[:, 0], factor[:, 0]


def _view_late(
    state: Tensor, emission: Tensor, delays: Delays, late: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the late-arrival likelihood's cost (B, S), unit vectors, Newton targets and weights at states."""
    sigma, odds, timed = (item.unsqueeze(1) for item in late)
    residual, unit = compute_delay_residuals(state, delays)
    cost, slope, curvature, _ = score_late_arrivals(residual - emission.unsqueeze(-1), sigma, odds)
    cost = (cost * timed).sum(-1) + compute_prior_rows(state, delays).square().sum(-1)
    return cost, unit, slope / curvature, curvature * timed


def repeat(improve: Callable[..., tuple[Tensor, ...]], num_times: int, start: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``start`` after ``improve`` was applied ``num_times``; a traced graph holds it once, as a loop."""
    if not torch.compiler.is_exporting():
        for _ in range(num_times):
            start = improve(*start)
        return start
    _, *found = while_loop(
        lambda count, *_: count < num_times,
        lambda count, *values: (count + 1, *improve(*values)),
        (torch.zeros((), dtype=torch.int64), *start),
    )
    return tuple(found)


def make_polar_grid(num_radii: int = 8, num_angles: int = 24) -> Tensor:
    """Return start points (G, 2) in units of the network's spread: a point near the centre, and rings around it."""
    radius = torch.logspace(math.log10(0.2), math.log10(6.0), num_radii)
    angle = (2 * torch.arange(num_angles) + torch.arange(num_radii)[:, None] % 2) * (math.pi / num_angles)
    rings = torch.stack([radius[:, None] * angle.cos(), radius[:, None] * angle.sin()], -1)
    return torch.cat([torch.full((1, 2), 1e-2), rings.reshape(-1, 2)])


def gather_states(state: Tensor, index: Tensor) -> Tensor:
    """Return states (B, K, 2) picked from (B, S, 2) by indices (B, K)."""
    return state.gather(1, index.unsqueeze(-1).expand(-1, -1, 2))


def compute_mean(value: Tensor, weight: Tensor, dim: int = -1) -> Tensor:
    """Return the weighted mean along ``dim``; 0 where all weights are 0."""
    return (value * weight).sum(dim) / weight.sum(dim).clamp_min(1e-20)


def compute_prior_rows(state: Tensor, delays: Delays) -> Tensor:
    """Return deviations (B, S, 2) of states from the prior, in its sigmas."""
    return apply_factor(delays.factor.unsqueeze(1), delays.mean.unsqueeze(1) - state)


def compute_delay_residuals(state: Tensor, delays: Delays) -> tuple[Tensor, Tensor]:
    """Return arrivals less ranges (B, S, R) at states (B, S, 2), and unit vectors (B, S, R, 2)."""
    ranges, unit = compute_ranges(state, delays.receivers, delays.ground)
    return delays.arrival.unsqueeze(1) - ranges, unit


def sum_squares(state: Tensor, residual: Tensor, delays: Delays) -> Tensor:
    """Return the least-squares cost (B, S) of residuals (B, S, R), the emission time eliminated, and of the prior."""
    weight = delays.weight.unsqueeze(1)
    residual = residual - compute_mean(residual, weight).unsqueeze(-1)
    return (weight * residual.square()).sum(-1) + compute_prior_rows(state, delays).square().sum(-1)


def compute_cost(state: Tensor, delays: Delays) -> Tensor:
    """Return the least-squares cost (B, S) at states (B, S, 2)."""
    return sum_squares(state, compute_delay_residuals(state, delays)[0], delays)


def compute_level_cost(state: Tensor, delays: Delays) -> Tensor:
    """Return twice the negative log likelihood (B, S) of the levels at states (B, S, 2), the power unknown.

    Source: log-distance law, Rappaport 2002, eq. 4.69.
    """
    ranges, _ = compute_ranges(state, delays.receivers, delays.ground)
    heard = delays.heard.unsqueeze(1)
    power = delays.level.unsqueeze(1) + 10.0 * LEVEL_EXPONENT * ranges.clamp_min(0.01).log10()
    residual = power - compute_mean(power, heard).unsqueeze(-1)
    return (heard * (residual / LEVEL_SIGMA_DB).square()).sum(-1)


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
    """Return columns a, b and right side r, each (B, S, R + 2 or R + 4): whitened delays, prior and damping.

    Means over the receivers are taken out, which is what an unknown emission time does to the information.
    """
    root = weight.clamp_min(1e-20).sqrt() * (weight > 0)
    centred = unit - compute_mean(unit, weight.unsqueeze(-1), dim=2).unsqueeze(2)
    r = root * (residual - compute_mean(residual, weight).unsqueeze(-1))
    factor = delays.factor.unsqueeze(1).expand(-1, state.shape[1], -1)
    zero = torch.zeros_like(state[..., 0])
    a = torch.cat([root * centred[..., 0], torch.stack([factor[..., 0], zero], -1)], -1)
    b = torch.cat([root * centred[..., 1], factor[..., 1:]], -1)
    r = torch.cat([r, compute_prior_rows(state, delays)], -1)
    if damping is None:
        return a, b, r
    push = (0.5 * damping * (a.square() + b.square()).sum(-1)).sqrt()
    return (
        torch.cat([a, torch.stack([push, zero], -1)], -1),
        torch.cat([b, torch.stack([zero, push], -1)], -1),
        torch.cat([r, torch.stack([zero, zero], -1)], -1),
    )
