"""The parts of the level prior that hold no state: candidate grids, the likelihood of levels, moments, and its numbers.

Belongs here: pure functions over tensors. Does not belong here: the maps they are fed with (``level_prior.field``).
Legend of shapes: B sessions, R receiver slots, N candidates. East, north in km; levels in dB.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NUM_REWEIGHTINGS = 3
"""Steps of the transmitted power's fit at each candidate: least squares first, then with outliers weighed down."""

GAIN_FREEDOM = 2.0
"""Student's degrees of freedom of the transmitted power: mostly as in training, but a body, a car or a wall takes 3 to
20 dB."""

NUM_RADII, NUM_ANGLES = 18, 24
MIN_RADIUS, MAX_RADIUS = 0.02, 8.0
"""Polar grid, in units of the session's scale."""

STRANGER_DB = 8.0
"""Sigma of what receivers at no known site have in common, their antennas and their dB scale: with nobody else to
compare, it is as unknown as the transmitted power."""

POLAR_DECAY = 1.5
"""Where the polar grid's prior density falls off, in units of the session's scale."""

FREEDOM = (2.0, 40.0)
"""Range of Student's degrees of freedom: above it one mad receiver outvotes the others, below it a strong level, the
best sign of a transmitter nearby, counts for nothing."""

TUNING = {
    "noise": -2.3,  # log share of a site's variance that its map cannot tell
    "doubt": -1.1,  # log factor of the kriging variance
    "quiet": -2.0,  # logit of the share of that variance left where a site hears only its own noise
    "freedom": 0.5,  # logit of Student's degrees of freedom between the two of FREEDOM
    "blunt": -0.7,  # log of the likelihood's exponent
    "gain": 1.4,  # log sigma of the transmitted power in dB
    "roaming": 4.0,  # log variance of a receiver at no known site about the path loss, dB^2
    "floor": 1.5,  # log variance that every level has, dB^2
    "elsewhere": 0.0,  # logit of the prior's share that is spread evenly over the trained points
    "shift": 0.0,  # dB added to the expected level of a receiver at no known site
    "width": 0.5,  # log of the factor of the covariance
}
"""Numbers of the likelihood with their starting values; ``level_prior.fit`` chooses them on held-out blocks."""


class PolarGrid(NamedTuple):
    """Candidates about a centre, in units of a scale: points (Q, 2), log prior weight and cell width (Q,)."""

    points: Tensor
    log_weight: Tensor
    cell: Tensor


def make_polar_grid() -> PolarGrid:
    """Return rings at equal ratios, turned against each other; weights are area times a density that falls off."""
    ring = torch.logspace(math.log10(MIN_RADIUS), math.log10(MAX_RADIUS), NUM_RADII)
    angle = (2 * torch.arange(NUM_ANGLES) + torch.arange(NUM_RADII)[:, None] % 2) * (math.pi / NUM_ANGLES)
    points = torch.stack([ring[:, None] * angle.cos(), ring[:, None] * angle.sin()], -1).reshape(-1, 2)
    weight = ring.square() / (1.0 + (ring / POLAR_DECAY).square()).pow(3)
    cell = ring * (math.log(MAX_RADIUS / MIN_RADIUS) / (NUM_RADII - 1))
    log_weight = (weight / weight.sum() / NUM_ANGLES).log()
    return PolarGrid(points, log_weight.repeat_interleave(NUM_ANGLES), cell.repeat_interleave(NUM_ANGLES))


class Expected(NamedTuple):
    """What each candidate predicts, all (B, R, N): level, its variance, and how much of it is signal, not noise."""

    level: Tensor
    variance: Tensor
    signal: Tensor


