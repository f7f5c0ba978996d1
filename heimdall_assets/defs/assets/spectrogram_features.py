"""``spectrogram_features``: one spectrogram per recording, one arrival time per receiver of a session."""

import dagster as dg

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import FeaturesConfig
from heimdall_assets.defs.tables import preview
from heimdall_assets.manifests import Manifest
from heimdall_assets.stores.datasets import artifact_of_table, join_recordings, load_table
from heimdall_assets.stores.features import compute_features
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.results import Computed, find_or_compute, read_parent
from heimdall_assets.stores.stages import STAGES


@dg.asset(
    group_name="features",
    kinds={"numpy", "scipy"},
    owners=["team:heimdall"],
    code_version=STAGES["spectrogram_features"].code_version,
)
def spectrogram_features(
    context: dg.AssetExecutionContext,
    config: FeaturesConfig,
    iq_files: Manifest,
    stores: dg.ResourceParam[Stores],
) -> dg.MaterializeResult:
    """Mel spectrograms (3, 128, 32) of every recording and the delays between each session's receivers, from raw IQ.

    Only what no earlier run computed is computed. A recording without a spectrogram, or without an arrival time, stops
    no other: it is counted and listed with its reason.
    """
    features, delays = config.features.pure(), config.delays.pure()
    counts = {"num_computed": 0}

    def compute() -> Computed:
        approved = load_table(
            stores.objects, read_parent(stores.objects, iq_files, "approved_measurements").artifacts["table"]
        )
        recordings = load_table(stores.objects, iq_files.artifacts["table"])
        rows = join_recordings(approved, recordings)
        made = compute_features(stores.objects, rows, features, delays, report_to(context, "spectrogram_features"))
        counts["num_computed"] = made.num_computed
        artifacts = {
            "index": artifact_of_table(stores.objects, made.index),
            "arrivals": artifact_of_table(stores.objects, made.arrivals),
            "refused": artifact_of_table(stores.objects, made.refused),
        }
        return artifacts, {**made.count(), "shards": sorted({str(shard) for shard in made.index["shard"]})}

    parents = {"iq_files": iq_files.digest}
    result = find_or_compute(stores.objects, "spectrogram_features", parents, [features, delays], compute)
    arrivals = load_table(stores.objects, result.manifest.artifacts["arrivals"])
    refused = load_table(stores.objects, result.manifest.artifacts["refused"])
    return materialize(result, {**counts, "arrivals": preview(arrivals), "refused": preview(refused, 200)})
