"""Outcome of a training: whether it made the network better than it started, in one place and in words.

Belongs here: what the facts of a checkpoint say. Does not belong here: fitting, which writes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heimdall_assets.counts import say_count


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        trained: the model is better, on validation, than what it started from; or it left gradient descent nothing.
        said: why, in words.
    """

    trained: bool
    said: str

    @property
    def word(self) -> str:
        """``yes`` or ``no``, as it stands in tables and tags."""
        return "yes" if self.trained else "no"

    def __str__(self) -> str:
        return f"trained: {self.word} ({self.said})"


def describe_outcome(facts: Mapping[str, Any], max_epochs: int) -> Outcome:
    """Return the outcome that a checkpoint's facts tell.

    Args:
        facts: ``best_epoch`` (from 0; None: no epoch was better than the start) and ``num_epochs``, as ``fit_model``
            gives them.
        max_epochs: epochs that were allowed.

    Examples:
        >>> str(describe_outcome({"best_epoch": None, "num_epochs": 11}, max_epochs=40))
        'trained: no (stopped early after 11 of 40 epochs, none better on validation than the start)'
        >>> str(describe_outcome({"best_epoch": 39, "num_epochs": 40}, max_epochs=40))
        'trained: yes (40 epochs, the best on validation was epoch 40)'
    """
    best, num_epochs = facts["best_epoch"], int(facts["num_epochs"])
    if not num_epochs:
        return Outcome(True, "its level prior was fitted, which left nothing for gradient descent")
    ended = (
        say_count(num_epochs, "epoch")
        if num_epochs >= max_epochs
        else f"stopped early after {num_epochs} of {max_epochs} epochs"
    )
    if best is None:
        return Outcome(False, f"{ended}, none better on validation than the start")
    return Outcome(True, f"{ended}, the best on validation was epoch {best + 1}")
