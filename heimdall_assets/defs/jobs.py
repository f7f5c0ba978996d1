"""Jobs: how far down the graph one asks for."""

import dagster as dg

INGESTED = ("approved_measurements", "iq_files", "spectrogram_features")
TRAINED = (*INGESTED, "train_split", "val_split", "test_split", "trained_checkpoint", "evaluation_metrics")
RELEASED = (*TRAINED, "onnx_model", "model_release", "champion_model")

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
]
