"""onnx_model: a stored checkpoint as ONNX files, compared with the network they came from; the smallest good one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.kinds import (
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import ONNX_MEDIA_TYPE
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, read_parent
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint
from heimdall_assets.pipeline.stages.variants import (
    Judged,
    choose_variant,
    find_problems,
    summarize_figures,
    summarize_moves,
)
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.specs import ExportSpec, FeatureSpec, ModelSpec
from heimdall_assets.stores.computing import note_measurement
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.stopwatch import UNIT, summarize_times, time_in_turns

if TYPE_CHECKING:
    from heimdall_assets.learning.export.opened import OpenedModel
    from heimdall_assets.learning.export.variants import Sources, Variant

RELEASED = "model.onnx"
"""Artifact: the file that is released."""

LATENCY = "latency"
"""Among what was measured: file -> batch size -> its times."""

BATCHES = (1, 32)


def export_checkpoint(objects: ObjectStore, checkpoint: Manifest, test_split: Manifest, spec: ExportSpec) -> Result:
    """Return the ONNX file of a checkpoint with its parity on the test split, found or exported.

    Of the variants that the spec asks for, the smallest that keeps its accuracy is ``model.onnx``; where there are
    several, each is an artifact of its own too (``name_artifact``). How fast they are is among the facts.

    Raises:
        InvalidSetting: none of the variants asked for can be made of this model.
    """
    parents = {TRAINED_CHECKPOINT: checkpoint.digest, TEST_SPLIT: test_split.digest}
    exporting = _Exporting(objects, checkpoint, test_split, spec)
    return find_or_compute(objects, ONNX_MODEL, parents, [spec], exporting.compute)


def name_artifact(variant: str) -> str:
    """Return the artifact that holds a variant where several were made."""
    return f"{variant}.onnx"


@dataclass(frozen=True)
class _Before:
    """What PyTorch answers: to test sessions, and in figures to validation sessions."""

    test: Predictions
    validation: Mapping[str, Any]


class _Exporting:
    """One export: the model, its files, and what they are worth."""

    def __init__(self, objects: ObjectStore, checkpoint: Manifest, test_split: Manifest, spec: ExportSpec) -> None:
        self.objects, self.checkpoint, self.test_split, self.spec = objects, checkpoint, test_split, spec

    @cached_property
    def test(self) -> SessionSet:
        return load_sessions(self.objects, self.test_split)

    @cached_property
    def val(self) -> SessionSet:
        return load_sessions(self.objects, read_parent(self.objects, self.checkpoint, VAL_SPLIT))

    def load_train(self) -> SessionSet:
        return load_sessions(self.objects, read_parent(self.objects, self.checkpoint, TRAIN_SPLIT))

    def compute(self) -> Computed:
        from heimdall_assets.learning.export.onnx_file import compute_parity
        from heimdall_assets.learning.export.opened import OpenedModel

        sources = export_sources(self.objects, self.checkpoint, self.spec, self.load_train)
        variants, not_made = make_variants(sources, self.spec)
        base = OpenedModel(sources.fitted, sources.base)
        parity = check_parity(compute_parity(sources.fitted, sources.base, self.test, base.session), self.spec)
        opened = {
            each.name: base if each.data is sources.base else OpenedModel(sources.fitted, each.data)
            for each in variants
        }
        predict = sources.fitted.predict
        before = _Before(predict(self.test), summarize_figures(predict(self.val), self.val))
        told = {each.name: self._judge(each, opened[each.name], before) for each in variants}
        judged = [Judged(each.name, len(each.data), told[each.name]["problems"]) for each in variants]
        choice = choose_variant(judged, self.spec)
        note_measurement(LATENCY, self._time(opened))
        stored = {each.name: self.objects.put_bytes(each.data, ONNX_MEDIA_TYPE) for each in variants}
        artifacts = {RELEASED: stored[choice.name]}
        if len(variants) > 1:
            artifacts |= {name_artifact(name): artifact for name, artifact in stored.items()}
        return artifacts, {
            "size_bytes": stored[choice.name].size,
            "opset": self.spec.opset,
            "parity": parity,
            "variant": choice.name,
            "because": choice.because,
            "rejected": choice.rejected,
            "variants": told,
            "not_made": not_made,
            "model": {
                "test": summarize_figures(before.test, self.test),
                "validation": dict(before.validation),
            },
        }

    def _judge(self, variant: "Variant", opened: "OpenedModel", before: "_Before") -> dict[str, Any]:
        """Return the figures of a file: on the test split to be read, on the validation split to choose by."""
        found = opened.predict(self.test)
        validation = summarize_figures(opened.predict(self.val), self.val)
        return {
            "size_bytes": len(variant.data),
            "changed": variant.changed,
            "test": summarize_figures(found, self.test) | summarize_moves(found, before.test),
            "validation": validation,
            "problems": find_problems(len(variant.data), validation, before.validation, self.spec),
        }

    def _time(self, opened: Mapping[str, "OpenedModel"]) -> dict[str, Any]:
        """Return file -> batch size -> its times, all of a batch size in turns, PyTorch's beside them."""
        found: dict[str, Any] = {"unit": UNIT}
        for size in BATCHES:
            calls = {name: each.prepare_call(self.test, size) for name, each in opened.items()}
            first = next(iter(opened.values()))
            calls = {"pytorch": first.prepare_eager_call(self.test, size), **calls}
            for name, times in time_in_turns(calls).items():
                found.setdefault(name, {})[str(size)] = summarize_times(times)
        return found


def export_sources(
    objects: ObjectStore, checkpoint: Manifest, spec: ExportSpec, train: Callable[[], SessionSet]
) -> "Sources":
    """Return what variants are made of: the fitted model, and its file with the digests of what it came from."""
    from heimdall_assets.learning.export.variants import Sources

    metadata = {
        "heimdall.checkpoint": checkpoint.digest,
        "heimdall.model_spec": ModelSpec(**checkpoint.specs["ModelSpec"]).digest(),
        "heimdall.feature_spec": _feature_spec_digest(objects, checkpoint),
    }
    return Sources.export(load_checkpoint(objects, checkpoint), spec, metadata, train)


def make_variants(sources: "Sources", spec: ExportSpec) -> tuple[list["Variant"], dict[str, str]]:
    """Return the variants that a spec asks for, in its order, and why others could not be made of this model.

    Raises:
        InvalidSetting: none of them can.
    """
    from heimdall_assets.learning.export.variants import make_variant

    made: list[Variant] = []
    not_made: dict[str, str] = {}
    for name in spec.variants:
        try:
            made.append(make_variant(name, sources))
        except InvalidInput as error:
            not_made[name] = str(error)
    if not made:
        raise InvalidSetting(f"ExportSpec.variants: {'; '.join(not_made.values())}; expected fp32 among them")
    return made, not_made


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
