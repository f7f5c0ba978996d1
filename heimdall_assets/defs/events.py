"""Events: what Dagster recorded of the materializations and checks behind a model."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from heimdall_assets.lineage.walk import OUTSIDE
from heimdall_assets.manifests import Manifest

INPUT_VERSION = "dagster/input_data_version/"
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
    """Return asset, name, passed, severity and description of every asset check that a run evaluated.

    ``checked`` is the digest of the manifest that it was evaluated on; None: this run made none of that asset before.
    """
    kinds = {dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.ASSET_MATERIALIZATION}
    checks: list[dict[str, Any]] = []
    made: dict[str, str | None] = {}
    for log in instance.all_logs(run_id, of_type=kinds):
        if log.dagster_event is None:
            continue
        if log.asset_materialization is not None:
            name = log.asset_materialization.asset_key.to_user_string()
            made[name] = (log.asset_materialization.tags or {}).get("dagster/data_version")
            continue
        evaluation: Any = log.dagster_event.event_specific_data
        checks.append(
            {
                "asset": evaluation.asset_key.to_user_string(),
                "name": evaluation.check_name,
                "passed": bool(evaluation.passed),
                "severity": evaluation.severity.value,
                "description": evaluation.description or "",
                "checked": made.get(evaluation.asset_key.to_user_string()),
            }
        )
    return sorted(checks, key=lambda check: (check["asset"], check["name"]))


def read_events(instance: dg.DagsterInstance, storage: Mapping[int, str]) -> dict[int, dict[str, Any]]:
    """Return storage id -> what Dagster records of that materialization now; one that is gone is not in it.

    Args:
        storage: storage id -> asset.

    Returns:
        ``run_id``, ``data_version`` and ``inputs`` (asset -> data version) of each.
    """
    events: dict[int, dict[str, Any]] = {}
    for storage_id, asset in storage.items():
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey(asset), after_storage_id=storage_id - 1, before_storage_id=storage_id + 1
            ),
            limit=1,
        ).records
        if records and (event := records[0].asset_materialization) is not None:
            tags = event.tags or {}
            inputs = {
                name.removeprefix(INPUT_VERSION): version
                for name, version in tags.items()
                if name.startswith(INPUT_VERSION) and name.removeprefix(INPUT_VERSION) not in OUTSIDE
            }
            events[storage_id] = {
                "run_id": records[0].run_id,
                "data_version": tags.get("dagster/data_version"),
                "inputs": inputs,
            }
    return events
