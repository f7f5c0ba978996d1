"""Pair tokens: what the recordings of two receivers have in common, as numbers of order one, and what is made of them.

Belongs here: the encoder and the scale of its inputs. Does not belong here: pairs as arrays (``pair_columns``),
attention (``session_model.tokens``). All it adds to a receiver's token is zero at the start.

Legend of shapes: B sessions, R receiver slots, C columns of ``pair_columns.make_pair_columns``, L lags, D token width.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heimdall_assets.learning.session_model.pair_columns import NUM_PAIR_NUMBERS, list_pair_columns
from heimdall_assets.session_set import SessionSet

NUM_PAIR_TOKENS = 8
"""Columns that attention gets of each pair."""

MIN_STD = 1e-3
"""A column that hardly ever differs tells nothing: its noise is not blown up."""

LARGEST_RMS = 3.0
"""Root mean square of a pair's standardised numbers, 1 on average in training, beyond which they are scaled down."""

STEP_S = 8e-5
"""Lag step of a 12.5 kHz channel."""


def describe_pairs(pairs: Tensor) -> Tensor:
    """Return numbers about pairs (..., 3 + 2 L): coherence, log curvature, log step, the correlation's shape.

    The carrier's phase is arbitrary, so the middle lag is turned to the real axis; the shape is relative to it.
    """
    coherence, curvature, step = pairs[..., :NUM_PAIR_NUMBERS].unbind(-1)
    real, imaginary = pairs[..., NUM_PAIR_NUMBERS:].chunk(2, -1)
    middle = real.shape[-1] // 2
    along, across = real[..., middle : middle + 1], imaginary[..., middle : middle + 1]
    power = (along.square() + across.square()).clamp_min(1e-12)
    turned = [(real * along + imaginary * across) / power, (imaginary * along - real * across) / power]
    # Noise alone may bend a correlation the wrong way: such a curvature says as little as the smallest does.
    numbers = torch.stack([coherence, curvature.clamp_min(1.0).log() / 20.0, (step.clamp_min(1e-9) / STEP_S).log()], -1)
    return torch.cat([numbers, *turned], -1)


def measure_pairs(sessions: SessionSet) -> dict[str, Any] | None:
    """Return the lags of these sessions' correlations, and each number's mean and spread; None: there are none."""
    if sessions.pairs is None or not len(sessions.pairs.first):
        return None
    columns = np.concatenate([columns for _, _, columns in list_pair_columns(sessions.pairs)])
    numbers = describe_pairs(torch.from_numpy(columns)).double()
    std = numbers.std(0, correction=0).clamp_min(MIN_STD)
    return {"num_lags": sessions.pairs.correlation.shape[1], "mean": numbers.mean(0).tolist(), "std": std.tolist()}


class PairEncoder(nn.Module):
    """Makes columns for attention of each pair, and adds what a receiver's pairs say on average to its token.

    Args:
        scale: of ``measure_pairs``.
        width: D.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scale: dict[str, Any], width: int) -> None:
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(scale[name], dtype=torch.float32))
        self.encode = nn.Sequential(nn.Linear(len(scale["mean"]), 32), nn.GELU(), nn.Linear(32, NUM_PAIR_TOKENS))
        self.tell = nn.Linear(NUM_PAIR_TOKENS, width)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)

    def forward(self, pairs: Tensor, paired: Tensor) -> tuple[Tensor, Tensor]:
        """Return columns (B, R, R, NUM_PAIR_TOKENS), 0 where there is no pair, and what to add to tokens (B, R, D).

        Args:
            pairs: float32 (B, R, R, C).
            paired: bool (B, R, R), which are known.
        """
        numbers = (describe_pairs(pairs) - self.mean) / self.std
        # A pair unlike all of training keeps its direction, not its size: nothing was learned about that far out.
        size = (numbers.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        numbers = numbers * (LARGEST_RMS / size).clamp_max(1.0)
        columns = torch.where(paired.unsqueeze(-1), self.encode(numbers), 0.0)
        count = paired.sum(2).to(columns.dtype).unsqueeze(-1)
        told = torch.where(count > 0, self.tell(columns.sum(2) / count.clamp_min(1.0)), 0.0)
        return columns, told
