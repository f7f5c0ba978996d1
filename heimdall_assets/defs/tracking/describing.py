"""What each step tells the run of its training, put off until there is a run to tell: loading it costs seconds."""

import time
from collections.abc import Iterable

import dagster as dg

from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import Result
from heimdall_assets.specs import EvaluationSpec, ExportSpec, GateSpec, Spec
from heimdall_assets.stores.experiment_entries import Entries
from heimdall_assets.stores.experiments import find_run
from heimdall_assets.stores.objects.folder import ObjectStore


def describe_start(objects: ObjectStore, train_split: Manifest, val_split: Manifest, specs: Iterable[Spec]) -> Entries:
    """Return what a training is told when it begins: settings of the whole chain, and its data."""
    from heimdall_assets.pipeline.experiments.settings import describe_settings, describe_splits

    settings = describe_settings(objects, [train_split, val_split], specs)
    data = describe_splits(objects, train_split, val_split)
    return Entries(params={**settings.params, **data.params}, data=data.data, files=settings.files)


def tell_evaluation(
    context: dg.AssetExecutionContext,
    tracking: ExperimentTracking,
    objects: ObjectStore,
    checkpoint: Manifest,
    result: Result,
    spec: EvaluationSpec,
) -> None:
    """Tell the run that made a checkpoint how it was judged; one that was judged before knows."""

    def describe() -> Entries:
        from heimdall_assets.pipeline.experiments.judged import describe_evaluation

        return describe_evaluation(objects, checkpoint, result.manifest, spec)

    if not result.reused:
        tracking.describe(context, find_run(objects, checkpoint.digest), "figures", describe)


def tell_export(
    context: dg.AssetExecutionContext,
    tracking: ExperimentTracking,
    objects: ObjectStore,
    result: Result,
    spec: ExportSpec,
) -> None:
    """Tell the run of the checkpoint that a model was exported from its size, its parity and how fast it answers."""

    def describe() -> Entries:
        from heimdall_assets.pipeline.experiments.exported import describe_export

        return describe_export(objects, result.manifest, spec, time.perf_counter)

    if not result.reused:
        tracking.describe(context, _find_run(objects, result.manifest), "the export", describe)


def tell_release(
    context: dg.AssetExecutionContext,
    tracking: ExperimentTracking,
    objects: ObjectStore,
    onnx: Manifest,
    result: Result,
    gates: GateSpec,
) -> None:
    """Tell the run behind a release its card and the settings of the whole chain; register the version."""

    def describe() -> Entries:
        from heimdall_assets.pipeline.experiments.exported import describe_release

        return describe_release(objects, result.manifest, gates)

    if result.reused:
        return
    run_id, version = _find_run(objects, onnx), result.manifest.summary["version"]
    tracking.tell(
        context,
        f"register {version}",
        lambda store: store.register_release(run_id, version, result.manifest.digest),
    )
    tracking.describe(context, run_id, "the model card", describe)


def _find_run(objects: ObjectStore, onnx: Manifest) -> str | None:
    return find_run(objects, onnx.parents[TRAINED_CHECKPOINT])
