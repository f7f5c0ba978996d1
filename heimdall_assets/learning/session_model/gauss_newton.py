"""Position from arrival times as a differentiable layer: many starts, damped Gauss-Newton, one attached last step.

Belongs here: searching and descending. Does not belong here: what is minimised (``physics``), learned numbers.

Legend of shapes: B sessions, S states (starts) of each, R receiver slots.
"""

import math

import torch
from torch import Tensor, nn

from heimdall_assets.learning.repetition import Context, Values, repeat
from heimdall_assets.learning.session_model.physics import (
    DELAY_AXES,
    Delays,
    LevelLaw,
    compute_cost,
    compute_delay_residuals,
    compute_level_cost,
    compute_mean,
    compute_prior_cost,
    compute_step,
    make_rows,
    score_late_arrivals,
    solve_rows,
    sum_squares,
)

SLACK = 1.0 + 1e-5
"""Two float32 costs closer than this are equal."""

NOT_FOUND = 1e30
"""Cost of a solution that does not count: finite, and above every other."""

NUM_SUSPECTS = 8
"""Receivers that are left out of starts, alone and by twos: those that fit worst, where there are more."""

NUM_KEPT = 8
"""Late-arrival states that are descended to their end."""

GRID_SIGMA_RAD = math.pi / 24
"""Half of the angle between two rays of the grid of starts."""

DAMPING_DOWN, DAMPING_UP = 0.2, 8.0
"""Levenberg-Marquardt factors after a step that lowered the cost, and after one that did not."""

STEP_AXES = f"Bs2 BsR {DELAY_AXES}"
"""State; weights and the delays; for ``repeat``, as the next two."""

DESCENT_AXES = f"Bs2 Bs Bs BsR BsR2 {DELAY_AXES}"
"""State, damping, cost, residual and unit vectors; the delays."""

LATE_AXES = f"Bs2 Bs Bs Bs BsR2 BsR BsR {DELAY_AXES} BR BR BR"
"""State, emission range, damping, cost, unit vectors, target and weight; the delays, and sigma, odds, timed."""


