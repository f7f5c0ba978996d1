"""Weights & Biases: the curves of a training as its files, written offline; ``wandb sync`` sends them, if ever.

Belongs here: one run's files below one folder. Does not belong here: whether a training is told to it (``profiles``,
``defs.weights_and_biases``). Nothing of ours reads them back, and nothing is sent to anybody.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heimdall_assets.errors import MissingDependency
from heimdall_assets.libraries import silence_libraries

PROJECT = "heimdall"


def open_run(folder: Path, name: str, params: Mapping[str, Any]) -> Any:
    """Return a new offline run of Weights & Biases; its ``log`` and ``finish`` are that package's own.

    Args:
        folder: below it wandb makes its own, ``wandb/offline-run-...``.
        name: what people see it by.
        params: settings of the training.

    Raises:
        MissingDependency: the package is not installed.
    """
    silence_libraries()
    try:
        import wandb
    except ImportError as error:
        raise MissingDependency("found no package wandb; install heimdall-assets[wandb]") from error
    os.makedirs(folder, exist_ok=True)
    # Curves and settings alone: no code, terminal, name of this machine or figures of its use.
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    return wandb.init(
        project=PROJECT, name=name, mode="offline", dir=str(folder), config=dict(params), settings=settings
    )
