"""Diagnostics: what is seen of a training while it runs, an epoch's rows at its end, and each step as it passes.

Belongs here: when Lightning is asked what, and which row that makes. Does not belong here: what a model's batch and
output hold (its task), sums (``measures``), clocks and files (whoever is told).
Neither callback draws a random number, changes a tensor or reads one within a step: a fit gives the same bytes with
them as without.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from heimdall_assets.learning.fitting.measures import Gradients, Spread
from heimdall_assets.training_tables import (
    EPOCHS,
    FEATURES,
    GRADIENTS,
    LOSSES,
    POSITIONS,
    TRAIN,
    UNCERTAINTY,
    VAL,
    Moment,
    Record,
)

FEATURES_EVERY = 10
"""Epochs between two looks at what the network is shown: it changes with the disturbances alone."""


class StepTeller(Callback):
    """Tells of each step that was taken, and of each epoch's beginning as of its step 0."""

    def __init__(self, on_step: Callable[[Moment], None]) -> None:
        self._on_step = on_step
        self._num_examples = 0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._num_examples = 0
        self._tell(trainer, pl_module.steps_in_epoch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._num_examples += sum(part.total for part in batch)
        self._tell(trainer, pl_module.steps_in_epoch)

    def _tell(self, trainer: Any, step: int) -> None:
        self._on_step(Moment(trainer.current_epoch, step, int(trainer.num_training_batches), self._num_examples))


class Diagnostics(Callback):
    """Records the rows of ``training_tables`` of each epoch; of several processes' examples, those of this one."""

    def __init__(self, record: Record) -> None:
        self._record_row = record
        self._gradients = Gradients(1)
        self._channels: dict[tuple[str, str], Spread] = {}
        self._measured: dict[str, list[Tensor]] = {}
        self._outputs: list[Any] = []
        self._hook: Any = None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._gradients = Gradients(int(trainer.num_training_batches))
        self._channels = defaultdict(Spread)
        self._measured = defaultdict(list)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._look_at(trainer, pl_module, batch, TRAIN)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._gradients.add(pl_module.network.named_parameters())

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._hook = pl_module.network.register_forward_hook(self._keep_output)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        pieces = [piece for part in batch for piece in part.split(pl_module.pieces.count)]
        # where a batch did not fit, it was begun again in smaller pieces: the last outputs are those of the pieces
        for output, piece in zip(self._outputs[len(self._outputs) - len(pieces) :], pieces, strict=True):
            for name, values in pl_module.task.measure_outputs(output, piece.tensors).items():
                self._measured[name].append(values.detach())
        self._outputs = []
        self._look_at(trainer, pl_module, batch, VAL)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._release()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._release()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # Lightning asks callbacks before the module has its means
        pl_module.after_epoch.append(partial(self._end_epoch, trainer, pl_module))

    def _end_epoch(self, trainer: Any, pl_module: Any, metrics: Mapping[str, float]) -> None:
        self._record_epoch(trainer, pl_module, metrics)
        for phase in (TRAIN, VAL):
            loss = metrics.get(f"{phase}_loss")
            self._record(trainer, LOSSES, {"phase": phase, "loss_position": loss, "total_loss": loss})
        for row in self._gradients.describe(skip_overflow=str(trainer.precision).startswith("16")):
            self._record(trainer, GRADIENTS, row)
        for (phase, channel), spread in self._channels.items():
            self._record(trainer, FEATURES, {"phase": phase, "channel": channel, **spread.describe()})

    def _record_epoch(self, trainer: Any, pl_module: Any, metrics: Mapping[str, float]) -> None:
        medians = {name: float(torch.cat(parts).double().nanmedian()) for name, parts in self._measured.items()}
        row = {
            "train_loss": metrics.get("train_loss"),
            "val_loss": metrics.get("val_loss"),
            "val_error_m": medians.get("error_m"),
            "learning_rate": metrics["learning_rate"],
            "steps": pl_module.num_steps,
        }
        self._record(trainer, EPOCHS, row)
        stated = {"sigma_position": medians.get("sigma_m"), "squared_z": medians.get("squared_z")}
        self._record(trainer, UNCERTAINTY, {**stated, "weight_position": 1.0})

    def _record(self, trainer: Any, table: str, row: dict[str, Any]) -> None:
        self._record_row(table, {"epoch": trainer.current_epoch, **row, "part": POSITIONS})

    def _look_at(self, trainer: Any, pl_module: Any, batch: Any, phase: str) -> None:
        if trainer.current_epoch % FEATURES_EVERY == 0:
            for part in batch:
                for channel, values in pl_module.task.list_channels(part.tensors).items():
                    self._channels[phase, channel].add(values)

    def _keep_output(self, module: Any, arguments: Any, output: Any) -> None:
        self._outputs.append(output)

    def _release(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._outputs = []
