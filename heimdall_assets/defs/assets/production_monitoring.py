"""``production_monitoring``: what is new, and how the champion did on it, against limits."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import MonitoringConfig
from heimdall_assets.defs.tables import preview, render_table, shorten
from heimdall_assets.kinds import PRODUCTION_MONITORING
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

FIRST_COLUMNS = ["kind", "name", "before", "now", "change", "p_adjusted", "num_now", "alert"]
LINE_LENGTH = 150


@dg.asset(
    group_name="heimdall",
    kinds={"scipy"},
    owners=["team:heimdall"],
    code_version=STAGES[PRODUCTION_MONITORING].code_version,
)
def production_monitoring(
    config: MonitoringConfig,
    approved_measurements: Manifest,
    champion_on_new_data: Manifest,
    stores: dg.ResourceParam[Stores],
) -> dg.MaterializeResult[Any]:
    """What is new beside what the champion learned from, and how it did on it; each limit that is passed is an alert.

    Its checks warn, and stop no run.
    """
    from heimdall_assets.pipeline.monitoring.watching import read_alerts, watch_production

    result = watch_production(stores, approved_measurements, champion_on_new_data, config.pure())
    alerts = [[alert.kind, shorten(alert.line, LINE_LENGTH)] for alert in read_alerts(result.manifest)]
    drift = load_table(stores.objects, result.manifest.artifacts["drift"])
    shown = {
        "alerts": render_table(["kind", "what was found"], alerts, len(alerts)) if alerts else "none",
        "drift": preview(drift, FIRST_COLUMNS),
    }
    return materialize(result, shown)
