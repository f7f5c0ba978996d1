"""When a fit keeps checkpoints, and when it stops: callbacks.

Belongs here: the three best epochs, the last state, early stopping, what is kept of a run that is broken off. Does not
belong here: what a checkpoint holds (``module``), where it lies (``checkpoints``).
"""

import contextlib
from typing import Any

from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.utilities.exceptions import SIGTERMException

from heimdall_assets.errors import StorageError
from heimdall_assets.learning.fitting.checkpoints import (
    EMERGENCY,
    LAST,
    NUM_KEPT,
    CheckpointFiles,
    find_best_epochs,
    name_epoch,
)
from heimdall_assets.specs import MachineSpec, TrainingSpec


class ResumableStopping(EarlyStopping):
    """Early stopping that a resumed run remembers: Lightning would train on after a run that had already stopped."""

    def __init__(self, training: TrainingSpec) -> None:
        super().__init__(
            monitor="val_loss",
            patience=training.early_stopping_patience,
            min_delta=training.early_stopping_min_delta,
            check_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = self.patience  # a fit that goes on may have more of it
        super().load_state_dict(state_dict)
        self.patience = own

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class StateKeeper(Checkpoint):
    """Keeps ``last.ckpt``, to go on from, and the best epochs; which those are, the history alone decides.

    ``last.ckpt`` is written every ``checkpoint_every_epochs`` epochs, at the end, and within an epoch every
    ``checkpoint_every_steps`` steps. Where epochs lie between, each such epoch's own checkpoint is kept as well. An
    epoch that is no longer among the best goes only after ``last.ckpt`` knows of better ones.
    """

    def __init__(self, machine: MachineSpec, max_epochs: int, checkpoints: CheckpointFiles) -> None:
        self.machine, self.max_epochs, self.checkpoints = machine, max_epochs, checkpoints
        self._removed: set[int] = set()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        every, done = self.machine.checkpoint_every_steps, pl_module.steps_in_epoch
        if every is not None and done % every == 0 and done < pl_module.steps_per_epoch:
            self._save(trainer, LAST)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        history = pl_module.history
        epoch, every = int(history[-1]["epoch"]), self.machine.checkpoint_every_epochs
        is_due = (epoch + 1) % every == 0
        kept = set(find_best_epochs(history, NUM_KEPT))
        if every > 1:
            kept |= {int(record["epoch"]) for record in history if (record["epoch"] + 1) % every == 0}
        if epoch in kept:
            self._save(trainer, name_epoch(epoch))
        if is_due or epoch + 1 >= self.max_epochs or trainer.should_stop:
            self._save(trainer, LAST)
            for old in sorted({int(record["epoch"]) for record in history} - kept - self._removed):
                self.checkpoints.remove(name_epoch(old))
                self._removed.add(old)

    def _save(self, trainer: Any, name: str) -> None:
        trainer.save_checkpoint(self.checkpoints.folder / name)


class BreakOffKeeper(Callback):
    """Saves where a run was broken off, and remembers Ctrl+C and SIGTERM: Lightning makes an exit of both.

    Lightning's own ``OnExceptionCheckpoint`` is not used: with it in place a fresh run silently resumes an earlier one.
    """

    def __init__(self, checkpoints: CheckpointFiles | None) -> None:
        self.checkpoints = checkpoints
        self.seen: BaseException | None = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.checkpoints is not None:
            pl_module.judge_average(False)
            with contextlib.suppress(StorageError):  # where the disk is what failed, the first error is the one to show
                trainer.save_checkpoint(self.checkpoints.folder / EMERGENCY)
        if isinstance(exception, KeyboardInterrupt | SIGTERMException):
            self.seen = exception
