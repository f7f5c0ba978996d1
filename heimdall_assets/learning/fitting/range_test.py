"""The learning-rate finder: a range test before training, and the step size where the loss falls steepest.

Belongs here: the test and the choice. Does not belong here: its plot (``evaluation.range_curve``).

Source: Smith, Cyclical Learning Rates (2017), section 3.3: the rate rises from step to step while the loss is watched.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.fitting.hooks import ignore
from heimdall_assets.learning.fitting.module import build_optimizer
from heimdall_assets.learning.fitting.savings import apply_savings

if TYPE_CHECKING:
    from heimdall_assets.learning.fitting.job import Job
    from heimdall_assets.learning.fitting.module import TaskModule

LOWEST_RATE, HIGHEST_RATE, NUM_RATES = 1e-6, 1.0, 80
SMOOTHING = 0.9
"""Weight of what was in the running mean of losses."""

LOST = 4.0
"""A loss that rose above the first one by this many times of what it had fallen ends the test."""

LEFT_OUT = 5
"""Rates at the beginning that the running mean has not settled at."""


@dataclass(frozen=True)
class RateSearch:
    """What the test saw: the rates, the running means of the losses at them, and the rate it chose."""

    rates: list[float]
    losses: list[float]
    chosen: float

    def describe(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"learning_rates": self.rates, "losses": self.losses, "chosen": self.chosen}


def search_rate(job: "Job", module: "TaskModule") -> RateSearch:
    """Return the rate at which the loss falls steepest; neither weights nor random numbers of the fit are touched.

    Raises:
        InvalidInput: it falls at none.
    """
    twin = replace(job, network=copy.deepcopy(module.network)).build_module(ignore)
    twin.pieces = module.pieces
    twin.to(job.device.kind)
    rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, NUM_RATES)
    optimizer = build_optimizer(twin.list_trained(), job.training, LOWEST_RATE)
    seen: list[float] = []
    epoch = 0
    loader = job.load_train(find_place=lambda: (epoch, 0))
    blocks = job.task.list_blocks(twin.network)
    with torch.random.fork_rng(), apply_savings(twin.network, blocks, job.training) as called:
        twin.set_called(called)
        torch.manual_seed(job.training.seed)
        twin.network.train()
        steps = iter(loader)
        for rate in rates:
            step = next(steps, None)
            if step is None:
                epoch += 1
                steps = iter(loader)
                step = next(steps)
            loss = _take_step(twin, optimizer, step, float(rate), job.training.gradient_clip)
            if loss is None or _is_lost(seen, loss):
                break
            seen.append(loss)
    loader.close()
    return choose_rate([float(rate) for rate in rates[: len(seen)]], seen)


def _is_lost(seen: list[float], loss: float) -> bool:
    if len(seen) < LEFT_OUT:
        return False
    start = max(seen[:LEFT_OUT])
    return loss > start + LOST * max(start - min(seen), 0.1 * abs(start))


def _take_step(twin: "TaskModule", optimizer: Any, step: Any, rate: float, clip: float) -> float | None:
    """Return the loss before one step at ``rate``; None: it is no number."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    try:
        means = twin.pieces.compute(lambda count: _add_gradients(twin, optimizer, step, count))
    except InvalidInput:
        return None
    torch.nn.utils.clip_grad_norm_(twin.list_trained(), clip)
    optimizer.step()
    return means


def _add_gradients(twin: "TaskModule", optimizer: Any, step: Any, num_pieces: int) -> float:
    optimizer.zero_grad()
    total, loss = sum(len(batch.examples) for batch in step), 0.0
    for piece in (piece for batch in step for piece in batch.split(num_pieces)):
        part = twin.compute_losses(piece, "train")["loss"] * (len(piece.examples) / total)
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
    return loss


def choose_rate(rates: list[float], losses: list[float]) -> RateSearch:
    """Return the rate at which the running mean of ``losses`` falls steepest over the rate's logarithm.

    Raises:
        InvalidInput: it falls at none.
    """
    smooth, mean = [], 0.0
    for number, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        smooth.append(mean / (1.0 - SMOOTHING ** (number + 1)))
    if len(smooth) < LEFT_OUT + 3:
        slope = np.zeros(1)
    else:
        slope = np.gradient(np.array(smooth), np.log(np.array(rates)))[LEFT_OUT:-1]
    if not len(slope) or not math.isfinite(slope.min()) or slope.min() >= 0.0:
        raise InvalidInput(
            f"TrainingSpec.find_learning_rate: the loss falls at none of {len(rates)} rates from {LOWEST_RATE:g} up: "
            "expected it to; set learning_rate and find_learning_rate=false"
        )
    return RateSearch(rates, smooth, rates[LEFT_OUT + int(np.argmin(slope))])
