"""Runs that trained before: with which settings, and what came of them, as the history of the graph tells.

Belongs here: finding one again, so that it can go on. Does not belong here: a checkpoint found without a run
(``pipeline.trainings.continuing``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.defs.origins import RESUMES_TAG
from heimdall_assets.defs.settings import read_run_config
from heimdall_assets.errors import InvalidSetting, NotFound
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES, list_needed
from heimdall_assets.pipeline.trainings.continuing import go_on
from heimdall_assets.pipeline.trainings.starting import Started, lay_over
from heimdall_assets.running.history import open_history
from heimdall_assets.specs import Spec

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores
    from heimdall_assets.variables import Places

TRAINING_JOBS = ("release", "train", "demo")
_SEARCHED = 200
"""So many runs back a run that trained is looked for."""


@dataclass(frozen=True)
class EarlierRun:
    """A run that trained, or was about to.

    Attributes:
        run_id: Dagster's.
        specs: what was set of it.
        checkpoint: manifest of what it trained; None: it did not come so far.
        resumes: digest of the checkpoint whose training it went on with; None: it began.
    """

    run_id: str
    specs: list[Spec]
    checkpoint: Manifest | None
    resumes: str | None = None


def read_earlier_run(places: "Places", stores: "Stores", run_id: str | None = None) -> EarlierRun:
    """Return the newest run that trained, or the one whose id begins with ``run_id``.

    Raises:
        NotFound: there is none.
        StorageError: the history could not be read.
    """
    with open_history(places, prepare_dagster_home(places)) as instance:
        found = [run for run in instance.get_runs(limit=_SEARCHED) if run.job_name in TRAINING_JOBS]
        runs = [run for run in found if run_id is None or run.run_id.startswith(run_id)]
        if not runs:
            known = ", ".join(run.run_id[:8] for run in found[:5]) or "none yet"
            asked = "" if run_id is None else f" {run_id}"
            raise NotFound(f"run{asked}: found none that trained in home {places.home}, expected one of {known}")
        run = runs[0]
        digest = _find_made(instance, run.run_id)
    checkpoint = None if digest is None else Manifest.decode(stores.objects.read_bytes(digest))
    return EarlierRun(run.run_id, read_run_config(run.run_config), checkpoint, run.tags.get(RESUMES_TAG))


def _find_made(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """Return the digest of the checkpoint that a run materialized."""
    for log in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = log.dagster_event
        if event is not None and event.asset_key == dg.AssetKey(TRAINED_CHECKPOINT):
            return (event.step_materialization_data.materialization.tags or {})["dagster/data_version"]
    return None


def resume_run(stores: "Stores", run: EarlierRun, specs: Sequence[Spec]) -> Started:
    """Return settings with which a run's training goes on: from its last epoch where it was broken off.

    Args:
        stores: of the home.
        run: that goes on.
        specs: what somebody set.

    Raises:
        InvalidSetting: a training that was broken off was to go on with other settings, which it cannot.
    """
    named = f"run {run.run_id[:8]}"
    decisive = {spec for kind in list_needed(TRAINED_CHECKPOINT) if kind in STAGES for spec in STAGES[kind].specs}
    if run.checkpoint is not None:
        others = [spec for spec in run.specs if type(spec) not in decisive]
        return go_on(stores, named, run.checkpoint, lay_over(others, specs))
    merged = lay_over(run.specs, specs)
    before = {type(spec): spec.dump() for spec in run.specs}
    for spec in merged:
        was: dict[str, Any] = before.get(type(spec), type(spec)().dump())
        changed = [name for name, value in spec.dump().items() if type(spec) in decisive and value != was.get(name)]
        if changed:
            where = f"{type(spec).__name__}.{changed[0]}"
            raise InvalidSetting(
                f"{where}: found {spec.dump()[changed[0]]}, expected {was[changed[0]]}: {named} was broken off and "
                "goes on with its own settings alone; let it end, then change them"
            )
    line = f"{named} was broken off: it goes on from its last checkpoint, if the approved sessions are the same"
    return Started(merged, [line], run.resumes)
