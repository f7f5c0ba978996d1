"""Running the graph, for a command or Python: one run on the home's own Dagster instance, steps where places say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.definitions import build_definitions, recover_at
from heimdall_assets.defs.events import find_checks
from heimdall_assets.defs.executor.delegation import InMemoryJob, execute_run
from heimdall_assets.defs.jobs import SEARCH, SEARCHED
from heimdall_assets.defs.origins import tag_origin
from heimdall_assets.defs.orphans import tag_process
from heimdall_assets.defs.progress import Listener, listen, notice
from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.defs.waiting import tell_waits
from heimdall_assets.errors import HeimdallError
from heimdall_assets.evaluation.table import compare_methods
from heimdall_assets.kinds import (
    CHAMPION_MODEL,
    EVALUATION_METRICS,
    MEASUREMENT_DATABASE,
    MODEL_RELEASE,
    ONNX_MODEL,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.stages.evaluation_metrics import load_metrics
from heimdall_assets.pipeline.stages.model_release import find_signing_key, list_warnings
from heimdall_assets.pipeline.stages.trained_checkpoint import read_outcome
from heimdall_assets.running.history import open_history
from heimdall_assets.running.signals import hear_stop
from heimdall_assets.specs import DatasetSpec, Spec
from heimdall_assets.variables import Places

DATABASE_KEY = dg.AssetKey(MEASUREMENT_DATABASE)


class GraphFailed(HeimdallError):
    """A step or a blocking check of a run failed."""


GOES_ON = "Stopped. What was done is kept; the same command goes on from there."

# Dagster's own log lines stay off the terminal; they are in the run's event log.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def report_database(instance: dg.DagsterInstance, fingerprint: str) -> bool:
    """Tell Dagster the version of the approved set, if it changed; return whether it did."""
    latest = instance.get_latest_materialization_event(DATABASE_KEY)
    tags = {} if latest is None or latest.asset_materialization is None else latest.asset_materialization.tags or {}
    if tags.get("dagster/data_version") == fingerprint:
        return False
    instance.report_runless_asset_event(
        dg.AssetMaterialization(DATABASE_KEY, tags={"dagster/data_version": fingerprint})
    )
    return True


@dataclass(frozen=True)
class GraphRun:
    """What one run made.

    Attributes:
        run_id: Dagster's.
        manifests: asset -> the manifest of its result, found again or computed.
        metadata: asset -> what its materialization says.
        warnings: of checks that failed without stopping the run.
    """

    run_id: str
    manifests: dict[str, Manifest]
    metadata: dict[str, dict[str, Any]]
    warnings: list[str]

    def count_computed(self) -> dict[str, int]:
        """Return how much of each asset was computed now; a promotion is no result that could be found again."""
        return {
            name: values.get("num_computed", int(not values["reused"]))
            for name, values in self.metadata.items()
            if "reused" in values
        }


def run_job(
    places: Places,
    job: str,
    chosen: Sequence[Spec],
    listener: Listener,
    reason: str | None = None,
    told: Mapping[str, str] | None = None,
) -> GraphRun:
    """Run ``job`` with the chosen specs and return what it made.

    Args:
        places: where everything rests.
        job: by name.
        chosen: specs; the others are as they are by default.
        listener: hears of progress.
        reason: why, in the words of whoever asks.
        told: further tags of the run.

    Raises:
        GraphFailed: a step or a blocking check failed; its message is the first cause.
        InvalidSetting: the key that is to sign the release does not count.
        StorageError: a database or a bucket could not be asked outside of a step.
        Stopped: a signal ended it.
    """
    folder = prepare_dagster_home(places)
    stores = places.open_stores()
    find_signing_key(stores)  # one that does not count is told of before hours of training
    with (
        listen(listener),
        hear_stop(notice, GOES_ON),
        open_history(places, folder) as instance,
    ):
        for line in recover_at(places)(instance, None):
            notice(line)
        report_database(instance, stores.measurements.compute_fingerprint(DatasetSpec()))
        tags = {**tag_process(), **tag_origin(reason), **(told or {})}
        config = build_run_config(list(chosen), SEARCHED if job == SEARCH else None)
        result = _execute(places, job, instance, {**config, **QUIET}, tags)
        if not result.success:
            raise GraphFailed(_first_cause(result))
        warnings = list_warnings(find_checks(instance, result.run_id))
        made = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    metadata = {
        event.asset_key.to_user_string(): {key: value.value for key, value in event.metadata.items()} for event in made
    }
    manifests = {
        event.asset_key.to_user_string(): Manifest.decode(
            stores.objects.read_bytes((event.tags or {})["dagster/data_version"])
        )
        for event in made
    }
    return GraphRun(result.run_id, manifests, metadata, warnings)


def run_graph(
    places: Places,
    job: str,
    chosen: Sequence[Spec],
    listener: Listener,
    reason: str | None = None,
    told: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run ``job``, which ends with a release, as ``run_job`` does; return what it made as the command line shows it."""
    run = run_job(places, job, chosen, listener, reason, told)
    stores, manifests = places.open_stores(), run.manifests
    metrics = load_metrics(stores.objects, manifests[EVALUATION_METRICS])
    version = manifests[MODEL_RELEASE].summary["version"]
    outcome = read_outcome(manifests[TRAINED_CHECKPOINT])
    return {
        "run_id": run.run_id,
        "version": version,
        "folder": stores.releases.locate(version),
        "champion": manifests[CHAMPION_MODEL].summary["champion"],
        "promotion": manifests[CHAMPION_MODEL].summary["decision"],
        "trained": outcome.trained,
        "training": outcome.said,
        "warnings": run.warnings,
        "rejected": stores.releases.find_record(version).get("rejected", []),
        "num_sessions": metrics["num_sessions"],
        "comparison": compare_methods(metrics),
        "worse_than": metrics["worse_than"],
        "onnx_bytes": manifests[ONNX_MODEL].summary["size_bytes"],
        "variant": manifests[ONNX_MODEL].summary["variant"],
        "because": manifests[ONNX_MODEL].summary["because"],
        "parity": manifests[ONNX_MODEL].summary["parity"],
        "computed": run.count_computed(),
        "digests": {
            name: {part: artifact.digest for part, artifact in manifest.artifacts.items()}
            for name, manifest in manifests.items()
        },
        "manifests": {name: manifest.digest for name, manifest in manifests.items()},
    }


