"""Tracking: one MLflow run for each training that is really computed, ended as the training ended.

``dagster_mlflow``'s resource as it is shipped may open a run in each step process, and leaves failed and cancelled ones
FINISHED; here its ``MlFlow`` is made when a training starts and is ended by hand. A tracking store that is away costs
one warning, never a training.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace, TracebackType
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from heimdall_assets.stores.experiments import EXPERIMENT, ExperimentStore, find_run, note_run, prepare_mlflow
from heimdall_assets.stores.objects.folder import ObjectStore

FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"


@contextmanager
def _quiet_beta() -> Iterator[None]:
    """Keep to ourselves that Dagster calls its MLflow package beta: the user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=dg.BetaWarning)
        yield


class TrackedTraining:
    """The MLflow run of one training; does nothing until started, and nothing more after the first trouble."""

    def __init__(self, context: dg.AssetExecutionContext, store: ExperimentStore | None, params: Mapping[str, Any]):
        self._context = context
        self._store = store
        self._params = params
        self._mlflow: Any = None
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
        if self._mlflow is not None:
            self._attempt("end its run", lambda: self._mlflow.end_run(status))

    def start(self) -> None:
        """Open the run: called when the training is found to be needed."""
        self._attempt("open a run", self._open)

    def _open(self) -> None:
        if self._store is None:
            return
        prepare_mlflow()
        with _quiet_beta():
            from dagster_mlflow.resources import MlFlow

        self._store.ensure_experiment()
        # The part of a resource's context that MlFlow asks for.
        asked = SimpleNamespace(
            log=self._context.log,
            dagster_run=self._context.run,
            run_id=self._context.run.run_id,
            resource_config={
                "experiment_name": EXPERIMENT,
                "mlflow_tracking_uri": self._store.uri,
                "env": {},
                "extra_tags": {
                    "heimdall.asset": self._context.asset_key.to_user_string(),
                    "heimdall.attempt": str(self._context.retry_number),
                },
            },
        )
        with _quiet_beta():
            self._mlflow = MlFlow(asked)
        self.run_id = self._mlflow.active_run().info.run_id
        self._mlflow.log_params(dict(self._params))

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch's metrics."""
        if self._mlflow is not None:
            self._attempt("log an epoch", lambda: self._mlflow.log_metrics(dict(metrics), step=epoch))

    def tag(self, name: str, value: str) -> None:
        """Tell the run one thing more about what it made."""
        if self._mlflow is not None:
            self._attempt(f"tell {name}", lambda: self._mlflow.set_tag(name, value))

    def finish(self, objects: ObjectStore, checkpoint: str, reused: bool) -> str | None:
        """Tie run and checkpoint together, and return which run made the checkpoint; None: an untracked one."""
        if self._mlflow is not None and not reused:
            self._attempt("name its checkpoint", lambda: self._mlflow.set_tag("heimdall.checkpoint", checkpoint))
        if self.run_id is not None and not reused:
            note_run(objects, checkpoint, self.run_id)
        return find_run(objects, checkpoint)

    def _attempt(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever MLflow and the network raise: the training is worth more
            warn(self._context, what, error)
            self._store = self._mlflow = None


@dataclass(frozen=True)
class ExperimentTracking:
    """The experiment runs in MLflow; imports it only when there is something to say.

    No resource with configuration: its address may hold a password, and Dagster's page would show it.
    """

    tracking_uri: str = field(repr=False)
    enabled: bool = True

    def open_store(self) -> ExperimentStore | None:
        """Return the store that is told of trainings, None where none is; it costs nothing until it is used."""
        return ExperimentStore(self.tracking_uri) if self.enabled else None

    def follow(self, context: dg.AssetExecutionContext, params: Mapping[str, Any]) -> TrackedTraining:
        """Return the tracking of one training, a context manager whose end gives the run its status."""
        return TrackedTraining(context, self.open_store(), params)

    def show_run(self, run_id: str | None) -> dict[str, Any]:
        """Return metadata that leads to a run: the address of its page, or the command that opens an embedded store."""
        if run_id is None:
            return {}
        page = find_page(self.tracking_uri, run_id)
        told = f"mlflow ui {_name_store(self.tracking_uri)}, then http://127.0.0.1:5000/#/runs/{run_id}"
        return {"mlflow": dg.MetadataValue.url(page) if page else told, "mlflow_run_id": run_id}

    def tell(self, context: dg.AssetExecutionContext, what: str, act: Callable[[ExperimentStore], object]) -> None:
        """Let ``act`` tell the store something; where it is away, one warning says what it was not told."""
        store = self.open_store()
        if store is None:
            return
        try:
            act(store)
        except Exception as error:
            warn(context, what, error)


def find_page(tracking_uri: str, run_id: str) -> str | None:
    """Return where a browser finds a run; None: the store has no page of its own.

    Examples:
        >>> find_page("https://ada:secret@mlflow.example/base/", "3f2a")
        'https://mlflow.example/base/#/runs/3f2a'
        >>> find_page("sqlite:////srv/mlflow.db", "3f2a") is None
        True
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https"):
        return None
    server = parts.netloc.rpartition("@")[2]  # who asks with a password does not hand it on
    return f"{parts.scheme}://{server}{parts.path.rstrip('/')}/#/runs/{run_id}"


def _name_store(tracking_uri: str) -> str:
    """Return the options of ``mlflow ui`` for a store without saying where the home lies or what its password is."""
    if tracking_uri.startswith("sqlite:"):
        return f"--backend-store-uri sqlite:///${{HEIMDALL_HOME:-.heimdall}}/{tracking_uri.rpartition('/')[2]}"
    return "--backend-store-uri $MLFLOW_TRACKING_URI"


def warn(context: dg.AssetExecutionContext, what: str, error: Exception) -> None:
    """Say in a step's log that MLflow was not told something."""
    context.log.warning(f"MLflow is away, could not {what}: {' '.join(str(error).split()):.300}")
