"""Weights & Biases of a run: told of its training where the run's profile says so, offline, beside MLflow.

Belongs here: whom a run's tags have told, and one training's run there. Does not belong here: its files
(``stores.wandb_runs``). Trouble with it costs one warning, never a training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import dagster as dg

from heimdall_assets.defs.profiles import WANDB_TAG


class OfflineCurves:
    """The curves of one training; does nothing until started, and nothing more after the first trouble."""

    def __init__(self, context: dg.AssetExecutionContext, folder: Path | None, params: Mapping[str, Any]):
        self._context, self._folder, self._params = context, folder, params
        self._run: Any = None

    def __enter__(self) -> "OfflineCurves":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._attempt("end its run", lambda: self._run.finish(exit_code=0 if error is None else 1))

    def start(self) -> None:
        """Open the run: called when the training is found to be needed."""
        if self._folder is not None:
            self._attempt("open a run", self._open)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch's metrics."""
        if self._run is not None:
            self._attempt("log an epoch", lambda: self._run.log(dict(metrics), step=epoch))

    def _open(self) -> None:
        from heimdall_assets.stores.wandb_runs import open_run

        assert self._folder is not None
        self._run = open_run(self._folder, self._context.run.run_id[:8], self._params)

    def _attempt(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever that package raises: the training is worth more
            said = " ".join(str(error).split())
            self._context.log.warning(f"Weights & Biases could not {what}: {said:.300}")
            self._folder = self._run = None


@dataclass(frozen=True)
class WeightsAndBiases:
    """Where the curves of trainings rest that Weights & Biases is told of."""

    folder: Path

    def follow(self, context: dg.AssetExecutionContext, params: Mapping[str, Any]) -> OfflineCurves:
        """Return the curves of one training, a context manager whose end ends the run there."""
        wanted = context.run.tags.get(WANDB_TAG, "never")
        is_told = wanted == "always" or (wanted == "installed" and find_spec("wandb") is not None)
        if wanted == "installed" and not is_told:
            context.log.warning("Weights & Biases is told nothing: heimdall-assets[wandb] is not installed")
        return OfflineCurves(context, self.folder if is_told else None, params)
