"""Sensors and schedules: what starts a run with nobody touching anything, and who hears of a failure."""

import json
import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from heimdall_assets.defs.retraining import RunState, compare_approved, plan_retraining
from heimdall_assets.errors import HeimdallError
from heimdall_assets.manifests import Manifest
from heimdall_assets.specs import DatasetSpec, RetrainPolicy
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.results import read_parent
from heimdall_assets.stores.tables import load_table

FINGERPRINT_TAG = "heimdall/approved_fingerprint"
RETRAIN_JOB = "release"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def read_released_set(stores: Stores) -> tuple[str | None, dict[str, int]]:
    """Return fingerprint and sessions (with the decision that approved each) of the latest release's data."""
    releases = stores.releases.list_releases()
    if not releases:
        return None, {}
    released = Manifest.decode(stores.objects.read_bytes(releases[-1]["manifest"]))
    snapshot = read_parent(stores.objects, released, "approved_measurements")
    rows = load_table(stores.objects, snapshot.artifacts["table"])
    return snapshot.parents["measurement_database"], _list_decisions(rows)


def _list_decisions(rows: Any) -> dict[str, int]:
    sessions = rows.drop_duplicates("session_id")
    decisions = sessions["approval_event_id"].fillna(0)
    return {str(name): int(decision) for name, decision in zip(sessions["session_id"], decisions, strict=True)}


def _find_runs(instance: dg.DagsterInstance, fingerprint: str) -> tuple[RunState, int, bool]:
    """Return state and number of the runs asked for this approved set, and whether any run of the job is active."""
    mine = instance.get_runs(dg.RunsFilter(tags={FINGERPRINT_TAG: fingerprint}))
    active = instance.get_runs(dg.RunsFilter(job_name=RETRAIN_JOB, statuses=UNFINISHED))
    if not mine:
        return RunState.NONE, 0, bool(active)
    if any(run.status in UNFINISHED for run in mine):
        return RunState.ACTIVE, len(mine), bool(active)
    if any(run.status == dg.DagsterRunStatus.SUCCESS for run in mine):
        return RunState.SUCCEEDED, len(mine), bool(active)
    return RunState.FAILED, len(mine), bool(active)


def build_approval_sensor(policy: RetrainPolicy) -> dg.SensorDefinition:
    """Return the sensor that reports the approved set's version and asks for retraining as ``policy`` says."""

    @dg.sensor(
        name="approved_measurements_sensor",
        job_name=RETRAIN_JOB,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notices approvals and withdrawals, reports the new version of measurement_database, and asks for "
        "retraining when enough has changed.",
    )
    def approved_measurements_sensor(
        context: dg.SensorEvaluationContext, stores: dg.ResourceParam[Stores]
    ) -> dg.SensorResult:
        cursor = json.loads(context.cursor or "{}")
        dataset = DatasetSpec()
        try:
            fingerprint = stores.measurements.compute_fingerprint(dataset)
            released_fingerprint, released = read_released_set(stores)
            same = fingerprint == released_fingerprint
            now = released if same else _list_decisions(stores.measurements.read_approved(dataset).rows)
        except (HeimdallError, OSError) as error:
            return dg.SensorResult(skip_reason=f"the database cannot be read now, asking again: {error!s:.300}")

        now_s = time.time()
        events = []
        if fingerprint != cursor.get("fingerprint"):
            events.append(dg.AssetMaterialization("measurement_database", tags={"dagster/data_version": fingerprint}))
            first_s = cursor.get("changed_first_s")
            cursor = {
                "fingerprint": fingerprint,
                "changed_first_s": now_s if first_s is None else first_s,
                "changed_last_s": now_s,
            }
        if same:
            cursor["changed_first_s"] = None  # the next change starts its own wait
        state, attempts, other = _find_runs(context.instance, fingerprint)
        plan = plan_retraining(
            compare_approved(released, now),
            policy,
            now_s=now_s,
            changed_first_s=now_s if same else cursor["changed_first_s"],
            changed_last_s=cursor["changed_last_s"],
            state=state,
            attempts=attempts,
            other_run_active=other,
        )
        requests = []
        if plan.request:
            # The attempt is part of the key: Dagster never runs one key twice, not even after a failure.
            requests.append(
                dg.RunRequest(
                    run_key=f"{fingerprint}-{plan.attempt}",
                    tags={FINGERPRINT_TAG: fingerprint, "heimdall/reason": plan.reason[:200]},
                )
            )
        return dg.SensorResult(
            run_requests=requests,
            asset_events=events,
            cursor=json.dumps(cursor),
            skip_reason=None if plan.request else plan.reason,
        )

    return approved_measurements_sensor


Notifier = Callable[[str, str], None]
"""Called with a title and a text."""


def post_webhook(url: str) -> Notifier:
    """Return a notifier that posts ``{"title", "text"}`` as JSON to ``url``."""

    def notify(title: str, text: str) -> None:
        import requests

        requests.post(url, json={"title": title, "text": text}, timeout=10).raise_for_status()

    return notify


def build_failure_sensor(notify: Notifier | None) -> dg.SensorDefinition:
    """Return the sensor that tells of failed runs: always in its log, and to ``notify`` where there is one."""

    @dg.run_failure_sensor(
        name="failed_run_sensor", default_status=dg.DefaultSensorStatus.RUNNING, monitor_all_code_locations=False
    )
    def failed_run_sensor(context: dg.RunFailureSensorContext) -> None:
        """Tells of failed runs."""
        title = f"Run {context.dagster_run.run_id} of {context.dagster_run.job_name} failed"
        context.log.error(f"{title}: {context.failure_event.message}")
        if notify is not None:
            notify(title, str(context.failure_event.message))

    return failed_run_sensor


weekly_retraining = dg.ScheduleDefinition(
    name="weekly_retraining",
    job_name=RETRAIN_JOB,
    cron_schedule="0 3 * * 0",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Retrains every Sunday at 03:00 UTC, changed or not. Off by default.",
)
