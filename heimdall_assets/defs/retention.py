"""Retention: which runs leave Dagster's history, so that a home does not grow from runs that changed nothing.

Belongs here: the rule, what a run leaves behind in that history, folders of trainings. Never removed: a run that
is under way, one that the lineage of a release names, one that holds an asset's latest event, the folder of a training
that is being written. Results and releases are no part of this.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from heimdall_assets.errors import HeimdallError
from heimdall_assets.specs import RetentionPolicy
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.scratch import remove_file, remove_old_work

UNCHANGED_TAG = "heimdall/unchanged"
"""``yes`` on a run in which every result was found; ``no`` on any other that ended."""

RETENTION = "HEIMDALL_RETENTION"

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

Tidy = Callable[[dg.DagsterInstance, str], list[str]]
"""Called with the instance and the run that asks; returns a line where something was removed."""


def build_tidying(
    open_stores: Callable[[], Stores], policy: RetentionPolicy, tracked_files: Path | None = None
) -> Tidy:
    """Return what removes from the history, from scratch and of trainings' folders what ``policy`` does not keep.

    Args:
        open_stores: opens what is tidied.
        policy: what is kept.
        tracked_files: folder of the files that an embedded MLflow has of each run, which go when runs of their age do;
            None: there is none.
    """

    def tidy(instance: dg.DagsterInstance, mine: str) -> list[str]:
        from heimdall_assets.pipeline.releases.reading import list_cited_runs  # loading the graph audits nothing

        stores = open_stores()
        old = remove_old_work(stores.scratch, policy.scratch_days)
        lines = [f"scratch {name}: not written to for {policy.scratch_days:g} days, removed" for name in old]
        if tracked_files is not None:
            left = remove_old_work(tracked_files, policy.run_days)
            lines += [f"files of MLflow run {name}: left, as {RETENTION} says; its figures stay" for name in left]
        superseded = [run_id for run_id in _list_superseded(instance, policy) if run_id != mine]
        if stores.runs is not None:
            kept = (policy.training_folders, policy.training_days, policy.checkpoint_days)
            lines += [f"{line}, as {RETENTION} says" for line in stores.runs.remove_old(*kept)]
        try:
            needed = _list_latest(instance) | list_cited_runs(stores) if superseded else set()
        except HeimdallError as error:
            return [*lines, f"history not tidied, for what lineage needs is not known: {error}"]
        for run_id in superseded:
            if run_id not in needed:
                remove_run(instance, run_id)
                lines.append(f"run {run_id}: left the history, as {RETENTION} says")
        return lines

    return tidy


def _list_superseded(instance: dg.DagsterInstance, policy: RetentionPolicy) -> list[str]:
    """Return the runs that the policy alone would not keep, newest first."""
    superseded, unchanged = [], 0
    oldest_s = time.time() - policy.run_days * 86_400.0
    for record in instance.get_run_records(dg.RunsFilter(statuses=_ENDED)):
        run = record.dagster_run
        is_unchanged = _is_unchanged(instance, run)
        unchanged += is_unchanged
        too_many = is_unchanged and unchanged > policy.unchanged_runs
        if too_many or record.create_timestamp.timestamp() < oldest_s:
            superseded.append(run.run_id)
    return superseded


def _is_unchanged(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    told = run.tags.get(UNCHANGED_TAG)
    if told is None:
        told = "yes" if _found_everything(instance, run) else "no"
        instance.add_run_tags(run.run_id, {UNCHANGED_TAG: told})
    return told == "yes"


def _found_everything(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether a run succeeded, computed nothing anew and moved no alias."""
    if run.status is not dg.DagsterRunStatus.SUCCESS:
        return False
    logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    for log in logs:
        if log.dagster_event is None:
            return False
        metadata = log.dagster_event.step_materialization_data.materialization.metadata
        found = metadata.get("reused") or metadata.get("promoted")
        if found is None or bool(found.value) is not ("reused" in metadata):
            return False
    return bool(logs)


def _list_latest(instance: dg.DagsterInstance) -> set[str]:
    """Return the runs that hold the latest materialization or observation of an asset."""
    latest = set()
    for key in instance.all_asset_keys():
        for event in (instance.get_latest_materialization_event(key), _find_observation(instance, key)):
            if event is not None:
                latest.add(event.run_id)
    return latest


def _find_observation(instance: dg.DagsterInstance, key: dg.AssetKey) -> dg.EventLogEntry | None:
    records = instance.fetch_observations(key, limit=1).records
    return records[0].event_log_entry if records else None


def remove_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove a run that has ended, its events and what it printed; trying again after a kill heals."""
    from sqlalchemy import text  # whoever lists the graph asks no database

    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:  # Dagster forgets these when it deletes a run
        connection.execute(text("DELETE FROM asset_check_executions WHERE run_id = :run_id"), {"run_id": run_id})
    instance.delete_run(run_id)
    locate = getattr(storage, "path_for_shard", None)
    if locate is not None:  # SQLite keeps a file a run, which is empty now
        for ending in ("", "-wal", "-shm"):
            remove_file(Path(locate(run_id) + ending))
