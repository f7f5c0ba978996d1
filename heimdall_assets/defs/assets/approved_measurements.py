"""``measurement_database`` (outside, reported when its approved set changes) and ``approved_measurements``."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.resources import LineagePages
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import DatasetConfig
from heimdall_assets.defs.tables import describe_snapshot, preview
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, MEASUREMENT_DATABASE
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores

FIRST_COLUMNS = ["session_name", "source_name", "station_name", "timestamp", "frequency_hz", "snr_db"]
"""Of some thirty-five: what was heard where, when and how well."""

measurement_database = dg.AssetSpec(
    MEASUREMENT_DATABASE,
    group_name="heimdall",
    description="The database of stations, sources, sessions and approvals. Its version is a fingerprint of the "
    "approved set, reported when that set changes, or what the sensor decides about it.",
    kinds={"postgres", "sqlite"},
    owners=["team:heimdall"],
)


@dg.asset(
    deps=[measurement_database],
    group_name="heimdall",
    kinds={"pandas", "parquet"},
    owners=["team:heimdall"],
    code_version=STAGES[APPROVED_MEASUREMENTS].code_version,
    metadata={"dagster/column_schema": describe_snapshot()},
)
def approved_measurements(
    context: dg.AssetExecutionContext,
    config: DatasetConfig,
    stores: dg.ResourceParam[Stores],
    lineage_pages: LineagePages,
) -> dg.MaterializeResult[Any]:
    """Frozen snapshot of all trainable measurements of approved sessions, one row each, with who approved and why.

    Rows that cannot be used are left out, counted and listed with their reason.
    """
    from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot

    progress = report_to(context, APPROVED_MEASUREMENTS)
    progress("snapshot taken", 0, 1)
    result, snapshot = take_snapshot(stores, config.pure())
    progress("snapshot taken", 1, 1)
    return materialize(
        result,
        {
            "sessions": lineage_pages.link_sessions(),
            "first_rows": preview(snapshot.rows, FIRST_COLUMNS),
            "left_out": preview(snapshot.left_out, ["measurement_id", "session_id", "reason"]),
            "sessions_by_campaign": result.manifest.summary["sessions_by_campaign"],
            "database_fingerprint": result.manifest.parents[MEASUREMENT_DATABASE],
        },
    )
