"""The MLflow run of one training, ended as the training ended.

``dagster_mlflow``'s resource as it is shipped may open a run in each step process, leaves failed and cancelled ones
FINISHED, and writes down the user's name and the path of their program; here the run is begun by its store, and its
``MlFlow`` is made on it when a training starts and is ended by hand.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import SimpleNamespace, TracebackType
from typing import Any

import dagster as dg

from heimdall_assets.defs.tracking.names import IMAGE_TAG, INTENT, SOURCE_TAGS, name_run, read_intent
from heimdall_assets.stores.computing import name_originator
from heimdall_assets.stores.experiment_entries import Entries
from heimdall_assets.stores.experiments import EXPERIMENT, ExperimentStore, find_run, note_run, prepare_mlflow
from heimdall_assets.stores.objects.folder import ObjectStore

FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"

Describe = Callable[[], Entries]
"""Called only where there is a run to tell."""


@contextmanager
def _quiet_beta() -> Iterator[None]:
    """Keep to ourselves that Dagster calls its MLflow package beta: the user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=dg.BetaWarning)
        yield


class TrackedTraining:
    """The MLflow run of one training; does nothing until started, and tells nothing more after the first trouble."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        store: ExperimentStore | None,
        describe: Describe,
        image: str | None = None,
    ):
        self._context = context
        self._store = store
        self._describe = describe
        self._image = image
        self._mlflow: Any = None
        self._monitor: Any = None
        self._num_samples = 0.0
        self._started_s = self._epoch_s = time.monotonic()
        self.run_id: str | None = None

    def __enter__(self) -> "TrackedTraining":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            status = FINISHED
        else:
            killed = isinstance(error, KeyboardInterrupt | dg.DagsterExecutionInterruptedError)
            status = KILLED if killed else FAILED
        self._stop_monitor()
        if self._mlflow is None:
            return
        if self._store is not None:
            self._attempt("end its run", lambda: self._mlflow.end_run(status))
        else:  # it was away once, which was said: it may be back, and the next training must find no active run
            with suppress(Exception):
                self._mlflow.end_run(status)

    def start(self, num_samples: int = 0, parent_run_id: str | None = None, run_name: str | None = None) -> None:
        """Open the run: called when the training is found to be needed.

        Args:
            num_samples: sessions of an epoch, behind the figure of samples a second; 0: no such figure.
            parent_run_id: the MLflow run that this one is a part of, as a search is of its trials.
            run_name: what tells it from others of the same step; trials need one each.
        """
        self._num_samples = float(num_samples)
        self._started_s = self._epoch_s = time.monotonic()
        self._attempt("open a run", lambda: self._open(parent_run_id, run_name))

    def _open(self, parent_run_id: str | None, run_name: str | None) -> None:
        store = self._store
        if store is None:
            return
        prepare_mlflow()
        with _quiet_beta():
            from dagster_mlflow.resources import MlFlow

        store.ensure_experiment()
        entries, run = self._describe(), self._context.run
        step = self._context.asset_key.to_user_string()
        own = {
            **SOURCE_TAGS,
            "heimdall.asset": step,
            "mlflow.user": name_originator() or "unknown",
            INTENT: read_intent(run),
        }
        if parent_run_id is not None:
            own["mlflow.parentRunId"] = parent_run_id
        if self._image:
            own[IMAGE_TAG] = self._image
        # One for each Dagster run, step and trial: a second attempt goes on in the run of the first.
        part = step if run_name is None else f"{step}/{run_name}"
        found_by = {"dagster_run_id": run.run_id, "heimdall.part": part}
        name = run_name or name_run(run, dict(entries.params))
        self.run_id = store.find_or_begin(found_by, name, own)
        # The part of a resource's context that MlFlow asks for.
        asked = SimpleNamespace(
            log=self._context.log,
            dagster_run=SimpleNamespace(job_name=name),
            run_id=run.run_id,
            resource_config={
                "experiment_name": EXPERIMENT,
                "mlflow_tracking_uri": store.uri,
                "mlflow_run_id": self.run_id,
                "env": {},
                "extra_tags": {"heimdall.attempt": str(self._context.retry_number)},
            },
        )
        with _quiet_beta():
            fluent: Any = MlFlow  # it has every function of MLflow, by its metaclass
            if fluent.active_run() is not None:  # a search's own, in this process: MlFlow would take it for this one
                fluent.set_tracking_uri(store.uri)
                fluent.start_run(run_id=self.run_id, nested=True)
            self._mlflow = MlFlow(asked)
        store.write(self.run_id, entries)
        self._write_files(entries)
        self._watch(store, self.run_id)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch's metrics, and how long it took."""
        if self._mlflow is None or self._store is None:
            return
        now = time.monotonic()
        elapsed_s, self._epoch_s = now - self._epoch_s, now
        told = {"epoch_time_s": elapsed_s, **metrics}
        if self._num_samples and elapsed_s > 0:
            told.setdefault("samples_per_s", self._num_samples / elapsed_s)
        self._attempt("log an epoch", lambda: self._mlflow.log_metrics(told, step=epoch))

    def tag(self, name: str, value: str) -> None:
        """Tell the run one thing more about what it made."""
        self._write(f"tell {name}", lambda: Entries(tags={name: value}))

    def finish(self, objects: ObjectStore, checkpoint: str, reused: bool, describe: Describe = Entries) -> str | None:
        """Tie run and checkpoint together, and return which run made the checkpoint; None: an untracked one.

        Args:
            objects: where that is kept.
            checkpoint: digest of its manifest.
            reused: it was found, and the run that made it is told nothing more.
            describe: gives what the run is told of it.
        """
        self._stop_monitor()
        if not reused:
            self._write("name its checkpoint", lambda: Entries(tags={"heimdall.checkpoint": checkpoint}))
            self._write("describe its checkpoint", describe)
        if self.run_id is not None and not reused:
            note_run(objects, checkpoint, self.run_id)
        return find_run(objects, checkpoint)

    def _write(self, what: str, describe: Describe) -> None:
        store, run_id = self._store, self.run_id
        if store is None or run_id is None:
            return

        def act() -> None:
            entries = describe()
            store.write(run_id, entries)
            self._write_files(entries)

        self._attempt(what, act)

    def _write_files(self, entries: Entries) -> None:
        """Keep files with the run; where only their place is away, figures go on."""
        if self._store is not None and self.run_id is not None and entries.files and self._keeps_files:
            try:
                self._store.write_files(self.run_id, entries.files)
            except Exception as error:
                self._keeps_files = False
                warn(self._context, "keep files", error)

    _keeps_files = True

    def _watch(self, store: ExperimentStore, run_id: str) -> None:
        from heimdall_assets.stores.experiment_monitor import MachineMonitor

        monitor = MachineMonitor(store.uri, run_id)
        try:
            monitor.start()
            self._monitor = monitor
        except Exception as error:  # what psutil cannot read on this system
            warn(self._context, "watch its machine", error)

    def _stop_monitor(self) -> None:
        monitor, self._monitor = self._monitor, None
        if monitor is None:
            return
        if self._store is None:  # it was away once: its thread would ask for the run for as long as this process lives
            monitor.abandon()
        else:
            self._attempt("tell how its machine was used", monitor.stop)

    def _attempt(self, what: str, act: Callable[[], object]) -> None:
        if self._store is None:
            return
        try:
            act()
        except Exception as error:  # whatever MLflow and the network raise: the training is worth more
            warn(self._context, what, error)
            self._store = None


def warn(context: dg.AssetExecutionContext, what: str, error: Exception) -> None:
    """Say in a step's log that MLflow was not told something."""
    context.log.warning(f"MLflow is away, could not {what}: {' '.join(str(error).split()):.300}")
