"""Sensors: one has the champion judged and watched when something was approved, one acts on its alerts.

Belongs here: when monitoring runs, who is told of an alert, and that it asks for a retraining. Does not belong here:
what an alert is (``pipeline.monitoring``), when a changed set is trained on without one (``defs.sensors``).

An alert is told once: the same one of a later evaluation, which differs in its figures alone, is no news. Whoever could
not be told is tried again at later ticks, and each failure is a line; no run fails for it.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import dagster as dg

from heimdall_assets.counts import say_count
from heimdall_assets.defs.jobs import MONITOR_JOB, StartingPoint
from heimdall_assets.defs.notifying import Notifier, tell_each
from heimdall_assets.defs.origins import tag_reason
from heimdall_assets.defs.sensors import NO_PROFILE, RETRAIN_JOB, OpenStores, find_runs, look, request_run
from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.errors import HeimdallError
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, MEASUREMENT_DATABASE, PRODUCTION_MONITORING
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.retraining.policy import MAX_REASON, RetrainPlan, RunState
from heimdall_assets.specs import MonitoringSpec, RetrainPolicy
from heimdall_assets.stores.home import Stores

MAX_TELLS = 20
"""Ticks at which somebody who cannot be told is tried: some minutes."""


@dataclass(frozen=True)
class Told:
    """What the drift sensor did so far: its cursor.

    Attributes:
        result: digest of the monitoring that was looked at last.
        subjects: of its alerts.
        waiting: channels that could not be told of it yet; ``tells``: how often they were tried.
        asks: why a retraining is to be asked for that could not be yet; None: nothing is to be.
        title, text: of what is told.
    """

    result: str | None = None
    subjects: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    tells: int = 0
    asks: str | None = None
    title: str = ""
    text: str = ""

    @classmethod
    def decode(cls, cursor: str | None) -> Self:
        """Return what ``cursor`` says; one that cannot be read is as none: the last alerts are told again."""
        try:
            read = json.loads(cursor or "{}")
            return cls(**{**read, **{name: tuple(read.get(name, ())) for name in ("subjects", "waiting")}})
        except (ValueError, TypeError, AttributeError):
            return cls()

    def encode(self) -> str:
        return json.dumps(asdict(self))


def build_monitoring_sensor(
    limits: MonitoringSpec, quiet_period_s: float, open_stores: OpenStores
) -> dg.SensorDefinition:
    """Return the sensor that has the champion judged on what was approved since, and its inputs watched.

    Args:
        limits: of the run that it asks for.
        quiet_period_s: nothing is asked for while approvals are still coming in.
        open_stores: called at each tick.
    """

    @dg.sensor(
        name="production_monitoring_sensor",
        job_name=MONITOR_JOB,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Has the champion judged on newly approved sessions, and what is new compared with its training.",
    )
    def production_monitoring_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from sqlalchemy.exc import SQLAlchemyError  # listing the graph loads no database

        try:
            stores = open_stores()
            champion, fingerprint, config = _look_at_champion(stores, limits)
            watched = _find_watched(context.instance, stores)
        except (HeimdallError, SQLAlchemyError, OSError) as error:
            return dg.SensorResult(skip_reason=_say_away(error))
        now_s = time.time()
        seen, since_s = _decode_seen(context.cursor)
        since_s = min(since_s, now_s) if seen == fingerprint else now_s
        cursor = json.dumps([fingerprint, since_s])

        def skip(reason: str) -> dg.SensorResult:
            return dg.SensorResult(skip_reason=reason, cursor=cursor)

        if champion is None:
            return skip("no champion yet: there is nobody to watch")
        if watched == fingerprint:
            return skip("what is approved now was watched")
        if find_runs(context.instance, "")[2]:
            return skip("a run is under way, which may judge the same sessions")
        if now_s - since_s < quiet_period_s:
            return skip(f"approvals still coming in: quiet for {now_s - since_s:.0f} s of {quiet_period_s:.0f} s")
        tags = tag_reason(f"approved set changed under champion {champion}")
        request = dg.RunRequest(run_key=f"{champion}-{fingerprint}", run_config=config, tags=tags)
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return production_monitoring_sensor


def build_drift_sensor(
    policy: RetrainPolicy, open_stores: OpenStores, channels: Mapping[str, Notifier], start: StartingPoint = NO_PROFILE
) -> dg.SensorDefinition:
    """Return the sensor that tells people of new alerts, and asks for a retraining where there is something new.

    Args:
        policy: how often one approved set is tried.
        open_stores: called at each tick.
        channels: who is told, by the variable that names them.
        start: how a retraining uses its machine.
    """

    @dg.sensor(
        name="production_drift_sensor",
        job_name=RETRAIN_JOB,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of new alerts of production_monitoring, and asks for a retraining because of them.",
    )
    def production_drift_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from sqlalchemy.exc import SQLAlchemyError  # listing the graph loads no database

        told = Told.decode(context.cursor)
        try:
            stores = open_stores()
            told = _hear(context.instance, stores, told, channels)
            current = look(stores) if told.asks else None
        except (HeimdallError, SQLAlchemyError, OSError) as error:
            return dg.SensorResult(skip_reason=_say_away(error))
        told = _tell(context, told, channels)
        if current is None or told.asks is None:
            said = f"nobody could tell {', '.join(told.waiting)} yet" if told.waiting else "no new alert"
            return dg.SensorResult(skip_reason=said, cursor=told.encode())
        state, attempts, other = find_runs(context.instance, current.step)
        if current.is_released or state is RunState.SUCCEEDED or attempts >= policy.max_attempts:
            said = "no retraining: a model was made of exactly this approved set, or could not be"
            return dg.SensorResult(skip_reason=said, cursor=replace(told, asks=None).encode())
        if other or state is RunState.ACTIVE:
            return dg.SensorResult(skip_reason=f"waits for a run under way; then: {told.asks}", cursor=told.encode())
        plan = RetrainPlan(True, attempts + 1, told.asks)
        return dg.SensorResult(
            run_requests=[request_run(current, plan, start)], cursor=replace(told, asks=None).encode()
        )

    return production_drift_sensor


def _hear(instance: dg.DagsterInstance, stores: Stores, told: Told, channels: Mapping[str, Notifier]) -> Told:
    """Return what is to be told and asked for after the latest monitoring; itself, where it was heard of."""
    from heimdall_assets.pipeline.monitoring.watching import VOLUME, read_alerts

    digest = _find_latest(instance)
    if digest is None or digest == told.result:
        return told
    alerts = read_alerts(Manifest.decode(stores.objects.read_bytes(digest)))
    news = [alert for alert in alerts if alert.subject not in told.subjects]
    heard = replace(told, result=digest, subjects=tuple(alert.subject for alert in alerts))
    if not news:
        return heard
    cured = [alert for alert in news if alert.kind != VOLUME]  # what was withdrawn, the other sensor acts on
    return replace(
        heard,
        waiting=tuple(channels),
        tells=0,
        asks=f"{cured[0].kind}: {cured[0].line}"[:MAX_REASON] if cured else told.asks,
        title=f"Heimdall: {say_count(len(news), 'new alert')} of the model in use",
        text="\n".join(f"{alert.kind}: {alert.line}" for alert in news),
    )


def _tell(context: dg.SensorEvaluationContext, told: Told, channels: Mapping[str, Notifier]) -> Told:
    """Tell who still waits; return who still does."""
    if not told.waiting:
        return told
    if told.tells == 0:
        context.log.warning(f"{told.title}: {told.text}")
    waiting = {name: channels[name] for name in told.waiting if name in channels}
    failed = tell_each(waiting, told.title, told.text)
    for line in failed.values():
        context.log.warning(line)
    tells = told.tells + 1
    if failed and tells >= MAX_TELLS:
        context.log.warning(f"gave up on {', '.join(failed)} after {tells} ticks; the alert stands in the page")
        failed = {}
    return replace(told, waiting=tuple(failed), tells=tells)


def _look_at_champion(stores: Stores, limits: MonitoringSpec) -> tuple[str | None, str, dict[str, Any]]:
    """Return the champion, the fingerprint of what counts for it, and the configuration of a run that watches it."""
    from heimdall_assets.pipeline.releases.promotion import CHAMPION, find_alias
    from heimdall_assets.pipeline.retraining.baseline import read_baseline

    champion = find_alias(stores, CHAMPION)
    dataset = read_baseline(stores).dataset
    fingerprint = stores.measurements.compute_fingerprint(dataset)
    return champion, fingerprint, build_run_config([dataset, limits])


def _find_latest(instance: dg.DagsterInstance) -> str | None:
    """Return the digest of the latest monitoring; None: there is none."""
    event = instance.get_latest_materialization_event(dg.AssetKey(PRODUCTION_MONITORING))
    made = None if event is None else event.asset_materialization
    return None if made is None else (made.tags or {}).get("dagster/data_version")


def _find_watched(instance: dg.DagsterInstance, stores: Stores) -> str | None:
    """Return the fingerprint of the approved set that was watched last; None: none was."""
    digest = _find_latest(instance)
    if digest is None:
        return None
    found = Manifest.decode(stores.objects.read_bytes(digest))
    snapshot = Manifest.decode(stores.objects.read_bytes(found.parents[APPROVED_MEASUREMENTS]))
    return snapshot.parents[MEASUREMENT_DATABASE]


def _decode_seen(cursor: str | None) -> tuple[str | None, float]:
    try:
        fingerprint, since_s = json.loads(cursor or "[null, 0]")
        return fingerprint, float(since_s)
    except (ValueError, TypeError):
        return None, 0.0


def _say_away(error: Exception) -> str:
    return f"the stores cannot be read now, asking again: {' '.join(str(error).split()):.300}"
