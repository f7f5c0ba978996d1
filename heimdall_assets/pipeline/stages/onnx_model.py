"""onnx_model: a stored checkpoint as one ONNX file, compared element by element with the network it came from."""

from typing import Any

from heimdall_assets.kinds import ONNX_MODEL, SPECTROGRAM_FEATURES, TEST_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.manifests import ONNX_MEDIA_TYPE, Manifest
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint
from heimdall_assets.specs import ExportSpec, FeatureSpec, ModelSpec
from heimdall_assets.stores.objects.folder import ObjectStore


def export_checkpoint(objects: ObjectStore, checkpoint: Manifest, test_split: Manifest, spec: ExportSpec) -> Result:
    """Return the ONNX file of a checkpoint with its parity on the test split, found or exported."""

    def compute() -> Computed:
        from heimdall_assets.learning.export.onnx_file import compute_parity, export_onnx

        fitted = load_checkpoint(objects, checkpoint)
        data = export_onnx(
            fitted,
            spec,
            {
                "heimdall.checkpoint": checkpoint.digest,
                "heimdall.model_spec": ModelSpec(**checkpoint.specs["ModelSpec"]).digest(),
                "heimdall.feature_spec": _feature_spec_digest(objects, checkpoint),
            },
        )
        parity = check_parity(compute_parity(fitted, data, load_sessions(objects, test_split)), spec)
        return {"model.onnx": objects.put_bytes(data, ONNX_MEDIA_TYPE)}, {
            "size_bytes": len(data),
            "opset": spec.opset,
            "parity": parity,
        }

    parents = {TRAINED_CHECKPOINT: checkpoint.digest, TEST_SPLIT: test_split.digest}
    return find_or_compute(objects, ONNX_MODEL, parents, [spec], compute)


def check_parity(measured: dict[str, float], spec: ExportSpec) -> dict[str, Any]:
    """Return the measured differences, the tolerances, and whether every one of them holds.

    Outputs that do not spread would agree whatever the file computes: then nothing is proven, and it does not pass.
    """
    passed = (
        max(measured["max_position_error_sigma"], measured["max_session_error_sigma"]) <= spec.max_position_error_sigma
        and measured["max_uncertainty_error"] <= spec.max_uncertainty_error
        and measured["max_signal_error"] <= spec.max_signal_error
        and (measured["num_examples"] < 2 or measured["position_spread_deg"] > 0)
    )
    tolerances = {"position_sigma": spec.max_position_error_sigma, "uncertainty": spec.max_uncertainty_error}
    tolerances["signal"] = spec.max_signal_error
    return {**measured, "tolerances": tolerances, "passed": bool(passed)}


def _feature_spec_digest(objects: ObjectStore, checkpoint: Manifest) -> str:
    features = read_parent(objects, checkpoint, SPECTROGRAM_FEATURES)
    return FeatureSpec(**features.specs["FeatureSpec"]).digest()