def compute_log_likelihood(expected: Expected, level: Tensor, heard: Tensor, strange: Tensor, tuning: Tensor) -> Tensor:
    """Return the blunted log-likelihood of each candidate (B, N), the transmitted power being the likeliest one there.

    A gain moves a level only as far as the signal stands above the site's own noise. Student's distribution forgives
    single receivers that are wrong.

    Args:
        expected: of each candidate.
        level: (B, R).
        heard: bool (B, R).
        strange: (B, 1), share of the receivers that stand at no known site.
        tuning: the numbers of ``TUNING``.
    """
    freedom = FREEDOM[0] + (FREEDOM[1] - FREEDOM[0]) * torch.sigmoid(pick(tuning, "freedom"))
    weight = heard.to(level.dtype).unsqueeze(-1)
    inverse = weight / (expected.variance * freedom).sqrt()
    offset, slope = (level.unsqueeze(-1) - expected.level) * inverse, expected.signal * inverse
    usual = ((2.0 * pick(tuning, "gain")).exp() + (STRANGER_DB * strange).square()) * GAIN_FREEDOM
    gain = fit_gain(offset.detach(), slope.detach(), freedom.detach(), usual.detach())
    fit = torch.log1p((offset - gain.unsqueeze(1) * slope).square()).sum(1) * (freedom + 1.0)
    size = (expected.variance.log() * weight).sum(1)
    prior = torch.log1p(gain.square() / usual) * (GAIN_FREEDOM + 1.0)
    return -0.5 * pick(tuning, "blunt").exp() * (fit + size) - 0.5 * prior


def fit_gain(offset: Tensor, slope: Tensor, freedom: Tensor, usual: Tensor) -> Tensor:
    """Return the likeliest gain in dB at each candidate, (B, N), from residuals and slopes (B, R, N) in sigmas.

    Source: iteratively reweighted least squares for Student's distribution, Lange et al., JASA 84 (1989).
    """
    weight, hold = torch.ones_like(offset), (GAIN_FREEDOM + 1.0) / usual
    for _ in range(NUM_REWEIGHTINGS):
        weighted = weight * slope * (freedom + 1.0)
        gain = (weighted * offset).sum(1) / ((weighted * slope).sum(1) + hold)
        weight = 1.0 / (1.0 + (offset - gain.unsqueeze(1) * slope).square())
        hold = (GAIN_FREEDOM + 1.0) / (usual + gain.square())
    return gain


def summarise(posterior: Tensor, points: Tensor, cell: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (B, 2) and upper information factor (B, 3) of weighted candidates, the covariance times ``width``.

    Each candidate is as wide as its cell, so no variance vanishes.

    Args:
        posterior: (B, N), sums to 1.
        points: (B, N, 2).
        cell: (B, N), distance to the next candidate.
        width: scalar.
    """
    mean = (posterior.unsqueeze(-1) * points).sum(1)
    away = points - mean.unsqueeze(1)
    inner = (posterior * cell.square()).sum(1) * 0.25
    east = (posterior * away[..., 0].square()).sum(1) + inner
    north = (posterior * away[..., 1].square()).sum(1) + inner
    cross = (posterior * away[..., 0] * away[..., 1]).sum(1)
    correlation = (cross / (east * north).sqrt()).clamp(-0.999, 0.999)
    rest = (1.0 - correlation.square()).sqrt()
    east, north = (east * width).sqrt(), (north * width).sqrt()
    return mean, torch.stack([1.0 / (east * rest), -correlation / (north * rest), 1.0 / north], 1)


def pick(tuning: Tensor, name: str) -> Tensor:
    """Return one of ``TUNING``'s numbers, a scalar that carries its gradient."""
    return tuning[list(TUNING).index(name)]


def compute_square(first: Tensor, second: Tensor) -> Tensor:
    """Return squared distances (B, R, N) between ``first`` (B, R, 2) and ``second`` (N, 2)."""
    return (first[..., :1] - second[:, 0]).square() + (first[..., 1:] - second[:, 1]).square()


def compute_negative_log_likelihood(mean: Tensor, factor: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gaussian negative log-likelihood (B,) in km, constant dropped, and the squared distance in sigmas."""
    east, north = (truth - mean).unbind(1)
    square = (factor[:, 0] * east + factor[:, 1] * north).square() + (factor[:, 2] * north).square()
    return 0.5 * square - (factor[:, 0] * factor[:, 2]).log(), square
