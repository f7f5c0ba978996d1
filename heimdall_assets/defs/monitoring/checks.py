"""Checks of monitoring: what the champion meets and how it does on it, held against ``MonitoringSpec``; all warn.

Each limit is judged in ``production_monitoring``; here is said which were passed. What needs a clock is judged here.
"""

import time
from datetime import datetime
from typing import Any

import dagster as dg

from heimdall_assets.counts import say_count
from heimdall_assets.kinds import CHAMPION_ON_NEW_DATA, PRODUCTION_MONITORING
from heimdall_assets.manifests import Manifest
from heimdall_assets.specs import MonitoringSpec

_DAY_S = 86_400.0


def _warn(passed: bool, description: str, **metadata: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, severity=dg.AssetCheckSeverity.WARN, description=description, metadata=metadata
    )


def _pass_on(manifest: Manifest, kind: str, otherwise: str) -> dg.AssetCheckResult:
    """Return the check that says the alerts of a kind; ``otherwise``: what it says where there are none."""
    lines = [alert["line"] for alert in manifest.summary["alerts"] if alert["kind"] == kind]
    return _warn(not lines, "; ".join(lines) or otherwise, num_alerts=len(lines))


@dg.asset_check(asset=CHAMPION_ON_NEW_DATA)
def new_sessions_are_judged(champion_on_new_data: Manifest) -> dg.AssetCheckResult:
    """Every new session was judged; else training sees it first, and nobody can say how the champion does on it."""
    summary = champion_on_new_data.summary
    why, lost = summary.get("not_judged"), summary.get("num_trained_on", 0)
    said = f"new sessions were not judged: {why}" if why else f"{say_count(summary['num_sessions'], 'session')} judged"
    if lost:
        said += f"; {say_count(lost, 'session')} that a release had been made from before they were judged"
    return _warn(why is None, said, num_trained_on=lost)


@dg.asset_check(asset=PRODUCTION_MONITORING)
def inputs_are_as_in_training(production_monitoring: Manifest) -> dg.AssetCheckResult:
    """Receivers' levels, columns and missing values of new sessions are as in what the champion learned from."""
    found = production_monitoring.summary
    asked = f"{say_count(found['num_new'], 'new session')}, {say_count(found['num_questions'], 'comparison')}"
    return _pass_on(production_monitoring, "drift", f"no drift ({asked})")


@dg.asset_check(asset=PRODUCTION_MONITORING)
def errors_are_as_released(production_monitoring: Manifest) -> dg.AssetCheckResult:
    """The champion's median error on new sessions is not above that of its test split."""
    return _pass_on(production_monitoring, "error", "no larger than on its test split, or too few to say")


@dg.asset_check(asset=PRODUCTION_MONITORING)
def ellipses_hold_on_new_data(production_monitoring: Manifest) -> dg.AssetCheckResult:
    """New truths lie within the champion's 90 % ellipses as often as it says."""
    return _pass_on(production_monitoring, "calibration", "as often as stated, or too few to say")


@dg.asset_check(asset=PRODUCTION_MONITORING)
def few_new_sessions_are_refused(production_monitoring: Manifest) -> dg.AssetCheckResult:
    """The champion answers most new sessions."""
    return _pass_on(production_monitoring, "refusals", "few enough, or too few to say")


@dg.asset_check(asset=PRODUCTION_MONITORING)
def champions_sessions_are_there(production_monitoring: Manifest) -> dg.AssetCheckResult:
    """Most sessions that the champion was made from are still approved."""
    return _pass_on(production_monitoring, "volume", "few enough are withdrawn")


@dg.asset_check(asset=PRODUCTION_MONITORING)
def data_is_fresh(production_monitoring: Manifest) -> dg.AssetCheckResult:
    """Somebody approved a session lately: what is judged says little of today otherwise."""
    limits = MonitoringSpec(**production_monitoring.specs["MonitoringSpec"])
    newest = production_monitoring.summary.get("newest_approval")
    if newest is None or limits.max_age_days is None:
        return _warn(True, "nobody noted when sessions were approved, or asks" if newest is None else "nobody asks")
    days = (time.time() - datetime.fromisoformat(newest).timestamp()) / _DAY_S
    said = f"newest approval {days:.1f} days ago, expected at most {limits.max_age_days:g} days"
    return _warn(days <= limits.max_age_days, said, days=days)


MONITORING_CHECKS = [
    new_sessions_are_judged,
    inputs_are_as_in_training,
    errors_are_as_released,
    ellipses_hold_on_new_data,
    few_new_sessions_are_refused,
    champions_sessions_are_there,
    data_is_fresh,
]
