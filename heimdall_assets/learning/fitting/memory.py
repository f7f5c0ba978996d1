"""What does not fit into memory: a batch is taken in twice as many pieces until it does, and stays so.

Belongs here: knowing such an error, halving, trying again from the same random numbers. Does not belong here: what is
computed.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput

Given = TypeVar("Given")

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED", "bad alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator refused: torch has an error of its own for a GPU's, and a text for the others."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


class Pieces:
    """In how many pieces each batch is taken; gradients of pieces add up to those of the batch.

    Args:
        batch_size: of a whole batch.
        tell: told in a line where a batch is halved.
        count: from an earlier run.
    """

    def __init__(self, batch_size: int, tell: Callable[[str], None], count: int = 1) -> None:
        self.batch_size = batch_size
        self.count = count
        self._tell = tell

    def compute(self, compute: Callable[[int], Given]) -> Given:
        """Return what ``compute`` gives for a number of pieces: that of the last time, or twice as often as needed.

        Raises:
            InvalidInput: one example alone does not fit.
        """
        while True:
            random = _take_random()
            try:
                return compute(self.count)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())
            # out of the handler: what failed holds its tensors no longer
            self._halve(reason)
            _give_random(random)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _halve(self, reason: str) -> None:
        before = -(-self.batch_size // self.count)
        if before == 1:
            raise InvalidInput(f"training: one example alone does not fit into memory ({reason:.160})")
        self.count *= 2
        now = -(-self.batch_size // self.count)
        self._tell(
            f"a batch of {say_count(before, 'example')} does not fit into memory: from here on {now} at once, and "
            f"{say_count(self.count, 'piece')} make a batch; steps are the same within rounding ({reason:.160})"
        )


def _take_random() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _give_random(states: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])
