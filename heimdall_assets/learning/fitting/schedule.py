"""The step size over a fit, as a function of the step and of the validation losses so far: nothing else is kept of it.

Belongs here: closed forms. Does not belong here: the optimiser (``module``), the search for a peak (``range_test``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from heimdall_assets.specs import TrainingSpec

ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25 * 1e-4
"""Share of the steps in which one_cycle rises, and what it begins and ends at as shares of the peak.

Source: Smith and Topin, Super-Convergence (2018), as ``torch.optim.lr_scheduler.OneCycleLR`` has them.
"""

PLATEAU_FACTOR = 0.5
"""What the step size is multiplied by where the validation loss stands still."""

LENGTHWISE = frozenset({"cosine", "one_cycle"})
"""Schedules that depend on how many epochs there will be: a longer fit is another one from its first step on."""


@dataclass(frozen=True)
class Schedule:
    """The step size as a share of its peak."""

    spec: TrainingSpec
    steps_per_epoch: int

    def compute_factor(self, step: int, val_losses: Sequence[float] = ()) -> float:
        """Return the share of the peak at which step ``step``, from 0, is taken.

        Args:
            step: of the optimiser.
            val_losses: of the epochs that are done; only plateau looks at them.
        """
        spec, total = self.spec, self.spec.max_epochs * self.steps_per_epoch
        if spec.schedule == "one_cycle":
            return _follow_one_cycle(step, total)
        warmup = spec.warmup_epochs * self.steps_per_epoch
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if spec.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
        if spec.schedule == "plateau":
            losses = val_losses[spec.warmup_epochs :]
            patience = max(1, spec.early_stopping_patience // 2)  # twice before it is given up
            return PLATEAU_FACTOR ** count_plateaus(losses, patience, spec.early_stopping_min_delta)
        return 1.0


def count_plateaus(losses: Sequence[float], patience: int, min_delta: float) -> int:
    """Return how often ``patience`` epochs in a row brought no loss that is lower by more than ``min_delta``.

    >>> count_plateaus([3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0], patience=2, min_delta=0.0)
    2
    """
    best, waited, found = math.inf, 0, 0
    for loss in losses:
        if loss < best - min_delta:
            best, waited = loss, 0
            continue
        waited += 1
        if waited == patience:
            found, waited = found + 1, 0
    return found


def _follow_one_cycle(step: int, total: int) -> float:
    """Return half a cosine up and half a cosine down, the last step at the end of it."""
    peak, end = ONE_CYCLE_RISE * total - 1, total - 1
    if step <= peak:
        return _anneal(ONE_CYCLE_START, 1.0, step / peak)
    return _anneal(1.0, ONE_CYCLE_END, min(1.0, (step - peak) / max(end - peak, 1e-9)))


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))
