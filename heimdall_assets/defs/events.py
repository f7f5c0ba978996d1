"""Events: what Dagster recorded of the materializations and checks behind a model."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from heimdall_assets.manifests import Manifest

SEARCHED = 500
"""Materializations of one asset looked through, newest first; a release follows its parents closely."""


def find_events(instance: dg.DagsterInstance, manifests: Iterable[Manifest]) -> dict[str, dict[str, Any]]:
    """Return manifest digest -> asset, storage_id, run_id of its latest materialization, where one is found."""
    found: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        records = instance.fetch_materializations(dg.AssetKey(manifest.kind), limit=SEARCHED).records
        for record in records:
            event = record.asset_materialization
            if event is not None and (event.tags or {}).get("dagster/data_version") == manifest.digest:
                found[manifest.digest] = {
                    "asset": manifest.kind,
                    "storage_id": record.storage_id,
                    "run_id": record.run_id,
                }
                break
    return found


def find_checks(instance: dg.DagsterInstance, run_id: str) -> list[dict[str, Any]]:
    """Return asset, name, passed, severity and description of every asset check that a run evaluated."""
    logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    checks = []
    for log in logs:
        if log.dagster_event is None:
            continue
        evaluation: Any = log.dagster_event.event_specific_data
        checks.append(
            {
                "asset": evaluation.asset_key.to_user_string(),
                "name": evaluation.check_name,
                "passed": bool(evaluation.passed),
                "severity": evaluation.severity.value,
                "description": evaluation.description or "",
            }
        )
    return sorted(checks, key=lambda check: (check["asset"], check["name"]))


def read_data_versions(instance: dg.DagsterInstance, storage: Mapping[int, str]) -> dict[int, str | None]:
    """Return storage id -> data version that Dagster records for it now; None: the event is gone.

    Args:
        storage: storage id -> asset.
    """
    versions: dict[int, str | None] = {}
    for storage_id, asset in storage.items():
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey(asset), after_storage_id=storage_id - 1, before_storage_id=storage_id + 1
            ),
            limit=1,
        ).records
        event = records[0].asset_materialization if records else None
        versions[storage_id] = None if event is None else (event.tags or {}).get("dagster/data_version")
    return versions
