"""``onnx_model``: the checkpoint as ONNX files, with parity against PyTorch on the test split; one is released."""

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
    """One ONNX file with statistics, units and digests of specs inside, compared element by element with PyTorch.

    Of the variants asked for, the smallest that keeps its accuracy on validation sessions is the one that is released.
    """
    from heimdall_assets.evaluation.variants_table import render_variants_table
    from heimdall_assets.pipeline.stages.onnx_model import LATENCY, export_checkpoint
    from heimdall_assets.stores.computing import MEASURED, read_facts

    progress = report_to(context, ONNX_MODEL)
    progress("model exported", 0, 1)
    result = export_checkpoint(stores.objects, trained_checkpoint, test_split, config.pure())
    progress("model exported", 1, 1)
    tell_export(context, tracking, stores.objects, result, config.pure())
    summary = result.manifest.summary
    latency = (read_facts(stores.objects, result.manifest.digest) or {}).get(MEASURED, {}).get(LATENCY)
    parity = {name: value for name, value in summary["parity"].items() if name != "passed"}
    told: dict[str, Any] = {"parity_with_pytorch": summary["parity"]["passed"], "parity": parity}
    if (
        len(summary["variants"]) > 1 or summary["rejected"]
    ):  # of a single file that passed there is no choice to tell of
        table = dg.MetadataValue.md(render_variants_table(summary, latency))
        chosen = {name: summary[name] for name in ("variant", "because", "rejected")}
        told = {**chosen, "variants": table, **told}
    return materialize(result, told)
