"""What a fit keeps on disk while it runs, so that a kill at any moment costs one epoch at most.

Belongs here: checkpoint files, early stopping, the choice of the best epoch. Does not belong here: training itself, and
where a finished model rests (stores).
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from heimdall_assets.errors import CorruptObject, InvalidInput, NotFound
from heimdall_assets.specs import TrainingSpec

NUM_KEPT = 3
EMERGENCY = "on_exception.ckpt"


def build_keepers(training: TrainingSpec, folder: Path) -> list[Callback]:
    """Return the callbacks that stop early and keep the three best epochs and the last."""
    return [
        _ResumableStopping(
            monitor="val_loss",
            patience=training.early_stopping_patience,
            min_delta=training.early_stopping_min_delta,
            check_on_train_epoch_end=True,
        ),
        ModelCheckpoint(
            dirpath=folder,
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


def load_best(module: torch.nn.Module, history: list[dict[str, float]], folders: list[Path]) -> None:
    """Load the weights of the best epoch; a resumed run may have left them in the earlier run's folder."""
    name = f"epoch-{find_best_epoch(history):03d}.ckpt"
    for folder in folders:
        if (folder / name).is_file():
            module.load_state_dict(load_checkpoint(folder / name)["state_dict"])
            return
    raise NotFound(f"checkpoint {name} of the best epoch: in none of {[str(folder) for folder in folders]}")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint of plain values and tensors, on the CPU; nothing else is ever unpickled.

    Raises:
        NotFound: no such file.
        CorruptObject: it is damaged, or holds something else.
    """
    if not path.is_file():
        raise NotFound(f"checkpoint {str(path)!r}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "history" not in checkpoint:
            raise ValueError("it is not a checkpoint of a fit")
    except Exception as error:  # torch raises many unrelated types for bytes that are no checkpoint
        line = " ".join(str(error).split())
        raise CorruptObject(
            f"checkpoint {str(path)!r}: cannot be read ({line:.120}); delete it to start that fit afresh"
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


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all: beside its place, flushed to disk, then renamed onto it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


class _ResumableStopping(EarlyStopping):
    """Early stopping that a resumed run remembers: Lightning would train on after a run that had already stopped."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class BreakOffKeeper(Callback):
    """Saves where a run was broken off, and remembers Ctrl+C and SIGTERM: Lightning makes an exit of both.

    Lightning's own ``OnExceptionCheckpoint`` is not used: with it in place a fresh run silently resumes an earlier one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: BaseException | None = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        with contextlib.suppress(OSError):  # where the disk is what failed, the first error is the one to show
            trainer.save_checkpoint(self.folder / EMERGENCY)
        if isinstance(exception, KeyboardInterrupt | SIGTERMException):
            self.seen = exception
