"""Running measures of a training: sums on the device that are read once an epoch, so that no step waits for them.

Belongs here: means, spreads, norms of gradients. Does not belong here: when they are taken (``diagnostics``), what they
say (``evaluation.assessment``). Nothing here draws a random number or changes what it is shown.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from heimdall_assets.training_tables import Row

NUM_SAMPLES = 4096
"""Values of a batch that count for a median."""

STEPS_PER_EPOCH = 16
"""Steps of an epoch whose gradients are measured."""

LAYER_DEPTH = 3
"""Names of a weight's owners that make a layer's name."""


class Spread:
    """Mean, standard deviation, extremes and median of values that come in batches; NaN is what is missing."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # known, all, sum, sum of squares
        self._rims: Tensor | None = None  # -minimum, maximum
        self._samples: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Take some values, of any shape."""
        flat = values.detach().flatten().double()
        if not len(flat):
            return
        known = ~flat.isnan()
        filled = torch.where(known, flat, 0.0)
        num_known = known.sum().double()
        sums = torch.stack([num_known, torch.full_like(num_known, len(flat)), filled.sum(), filled.square().sum()])
        low, high = (torch.where(known, sign * flat, -torch.inf).amax() for sign in (-1.0, 1.0))
        rims = torch.stack([low, high])
        self._sums = sums if self._sums is None else self._sums + sums
        self._rims = rims if self._rims is None else torch.maximum(self._rims, rims)
        self._samples.append(flat[:: max(1, -(-len(flat) // NUM_SAMPLES))])

    def describe(self) -> Row:
        """Return ``mean``, ``std``, ``min``, ``max``, ``median`` and ``missing``; None where nothing is known."""
        names = ("mean", "std", "min", "max", "median")
        if self._sums is None or self._rims is None:
            return {**dict.fromkeys(names), "missing": None}
        known, total, value, square = self._sums.tolist()
        if not known:
            return {**dict.fromkeys(names), "missing": 1.0}
        low, high = self._rims.tolist()
        mean = value / known
        std = max(square / known - mean * mean, 0.0) ** 0.5
        if high == -low:
            std = 0.0  # what rounding left of a constant
        median = torch.cat(self._samples).nanmedian().item()
        return dict(zip((*names, "missing"), (mean, std, -low, high, median, 1.0 - known / total), strict=True))


class Mean:
    """Mean of numbers by name, each with a weight."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._weight = 0.0

    def add(self, values: dict[str, Tensor], weight: float) -> None:
        """Take a number for each name."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value.detach().double()
        self._weight += weight

    def describe(self) -> dict[str, float]:
        """Return name -> mean; empty where nothing was taken."""
        return {name: float(value) / self._weight for name, value in self._sums.items()}


class Gradients:
    """Norms of gradients, of a few steps of an epoch."""

    def __init__(self, num_steps: int) -> None:
        """Expect so many steps in the epoch."""
        self._stride = max(1, -(-num_steps // STEPS_PER_EPOCH))
        self._step = 0
        self._names: list[str] = []
        self._squares: list[Tensor] = []

    def add(self, weights: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Measure the gradients of a step, or let it pass."""
        is_measured = self._step % self._stride == 0
        self._step += 1
        if not is_measured:
            return
        found = [(name, weight.grad.detach()) for name, weight in weights if weight.grad is not None]
        names = [name for name, _ in found]
        if names and (not self._names or names == self._names):
            self._names = names
            self._squares.append(torch.stack([gradient.float().square().sum() for _, gradient in found]))

    def describe(self, skip_overflow: bool = False) -> list[Row]:
        """Return a row a layer: ``layer``, ``grad_norm``, ``total_grad_norm``, ``max_grad_norm``.

        Args:
            skip_overflow: 16-bit: steps whose gradient is not finite were not made, and are not counted.
        """
        if not self._squares:
            return []
        squares = torch.stack(self._squares).double().cpu()
        total = squares.sum(1).sqrt()
        finite = total.isfinite()
        if skip_overflow and finite.any():
            squares, total = squares[finite], total[finite]
        layers: dict[str, list[int]] = defaultdict(list)
        for number, name in enumerate(self._names):
            layers[name_layer(name)].append(number)
        whole = {"total_grad_norm": float(total.mean()), "max_grad_norm": float(total.max())}
        return [
            {"layer": layer, "grad_norm": float(squares[:, numbers].sum(1).sqrt().mean()), **whole}
            for layer, numbers in layers.items()
        ]


def name_layer(weight: str) -> str:
    """Return the layer that a weight belongs to: the first of its owners' names.

    Examples:
        >>> name_layer("backbone.stages.0.blocks.1.conv_dw.weight"), name_layer("embed.bias"), name_layer("trust")
        ('backbone.stages.0', 'embed', 'trust')
    """
    owners = [name for name in weight.split(".") if name != "_orig_mod"]  # torch.compile puts itself in between
    return ".".join(owners[:-1][:LAYER_DEPTH]) or owners[-1]
