"""``spectrogram_features``: spectrograms and signal tracks of recordings, arrival times, correlations of pairs."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import FeaturesConfig
from heimdall_assets.defs.tables import preview
from heimdall_assets.kinds import SPECTROGRAM_FEATURES
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

SHOWN = {
    "refused": ["measurement_id", "session_id", "what", "reason"],
    "arrivals": ["measurement_id", "arrival_s", "arrival_sigma_s", "start_sigma_s", "coherence", "reason"],
    "pairs": ["session_id", "first", "second", "coherence"],
}
"""Table -> columns that a person needs."""


@dg.asset(
    group_name="heimdall",
    kinds={"numpy", "scipy"},
    owners=["team:heimdall"],
    code_version=STAGES[SPECTROGRAM_FEATURES].code_version,
)
def spectrogram_features(
    context: dg.AssetExecutionContext,
    config: FeaturesConfig,
    iq_files: Manifest,
    stores: dg.ResourceParam[Stores],
) -> dg.MaterializeResult[Any]:
    """Mel spectrograms (3, 128, 32) and signal tracks of every recording; delays and correlations between receivers.

    Only what no earlier run computed is computed. A recording without a spectrogram, a track or an arrival time stops
    no other: it is counted and listed with its reason.
    """
    from heimdall_assets.pipeline.stages.spectrogram_features import extract_features

    made = extract_features(
        stores.objects,
        iq_files,
        config.features.pure(),
        config.delays.pure(),
        report_to(context, SPECTROGRAM_FEATURES),
    )
    artifacts = made.result.manifest.artifacts
    tables = {name: preview(load_table(stores.objects, artifacts[name]), columns, 4) for name, columns in SHOWN.items()}
    return materialize(made.result, {**tables, "num_computed": made.num_computed})
