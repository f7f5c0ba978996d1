"""Jobs: how far down the graph one asks for."""

import dagster as dg

from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.kinds import (
    CHAMPION_MODEL,
    EVALUATION_METRICS,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.pipeline.recipe import list_needed
from heimdall_assets.specs import DEMO_MODEL

INGESTED = list_needed(SPECTROGRAM_FEATURES)
FITTED = [*list_needed(TRAINED_CHECKPOINT), TEST_SPLIT]  # one step makes the three splits
TRAINED = list_needed(EVALUATION_METRICS)
RELEASED = list_needed(CHAMPION_MODEL)

FIT_JOB = "fit"
"""What trains a fold: its splits are those of a comparison, not of the home's next model."""

JOBS = [
    dg.define_asset_job(
        "ingest",
        selection=dg.AssetSelection.assets(*INGESTED),
        description="Approved measurements, their recordings and features.",
    ),
    dg.define_asset_job(
        FIT_JOB,
        selection=dg.AssetSelection.assets(*FITTED),
        description="Everything up to a trained checkpoint, which no test session judges: a fold, a trial.",
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
        "demo",
        selection=dg.AssetSelection.assets(*RELEASED),
        config=build_run_config([DEMO_MODEL]),
        description="What heimdall demo runs: everything up to a released model, which sees no spectrograms.",
    ),
]
