"""Definitions: the composition root. Everything that Dagster sees of this project is put together here.

Loading it imports neither torch nor lightning nor mlflow nor onnx: assets import what they need when they run.
"""

import os

import dagster as dg

from heimdall_assets.defs.assets import ASSETS
from heimdall_assets.defs.checks import CHECKS
from heimdall_assets.defs.executor.router import build_executor
from heimdall_assets.defs.jobs import JOBS
from heimdall_assets.defs.notifying import build_failure_sensor, post_webhook
from heimdall_assets.defs.recovery import Recover, build_recovery
from heimdall_assets.defs.resources import LineagePages, ManifestIOResource, StoresResource
from heimdall_assets.defs.retention import build_tidying
from heimdall_assets.defs.sensors import build_approval_sensor, build_weekly_schedule
from heimdall_assets.defs.tracking import ExperimentTracking
from heimdall_assets.defs.warning_checks import WARNING_CHECKS
from heimdall_assets.places import read_places
from heimdall_assets.variables import Places


def build_definitions(places: Places) -> dg.Definitions:
    """Return the whole graph on the given places."""
    stores = StoresResource(
        home=str(places.home),
        database_url=places.database_url,
        objects=str(places.objects),
        recordings=str(places.recordings),
        models=str(places.models),
        scratch=str(places.scratch),
    )
    tracking = _track(places)
    recover, tidy = recover_at(places), build_tidying(places.open_stores, places.retention)

    def begin(instance: dg.DagsterInstance, run_id: str) -> list[str]:
        return [*recover(instance, run_id), *tidy(instance, run_id)]

    notify = post_webhook(places.webhook_url) if places.webhook_url else None
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=[*CHECKS, *WARNING_CHECKS],
        jobs=JOBS,
        schedules=[build_weekly_schedule(places.open_stores)],
        sensors=[build_approval_sensor(places.retrain, places.open_stores, recover), build_failure_sensor(notify)],
        executor=build_executor(places.executor, places.ray_address, places.share(), begin),
        resources={
            "stores": stores,
            "tracking": tracking,
            "lineage_pages": LineagePages(url=places.lineage_url),
            "io_manager": ManifestIOResource(stores=stores),
        },
    )


def recover_at(places: Places) -> Recover:
    """Return what puts right everything that killed processes left at the given places."""
    return build_recovery(places.open_stores, _track(places).open_store())


def _track(places: Places) -> ExperimentTracking:
    return ExperimentTracking(tracking_uri=places.mlflow_uri, enabled=places.tracking)


def resolve_job(name: str, **variables: str) -> dg.JobDefinition:
    """Return a job as a step's process makes it anew: on the places of its environment, save what ``variables`` say."""
    return build_definitions(read_places({**os.environ, **variables})).resolve_job_def(name)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the graph on the places that the environment names."""
    return build_definitions(read_places())
