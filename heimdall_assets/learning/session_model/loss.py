"""Losses over a two-dimensional Gaussian given by its information's upper factor, with the label's own error added.

Belongs here: likelihoods of positions. Does not belong here: the model, signal losses (``session_model.signal_heads``).
Lengths are km: in metres the logarithms would be the same but for a constant.
"""

import torch
from torch import Tensor

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.session_model.physics import apply_factor

HEAVY_TAIL = 1.0
"""Degrees of freedom of the heavy-tailed likelihood: where two solutions explain a session, one of them is far off."""


def widen_factor(factor: Tensor, margin: Tensor) -> Tensor:
    """Return the upper factors (B, 3) of covariances that independent errors of ``margin`` (B,) km are added to.

    Every term is a sum of squares: nothing cancels, however flat the ellipse.

    Source: for U' U = inverse of [[e, c], [c, n]], n = 1 / u22^2, c = -k n with k = u12 / u11, and the variance of east
    given north is e - c^2 / n = 1 / u11^2; the same with e + m^2, n + m^2.
    """
    slope, extra = factor[:, 1] / factor[:, 0], margin.square()
    north = 1.0 / factor[:, 2].square()
    wide_north = north + extra
    east_given_north = 1.0 / factor[:, 0].square() + extra * (1.0 + slope.square() * north / wide_north)
    first = east_given_north.rsqrt()
    return torch.stack([first, slope * north / wide_north * first, wide_north.rsqrt()], -1)


def compute_squared_z(position: Tensor, factor: Tensor, truth: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared errors in sigmas (B,) and log determinants (B,) of the widened factors.

    The truth is known to ``margin`` only, which adds to the covariance: no sigma is rewarded for falling below what a
    label can show.

    Args:
        position: (B, 2), km.
        factor: (B, 3), upper factor of the information, 1/km.
        truth: (B, 2), km.
        margin: (B,), one-sigma error of each axis of the truth, km.

    Raises:
        InvalidInput: shapes that do not fit.
    """
    num = len(position)
    shapes = [tuple(item.shape) for item in (position, factor, truth, margin)]
    if shapes != [(num, 2), (num, 3), (num, 2), (num,)]:
        raise InvalidInput(f"loss: shapes {shapes}: expected (B, 2), (B, 3), (B, 2), (B,)")
    wide = widen_factor(factor, margin)
    squared = apply_factor(wide, truth - position).square().sum(-1)
    return squared, wide[:, 0].log() + wide[:, 2].log()


def compute_gaussian_loss(squared_z: Tensor, log_determinant: Tensor) -> Tensor:
    """Return negative log likelihoods (B,) of a Gaussian, the constant dropped."""
    return 0.5 * squared_z - log_determinant


def compute_heavy_loss(squared_z: Tensor, log_determinant: Tensor) -> Tensor:
    """Return negative log likelihoods (B,) of a Student distribution of ``HEAVY_TAIL`` degrees, the constant dropped.

    Source: bivariate Student density, (1 + z^2 / nu)^(-(nu + 2) / 2).
    """
    return 0.5 * (HEAVY_TAIL + 2.0) * (squared_z / HEAVY_TAIL).log1p() - log_determinant


def compute_divergence(position: Tensor, factor: Tensor, teacher_position: Tensor, teacher_factor: Tensor) -> Tensor:
    """Return how far Gaussians (B,) lie from a teacher's: the logarithm of 1 and their divergence.

    Where both are the same it is 0, elsewhere more. Not the divergence itself: a session with two solutions, of which
    student and teacher take one each, would outweigh all others.

    Args:
        position, teacher_position: (B, 2), km.
        factor, teacher_factor: (B, 3), upper factors of their information, 1/km.

    Source: divergence of Kullback and Leibler of Gaussians with factors U (student) and T (teacher): the half of
    |U T^-1|^2 - 2 + |U d|^2, less log det U / det T.
    """
    first, last = factor[:, 0] / teacher_factor[:, 0], factor[:, 2] / teacher_factor[:, 2]
    shear = (factor[:, 1] - first * teacher_factor[:, 1]) / teacher_factor[:, 2]
    spread = first.square() + shear.square() + last.square() - 2.0
    squared = apply_factor(factor, teacher_position - position).square().sum(-1)
    divergence = 0.5 * (spread + squared) - first.log() - last.log()
    return divergence.clamp_min(0.0).log1p()  # rounding takes it below zero where both agree
