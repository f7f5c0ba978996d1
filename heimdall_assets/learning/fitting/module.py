"""The Lightning module and the batches it is fed: any task, any network.

Belongs here: optimiser, schedule, logging of epochs, order and seeds of batches. Does not belong here: what a loss is
(the task), when to stop and what to keep (``training``).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.task import Task
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, TrainingSpec

EpochCallback = Callable[[int, dict[str, float]], None]

BatchKey = tuple[int, int, NDArray[np.int64]]
"""Epoch, number of the batch within it, its examples in ascending order."""


class EpochBatches(Sampler[BatchKey]):
    """The batches of one epoch: which examples, in which order, from the seed and the epoch alone."""

    def __init__(self, examples: NDArray[np.int64], batch_size: int, seed: int, shuffle: bool) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it, also after a resume."""
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


class TaskBatches(Dataset[dict[str, Tensor]]):
    """Whole batches by key, built in memory in this process: workers would only copy them."""

    def __init__(
        self,
        task: Task,
        sessions: SessionSet,
        statistics: dict[str, Any],
        augmentation: AugmentationSpec | None = None,
        seed: int = 0,
    ) -> None:
        self.task = task
        self.sessions = sessions
        self.statistics = statistics
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, key: BatchKey) -> dict[str, Tensor]:
        epoch, number, examples = key
        rng = np.random.default_rng([self.seed, epoch, number, 1])
        return self.task.make_batch(self.sessions, examples, self.statistics, self.augmentation, rng)


def build_loader(dataset: TaskBatches, batches: EpochBatches) -> DataLoader[Any]:
    """Return a loader that takes each batch as ``dataset`` gives it, in this process."""
    # a generator of its own: else each pass over it would draw from the one that dropout is reproduced with
    generator = torch.Generator()
    return DataLoader(dataset, sampler=batches, batch_size=None, collate_fn=_keep, num_workers=0, generator=generator)


def _keep(batch: Any) -> Any:
    return batch


class TaskModule(lightning.LightningModule):
    """Trains a task's network with AdamW, linear warm-up and cosine decay, and keeps the history of its epochs."""

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        training: TrainingSpec,
        steps_per_epoch: int,
        on_epoch: EpochCallback | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.network = network
        self.training_spec = training
        self.steps_per_epoch = steps_per_epoch
        self.on_epoch = on_epoch
        self.history: list[dict[str, float]] = []

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        losses = self.task.compute_loss(self.network, batch, self.current_epoch)
        self._log(losses, "train", batch)
        return losses["loss"]

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        self._log(self.task.compute_loss(self.network, batch, self.current_epoch), "val", batch)

    def _log(self, losses: dict[str, Tensor], split: str, batch: dict[str, Tensor]) -> None:
        size = len(next(iter(batch.values())))
        values = {f"{split}_{name}": value.detach() for name, value in losses.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=size)

    def on_train_epoch_start(self) -> None:
        # dropout draws from here, so that a resumed run continues with the bits of an uninterrupted one
        torch.manual_seed(
            int(np.random.SeedSequence([self.training_spec.seed, self.current_epoch]).generate_state(1)[0])
        )

    def on_train_epoch_end(self) -> None:
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(metrics[name]):
                raise InvalidInput(
                    f"training: {name} is {metrics[name]} after epoch {self.current_epoch}: expected a finite number; "
                    "lower TrainingSpec.learning_rate or gradient_clip, or look for values that are not finite"
                )
        metrics["learning_rate"] = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.history.append({"epoch": self.current_epoch, **dict(sorted(metrics.items()))})
        if self.on_epoch is not None:
            self.on_epoch(self.current_epoch, dict(metrics))

    def compute_mean_loss(self, batches: Iterable[dict[str, Tensor]]) -> float:
        """Return the mean loss over all examples of ``batches``, as validation computes it, on the CPU."""
        total, count = 0.0, 0
        training = self.network.training
        self.network.eval()
        with torch.no_grad():
            for batch in batches:
                size = len(next(iter(batch.values())))
                total += float(self.task.compute_loss(self.network, batch, 0)["loss"]) * size
                count += size
        self.network.train(training)
        return total / count

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])

    def configure_optimizers(self) -> Any:
        spec = self.training_spec
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=spec.learning_rate, weight_decay=spec.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.compute_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def compute_rate_factor(self, step: int) -> float:
        """Return the learning rate after ``step`` steps as a share of its peak: linear rise, half a cosine."""
        warmup = self.training_spec.warmup_epochs * self.steps_per_epoch
        total = self.training_spec.max_epochs * self.steps_per_epoch
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
