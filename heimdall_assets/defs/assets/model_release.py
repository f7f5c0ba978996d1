"""``model_release``: a numbered, whole, read-only folder with everything a user of the model needs."""

import dagster as dg

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.results import materialize
from heimdall_assets.manifests import Manifest
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.releasing import release_model


@dg.asset(group_name="release", kinds={"onnx", "markdown"}, owners=["team:heimdall"], code_version="1")
def model_release(
    context: dg.AssetExecutionContext,
    onnx_model: Manifest,
    evaluation_metrics: Manifest,
    stores: dg.ResourceParam[Stores],
) -> dg.MaterializeResult:
    """The released model: ONNX file, settings, figures, model card and provenance under one version.

    The same model is released once: releasing it again finds the version it has.
    """
    report_to(context, "model_release")("model released", 0, 1)
    result = release_model(stores, onnx_model, evaluation_metrics)
    version = result.manifest.summary["version"]
    return materialize(
        result,
        {
            "version": version,
            "folder": dg.MetadataValue.path(str(stores.releases.folder(version))),
            "model_card": dg.MetadataValue.md(stores.releases.read_file(version, "README.md").decode()),
        },
    )
