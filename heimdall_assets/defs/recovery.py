"""Recovery: what every door does before a run starts, so that a process that was killed costs nobody a thought.

Belongs here: the order in which things left behind are put right. Each is idempotent: a kill in between leaves the rest
to the next door. Does not belong here: how one of them is put right (``orphans``, ``stores``), what a pool is
(``waiting``).
"""

from collections.abc import Callable

import dagster as dg

from heimdall_assets.defs.orphans import end_orphan, free_left_slots, list_orphans
from heimdall_assets.defs.waiting import make_pool
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.stores.experiments import ExperimentStore
from heimdall_assets.stores.home import Stores

Recover = Callable[[dg.DagsterInstance, str | None], list[str]]
"""Called with the instance and the run that asks, None where none does; returns a line for each thing put right."""

Begin = Callable[[dg.DagsterInstance, str], list[str]]
"""Called with the instance and a run before its first step; returns a line for each thing done."""


def build_recovery(open_stores: Callable[[], Stores], experiments: ExperimentStore | None) -> Recover:
    """Return what puts right everything that killed processes left at these places.

    Args:
        open_stores: called where releases are looked at.
        experiments: None where nothing is tracked.
    """

    def recover(instance: dg.DagsterInstance, mine: str | None) -> list[str]:
        make_pool(instance)
        lines = []
        for run in list_orphans(instance, mine):
            lines += _end_experiment(instance, experiments, run.run_id)
            lines.append(end_orphan(instance, run))
        return lines + free_left_slots(instance) + open_stores().releases.put_right()

    return recover


def _end_experiment(instance: dg.DagsterInstance, experiments: ExperimentStore | None, run_id: str) -> list[str]:
    """End the MLflow run of a run that was killed while it trained; MLflow, slow to load, is not asked otherwise."""
    started = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    trained = any(log.step_key == TRAINED_CHECKPOINT for log in started)
    if experiments is None or not trained:
        return []
    try:
        ended = experiments.end_killed(run_id)
    except Exception as error:  # whatever MLflow and the network raise: the run is worth more
        return [f"MLflow is away, could not end the run of {run_id}: {' '.join(str(error).split()):.300}"]
    return [f"MLflow run {name}: ended as KILLED" for name in ended]
