"""Gaussian negative log likelihood per axis, with the label's own error in the variance.

Belongs here: losses of the one-receiver model. Does not belong here: full-covariance losses (``session_model.loss``).
"""

import math

from torch import Tensor

from heimdall_assets.errors import InvalidInput


def compute_gaussian_nll(position: Tensor, sigma: Tensor, target: Tensor, label_sigma: Tensor) -> Tensor:
    """Return the negative log likelihood of each example, float32 (B,), summed over its two axes.

    The target is itself known to ``label_sigma`` only: its variance adds to the predicted one, so no sigma is
    rewarded for falling below what the label can show.

    Args:
        position: (B, 2), predicted.
        sigma: (B, 2), predicted one-sigma, positive, in the unit of ``position``.
        target: (B, 2).
        label_sigma: (B, 2), one-sigma error of ``target``, zero or more.

    Raises:
        InvalidInput: the shapes differ.

    Source: Nix and Weigend, Estimating the mean and variance of the target probability distribution, 1994, eq. 4.
    """
    shapes = {tuple(item.shape) for item in (position, sigma, target, label_sigma)}
    if len(shapes) != 1 or position.ndim != 2 or position.shape[1] != 2:
        raise InvalidInput(f"loss: shapes {sorted(shapes)}: expected (batch, 2) for each")
    variance = sigma.square() + label_sigma.square()
    per_axis = 0.5 * (variance.log() + (target - position).square() / variance + math.log(2.0 * math.pi))
    return per_axis.sum(dim=1)
