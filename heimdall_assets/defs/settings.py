"""Settings: each spec as Dagster run configuration, field by field, so that the page shows and checks every number."""

from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg

from heimdall_assets import specs
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    CHAMPION_MODEL,
    EVALUATION_METRICS,
    HYPERPARAMETER_SEARCH,
    IQ_FILES,
    MODEL_RELEASE,
    ONNX_MODEL,
    PRODUCTION_MONITORING,
    SPECTROGRAM_FEATURES,
    SPLIT_KINDS,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.pipeline.recipe import find_kind


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


class MachineConfig(specs.MachineSpec, dg.Config):
    """How the fit uses its machine."""


class CheckpointConfig(dg.Config):
    """Everything that decides a checkpoint beside its data, and how its machine is used."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    machine: MachineConfig = MachineConfig()


class SearchSpaceConfig(specs.SearchSpec, dg.Config):
    """What is searched."""


class SearchConfig(dg.Config):
    """Everything that decides a search beside its data: what is tried, and the settings of each fit that are not."""

    search: SearchSpaceConfig = SearchSpaceConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    machine: MachineConfig = MachineConfig()


class EvaluationConfig(specs.EvaluationSpec, dg.Config):
    """How the model is judged."""


class ExportConfig(specs.ExportSpec, dg.Config):
    """The ONNX file."""


class GateConfig(specs.GateSpec, dg.Config):
    """What a model must reach."""


class AcceleratorConfig(specs.AcceleratorSpec, dg.Config):
    """What a run's GPU-tagged step asks of its machine; stands with the executor, for it decides no result."""


class PromotionConfig(specs.PromotionSpec, dg.Config):
    """When a challenger becomes champion."""


class MonitoringConfig(specs.MonitoringSpec, dg.Config):
    """When the champion in use is no longer as it was released."""


SPLITS_OP = "splits"
"""The one step that makes the three splits."""

CONFIGS: dict[str, type[dg.Config]] = {
    APPROVED_MEASUREMENTS: DatasetConfig,
    PRODUCTION_MONITORING: MonitoringConfig,
    IQ_FILES: RecordingConfig,
    SPECTROGRAM_FEATURES: FeaturesConfig,
    SPLITS_OP: SplitsConfig,
    HYPERPARAMETER_SEARCH: SearchConfig,
    TRAINED_CHECKPOINT: CheckpointConfig,
    EVALUATION_METRICS: EvaluationConfig,
    ONNX_MODEL: ExportConfig,
    MODEL_RELEASE: GateConfig,
    CHAMPION_MODEL: PromotionConfig,
}
"""Step -> its configuration."""


def build_run_config(chosen: list[specs.Spec], within: Collection[str] | None = None) -> dict[str, Any]:
    """Return Dagster run configuration that sets the given specs; every other keeps its defaults.

    Args:
        chosen: specs.
        within: kinds that the run makes; None: those that a release needs.
    """
    ops: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    for spec in chosen:
        if isinstance(spec, specs.AcceleratorSpec):  # of the executor: it says where a step runs
            asked |= spec.model_dump(mode="json", exclude_unset=True)
            continue
        kind = find_kind(type(spec), within)
        op = SPLITS_OP if kind in SPLIT_KINDS.values() else kind
        config = ops.setdefault(op, {"config": {}})["config"]
        part = _find_part(CONFIGS[op], spec.pure_class())
        fields = {name: value for name, value in spec.dump().items() if value is not None}
        config.update(fields if part is None else {part: fields})
    return {"ops": ops, **({"execution": {"config": {"accelerator": asked}}} if asked else {})}


def read_run_config(config: Mapping[str, Any]) -> list[specs.Spec]:
    """Return the specs that a run configuration sets: the way back of ``build_run_config``."""
    found = []
    for op, entry in (config.get("ops") or {}).items():
        fields = (entry or {}).get("config") or {}
        if op not in CONFIGS or not fields:
            continue
        own = next((cls for cls in specs.list_specs().values() if issubclass(CONFIGS[op], cls)), None)
        parts = {own: fields} if own is not None else {_find_spec(CONFIGS[op], name): fields[name] for name in fields}
        found += [spec.model_validate(dict(values)) for spec, values in parts.items()]
    return found


def _find_spec(config: type[dg.Config], part: str) -> type[specs.Spec]:
    """Return the spec that a field of ``config`` holds."""
    annotation = config.model_fields[part].annotation
    return next(
        cls for cls in specs.list_specs().values() if isinstance(annotation, type) and issubclass(annotation, cls)
    )


def _find_part(config: type[dg.Config], spec: type[specs.Spec]) -> str | None:
    """Return the field of ``config`` that holds ``spec``; None: it is that spec itself."""
    if issubclass(config, spec):
        return None
    return next(
        name
        for name, field in config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, spec)
    )
