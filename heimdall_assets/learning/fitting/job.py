"""One process's part of a fit: its batches, its trainer, its checkpoints where it is the first.

Belongs here: what each process does, alone or among others. Does not belong here: what is done once, before and after
(``training``), starting processes (``processes``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import nn

from heimdall_assets.learning.fitting.batches import EpochBatches, EpochSteps, StepLoader, TaskBatches
from heimdall_assets.learning.fitting.checkpoints import CheckpointFiles, HandedCheckpointIO
from heimdall_assets.learning.fitting.devices import Device
from heimdall_assets.learning.fitting.diagnostics import Diagnostics, StepTeller
from heimdall_assets.learning.fitting.environment import keep_interrupt_handler, quiet_lightning
from heimdall_assets.learning.fitting.gpu_watch import build_watch
from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.learning.fitting.keepers import BreakOffKeeper, ResumableStopping, StateKeeper
from heimdall_assets.learning.fitting.memory import Pieces
from heimdall_assets.learning.fitting.module import EpochCallback, TaskModule
from heimdall_assets.learning.fitting.ranks import ALONE, Ranks
from heimdall_assets.learning.fitting.savings import apply_savings
from heimdall_assets.learning.task import Task
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, MachineSpec, TrainingSpec


@dataclass(frozen=True)
class Data:
    """What is trained and judged on: sessions, and which of their examples have a known truth."""

    train: SessionSet
    val: SessionSet
    examples: NDArray[np.int64]
    val_examples: NDArray[np.int64]
    statistics: dict[str, Any]
    augmentation: AugmentationSpec


@dataclass(frozen=True)
class Job:
    """A fit that is ready to run; each process has a copy.

    Attributes:
        network: as it starts.
        peak_rate: the step size that the schedule scales.
        num_pieces: that each batch is taken in.
        resume_from: name of a checkpoint.
    """

    task: Task
    network: nn.Module
    data: Data
    training: TrainingSpec
    machine: MachineSpec
    device: Device
    checkpoints: CheckpointFiles
    resume_from: str | None = None
    peak_rate: float = 0.0
    num_pieces: int = 1

    def load_train(
        self, ranks: Ranks = ALONE, find_place: Callable[[], tuple[int, int]] = lambda: (0, 0)
    ) -> StepLoader:
        """Return the steps of training, each pass of the epoch and from the step on that ``find_place`` tells."""
        data, spec = self.data, self.training
        batches = EpochBatches(data.examples, spec.batch_size, spec.seed, shuffle=True)
        disturbed = TaskBatches(self.task, data.train, data.statistics, data.augmentation, spec.seed, ranks)
        steps = EpochSteps(batches, spec.accumulate_batches)
        return StepLoader(disturbed, steps, self.machine, self._pins, find_place)

    def load_val(self, ranks: Ranks = ALONE) -> StepLoader:
        """Return the batches of validation, a step each."""
        data, spec = self.data, self.training
        batches = EpochBatches(data.val_examples, spec.batch_size, spec.seed, shuffle=False)
        plain = TaskBatches(self.task, data.val, data.statistics, ranks=ranks)
        return StepLoader(plain, EpochSteps(batches), self.machine, self._pins)

    @property
    def _pins(self) -> bool:
        return self.machine.pin_memory and self.device.accelerator == "gpu"

    def build_module(
        self,
        tell: Callable[[str], None],
        ranks: Ranks = ALONE,
        on_epoch: EpochCallback | None = None,
    ) -> TaskModule:
        """Return the module that trains the network."""
        spec, data = self.training, self.data
        steps = EpochSteps(EpochBatches(data.examples, spec.batch_size, spec.seed, True), spec.accumulate_batches)
        pieces = Pieces(spec.batch_size, tell, self.num_pieces)
        module = TaskModule(self.task, self.network, spec, len(steps), pieces, ranks, on_epoch)
        module.peak_rate = self.peak_rate or spec.learning_rate
        module.sessions = {"train": data.train, "val": data.val}
        return module


def run_job(job: Job, module: TaskModule, hooks: Hooks) -> None:
    """Train the module's network in place.

    Raises:
        KeyboardInterrupt: the run was cancelled; its checkpoints stay.
    """
    ranks = module.ranks
    is_first = ranks.rank == 0
    interrupted = BreakOffKeeper(job.checkpoints if is_first else None)
    callbacks = [interrupted, *_list_watchers(job, hooks), ResumableStopping(job.training)]
    if is_first:
        callbacks.append(StateKeeper(job.machine, job.training.max_epochs, job.checkpoints))
    train, val = job.load_train(ranks, lambda: (module.current_epoch, module.steps_in_epoch)), job.load_val(ranks)
    blocks = job.task.list_blocks(module.network)
    with quiet_lightning(), apply_savings(module.network, blocks, job.training) as called:
        module.set_called(called)
        trainer = lightning.Trainer(
            accelerator=job.device.accelerator,
            devices=[ranks.rank] if job.device.accelerator == "gpu" else 1,
            precision=job.training.precision,
            max_epochs=job.training.max_epochs,
            deterministic=True,
            callbacks=callbacks,
            default_root_dir=job.checkpoints.folder,
            plugins=[HandedCheckpointIO(job.checkpoints)],
            enable_checkpointing=is_first,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        with keep_interrupt_handler():
            try:
                known = None if job.resume_from is None else job.checkpoints.folder / job.resume_from
                trainer.fit(module, train, val, ckpt_path=known, weights_only=True)
            except SystemExit:
                if interrupted.seen is None:
                    raise
            finally:
                train.close()
                val.close()
                module.set_called(module.network)
        if interrupted.seen is not None:
            raise KeyboardInterrupt("training was cancelled; its checkpoints stay") from interrupted.seen


def _list_watchers(job: Job, hooks: Hooks) -> list[Callback]:
    """Return the callbacks that look on: they change nothing."""
    watch = build_watch(job.machine, job.device.accelerator == "gpu", hooks.meters, hooks.on_notice)
    told: list[Callback] = [] if hooks.record is None else [Diagnostics(hooks.record)]
    told += [] if hooks.on_step is None else [StepTeller(hooks.on_step)]
    return [*watch, *told, *hooks.callbacks]
