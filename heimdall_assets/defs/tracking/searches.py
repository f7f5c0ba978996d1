"""Search tracking: one MLflow run for a search, and below it one for each trial that has ended.

Belongs here: what MLflow is told of a search. Does not belong here: its address (``resource``), the trials
(``pipeline.searching``). Nothing depends on it: a store that is away costs one warning, and the study knows all anyway.

A trial's run is made when the trial has ended and is looked for before: a search that was killed tells each trial once.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from heimdall_assets.defs.tracking.names import INTENT
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.defs.tracking.training import FINISHED, warn
from heimdall_assets.pipeline.searching.trial_book import CHECKPOINT, describe_state
from heimdall_assets.stores.experiment_entries import Intent
from heimdall_assets.stores.experiments import EXPERIMENT, ExperimentStore, prepare_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from optuna.trial import FrozenTrial

SEARCH_TAG, TRIAL_TAG, STATE_TAG = "heimdall.search", "heimdall.trial", "heimdall.trial_state"
PARENT_TAG, NAME_TAG = "mlflow.parentRunId", "mlflow.runName"
AIM = {INTENT: Intent.SEARCH.value}


class TrackedSearch:
    """The MLflow runs of one search; nothing more is told after the first trouble."""

    def __init__(self, context: Any, tracking: ExperimentTracking, name: str):
        """Tell nothing yet.

        Args:
            context: of the step, whose log hears of trouble.
            tracking: where MLflow is.
            name: of the search's study.
        """
        self._context, self._store, self._name = context, tracking.open_store(), name
        self._parent: str | None = None

    def begin(self, params: Mapping[str, Any]) -> None:
        """Open the search's run, or the one that a killed search left."""
        self._attempt("begin a search", lambda store: self._begin(store, params))

    def record(self, trial: "FrozenTrial") -> None:
        """Make the run of a trial that has ended, below the search's."""
        self._attempt("record a trial", lambda store: self._record(store.open_client(), trial))

    def finish(self, trials: "list[FrozenTrial]", manifest: str, summary: Mapping[str, Any]) -> None:
        """Record what is not recorded yet, and end the search's run with what was found."""

        def act(store: ExperimentStore) -> None:
            client = store.open_client()
            for trial in trials:
                self._record(client, trial)
            parent = self._find_parent(client)
            client.log_metric(parent, "best_value", float(summary["best_value"]), synchronous=True)
            client.set_tag(parent, "heimdall.best", str(summary["best"]))
            client.set_tag(parent, "heimdall.manifest", manifest)
            client.set_terminated(parent, FINISHED)

        self._attempt("end a search", act)

    def _begin(self, store: ExperimentStore, params: Mapping[str, Any]) -> None:
        prepare_mlflow()
        store.ensure_experiment()
        client = store.open_client()
        found = client.search_runs(
            [_find_experiment(client)], f"tags.`{SEARCH_TAG}` = '{self._name}' and tags.`{TRIAL_TAG}` = ''"
        )
        if found:
            self._parent = str(found[0].info.run_id)
            client.update_run(self._parent, status="RUNNING")
        else:
            tags = {**AIM, SEARCH_TAG: self._name, TRIAL_TAG: "", NAME_TAG: f"search {self._name[:12]}"}
            self._parent = str(client.create_run(_find_experiment(client), tags=tags).info.run_id)
            for name, value in params.items():
                client.log_param(self._parent, name, value)
        # Where the run of the graph is killed, recovery ends this one by that tag.
        client.set_tag(self._parent, "dagster_run_id", self._context.run_id)

    def _find_parent(self, client: "MlflowClient") -> str:
        if self._parent is None:
            asked = f"tags.`{SEARCH_TAG}` = '{self._name}' and tags.`{TRIAL_TAG}` = ''"
            self._parent = str(client.search_runs([_find_experiment(client)], asked)[0].info.run_id)
        return self._parent

    def _record(self, client: "MlflowClient", trial: "FrozenTrial") -> None:
        from mlflow.entities import Metric, Param

        experiment, parent = _find_experiment(client), self._find_parent(client)
        asked = f"tags.`{PARENT_TAG}` = '{parent}' and tags.`{TRIAL_TAG}` = '{trial.number}'"
        found = client.search_runs([experiment], asked)
        if any(run.info.status == FINISHED for run in found):
            return
        tags = {
            **AIM,
            PARENT_TAG: parent,
            SEARCH_TAG: self._name,
            TRIAL_TAG: str(trial.number),
            STATE_TAG: describe_state(trial),
            NAME_TAG: f"trial {trial.number}",
            "heimdall.checkpoint": str(trial.user_attrs.get(CHECKPOINT, "")),
        }
        run_id = found[0].info.run_id if found else client.create_run(experiment, tags=tags).info.run_id
        at_ms = int(trial.datetime_start.timestamp() * 1000) if trial.datetime_start else 0
        metrics = [Metric("val_loss", value, at_ms, step) for step, value in trial.intermediate_values.items()]
        if describe_state(trial) == "complete":
            metrics.append(Metric("objective", float(trial.value or 0.0), at_ms, 0))
        params = [] if found else [Param(name, str(value)) for name, value in trial.params.items()]
        client.log_batch(run_id, metrics, params, synchronous=True)
        client.set_terminated(run_id, FINISHED)

    def _attempt(self, what: str, act: Callable[[ExperimentStore], None]) -> None:
        if self._store is None:
            return
        try:
            act(self._store)
        except Exception as error:  # whatever MLflow and the network raise: the search is worth more
            warn(self._context, what, error)
            self._store = None


def _find_experiment(client: "MlflowClient") -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    assert found is not None  # made when the search began
    return str(found.experiment_id)
