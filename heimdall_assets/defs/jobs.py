"""Jobs: how far down the graph one asks for."""

import dagster as dg

from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.kinds import (
    CHAMPION_MODEL,
    EVALUATION_METRICS,
    HYPERPARAMETER_SEARCH,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
)
from heimdall_assets.pipeline.recipe import list_needed
from heimdall_assets.specs import DEMO_MODEL

INGESTED = list_needed(SPECTROGRAM_FEATURES)
TRAINED = list_needed(EVALUATION_METRICS)
SEARCHED = list_needed(HYPERPARAMETER_SEARCH)
RELEASED = list_needed(CHAMPION_MODEL)

JOBS = [
    dg.define_asset_job(
        "ingest",
        selection=dg.AssetSelection.assets(*INGESTED),
        description="Approved measurements, their recordings and features.",
    ),
    dg.define_asset_job(
        "train",
        selection=dg.AssetSelection.assets(*TRAINED),
        description="Everything up to a judged checkpoint.",
    ),
    dg.define_asset_job(
        "release",
        selection=dg.AssetSelection.assets(*RELEASED),
        description="Everything up to a released ONNX model.",
    ),
    dg.define_asset_job(
        "search",
        selection=dg.AssetSelection.assets(*SEARCHED, TEST_SPLIT),  # one step makes all splits
        description="Settings tried on the training split and judged on the validation split.",
    ),
    dg.define_asset_job(
        "demo",
        selection=dg.AssetSelection.assets(*RELEASED),
        config=build_run_config([DEMO_MODEL]),
        description="What heimdall demo runs: everything up to a released model, which sees no spectrograms.",
    ),
]
