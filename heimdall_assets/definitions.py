"""Definitions: the composition root. Everything that Dagster sees of this project is put together here.

Loading it imports neither torch nor lightning nor mlflow nor onnx: assets import what they need when they run.
"""

import os

import dagster as dg

from heimdall_assets.defs.assets import ASSETS
from heimdall_assets.defs.checks import CHECKS
from heimdall_assets.defs.executor.router import Machines, build_executor
from heimdall_assets.defs.jobs import StartingPoint, build_jobs
from heimdall_assets.defs.lineage_events import build_following
from heimdall_assets.defs.monitoring.checks import MONITORING_CHECKS
from heimdall_assets.defs.monitoring.sensors import build_drift_sensor, build_monitoring_sensor
from heimdall_assets.defs.notifying import Notifier, build_failure_sensor, join_channels, post_webhook, send_mail
from heimdall_assets.defs.orphans import tag_start
from heimdall_assets.defs.recovery import Recover, build_recovery
from heimdall_assets.defs.resources import LineagePages, WeightsAndBiases, build_stores, manifest_io_manager
from heimdall_assets.defs.retention import build_tidying
from heimdall_assets.defs.sensors import build_approval_sensor, build_weekly_schedule
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.defs.warning_checks import WARNING_CHECKS
from heimdall_assets.defs.witnessing import Witness
from heimdall_assets.places import read_places
from heimdall_assets.profiles.reading import read_profile
from heimdall_assets.variable_kinds import DATABASE, FOLDER, PLACE
from heimdall_assets.variables import Places, find_kind


def build_definitions(places: Places) -> dg.Definitions:
    """Return the whole graph on the given places."""
    tracking = _track(places)
    recover, tidy = recover_at(places), build_tidying(places.open_stores, places.retention, tracking.find_files())

    def begin(instance: dg.DagsterInstance, run_id: str) -> list[str]:
        instance.add_run_tags(run_id, tag_start())
        return [*recover(instance, run_id), *tidy(instance, run_id)]

    start = StartingPoint(read_profile(places.profile) if places.profile else None, places.executor)
    channels = open_channels(places)
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=[*CHECKS, *WARNING_CHECKS, *MONITORING_CHECKS],
        jobs=build_jobs(start),
        schedules=[build_weekly_schedule(places.open_stores, start)],
        sensors=[
            build_approval_sensor(places.retrain, places.open_stores, recover, start),
            build_monitoring_sensor(places.monitoring, places.retrain.quiet_period_s, places.open_stores),
            build_drift_sensor(places.retrain, places.open_stores, channels, start),
            build_failure_sensor(join_channels(channels)),
        ],
        executor=build_executor(_find_machines(places), begin, build_following(places.open_stores, places.openlineage)),
        resources={
            "stores": build_stores(places.open_stores, _describe(places), places.spread_work),
            "tracking": tracking,
            "weights_and_biases": WeightsAndBiases(places.home / "wandb"),
            "witness": Witness(places.witness, places.s3_endpoint),
            "lineage_pages": LineagePages(url=places.lineage_url),
            "io_manager": manifest_io_manager,
        },
    )


def recover_at(places: Places) -> Recover:
    """Return what puts right everything that killed processes left at the given places."""
    return build_recovery(places.open_stores, _track(places).open_store())


def open_channels(places: Places) -> dict[str, Notifier]:
    """Return who hears of failed runs and alerts, by the variable that names them."""
    channels: dict[str, Notifier] = {}
    if places.webhook_url:
        channels["HEIMDALL_WEBHOOK_URL"] = post_webhook(places.webhook_url)
    if places.mail:
        channels["HEIMDALL_MAIL"] = send_mail(places.mail)
    return channels


def _describe(places: Places) -> str:
    """Return where the stores rest, for people; what may hold a password by the variable's name alone."""
    lines = []
    for name, field in Places.model_fields.items():
        kind, value = find_kind(field), getattr(places, name)
        if kind in (FOLDER, PLACE, DATABASE):
            lines.append(f"- {field.validation_alias}: {'as the variable says' if kind.is_secret else value}")
    return "Where everything rests:\n\n" + "\n".join(lines)


def _find_machines(places: Places) -> Machines:
    return Machines(
        backend=places.executor,
        ray_address=places.ray_address,
        kubernetes=places.kubernetes,
        kubeconfig=places.kubeconfig,
        accelerator=places.accelerator,
        variables=places.share(),
    )


def _track(places: Places) -> ExperimentTracking:
    return ExperimentTracking(tracking_uri=places.mlflow_uri, enabled=places.tracking, image=places.image)


def resolve_job(name: str, **variables: str) -> dg.JobDefinition:
    """Return a job as a step's process makes it anew: on the places of its environment, save what ``variables`` say."""
    return build_definitions(read_places({**os.environ, **variables})).resolve_job_def(name)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the graph on the places that the environment names."""
    return build_definitions(read_places())
