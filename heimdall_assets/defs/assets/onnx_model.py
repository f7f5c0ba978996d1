"""``onnx_model``: the checkpoint as one ONNX file, with parity against PyTorch on the test split."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import ExportConfig
from heimdall_assets.defs.tracking.describing import tell_export
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.kinds import ONNX_MODEL
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores


@dg.asset(group_name="heimdall", kinds={"onnx"}, owners=["team:heimdall"], code_version=STAGES[ONNX_MODEL].code_version)
def onnx_model(
    context: dg.AssetExecutionContext,
    config: ExportConfig,
    trained_checkpoint: Manifest,
    test_split: Manifest,
    stores: dg.ResourceParam[Stores],
    tracking: dg.ResourceParam[ExperimentTracking],
) -> dg.MaterializeResult[Any]:
    """One ONNX file with statistics, units and digests of specs inside, compared element by element with PyTorch."""
    from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint

    progress = report_to(context, ONNX_MODEL)
    progress("model exported", 0, 1)
    result = export_checkpoint(stores.objects, trained_checkpoint, test_split, config.pure())
    progress("model exported", 1, 1)
    tell_export(context, tracking, stores.objects, result, config.pure())
    parity = {name: value for name, value in result.manifest.summary["parity"].items() if name != "passed"}
    return materialize(result, {"parity_with_pytorch": result.manifest.summary["parity"]["passed"], "parity": parity})
