"""Sensors and schedules: what starts a run with nobody touching anything, and who hears of a failure."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import dagster as dg

from heimdall_assets.defs.jobs import JOBS, StartingPoint
from heimdall_assets.defs.origins import tag_profile, tag_reason
from heimdall_assets.defs.recovery import Recover
from heimdall_assets.defs.tables import render_table, shorten
from heimdall_assets.errors import HeimdallError
from heimdall_assets.kinds import MEASUREMENT_DATABASE
from heimdall_assets.pipeline.retraining.baseline import Baseline, list_decisions, read_baseline
from heimdall_assets.pipeline.retraining.policy import (
    MAX_REASON,
    RetrainPlan,
    RunState,
    Watch,
    compare_approved,
    plan_retraining,
)
from heimdall_assets.specs import DatasetSpec, RetrainPolicy
from heimdall_assets.stores.home import Stores

OpenStores = Callable[[], Stores]
"""Called at each tick: a database that is away then is a reason to wait, not an error."""

FINGERPRINT_TAG = "heimdall/approved_fingerprint"
RETRAINING_TAG = "heimdall/retraining"
RETRAIN_JOB = "release"
NO_PROFILE = StartingPoint()
WEEKLY_REASON = "weekly, whether anything changed or not"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class DatabaseState:
    """What one look at the stores showed.

    Attributes:
        database: fingerprint of everything approved: the version of ``measurement_database``.
        fingerprint: of what is approved and counts for this retraining.
        decisions: session id -> number of the decision that approved it, of what counts.
        baseline: what the retraining starts from.
    """

    database: str
    fingerprint: str
    decisions: dict[str, int]
    baseline: Baseline

    @property
    def step(self) -> str:
        """What tells the retraining that is due now from every other one."""
        return self.baseline.name_step_to(self.fingerprint)

    @property
    def is_released(self) -> bool:
        return self.fingerprint == self.baseline.fingerprint


def look(stores: Stores) -> DatabaseState:
    """Return how the approved set stands to what is released; the rows are read only where they differ."""
    baseline = read_baseline(stores)
    everything = DatasetSpec()
    database = stores.measurements.compute_fingerprint(everything)
    dataset = baseline.dataset
    fingerprint = database if dataset == everything else stores.measurements.compute_fingerprint(dataset)
    if fingerprint == baseline.fingerprint:
        return DatabaseState(database, fingerprint, baseline.decisions, baseline)
    from heimdall_assets.pipeline.truth import read_trusted  # slow to load

    return DatabaseState(
        database, fingerprint, list_decisions(read_trusted(stores.measurements, dataset).rows), baseline
    )


def find_runs(instance: dg.DagsterInstance, step: str) -> tuple[RunState, int, bool]:
    """Return state and number of the runs asked for this step, and whether any run of the graph is under way."""
    mine = instance.get_runs(dg.RunsFilter(tags={RETRAINING_TAG: step}))
    jobs = {str(job.name) for job in JOBS}
    active = any(
        # What people ask for in the page has a job name of Dagster's own.
        run.job_name in jobs or run.job_name.startswith("__ASSET_JOB")
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    )
    if not mine:
        return RunState.NONE, 0, active
    if any(run.status in UNFINISHED for run in mine):
        return RunState.ACTIVE, len(mine), active
    if any(run.status == dg.DagsterRunStatus.SUCCESS for run in mine):
        return RunState.SUCCEEDED, len(mine), active
    return RunState.FAILED, len(mine), active


def request_run(current: DatabaseState, plan: RetrainPlan, start: StartingPoint) -> dg.RunRequest:
    """Return the request of a retraining with the champion's settings, told apart by step and attempt."""
    return dg.RunRequest(
        # The attempt is part of the key: Dagster never runs one key twice, not even after a failure.
        run_key=f"{current.step}-{plan.attempt}",
        run_config=start.configure_again(current.baseline.specs),
        tags={
            FINGERPRINT_TAG: current.fingerprint,
            RETRAINING_TAG: current.step,
            **tag_reason(plan.reason),
            **tag_profile(start.read),
            # The sensor counts attempts and asks again itself: Dagster's own retry would run beside it.
            "dagster/max_retries": "0",
        },
    )


