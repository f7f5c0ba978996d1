"""A task so small that a fit of it takes a blink: for tests of the loop itself, whatever is fitted.

Belongs here: ``ToyTask``, which is a ``Task`` in all that the loop asks for, and fits of it. What it learns: a
session's position from noisy numbers that hold it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heimdall_assets.learning.fitting.devices import choose_device
from heimdall_assets.learning.fitting.environment import make_repeatable
from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.learning.fitting.job import Data, Job
from heimdall_assets.learning.fitting.training import Outcome, train_network
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, MachineSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.learning.learning_cases import make_sessions

TOY = TrainingSpec(max_epochs=3, batch_size=8, num_threads=1, warmup_epochs=1, learning_rate=1e-2)


class ToyNetwork(nn.Module):
    """Two layers with dropout between them."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU())
        self.dropout, self.last = nn.Dropout(dropout), nn.Linear(32, 2)

    def forward(self, values: Tensor) -> Tensor:
        given: Tensor = self.last(self.dropout(self.first(values)))
        return given


class ToyTask:
    """What the loop asks of a task.

    Args:
        too_large: a batch of more examples asks for more memory than any machine has.
        poison: the session whose loss is no number.
    """

    kind = "toy"

    def __init__(self, too_large: int | None = None, poison: str | None = None) -> None:
        self.too_large, self.poison = too_large, poison

    def list_blocks(self, network: nn.Module) -> list[nn.Module]:
        assert isinstance(network, ToyNetwork)
        return [network.first]

    def name_examples(self, sessions: SessionSet, examples: NDArray[np.int64]) -> list[str]:
        return [f"session {name}" for name in sessions.session_id[examples]]

    def make_batch(
        self,
        sessions: SessionSet,
        examples: NDArray[np.int64],
        statistics: dict[str, Any],
        augmentation: AugmentationSpec | None = None,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Tensor]:
        target = np.stack([sessions.source_latitude - 45.0, sessions.source_longitude - 8.0], 1)[examples]
        values = np.concatenate([target, target**2], 1)
        if augmentation is not None:
            assert rng is not None
            values = values + 0.05 * rng.standard_normal(values.shape)
        poisoned = sessions.session_id[examples] == self.poison
        target = np.where(poisoned[:, None], np.nan, target)
        return {"values": torch.from_numpy(values).float(), "target": torch.from_numpy(target).float()}

    def compute_loss(self, network: nn.Module, batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        if self.too_large is not None and len(batch["values"]) > self.too_large:
            torch.empty(2**60)  # the allocator refuses, as it does where a real batch is too large
        error = (network(batch["values"]) - batch["target"]).square().sum(1)
        return {"loss": error.mean(), "largest": error.detach().max()}


def make_job(folder: Path, training: TrainingSpec = TOY, **changes: Any) -> Job:
    """Return a fit of 37 sessions that is ready to run, its checkpoints in ``folder``."""
    dropout = changes.pop("dropout", 0.2)
    task = changes.pop("task", ToyTask())
    train, val = (make_sessions(count, seed, first) for count, seed, first in ((37, 1, 0), (11, 2, 100)))
    data = Data(train, val, np.arange(37), np.arange(11), {}, AugmentationSpec())
    machine = changes.pop("machine", MachineSpec(accelerator="cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        network = ToyNetwork(dropout)
    device = choose_device(training, machine, 0)
    job = Job(task, network, data, training, machine, device, CheckpointFolder(folder))
    return replace(job, **changes)


def fit_toy(folder: Path, training: TrainingSpec = TOY, **changes: Any) -> tuple[Outcome, dict[str, Tensor]]:
    """Return how a fit went and the weights that it kept; what is no field of ``Job`` goes to ``train_network``."""
    on_epoch, hooks = changes.pop("on_epoch", None), changes.pop("hooks", Hooks())
    job = make_job(folder, training, **changes)
    with make_repeatable(training):
        outcome = train_network(job, on_epoch, hooks)
    return outcome, {name: value.clone() for name, value in job.network.state_dict().items()}


def is_same(one: tuple[Outcome, dict[str, Tensor]], other: tuple[Outcome, dict[str, Tensor]]) -> bool:
    """Return whether two fits gave the same bits: history, outcome and weights."""
    return one[0] == other[0] and all(torch.equal(value, other[1][name]) for name, value in one[1].items())
