"""approved_measurements: one frozen snapshot of what is approved now, and of what is left out with its reason."""

import pandas as pd

from heimdall_assets.kinds import APPROVED_MEASUREMENTS, MEASUREMENT_DATABASE
from heimdall_assets.lineage.listings import DECISIONS, encode_decisions
from heimdall_assets.media_types import JSON_LINES_MEDIA_TYPE
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute
from heimdall_assets.pipeline.truth import read_trusted
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.snapshots import ApprovedSnapshot
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import artifact_of_table


def take_snapshot(stores: Stores, dataset: DatasetSpec) -> tuple[Result, ApprovedSnapshot]:
    """Return the frozen snapshot of what is approved now, and what was read for it."""
    snapshot = read_trusted(stores.measurements, dataset)
    rows, left_out = snapshot.rows, snapshot.left_out
    # The database is outside: what was read is the input, by content.
    table = artifact_of_table(stores.objects, rows)

    def compute() -> Computed:
        decided = rows["approval_event_id"].dropna().unique().tolist()
        decisions = encode_decisions(stores.measurements.list_decisions(decided))
        return {
            "table": table,
            "left_out": artifact_of_table(stores.objects, left_out),
            DECISIONS: stores.objects.put_bytes(decisions, JSON_LINES_MEDIA_TYPE),
        }, {
            "num_sessions": int(rows["session_id"].nunique()),
            "num_measurements": len(rows),
            "num_stations": int(rows["station_id"].nunique()),
            "num_with_iq": int(rows["iq_data_location"].notna().sum()),
            "num_left_out": len(left_out),
            "sessions_by_origin": _count_sessions(rows, "origin"),
            "sessions_by_campaign": _count_sessions(rows, "campaign"),
        }

    parents = {MEASUREMENT_DATABASE: stores.measurements.compute_fingerprint(dataset)}
    result = find_or_compute(stores.objects, APPROVED_MEASUREMENTS, parents, [dataset], compute, {"rows": table.digest})
    return result, snapshot


def _count_sessions(rows: pd.DataFrame, column: str) -> dict[str, int]:
    counts = rows.groupby(column)["session_id"].nunique()
    return {str(name): int(count) for name, count in counts.items()}
