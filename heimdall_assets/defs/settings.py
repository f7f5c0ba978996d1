"""Settings: each spec as Dagster run configuration, field by field, so that the page shows and checks every number."""

from typing import Any

import dagster as dg

from heimdall_assets import specs


class DatasetConfig(specs.DatasetSpec, dg.Config):
    """Which approved sessions make a snapshot."""


class RecordingConfig(specs.RecordingSpec, dg.Config):
    """What makes a recording unusable."""


class FeatureConfig(specs.FeatureSpec, dg.Config):
    """The spectrogram."""


class DelayConfig(specs.DelaySpec, dg.Config):
    """The delays between receivers."""


class FeaturesConfig(dg.Config):
    """What is computed from each recording and each session."""

    features: FeatureConfig = FeatureConfig()
    delays: DelayConfig = DelayConfig()


class SplitConfig(specs.SplitSpec, dg.Config):
    """Which session serves what."""


class TimingConfig(specs.TimingSpec, dg.Config):
    """Timing error of each clock class."""


class SplitsConfig(dg.Config):
    """How sessions are split, and how well each clock class is believed."""

    split: SplitConfig = SplitConfig()
    timing: TimingConfig = TimingConfig()


class ModelConfig(specs.ModelSpec, dg.Config):
    """The architecture."""


class TrainingConfig(specs.TrainingSpec, dg.Config):
    """The fit."""


class AugmentationConfig(specs.AugmentationSpec, dg.Config):
    """Training-only disturbances."""


class CheckpointConfig(dg.Config):
    """Everything that decides a checkpoint beside its data."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


class EvaluationConfig(specs.EvaluationSpec, dg.Config):
    """How the model is judged."""


class ExportConfig(specs.ExportSpec, dg.Config):
    """The ONNX file."""


class PromotionConfig(specs.PromotionSpec, dg.Config):
    """When a challenger becomes champion."""


def build_run_config(chosen: list[specs.Spec]) -> dict[str, Any]:
    """Return Dagster run configuration that sets the given specs; every other keeps its defaults."""
    places = {
        "DatasetSpec": ("approved_measurements", None),
        "RecordingSpec": ("iq_files", None),
        "FeatureSpec": ("spectrogram_features", "features"),
        "DelaySpec": ("spectrogram_features", "delays"),
        "SplitSpec": ("splits", "split"),
        "TimingSpec": ("splits", "timing"),
        "ModelSpec": ("trained_checkpoint", "model"),
        "TrainingSpec": ("trained_checkpoint", "training"),
        "AugmentationSpec": ("trained_checkpoint", "augmentation"),
        "EvaluationSpec": ("evaluation_metrics", None),
        "ExportSpec": ("onnx_model", None),
        "PromotionSpec": ("champion_model", None),
    }
    ops: dict[str, Any] = {}
    for spec in chosen:
        op, part = places[spec.pure_class().__name__]
        config = ops.setdefault(op, {"config": {}})["config"]
        fields = {name: value for name, value in spec.dump().items() if value is not None}
        config.update(fields if part is None else {part: fields})
    return {"ops": ops}
