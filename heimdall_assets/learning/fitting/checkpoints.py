"""What a fit keeps while it runs, so that a kill at any moment costs the steps since the last checkpoint at most.

Belongs here: where checkpoints are kept, how one is read, the choice of the best epochs. Does not belong here: when
they are written (``keepers``), what stays of them after the fit (``kept``), and the files: whoever asks for a fit hands
in where checkpoints are kept (``CheckpointFiles``).
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from heimdall_assets.errors import CorruptObject, InvalidInput

NUM_KEPT = 3
LAST = "last.ckpt"
EMERGENCY = "on_exception.ckpt"

PROGRESS, AVERAGE = "progress", "average"
"""Parts of a checkpoint beside those of Lightning and ``history``: how far it is, and the moving average if any."""


PARTS = ("state_dict", "history", PROGRESS)
"""What every checkpoint of a fit has."""


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


def find_best_epochs(history: Sequence[Mapping[str, float]], count: int = 1) -> list[int]:
    """Return the epochs with the lowest validation losses, the best first and the first of equals before the others."""
    ordered = sorted(history, key=lambda record: (record["val_loss"], record["epoch"]))
    return [int(record["epoch"]) for record in ordered[:count]]


def name_epoch(epoch: int) -> str:
    """Return the name of the checkpoint that was made at the end of an epoch, counted from 0."""
    return f"epoch-{epoch:03d}.ckpt"


def load_best(module: torch.nn.Module, history: Sequence[Mapping[str, float]], checkpoints: CheckpointFiles) -> None:
    """Load the weights that were judged best: the moving average where there is one."""
    checkpoint = load_checkpoint(checkpoints, name_epoch(find_best_epochs(history)[0]))
    module.load_state_dict(list_judged(checkpoint))


def list_judged(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights that validation judged, by their names within the module."""
    if AVERAGE in checkpoint:
        return {f"network.{name}": value for name, value in checkpoint[AVERAGE].items()}
    return dict(checkpoint["state_dict"])


def load_checkpoint(checkpoints: CheckpointFiles, name: str) -> dict[str, Any]:
    """Return a checkpoint of plain values and tensors, on the CPU; nothing else is ever unpickled.

    Raises:
        NotFound: no such checkpoint.
        CorruptObject: it is damaged, or holds something else.
    """
    data = checkpoints.read(name)
    try:
        checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict) or any(part not in checkpoint for part in PARTS):
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
