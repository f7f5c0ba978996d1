"""``evaluation_metrics``: the checkpoint on the test split, beside every baseline and the bound."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.figures import show_comparison, show_figures
from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.resources import LineagePages
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import EvaluationConfig
from heimdall_assets.defs.tracking.describing import tell_evaluation
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.kinds import EVALUATION_METRICS
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores


@dg.asset(
    group_name="heimdall",
    kinds={"scipy"},
    owners=["team:heimdall"],
    code_version=STAGES[EVALUATION_METRICS].code_version,
)
def evaluation_metrics(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    trained_checkpoint: Manifest,
    test_split: Manifest,
    stores: dg.ResourceParam[Stores],
    tracking: dg.ResourceParam[ExperimentTracking],
    lineage_pages: LineagePages,
) -> dg.MaterializeResult[Any]:
    """The model's errors on sessions no choice has seen, beside each classical estimator and the physical bound."""
    from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint, load_metrics

    progress, count = report_to(context, EVALUATION_METRICS), test_split.summary["num_sessions"]
    progress("sessions judged", 0, count)
    result = evaluate_checkpoint(stores.objects, trained_checkpoint, test_split, config.pure())
    progress("sessions judged", count, count)
    metrics = load_metrics(stores.objects, result.manifest)
    tell_evaluation(context, tracking, stores.objects, trained_checkpoint, result, config.pure())
    address = lineage_pages.locate_results(result.manifest.digest)
    # As a link: the address itself is so long that the page would cut off all that stands below it.
    page = dg.MetadataValue.md(f"[all tables and figures on one page]({address})")
    return materialize(result, {"results": page, **show_comparison(metrics), **show_figures(address, result.manifest)})
