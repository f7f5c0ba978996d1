"""Ranks: which of the processes that share each batch this one is, and how they add up what each has.

Belongs here: shares, sums. Does not belong here: starting and ending processes (``processes``).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """``rank`` of ``size`` processes; alone, every sum is what one has."""

    rank: int = 0
    size: int = 1

    def find_share(self, count: int) -> slice:
        """Return which of ``count`` examples are this process's: parts in order that differ by one at most.

        Examples:
            >>> [Ranks(rank, 3).find_share(7) for rank in range(3)]
            [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
        """
        whole, rest = divmod(count, self.size)
        start = self.rank * whole + min(self.rank, rest)
        return slice(start, start + whole + (self.rank < rest))

    def add_up(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in ``values`` itself."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def find_largest(self, value: int, device: torch.device) -> int:
        """Return the largest of what each has."""
        if self.size == 1:
            return value
        found = torch.tensor(value, device=device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)

    def add_up_gradients(self, weights: list[torch.nn.Parameter]) -> None:
        """Leave in each weight the sum of all processes' gradients, in one message."""
        if self.size == 1:
            return
        for weight in weights:
            if weight.grad is None:  # no example of this batch was this process's, or none reached it
                weight.grad = torch.zeros_like(weight)
        flat = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
        parts = self.add_up(flat).split([weight.numel() for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            assert weight.grad is not None
            weight.grad.copy_(part.view_as(weight))


ALONE = Ranks()
"""One process that has every batch to itself."""
