"""``iq_files``: every IQ object of the snapshot, read, checked and pinned by digest."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import RecordingConfig
from heimdall_assets.defs.tables import preview
from heimdall_assets.kinds import IQ_FILES
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

FIRST_COLUMNS = ["measurement_id", "status", "media_format", "sample_rate_hz", "duration_s", "level_dbfs"]


@dg.asset(group_name="heimdall", kinds={"numpy"}, owners=["team:heimdall"], code_version=STAGES[IQ_FILES].code_version)
def iq_files(
    context: dg.AssetExecutionContext,
    config: RecordingConfig,
    approved_measurements: Manifest,
    stores: dg.ResourceParam[Stores],
) -> dg.MaterializeResult[Any]:
    """The snapshot's IQ recordings, each read, checked against its row and pinned by SHA-256.

    A bad recording stops no other: it is left out, counted and listed with its reason.
    """
    from heimdall_assets.pipeline.stages.iq_files import pin_recordings

    made = pin_recordings(stores.objects, approved_measurements, config.pure(), report_to(context, IQ_FILES))
    table = load_table(stores.objects, made.result.manifest.artifacts["table"])
    refused = table.loc[table["status"] != "ok", ["measurement_id", "session_id", "reason"]]
    return materialize(
        made.result,
        {
            "refused": preview(refused, ["measurement_id", "session_id", "reason"]),
            "first_rows": preview(table, FIRST_COLUMNS, 5),
            "num_computed": made.num_computed,
        },
    )