class GaussNewton(nn.Module):
    """Most probable position from arrival times and a Gaussian prior, and the information's upper factor.

    Several starts matter more than iterations: hyperbolas meet in more than one place.
    """

    grid: Tensor
    one: Tensor
    other: Tensor

    def __init__(
        self,
        num_starts: int = 6,
        num_iterations: int = 5,
        num_late_iterations: tuple[int, int] = (4, 8),
        level_law: LevelLaw = LevelLaw(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__()
        self.num_starts, self.num_iterations, self.num_late_iterations = num_starts, num_iterations, num_late_iterations
        self.level_law = level_law
        self.register_buffer("grid", make_polar_grid(), persistent=False)
        # Each suspect with itself and with each other: alone and by twos, each once.
        for name, index in zip(("one", "other"), torch.triu_indices(NUM_SUSPECTS, NUM_SUSPECTS), strict=True):
            self.register_buffer(name, index, persistent=False)

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
        cost = compute_cost(state, _blunt_bearings(delays._replace(weight=blunt)))
        state = gather_states(state, cost.topk(self.num_starts, dim=1, largest=False).indices)
        state = self.descend(state, delays, self.num_iterations)
        cost = compute_cost(state, delays) + compute_level_cost(state, delays, self.level_law)
        return gather_states(state, cost.topk(self.num_starts, dim=1, largest=False).indices)

    def descend(self, state: Tensor, delays: Delays, num_iterations: int) -> Tensor:
        """Return states (B, S, 2) after Levenberg-Marquardt iterations, each taken only where it lowers the cost."""
        residual, unit = compute_delay_residuals(state, delays)
        cost = sum_squares(state, residual, delays)
        start = (state.clone(), torch.full_like(cost, 1e-2), cost, residual, unit)
        return repeat(_descend_once, num_iterations, start, delays, DESCENT_AXES)[0]

    def search_late(
        self, delays: Delays, sigma: Tensor, modes: Tensor, odds: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return states (B, S, 2), emission ranges (B, S) and costs (B, S) where some arrivals may be late.

        Starts are the given modes (B, K, 2), and the first of them without each suspect and without each two of them:
        two late arrivals hide each other from whoever leaves out one. All descend a little, the best ``NUM_KEPT`` to
        their end, which are returned. Fewer receivers than ``NUM_SUSPECTS`` make fewer starts: what is found from the
        others counts as ``NOT_FOUND``, or a wider batch would hold more solutions.

        Args:
            delays: what is known; its weights only say which receivers have a delay.
            sigma: (B, R), km.
            modes: (B, K, 2), from ``search``.
            odds: (B, R), log likelihood ratios of each receiver being late from other data; None: there are none.
        """
        delays = delays.detach()
        timed = (delays.weight > 0).to(sigma.dtype)
        late = (sigma, torch.zeros_like(sigma) if odds is None else odds.detach(), timed)
        left_out, is_start = self._leave_out(modes[:, 0], delays)
        first = modes[:, :1].expand(-1, left_out.shape[1], -1)
        (first,) = repeat(_step_once, 2, (first,), (left_out, *delays), STEP_AXES)
        state = torch.cat([modes, first], 1)
        weight = torch.cat([delays.weight.unsqueeze(1).expand(-1, modes.shape[1], -1), left_out], 1)
        emission = compute_mean(compute_delay_residuals(state, delays)[0], weight)

        start = (state, emission, torch.full_like(emission, 1e-2), *_view_late(state, emission, delays, late))
        few, many = self.num_late_iterations
        found = repeat(_descend_late_once, few, start, (*delays, *late), LATE_AXES)
        counts = torch.cat([torch.ones_like(modes[..., 0]), is_start], 1) > 0
        cost = found[3] + compute_level_cost(found[0], delays, self.level_law)
        best = torch.where(counts, cost, NOT_FOUND).topk(NUM_KEPT, dim=1, largest=False).indices
        found = tuple(gather_states(item, best) for item in found)
        state, emission, _, cost, *_ = repeat(_descend_late_once, many, found, (*delays, *late), LATE_AXES)
        cost = cost + compute_level_cost(state, delays, self.level_law)
        return state, emission, torch.where(counts.gather(1, best), cost, NOT_FOUND)

    def _leave_out(self, state: Tensor, delays: Delays) -> tuple[Tensor, Tensor]:
        """Return weights (B, T, R) without one or two suspects at states (B, 2), and which count (B, T), 1 or 0."""
        residual, _ = compute_delay_residuals(state.unsqueeze(1), delays)
        residual = residual[:, 0] - compute_mean(residual[:, 0], delays.weight).unsqueeze(-1)
        misfit = torch.where(delays.weight > 0, delays.weight * residual.square(), -1.0)
        padded = torch.cat([misfit, torch.full_like(misfit[:, :1], -1.0).expand(-1, NUM_SUSPECTS)], 1)
        worst = padded.topk(NUM_SUSPECTS, dim=1)
        slot = torch.arange(misfit.shape[1], device=misfit.device)
        others = (worst.indices.unsqueeze(-1) != slot).to(misfit.dtype)
        timed = (worst.values >= 0).to(misfit.dtype)
        weight = delays.weight.unsqueeze(1) * others[:, self.one] * others[:, self.other]
        return weight, timed[:, self.one] * timed[:, self.other]

    def forward(self, delays: Delays, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return position (B, 2) in km and the upper factor (B, 3) of its information, attached to the graph.

        The descent from ``starts`` (B, S, 2) carries no gradient; the last, undamped step carries the implicit one.
        """
        fixed = delays.detach()
        state = self.descend(starts.detach(), fixed, self.num_iterations)
        cost = compute_cost(state, fixed) + compute_level_cost(state, fixed, self.level_law)
        state = gather_states(state, cost.argmin(1, keepdim=True))
        step, _ = compute_step(state, delays, None)
        better = compute_cost((state + step).detach(), fixed) <= compute_cost(state, fixed) * SLACK
        state = state + step - torch.where(better.unsqueeze(-1), torch.zeros_like(step), step.detach())
        _, factor = compute_step(state, delays, None)
        return state[:, 0], factor[:, 0]


def _step_once(values: Values, context: Context) -> Values:
    """Return values of ``STEP_AXES`` after one hardly damped least-squares step."""
    (state,), weight, delays = values, context[0], Delays(*context[1:])  # type: ignore[arg-type]
    return (state + compute_step(state, delays, torch.full_like(state[..., 0], 1e-3), weight)[0],)


def _descend_once(values: Values, context: Context) -> Values:
    """Return values of ``DESCENT_AXES`` after one Levenberg-Marquardt step, taken only where it lowers the cost."""
    state, damping, cost, residual, unit = values
    delays = Delays(*context)  # type: ignore[arg-type]  # what is None in it may be
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


def _descend_late_once(values: Values, context: Context) -> Values:
    """Return values of ``LATE_AXES`` after one step on the late-arrival likelihood, as ``_descend_once`` takes it."""
    state, emission, damping, cost, unit, target, weight = values
    delays, late = Delays(*context[:-3]), context[-3:]  # type: ignore[arg-type]  # what is None in it may be
    east, north, _ = solve_rows(*make_rows(state, unit, target, weight, delays, damping))
    lean = compute_mean(unit, weight.unsqueeze(-1), dim=2)
    shift = compute_mean(target, weight) - lean[..., 0] * east - lean[..., 1] * north
    tried = state + torch.stack([east, north], -1)
    new_cost, new_unit, new_target, new_weight = _view_late(tried, emission + shift, delays, late)  # type: ignore[arg-type]
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


def _blunt_bearings(delays: Delays) -> Delays:
    """Return delays whose bearings are no sharper than the grid's rays stand apart."""
    if delays.bearing_weight is None:
        return delays
    return delays._replace(bearing_weight=delays.bearing_weight / (1.0 + delays.bearing_weight * GRID_SIGMA_RAD**2))


def _view_late(
    state: Tensor, emission: Tensor, delays: Delays, late: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the late-arrival likelihood's cost (B, S), unit vectors, targets and weights of the next step at states.

    The cost of a late arrival grows as its excess, a straight line without curvature, along which Newton's step goes
    anywhere. There the weight is that of iteratively reweighted least squares, slope over residual, whose step always
    goes down. Source: Holland and Welsch 1977, "Robust regression using iteratively reweighted least-squares".
    """
    sigma, odds, timed = (item.unsqueeze(1) for item in late)
    residual, unit = compute_delay_residuals(state, delays)
    residual = residual - emission.unsqueeze(-1)
    cost, slope, curvature, _ = score_late_arrivals(residual, sigma, odds)
    curvature = torch.maximum(curvature, slope.abs() / (residual.abs() + sigma))
    cost = (cost * timed).sum(-1) + compute_prior_cost(state, delays)
    return cost, unit, slope / curvature, curvature * timed


def make_polar_grid(num_radii: int = 10, num_angles: int = 24) -> Tensor:
    """Return start points (G, 2) in units of the network's spread: a point near the centre, and rings around it."""
    radius = torch.logspace(math.log10(0.2), math.log10(20.0), num_radii)
    angle = (2 * torch.arange(num_angles) + torch.arange(num_radii)[:, None] % 2) * (math.pi / num_angles)
    rings = torch.stack([radius[:, None] * angle.cos(), radius[:, None] * angle.sin()], -1)
    return torch.cat([torch.full((1, 2), 1e-2), rings.reshape(-1, 2)])


def gather_states(state: Tensor, index: Tensor) -> Tensor:
    """Return states (B, K, ...) picked from (B, S, ...) by indices (B, K)."""
    while index.ndim < state.ndim:
        index = index.unsqueeze(-1)
    return state.gather(1, index.expand(-1, -1, *state.shape[2:]))
