"""Weights & Biases: the curves of a training as its files, written offline; ``wandb sync`` sends them, if ever.

Belongs here: one run's files below one folder. Does not belong here: whether a training is told to it (``profiles``,
``defs.resources``). Nothing of ours reads them back, and nothing is sent to anybody. Trouble with them costs one
warning, never a training.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
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


def is_installed() -> bool:
    """Return whether the package is here."""
    return find_spec("wandb") is not None


@dataclass
class OfflineCurves:
    """The curves of one training; does nothing until started, and nothing more after the first trouble.

    Attributes:
        folder: of all such files; None: nothing is written.
        name: what people see the run by.
        params: settings of the training.
        warn: is told of trouble, in one line.
    """

    folder: Path | None
    name: str
    params: Mapping[str, Any]
    warn: Callable[[str], object]
    _run: Any = field(default=None, repr=False)

    def __enter__(self) -> "OfflineCurves":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._attempt("end its run", lambda: self._run.finish(exit_code=0 if error is None else 1))

    def start(self) -> None:
        """Open the run: called when the training is found to be needed."""
        if self.folder is not None:
            self._attempt("open a run", self._open)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch's metrics."""
        if self._run is not None:
            self._attempt("log an epoch", lambda: self._run.log(dict(metrics), step=epoch))

    def _open(self) -> None:
        assert self.folder is not None
        self._run = open_run(self.folder, self.name, self.params)

    def _attempt(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever that package raises: the training is worth more
            said = " ".join(str(error).split())
            self.warn(f"Weights & Biases could not {what}: {said:.300}")
            self.folder = self._run = None
