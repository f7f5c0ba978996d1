"""``champion_on_new_data``: the model that users have, on what was approved since, before any training sees it."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.tables import preview
from heimdall_assets.kinds import CHAMPION_ON_NEW_DATA
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

FIRST_COLUMNS = ["session_id", "error_m", "baseline_error_m", "baseline", "refused"]


@dg.asset(
    group_name="heimdall",
    kinds={"scipy"},
    owners=["team:heimdall"],
    code_version=STAGES[CHAMPION_ON_NEW_DATA].code_version,
)
def champion_on_new_data(
    context: dg.AssetExecutionContext, approved_measurements: Manifest, stores: dg.ResourceParam[Stores]
) -> dg.MaterializeResult[Any]:
    """The champion on every newly approved session, once, before any training saw it; kept for ever.

    Beside it the classical estimators on the same sessions.
    """
    from heimdall_assets.evaluation.judged import say_figures
    from heimdall_assets.pipeline.monitoring.judging import judge_new_sessions

    result = judge_new_sessions(stores, approved_measurements, report_to(context, CHAMPION_ON_NEW_DATA))
    summary = result.manifest.summary
    table = load_table(stores.objects, result.manifest.artifacts["table"])
    said = say_figures(summary) if len(table) else "no session is new to the champion"
    shown = {"said": summary.get("not_judged", said), "judged": preview(table, FIRST_COLUMNS)}
    return materialize(result, shown)
