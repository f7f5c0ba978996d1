"""The parts of the level prior that hold no state: candidate grids, the likelihood of levels, moments, and its numbers.

Belongs here: pure functions over tensors. Does not belong here: the maps they are fed with (``level_prior.field``).
Legend of shapes: B sessions, R receiver slots, N candidates. East, north in km; levels in dB.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

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
"""Range of Student's degrees of freedom, of receivers that are not mad: above it a deep shadow outvotes the others,
below it a strong level, the best sign of a transmitter nearby, counts for nothing."""

MAD_SHARE, MAD_RANGE_DB = 0.001, 100.0
"""Share of mad receivers, whose level tells nothing, and the range that it lies anywhere in, from noise to overload. An
assumption: where one gain in a hundred jumps by 15 dB (``fit.JUMPS``), one in 2000 is off by more than 30 dB."""

LOG_MAD = math.log(MAD_SHARE / MAD_RANGE_DB)
LOG_NEVER = -60.0
"""Log density in 1/dB of such a level, and one so low that no receiver is ever taken for mad."""

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


class Reading(NamedTuple):
    """What was received: level in dB (B, R), whether there is one, bool (B, R), and the share of strangers (B, 1)."""

    level: Tensor
    heard: Tensor
    strange: Tensor


class Departure(NamedTuple):
    """How readings depart from what is expected: offset and slope over the gain in Student's sigmas, both (B, R, N).

    ``sane`` (B, R, N) are the log-odds that a receiver with no departure is not mad; they fall by ``steep`` times the
    log of one plus the departure's square. ``freedom``, Student's, and ``steep`` are scalars.
    """

    offset: Tensor
    slope: Tensor
    sane: Tensor
    freedom: Tensor
    steep: Tensor

    def compute_square(self, gain: Tensor) -> Tensor:
        """Return the squared departures (B, R, N) at the gains (B, N) in dB."""
        return (self.offset - gain.unsqueeze(1) * self.slope).square()

    def compute_odds(self, square: Tensor) -> Tensor:
        """Return the log-odds (B, R, N) that each receiver is not mad."""
        return self.sane - torch.log1p(square) * self.steep


def compute_log_likelihood(expected: Expected, reading: Reading, tuning: Tensor, log_mad: Tensor) -> Tensor:
    """Return the log-likelihood of each candidate (B, N), the transmitted power being the likeliest one there.

    A gain moves a level only as far as the signal stands above the site's own noise. Each receiver either departs from
    what is expected by Student's distribution, blunted because shadowing is alike, or is mad, and its level says
    nothing of the position. The sum over both lets no receiver weigh more than its odds to be sane; those are not
    blunted, for a mad receiver makes no other one mad.

    Source: Box and Tiao, Biometrika 55 (1968).

    Args:
        expected: of each candidate.
        reading: of each session.
        tuning: the numbers of ``TUNING``.
        log_mad: scalar, log density in 1/dB of a mad receiver's level.
    """
    freedom = FREEDOM[0] + (FREEDOM[1] - FREEDOM[0]) * torch.sigmoid(pick(tuning, "freedom"))
    blunt = pick(tuning, "blunt").exp()
    weight = reading.heard.to(reading.level.dtype).unsqueeze(-1)
    inverse = weight / (expected.variance * freedom).sqrt()
    departure = Departure(
        offset=(reading.level.unsqueeze(-1) - expected.level) * inverse,
        slope=expected.signal * inverse,
        sane=-0.5 * blunt * (2.0 * math.pi * expected.variance).log() - log_mad,
        freedom=freedom,
        steep=0.5 * blunt * (freedom + 1.0),
    )
    usual = ((2.0 * pick(tuning, "gain")).exp() + (STRANGER_DB * reading.strange).square()) * GAIN_FREEDOM
    gain = fit_gain(Departure(*(value.detach() for value in departure)), usual.detach())
    # Softplus is the log of the sum of both densities over that of the mad one.
    fit = (functional.softplus(departure.compute_odds(departure.compute_square(gain))) * weight).sum(1)
    return fit - 0.5 * torch.log1p(gain.square() / usual) * (GAIN_FREEDOM + 1.0)


def fit_gain(departure: Departure, usual: Tensor) -> Tensor:
    """Return the likeliest gain in dB at each candidate, (B, N); ``usual`` (B, 1) is its scale's square.

    Receivers weigh by their probability to be sane, and less the farther they depart.

    Source: iteratively reweighted least squares for Student's distribution, Lange et al., JASA 84 (1989).
    """
    weighted = departure.slope * (departure.freedom + 1.0)
    gain = _solve_gain(departure, weighted, (GAIN_FREEDOM + 1.0) / usual)
    for _ in range(NUM_REWEIGHTINGS - 1):
        square = departure.compute_square(gain)
        weighted = torch.sigmoid(departure.compute_odds(square)) / (1.0 + square) * departure.slope
        hold = (GAIN_FREEDOM + 1.0) / (usual + gain.square())
        gain = _solve_gain(departure, weighted * (departure.freedom + 1.0), hold)
    return gain


def _solve_gain(departure: Departure, weighted: Tensor, hold: Tensor) -> Tensor:
    return (weighted * departure.offset).sum(1) / ((weighted * departure.slope).sum(1) + hold)


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
