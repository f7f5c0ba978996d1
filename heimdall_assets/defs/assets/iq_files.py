"""``iq_files``: every IQ object of the snapshot, read, checked and pinned by digest."""

import dagster as dg

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import RecordingConfig
from heimdall_assets.defs.tables import preview
from heimdall_assets.manifests import Manifest
from heimdall_assets.stores.datasets import artifact_of_table, load_table
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.ingesting import ingest_recordings
from heimdall_assets.stores.results import Computed, find_or_compute
from heimdall_assets.stores.stages import STAGES


@dg.asset(
    group_name="measurements", kinds={"numpy"}, owners=["team:heimdall"], code_version=STAGES["iq_files"].code_version
)
def iq_files(
    context: dg.AssetExecutionContext,
    config: RecordingConfig,
    approved_measurements: Manifest,
    stores: dg.ResourceParam[Stores],
) -> dg.MaterializeResult:
    """The snapshot's IQ recordings, each read, checked against its row and pinned by SHA-256.

    A bad recording stops no other: it is left out, counted and listed with its reason.
    """
    spec = config.pure()
    counts = {"num_computed": 0}

    def compute() -> Computed:
        approved = load_table(stores.objects, approved_measurements.artifacts["table"])
        found = ingest_recordings(stores.objects, approved, spec, report_to(context, "iq_files"))
        counts["num_computed"] = found.num_computed
        good = found.table["status"] == "ok"
        return {"table": artifact_of_table(stores.objects, found.table)}, {
            "num_recordings": int(good.sum()),
            "num_refused": int((~good).sum()),
            "num_unread": int((found.table["status"] == "unread").sum()),
            "seconds_of_iq": float(found.table.loc[good, "duration_s"].sum()),
        }

    parents = {"approved_measurements": approved_measurements.digest}
    result = find_or_compute(stores.objects, "iq_files", parents, [spec], compute)
    table = load_table(stores.objects, result.manifest.artifacts["table"])
    refused = table.loc[table["status"] != "ok", ["measurement_id", "session_id", "reason"]]
    return materialize(result, {**counts, "refused": preview(refused, 200), "first_rows": preview(table)})
