"""Stages: what each result of the graph is computed from, with which specs, by which version of its code.

One table, read by the assets, by the lookup of earlier results and by the plan of what would run.
"""

from dataclasses import dataclass

from heimdall_assets import specs
from heimdall_assets.specs import Spec


@dataclass(frozen=True)
class Stage:
    """One kind of result.

    Attributes:
        code_version: raised by hand when the same inputs and specs give another result.
        parents: kinds it is computed from.
        specs: every number that decides it.
    """

    code_version: str
    parents: tuple[str, ...]
    specs: tuple[type[Spec], ...] = ()


_SPLIT = Stage("1", ("spectrogram_features",), (specs.SplitSpec, specs.TimingSpec))

STAGES: dict[str, Stage] = {
    "approved_measurements": Stage("1", ("measurement_database",), (specs.DatasetSpec,)),
    "iq_files": Stage("2", ("approved_measurements",), (specs.RecordingSpec,)),
    "spectrogram_features": Stage("3", ("iq_files",), (specs.FeatureSpec, specs.DelaySpec)),
    "train_split": _SPLIT,
    "val_split": _SPLIT,
    "test_split": _SPLIT,
    "trained_checkpoint": Stage(
        "4", ("train_split", "val_split"), (specs.ModelSpec, specs.TrainingSpec, specs.AugmentationSpec)
    ),
    "evaluation_metrics": Stage("3", ("trained_checkpoint", "test_split"), (specs.EvaluationSpec,)),
    "onnx_model": Stage("3", ("trained_checkpoint", "test_split"), (specs.ExportSpec,)),
    "model_release": Stage("1", ("onnx_model", "evaluation_metrics")),
}
"""In the order in which they are computed."""
