"""The learning-rate finder: a range test before training, and the step size where the loss falls steepest.

Belongs here: the test and the choice. Does not belong here: its plot (``evaluation.figures.range_curve``).

Source: Smith, Cyclical Learning Rates (2017), section 3.3: the rate rises from step to step while the loss is watched.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
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
SMOOTHING = 0.5
"""Weight of what was in the running mean of losses."""

LOST = 4.0
"""A loss that rose above the first one by this many times of what it had fallen ends the test."""

LEAST_FALL = 0.01
"""Share of the first loss that it must fall by: less is noise."""

NUM_SETTLING = 5
"""Rates at either end at which a slope says little: there are too few, or the loss rises already."""


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
    optimizer = build_optimizer(twin.list_trained(), job.training, LOWEST_RATE)
    loader = job.load_train()
    blocks = job.task.list_blocks(twin.network)
    with torch.random.fork_rng(), apply_savings(twin.network, blocks, job.training) as called:
        twin.set_called(called)
        torch.manual_seed(job.training.seed)
        rates, losses = _raise_rate(twin, optimizer, _repeat(loader), job.training.gradient_clip)
    loader.close()
    return choose_rate(rates, losses)


def _raise_rate(
    twin: "TaskModule", optimizer: Any, steps: Iterator[Any], clip: float
) -> tuple[list[float], list[float]]:
    """Return the rates at which steps were taken, and before each the loss of the first step's examples.

    Those are always the same, undisturbed by dropout: what falls is the loss, and not the luck of a batch.
    """
    rates: list[float] = []
    losses: list[float] = []
    step = watched = next(steps)
    for rate in np.geomspace(LOWEST_RATE, HIGHEST_RATE, NUM_RATES):
        try:
            loss = twin.compute_mean_loss([watched])
            if _is_lost(losses, loss):
                break
            rates.append(float(rate))
            losses.append(loss)
            twin.network.train()
            twin.pieces.compute(partial(_descend, twin, optimizer, step))
        except InvalidInput:  # the loss is no number any more
            break
        torch.nn.utils.clip_grad_norm_(twin.list_trained(), clip)
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        optimizer.step()
        step = next(steps)
    return rates, losses


def _repeat(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _is_lost(losses: list[float], loss: float) -> bool:
    fallen = losses[0] - min(losses) if losses else 0.0
    return bool(losses) and loss > losses[0] + LOST * max(fallen, 0.1 * abs(losses[0]))


def _descend(twin: "TaskModule", optimizer: Any, step: Any, num_pieces: int) -> None:
    """Leave the gradient of a step's mean loss."""
    optimizer.zero_grad()
    total = sum(len(batch.examples) for batch in step)
    for piece in (piece for batch in step for piece in batch.split(num_pieces)):
        loss = twin.compute_losses(piece, "train")["loss"] * (len(piece.examples) / total)
        loss.backward()


def choose_rate(rates: list[float], losses: list[float]) -> RateSearch:
    """Return the rate at which the running mean of ``losses`` falls steepest over the rate's logarithm.

    Raises:
        InvalidInput: it falls at none.
    """
    smooth, mean = [], 0.0
    for number, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        smooth.append(mean / (1.0 - SMOOTHING ** (number + 1)))
    fallen = smooth[0] - min(smooth) if smooth else 0.0
    if len(smooth) < 2 * NUM_SETTLING or fallen <= LEAST_FALL * abs(smooth[0]):
        raise InvalidInput(
            f"TrainingSpec.find_learning_rate: the loss falls at none of {len(rates)} rates from {LOWEST_RATE:g} up: "
            "expected it to; set learning_rate and find_learning_rate=false"
        )
    slope = np.gradient(np.array(smooth), np.log(np.array(rates)))[NUM_SETTLING:-1]
    return RateSearch(rates, smooth, rates[NUM_SETTLING + int(np.argmin(slope))])
