"""Watching: a training's folder while it runs, and what its bar in the terminal says.

Belongs here: what is told of a training, to whom, and that no trouble with it costs the training. Does not belong here:
what is measured (``learning.fitting.diagnostics``), files (``stores.runs``), MLflow (``defs.tracking``).
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import dagster as dg

from heimdall_assets.defs.origins import describe_origin, hide_person
from heimdall_assets.defs.progress import Work, notice, tell_detail
from heimdall_assets.errors import HeimdallError, StorageError
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.lineage.walk import walk_manifests
from heimdall_assets.manifests import Manifest
from heimdall_assets.specs import Spec, TrainingSpec
from heimdall_assets.stores.computing import list_versions
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.runs.folders import FAILED, FINISHED, STOPPED
from heimdall_assets.stores.runs.writing import RunWriter
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets.training_tables import Moment, Row

EPOCHS_TRAINED = "epochs trained"
DETAIL_EVERY_S = 0.5
"""Between two details that are shown of a bar."""


class WatchedTraining:
    """The folder of one training: made when it begins; after the first trouble, nothing more is written.

    A training that is found rather than computed makes none.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        stores: Stores,
        splits: Sequence[Manifest],
        specs: Sequence[Spec],
    ) -> None:
        """Expect a training on these splits with these specs."""
        self._context, self._stores, self._splits, self._specs = context, stores, splits, specs
        self._total = next(spec.max_epochs for spec in specs if isinstance(spec, TrainingSpec))
        self._writer: RunWriter | None = None
        self._best: float | None = None
        self._detail_s, self._epoch_s = 0.0, time.monotonic()
        self._moment: Moment | None = None
        self.run_id: str | None = None

    def __enter__(self) -> "WatchedTraining":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._attempt(lambda writer: writer.end(FINISHED))
        else:
            is_stop = isinstance(error, KeyboardInterrupt | dg.DagsterExecutionInterruptedError)
            why = self._hide_home(" ".join(str(error).split())[:300])
            self._attempt(lambda writer: writer.end(STOPPED if is_stop else FAILED, error=why))
        self._let_go()

    def begin(self, fit: str, goes_on: bool) -> None:
        """Open the folder."""
        if self._stores.runs is None:
            return
        try:
            self._writer = self._stores.runs.begin(fit, self._describe(), goes_on)
            self.run_id = self._writer.id
        except (HeimdallError, OSError) as error:
            self._warn(error)

    def tell(self, **changes: Any) -> None:
        """Add to the folder's metadata."""
        self._attempt(lambda writer: writer.update(**changes))

    def record(self, table: str, row: Row) -> None:
        """Write a row."""
        self._attempt(lambda writer: writer.append(table, row))

    def note(self, moment: Moment) -> None:
        """Write down where the training is, and show it beside its bar."""
        now_s = time.monotonic()
        if not moment.step:
            self._epoch_s = now_s
        self._moment = moment
        self._attempt(lambda writer: writer.note(moment))
        if now_s - self._detail_s >= DETAIL_EVERY_S:
            self._detail_s = now_s
            tell_detail(TRAINED_CHECKPOINT, Work(EPOCHS_TRAINED, self.describe()), moment.epoch, self._total)

    def open_checkpoints(self) -> CheckpointFolder | None:
        """Return the part of the folder that keeps checkpoints; None: there is no folder."""
        return None if self._writer is None else CheckpointFolder(self._writer.checkpoints)

    def end_epoch(self, epoch: int, val_loss: float) -> None:
        """Hear how an epoch ended."""
        self._best = val_loss if self._best is None else min(self._best, val_loss)

    def describe(self) -> str:
        """Return step, best validation loss and speed, for a bar."""
        parts = []
        if self._moment is not None:
            parts.append(f"step {self._moment.step}/{self._moment.num_steps}")
            lasted_s = time.monotonic() - self._epoch_s
            if self._moment.num_examples and lasted_s > 0:
                parts.append(f"{self._moment.num_examples / lasted_s:.0f} samples/s")
        if self._best is not None:
            parts.append(f"best val_loss {self._best:.4f}")
        return ", ".join(parts)

    def finish(self, checkpoint: Manifest) -> None:
        """Tie the folder to the checkpoint that it led to, and keep what it says beside that."""
        from heimdall_assets.pipeline.runs import keep_tables

        names = ("initial_val_loss", "best_val_loss", "best_epoch", "num_epochs")
        facts = {name: checkpoint.summary.get(name) for name in names}
        self._attempt(lambda writer: writer.end(FINISHED, checkpoint=checkpoint.digest, **facts))
        run_id = self.run_id if self._writer is not None else None
        self._let_go()
        if run_id is not None:
            try:
                keep_tables(self._stores, run_id, checkpoint.digest)
            except (HeimdallError, OSError) as error:
                self._context.log.warning(f"training {run_id}: not kept beside its checkpoint: {error}")

    def _describe(self) -> dict[str, Any]:
        read, run = self._stores.objects.read_bytes, self._context.run
        settings: dict[str, Any] = {}
        for node in walk_manifests([split.digest for split in self._splits], read):
            settings.update(node.manifest.specs)
        settings.update({spec.pure_class().__name__: spec.dump() for spec in self._specs})
        origin = hide_person(describe_origin(run), self._stores)
        return {
            "dagster_run_id": run.run_id,
            "mlflow_run_id": None,
            "checkpoint": None,
            "started_by": origin.started_by,
            "reason": origin.reason,
            "settings": settings,
            "data": {split.kind: split.digest for split in self._splits},
            "versions": list_versions(),
        }

    def _attempt(self, act: Callable[[RunWriter], object]) -> None:
        if self._writer is None:
            return
        try:
            act(self._writer)
        except (StorageError, OSError) as error:
            self._warn(error)
            self._let_go()

    def _hide_home(self, text: str) -> str:
        """Return a text without where the home lies: a folder says nothing of that."""
        root = None if self._stores.runs is None else self._stores.runs.root.parent
        return text if root is None else text.replace(str(root), "$HEIMDALL_HOME")

    def _let_go(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _warn(self, error: Exception) -> None:
        line = f"the folder of this training is not written any more, the training goes on: {error}"
        self._context.log.warning(line)
        notice(line)
