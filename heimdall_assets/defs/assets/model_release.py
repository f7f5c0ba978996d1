"""``model_release``: a numbered, whole, read-only folder with everything a user of the model needs."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.events import find_checks, find_events
from heimdall_assets.defs.origins import tag_release
from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.resources import LineagePages
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import GateConfig
from heimdall_assets.defs.tracking.describing import tell_release
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.defs.witnessing import Witness
from heimdall_assets.kinds import MODEL_RELEASE, TRAINED_CHECKPOINT
from heimdall_assets.lineage.walk import walk_manifests
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.releases.status import read_status


@dg.asset(
    group_name="heimdall",
    kinds={"onnx", "markdown"},
    owners=["team:heimdall"],
    code_version=STAGES[MODEL_RELEASE].code_version,
)
def model_release(
    context: dg.AssetExecutionContext,
    config: GateConfig,
    onnx_model: Manifest,
    evaluation_metrics: Manifest,
    stores: dg.ResourceParam[Stores],
    tracking: dg.ResourceParam[ExperimentTracking],
    witness: dg.ResourceParam[Witness],
    lineage_pages: LineagePages,
) -> dg.MaterializeResult[Any]:
    """The released model: ONNX file, settings, figures, model card and provenance under one version.

    The same model is released once: releasing it again finds the version it has. One that does not pass its gates is
    kept as rejected.
    """
    from heimdall_assets.pipeline.stages.model_release import release_model
    from heimdall_assets.pipeline.stages.trained_checkpoint import read_outcome

    progress = report_to(context, MODEL_RELEASE)
    progress("model released", 0, 1)
    nodes = walk_manifests([onnx_model.digest, evaluation_metrics.digest], stores.objects.read_bytes)
    behind = {node.manifest.kind for node in nodes}
    result = release_model(
        stores,
        onnx_model,
        evaluation_metrics,
        # What the champion met in the same run is told of it, not of this model.
        checks=[one for one in find_checks(context.instance, context.run.run_id) if one["asset"] in behind],
        dagster_events=find_events(context.instance, [node.manifest for node in nodes]),
        gates=config.pure(),
    )
    progress("model released", 1, 1)
    witness.tell(context, stores, is_news=not result.reused)
    version = result.manifest.summary["version"]
    context.instance.add_run_tags(context.run.run_id, tag_release(version))
    tell_release(context, tracking, stores.objects, onnx_model, result, config.pure())
    record = stores.releases.find_record(version)
    outcome = read_outcome(read_parent(stores.objects, onnx_model, TRAINED_CHECKPOINT))
    return materialize(
        result,
        {
            "version": version,
            "results": lineage_pages.link(version, "results"),
            "card": lineage_pages.link(version, "card"),
            "status": read_status(record),
            "rejected": record.get("rejected", []),
            "trained": outcome.trained,
            "training": outcome.said,
            "lineage": lineage_pages.link(version),
            "files": f"heimdall models show {version}",
        },
    )
