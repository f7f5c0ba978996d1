"""What a fit keeps while it runs, so that a kill at any moment costs one epoch at most.

Belongs here: what a checkpoint holds, which are kept, early stopping, the choice of the best epoch. Does not belong
here: training itself, and the files: whoever asks for a fit hands in where checkpoints are kept (``CheckpointFiles``).
"""

import contextlib
import io
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from heimdall_assets.errors import CorruptObject, InvalidInput, StorageError
from heimdall_assets.specs import TrainingSpec

NUM_KEPT = 3
LAST = "last.ckpt"
EMERGENCY = "on_exception.ckpt"


class CheckpointFiles(Protocol):
    """Where the checkpoints of one fit are kept by name; ``stores.scratch.CheckpointFolder`` is one."""

    @property
    def folder(self) -> Path:
        """Where they lie, to name them by; nothing is read or written past the methods below."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a checkpoint; ``NotFound`` where there is none."""

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Keep a checkpoint whole or not at all, in place of the one before; ``StorageError`` where it could not."""

    def remove(self, name: str) -> None:
        """Remove a checkpoint; one that is not there is fine."""


def build_keepers(training: TrainingSpec, checkpoints: CheckpointFiles) -> list[Callback]:
    """Return the callbacks that stop early and keep the three best epochs and the last."""
    return [
        _ResumableStopping(
            monitor="val_loss",
            patience=training.early_stopping_patience,
            min_delta=training.early_stopping_min_delta,
            check_on_train_epoch_end=True,
        ),
        ModelCheckpoint(
            dirpath=checkpoints.folder,
            filename="epoch-{epoch:03d}",
            auto_insert_metric_name=False,
            monitor="val_loss",
            save_top_k=NUM_KEPT,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]


def find_best_epoch(history: list[dict[str, float]]) -> int:
    """Return the epoch with the lowest validation loss, the first of equals."""
    return int(min(history, key=lambda record: record["val_loss"])["epoch"])


def load_best(module: torch.nn.Module, history: list[dict[str, float]], checkpoints: CheckpointFiles) -> None:
    """Load the weights of the best epoch."""
    name = f"epoch-{find_best_epoch(history):03d}.ckpt"
    module.load_state_dict(load_checkpoint(checkpoints, name)["state_dict"])


def load_checkpoint(checkpoints: CheckpointFiles, name: str) -> dict[str, Any]:
    """Return a checkpoint of plain values and tensors, on the CPU; nothing else is ever unpickled.

    Raises:
        NotFound: no such checkpoint.
        CorruptObject: it is damaged, or holds something else.
    """
    data = checkpoints.read(name)
    try:
        checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "history" not in checkpoint:
            raise ValueError("it is not a checkpoint of a fit")
    except Exception as error:  # torch raises many unrelated types for bytes that are no checkpoint
        line = " ".join(str(error).split())
        raise CorruptObject(
            f"checkpoint {str(checkpoints.folder / name)!r}: cannot be read ({line:.120}); delete it to start that "
            "fit afresh"
        ) from error
    return checkpoint


def check_fits(module: torch.nn.Module, checkpoint: dict[str, Any], path: Path) -> None:
    """Return nothing if the checkpoint's weights are those of ``module``'s architecture.

    Raises:
        InvalidInput: a weight is missing, unknown or of another shape.
    """
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    if own != found:
        name = sorted(item for item in own.keys() | found.keys() if own.get(item) != found.get(item))[0]
        raise InvalidInput(
            f"checkpoint {str(path)!r}: {name} is {found.get(name, 'missing')}: expected {own.get(name, 'none')}; it "
            "belongs to a fit of another model"
        )


class HandedCheckpointIO(CheckpointIO):
    """Lightning's way to checkpoints, all of it through the ``CheckpointFiles`` that a fit was handed."""

    def __init__(self, checkpoints: CheckpointFiles) -> None:
        self.checkpoints = checkpoints

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        self.checkpoints.write(Path(path).name, buffer.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        data = io.BytesIO(self.checkpoints.read(Path(path).name))
        # nothing but plain values and tensors, whatever is asked for
        checkpoint: dict[str, Any] = torch.load(data, map_location=map_location, weights_only=True)
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        self.checkpoints.remove(Path(path).name)


class _ResumableStopping(EarlyStopping):
    """Early stopping that a resumed run remembers: Lightning would train on after a run that had already stopped."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class BreakOffKeeper(Callback):
    """Saves where a run was broken off, and remembers Ctrl+C and SIGTERM: Lightning makes an exit of both.

    Lightning's own ``OnExceptionCheckpoint`` is not used: with it in place a fresh run silently resumes an earlier one.
    """

    def __init__(self, checkpoints: CheckpointFiles) -> None:
        self.checkpoints = checkpoints
        self.seen: BaseException | None = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        with contextlib.suppress(StorageError):  # where the disk is what failed, the first error is the one to show
            trainer.save_checkpoint(self.checkpoints.folder / EMERGENCY)
        if isinstance(exception, KeyboardInterrupt | SIGTERMException):
            self.seen = exception
