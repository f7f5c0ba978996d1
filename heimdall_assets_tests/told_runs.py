"""Homes with trainings that were told of but never run: folders as a training writes them, in milliseconds."""

import math
from typing import Any

from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.runs.writing import RunWriter
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
)

SETTINGS: dict[str, Any] = {
    "ModelSpec": {"kind": "network", "width": 16},
    "TrainingSpec": {"max_epochs": 20, "learning_rate": 1e-3},
}


def begin_run(stores: Stores, fit: str, goes_on: bool = False, **told: Any) -> RunWriter:
    """Return the writer of a training's folder."""
    assert stores.runs is not None
    given = {"settings": SETTINGS, "data": {"train_split": "a" * 64}, "started_by": "Ada", "reason": "a <b>try</b>"}
    return stores.runs.begin(fit * 64, {**given, **told}, goes_on)


def tell_epochs(writer: RunWriter, epochs: range, floor: float = 1.0) -> None:
    """Write epochs of a loss that falls towards ``floor``."""
    for epoch in epochs:
        loss = floor + math.exp(-epoch / 3.0)
        own = {"epoch": epoch, "part": POSITIONS}
        writer.note(Moment(epoch, 0, 4, 0))
        writer.note(Moment(epoch, 4, 4, 64))
        rate = {"learning_rate": 1e-3, "steps": 4 * (epoch + 1)}
        writer.append(EPOCHS, {**own, "train_loss": loss, "val_loss": loss + 0.1, "val_error_m": 90.0 * loss, **rate})
        for phase in (TRAIN, VAL):
            writer.append(LOSSES, {**own, "phase": phase, "loss_position": loss, "total_loss": loss})
        writer.append(UNCERTAINTY, {**own, "sigma_position": 80.0, "squared_z": 1.4, "weight_position": 1.0})
        norms = {"grad_norm": 1.0, "total_grad_norm": 1.0, "max_grad_norm": 1.0}
        writer.append(GRADIENTS, {**own, "layer": "first", **norms})
    seen = {"epoch": epochs[0], "part": POSITIONS, "phase": TRAIN, "channel": "level_db"}
    writer.append(FEATURES, {**seen, "mean": 0.0, "std": 1.0})
