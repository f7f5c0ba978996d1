"""``trained_checkpoint``: the one GPU-tagged step."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from heimdall_assets.defs.accelerator import GPU_POOL, build_gpu_tags
from heimdall_assets.defs.figures import is_told, show_epochs, show_picture
from heimdall_assets.defs.origins import RESUMES_TAG, tells_mlflow
from heimdall_assets.defs.progress import Work, report_to
from heimdall_assets.defs.resources import LineagePages, WeightsAndBiases
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import CheckpointConfig
from heimdall_assets.defs.stopping import hold_stop, stop_for_good
from heimdall_assets.defs.tracking.describing import describe_start
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.defs.training.watching import EPOCHS_TRAINED, WatchedTraining
from heimdall_assets.errors import HeimdallError, StorageError, WorkersLost
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.learning.task import RATE_SEARCH
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.experiments import TRAINED_TAG
from heimdall_assets.stores.home import Stores

KEPT = "the next run with the same settings goes on from the last epoch"


@dg.asset(
    group_name="heimdall",
    kinds={"pytorch", "lightning"},
    owners=["team:heimdall"],
    code_version=STAGES[TRAINED_CHECKPOINT].code_version,
    pool=GPU_POOL,
    op_tags=build_gpu_tags(),
    # A training that was killed, or that a disk failed, goes on from its last epoch. What the data or the settings
    # forbid is not tried again.
    retry_policy=dg.RetryPolicy(max_retries=1),
)
def trained_checkpoint(
    context: dg.AssetExecutionContext,
    config: CheckpointConfig,
    train_split: Manifest,
    val_split: Manifest,
    stores: dg.ResourceParam[Stores],
    tracking: dg.ResourceParam[ExperimentTracking],
    weights_and_biases: dg.ResourceParam[WeightsAndBiases],
    lineage_pages: LineagePages,
) -> dg.MaterializeResult[Any]:
    """The fitted model: weights as safetensors, settings as JSON. The test split is no input.

    An interrupted training resumes from its last checkpoint.
    """
    from heimdall_assets.learning.fitting.hooks import Hooks
    from heimdall_assets.pipeline.experiments.trained import describe_checkpoint
    from heimdall_assets.pipeline.stages.trained_checkpoint import Surroundings, read_outcome, train_checkpoint
    from heimdall_assets.pipeline.trainings.continuing import read_earlier

    progress = report_to(context, TRAINED_CHECKPOINT)
    total = config.training.max_epochs
    specs = (config.model.pure(), config.training.pure(), config.augmentation.pure())
    told = partial(describe_start, stores.objects, train_split, val_split, (*specs, config.machine.pure()))
    resumes = context.run.tags.get(RESUMES_TAG)
    resumed, seen = False, list[dict[str, float]]()
    tracking = replace(tracking, enabled=tracking.enabled and tells_mlflow(context.run))
    params = {f"{type(spec).__name__}.{name}": value for spec in specs for name, value in spec.dump().items()}
    curves = weights_and_biases.follow(context, params)
    watched = WatchedTraining(context, stores, (train_split, val_split), specs)
    with stop_for_good(KEPT, context), tracking.follow(context, told) as tracked, curves, watched:

        def on_start(resumed_from: Path | None) -> None:
            nonlocal resumed
            resumed = resumed_from is not None
            if resumed:
                what = f"the training of {resumes}" if resumes else "the training that was interrupted"
                context.log.info(f"resuming {what}, from {resumed_from}")
            tracked.start(train_split.summary["num_sessions"] + config.training.num_simulated_sessions)
            curves.start()
            watched.tell(mlflow_run_id=tracked.run_id, resumes=resumes)

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            watched.end_epoch(epoch, metrics["val_loss"])
            progress(Work(EPOCHS_TRAINED, watched.describe()), epoch + 1, total)
            seen.append(metrics)
            with hold_stop():
                tracked.log_epoch(epoch, metrics)
                curves.log_epoch(epoch, metrics)
                if is_told(epoch):
                    page = show_run(lineage_pages, watched.run_id, live=True)
                    shown = {**show_epochs(seen, epoch, total), **page}
                    context.log_event(dg.AssetObservation(TRAINED_CHECKPOINT, metadata=shown))

        try:
            result = train_checkpoint(
                stores.objects,
                stores.scratch,
                train_split,
                val_split,
                *specs,
                on_epoch=on_epoch,
                on_start=on_start,
                earlier=read_earlier(stores, resumes, config.training.pure()),
                around=Surroundings(config.machine.pure(), Hooks(on_notice=context.log.warning), watcher=watched),
            )
        except HeimdallError as error:
            raise dg.Failure(f"{error}", allow_retries=isinstance(error, StorageError | WorkersLost)) from error
        outcome = read_outcome(result.manifest)
        if not result.reused:
            num_epochs = result.manifest.summary["num_epochs"]
            progress(f"training ended: {outcome.said}", num_epochs, num_epochs)
            tracked.tag(TRAINED_TAG, outcome.word)
        if watched.run_id is not None:
            watched.finish(result.manifest)
        made = partial(describe_checkpoint, stores.objects, result.manifest)
        run_id = tracked.finish(stores.objects, result.manifest.digest, result.reused, made)
    losses = show_picture("losses over epochs", lineage_pages.locate_losses(result.manifest.digest))
    facts: dict[str, Any] = {"trained": outcome.trained, "training": outcome.said, "resumed": resumed}
    if RATE_SEARCH in result.manifest.summary:
        facts["rates"] = show_picture("range test", lineage_pages.locate_rates(result.manifest.digest))
    page = show_run(lineage_pages, watched.run_id)
    return materialize(result, {"losses": losses, **page, **tracking.show_run(run_id), **facts})


def show_run(pages: LineagePages, run_id: str | None, live: bool = False) -> dict[str, Any]:
    """Return the address of the page of a training, nothing where it has no folder; ``live``: its curves so far too."""
    if run_id is None:
        return {}
    page = pages.locate_run(run_id)
    curves = {"curves_so_far": show_picture("losses over epochs", f"{page}/losses.svg")} if live else {}
    return {"training_page": dg.MetadataValue.url(page), **curves}
