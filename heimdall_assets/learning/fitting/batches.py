"""The batches that a fit is fed: which examples, in which order, with which disturbances, from seeds alone.

Belongs here: epochs, steps and batches by key, how they are made (in this process or in workers) and shared among
processes. Does not belong here: what is in a batch (the task), what is done with it (``module``).

A *batch* is ``batch_size`` examples, whatever the number of processes that share it; a *step* of the optimiser is
``accumulate_batches`` batches; a *piece* is what of a batch is on the way at once.
"""

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from heimdall_assets.learning.fitting.ranks import ALONE, Ranks
from heimdall_assets.learning.task import Task
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, MachineSpec

BatchKey = tuple[int, int, NDArray[np.int64]]
"""Epoch, number of the batch within it, its examples in ascending order."""


class Batch(NamedTuple):
    """Examples and their tensors, first axis ``len(examples)`` in each; ``total``: of all processes that share it."""

    examples: NDArray[np.int64]
    tensors: dict[str, Tensor]
    total: int

    def split(self, num_pieces: int) -> "Iterator[Batch]":
        """Yield the examples in order, in at most ``num_pieces`` pieces; none: this process has no share in it."""
        size = math.ceil(len(self.examples) / num_pieces)
        for start in range(0, len(self.examples), max(size, 1)):
            part = slice(start, start + size)
            yield (
                Batch(self.examples[part], {name: value[part] for name, value in self.tensors.items()}, self.total)
                if num_pieces > 1
                else self
            )


class EpochBatches(Sampler[BatchKey]):
    """The batches of one epoch: which examples, in which order, from the seed and the epoch alone."""

    def __init__(self, examples: NDArray[np.int64], batch_size: int, seed: int, shuffle: bool) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / self.batch_size)

    def __iter__(self) -> Iterator[BatchKey]:
        examples = self.examples
        if self.shuffle:
            examples = np.random.default_rng([self.seed, self.epoch]).permutation(examples)
        for number in range(len(self)):
            part = examples[number * self.batch_size : (number + 1) * self.batch_size]
            yield self.epoch, number, np.sort(part)  # ascending rows are one sweep over a memory map


class EpochSteps(Sampler[list[BatchKey]]):
    """The batches of each step of one epoch, from step ``first`` on; the last step may have fewer."""

    def __init__(self, batches: EpochBatches, accumulate: int = 1) -> None:
        self.batches = batches
        self.accumulate = accumulate
        self.first = 0

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / self.accumulate)

    def __iter__(self) -> Iterator[list[BatchKey]]:
        keys = list(self.batches)
        for step in range(self.first, len(self)):
            yield keys[step * self.accumulate : (step + 1) * self.accumulate]


@dataclass(frozen=True)
class TaskBatches(Dataset[list[Batch]]):
    """The batches of a step by their keys.

    Each process makes the whole batch, so that its disturbances do not depend on how many share it, and takes its part.
    """

    task: Task
    sessions: SessionSet
    statistics: dict[str, Any]
    augmentation: AugmentationSpec | None = None
    seed: int = 0
    ranks: Ranks = ALONE

    def __getitem__(self, keys: list[BatchKey]) -> list[Batch]:
        return [self._make(*key) for key in keys]

    def _make(self, epoch: int, number: int, examples: NDArray[np.int64]) -> Batch:
        rng = np.random.default_rng([self.seed, epoch, number, 1])
        whole = self.task.make_batch(self.sessions, examples, self.statistics, self.augmentation, rng)
        if self.ranks.size == 1:
            return Batch(examples, whole, len(examples))
        mine = self.ranks.find_share(len(examples))
        return Batch(examples[mine], {name: value[mine] for name, value in whole.items()}, len(examples))


class StepLoader:
    """Steps in order, made here or by workers ahead of time; the same bits either way.

    Args:
        dataset: makes batches.
        sampler: their keys.
        machine: workers, and how far ahead they are.
        pin: put batches into page-locked memory.
        find_place: tells epoch and first step of a pass when it begins.
    """

    def __init__(
        self,
        dataset: TaskBatches,
        sampler: EpochSteps,
        machine: MachineSpec,
        pin: bool = False,
        find_place: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._steps, self._find_place = sampler, find_place
        more: dict[str, Any] = {}
        if machine.num_workers:
            more = {
                "prefetch_factor": machine.prefetch_batches,
                "persistent_workers": True,
                "multiprocessing_context": "fork",  # sessions may be memory maps, which nothing else would share
                "worker_init_fn": _leave_signals,
            }
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            collate_fn=_keep,
            num_workers=machine.num_workers,
            pin_memory=pin,
            # a generator of its own: else each pass would draw from the one that dropout is reproduced with
            generator=torch.Generator(),
            **more,
        )

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[Batch]]:
        # runs when the first step is asked for: only then are epoch and first step known, and workers may begin
        epoch, self._steps.first = self._find_place()
        self._steps.batches.set_epoch(epoch)
        yield from self._loader

    def state_dict(self) -> dict[str, Any]:
        """Return nothing; that it can be asked tells Lightning that this loader can be resumed."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing: ``find_place`` tells."""

    def close(self) -> None:
        """End the workers."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
        self._loader._iterator = None


Steps = Iterable[list[Batch]]


def _keep(batch: Any) -> Any:
    return batch


def _leave_signals(_: int) -> None:
    """Let the process that trains decide what Ctrl+C and SIGTERM end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