def _execute(
    places: Places, job: str, instance: dg.DagsterInstance, config: dict[str, Any], tags: dict[str, str]
) -> dg.JobExecutionResult:
    definition = build_definitions(places).resolve_job_def(job)
    with tell_waits(instance):
        if places.executor == "in_process":
            run = instance.create_run_for_job(definition, run_config=config, tags=tags)
            result = execute_run(InMemoryJob(definition), run, instance)
        else:
            # Steps in other processes make the job anew, by name.
            name = ("heimdall_assets.definitions", "resolve_job")
            made = dg.build_reconstructable_job(
                *name, reconstructable_args=(job,), reconstructable_kwargs=places.share()
            )
            result = dg.execute_job(made, instance, run_config=config, tags=tags)
    if result.dagster_run.status is dg.DagsterRunStatus.CANCELED:
        raise KeyboardInterrupt
    return result


def _first_cause(result: dg.JobExecutionResult) -> str:
    for check in result.get_asset_check_evaluations():
        if not check.passed and check.blocking and check.severity is dg.AssetCheckSeverity.ERROR:
            facts = check.description or ", ".join(f"{name} {value.value}" for name, value in check.metadata.items())
            return f"{check.asset_key.to_user_string()}: check {check.check_name} failed: {facts}"
    for event in result.all_events:
        if event.is_step_failure:
            return f"{event.step_key}: {_describe_error(event.step_failure_data.error)}"
    failures: list[Any] = [event.event_specific_data for event in result.all_events if event.is_run_failure]
    return f"run {result.run_id}: {_describe_error(failures[0].error) if failures else 'failed without saying why'}"


_WRAPPERS = ("DagsterExecutionStepExecutionError", "_RemoteTraceback")


def _describe_error(error: Any) -> str:
    """Return the project's own error in a chain, else the innermost that is no wrapper around another, in one line."""
    found = ""
    while error is not None:
        if error.cls_name not in _WRAPPERS:
            found = " ".join(error.message.split())
        if found.startswith("heimdall_assets.errors."):
            # Dagster puts the class in front, with its module: the user needs the message.
            return found.partition(": ")[2]
        error = error.cause
    return found
