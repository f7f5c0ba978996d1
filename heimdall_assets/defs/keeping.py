"""Keeping: what Dagster knows of what is in use, and the names of people in its tags.

Belongs here: asking and changing Dagster's own records. Does not belong here: what is removed (``pipeline.keeping``),
which runs leave the history (``retention``).
"""

import dagster as dg

from heimdall_assets.defs.origins import PERSON_TAG, REASON_TAG
from heimdall_assets.pipeline.keeping.collecting import InUse

_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def find_in_use(instance: dg.DagsterInstance) -> InUse:
    """Return the latest result of each asset, and since when runs are under way."""
    manifests = set()
    for key in instance.all_asset_keys():
        event = instance.get_latest_materialization_event(key)
        materialization = None if event is None else event.asset_materialization
        version = None if materialization is None else (materialization.tags or {}).get("dagster/data_version")
        if version is not None:
            manifests.add(version)
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY))
    return InUse(manifests, min((record.create_timestamp.timestamp() for record in records), default=None))


def forget_person(instance: dg.DagsterInstance, name: str, pseudonym: str) -> int:
    """Put a pseudonym in the place of a person's name in the tags of runs; return in how many."""
    runs = instance.get_runs(dg.RunsFilter(tags={PERSON_TAG: name}))
    for run in runs:
        instance.add_run_tags(run.run_id, {PERSON_TAG: pseudonym})
    return len(runs)


def count_reasons(instance: dg.DagsterInstance, name: str) -> int:
    """Return how many runs have a reason that holds a name in clear."""
    runs = (record.dagster_run for record in instance.get_run_records())
    return sum(name.casefold() in run.tags.get(REASON_TAG, "").casefold() for run in runs)
