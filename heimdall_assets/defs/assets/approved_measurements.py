"""``measurement_database`` (outside, reported when its approved set changes) and ``approved_measurements``."""

import dagster as dg
import pandas as pd

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import DatasetConfig
from heimdall_assets.defs.tables import preview
from heimdall_assets.stores.datasets import artifact_of_table
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.results import Computed, find_or_compute
from heimdall_assets.stores.stages import STAGES

measurement_database = dg.AssetSpec(
    "measurement_database",
    group_name="measurements",
    description="The database of stations, sources, sessions and approvals. Its version is a fingerprint of the "
    "approved set, reported when that set changes.",
    kinds={"postgres", "sqlite"},
    owners=["team:heimdall"],
)


@dg.asset(
    deps=[measurement_database],
    group_name="measurements",
    kinds={"pandas", "parquet"},
    owners=["team:heimdall"],
    code_version=STAGES["approved_measurements"].code_version,
)
def approved_measurements(
    context: dg.AssetExecutionContext, config: DatasetConfig, stores: dg.ResourceParam[Stores]
) -> dg.MaterializeResult:
    """Frozen snapshot of all trainable measurements of approved sessions, one row each, with who approved and why.

    Rows that cannot be used are left out, counted and listed with their reason.
    """
    progress = report_to(context, "approved_measurements")
    progress("snapshot taken", 0, 1)
    dataset = config.pure()
    snapshot = stores.measurements.read_approved(dataset)
    rows, left_out = snapshot.rows, snapshot.left_out

    def compute() -> Computed:
        artifacts = {
            "table": artifact_of_table(stores.objects, rows),
            "left_out": artifact_of_table(stores.objects, left_out),
        }
        return artifacts, {
            "num_sessions": int(rows["session_id"].nunique()),
            "num_measurements": len(rows),
            "num_stations": int(rows["station_id"].nunique()),
            "num_with_iq": int(rows["iq_data_location"].notna().sum()),
            "num_left_out": len(left_out),
            "sessions_by_origin": _count_sessions(rows, "origin"),
            "sessions_by_campaign": _count_sessions(rows, "campaign"),
        }

    # The database is outside: what was read is the input, by content.
    parents = {"measurement_database": stores.measurements.compute_fingerprint(dataset)}
    content = {"rows": artifact_of_table(stores.objects, rows).digest}
    result = find_or_compute(stores.objects, "approved_measurements", parents, [dataset], compute, content)
    progress("snapshot taken", 1, 1)
    return materialize(
        result,
        {
            "database_fingerprint": parents["measurement_database"],
            "sessions_by_campaign": result.manifest.summary["sessions_by_campaign"],
            "first_rows": preview(rows),
            "left_out": preview(left_out),
        },
    )


def _count_sessions(rows: pd.DataFrame, column: str) -> dict[str, int]:
    counts = rows.groupby(column)["session_id"].nunique()
    return {str(name): int(count) for name, count in counts.items()}