def _describe_scope(baseline: Baseline) -> str:
    """Return which sessions count where not all do; empty: all do."""
    dataset = baseline.dataset
    if dataset == DatasetSpec():
        return ""
    campaigns = f"campaigns {', '.join(dataset.campaigns)}" if dataset.campaigns else "all campaigns"
    return f"; as in {baseline.settings_of} only {campaigns}, origin {dataset.origin}, count"


def _report_database(watch: Watch) -> dg.AssetMaterialization:
    """Return the event that tells the database's version, and what the sensor last decided: the page shows no skips."""
    rows = [[f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M:%S}", shorten(reason, MAX_REASON)]
            for time_s, reason in reversed(watch.reasons)]  # fmt: skip
    table = render_table(["since (UTC)", "what the sensor says"], rows, len(rows))
    return dg.AssetMaterialization(
        MEASUREMENT_DATABASE, metadata={"sensor": table}, tags={"dagster/data_version": str(watch.reported)}
    )


def build_approval_sensor(
    policy: RetrainPolicy, open_stores: OpenStores, recover: Recover, start: StartingPoint = NO_PROFILE
) -> dg.SensorDefinition:
    """Return the sensor that reports the approved set's version and asks for retraining as ``policy`` says.

    Before it looks at runs, ``recover`` ends those whose process was killed: they would keep it waiting. A first model
    takes its settings from ``start``, every later one how it uses its machine.
    """

    @dg.sensor(
        name="approved_measurements_sensor",
        job_name=RETRAIN_JOB,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notices approvals and withdrawals, reports the new version of measurement_database, and asks for "
        "retraining with the champion's settings when enough has changed.",
    )
    def approved_measurements_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from sqlalchemy.exc import SQLAlchemyError  # listing the graph loads no database

        try:
            for line in recover(context.instance, None):
                context.log.warning(line)
            current = look(open_stores())
        except (HeimdallError, SQLAlchemyError, OSError) as error:
            said = " ".join(str(error).split())
            return dg.SensorResult(skip_reason=f"the stores cannot be read now, asking again: {said:.300}")
        now_s = time.time()
        seen = Watch.decode(context.cursor)
        watch = seen.see(current.fingerprint, current.is_released, now_s)
        state, attempts, other = find_runs(context.instance, current.step)
        plan = plan_retraining(
            compare_approved(current.baseline.decisions, current.decisions),
            policy,
            now_s=now_s,
            changed_first_s=watch.changed_first_s,
            changed_last_s=watch.changed_last_s,
            state=state,
            attempts=attempts,
            other_run_active=other,
        )
        reason = plan.reason + _describe_scope(current.baseline)
        watch = replace(watch, reported=current.database).note(
            f"asks for a run: {reason}" if plan.request else reason, now_s
        )
        is_news = (watch.reported, watch.reasons) != (seen.reported, seen.reasons)
        return dg.SensorResult(
            run_requests=[request_run(current, plan, start)] if plan.request else [],
            asset_events=[_report_database(watch)] if is_news else [],
            cursor=watch.encode(),
            skip_reason=None if plan.request else reason,
        )

    return approved_measurements_sensor


def build_weekly_schedule(open_stores: OpenStores, start: StartingPoint = NO_PROFILE) -> dg.ScheduleDefinition:
    """Return the schedule that retrains each week with the settings that the sensor would take."""

    @dg.schedule(
        name="weekly_retraining",
        job_name=RETRAIN_JOB,
        cron_schedule="0 3 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Retrains every Sunday at 03:00 UTC, changed or not, with the champion's settings. Off by default.",
    )
    def weekly_retraining() -> dg.RunRequest:
        config = start.configure_again(read_baseline(open_stores()).specs)
        return dg.RunRequest(run_config=config, tags={**tag_reason(WEEKLY_REASON), **tag_profile(start.read)})

    return weekly_retraining
