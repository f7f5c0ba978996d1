"""The stages of the recipe, and the decisions after them, one after the other on the fixed tiny world; and what a home
holds between two of them, without the moments at which it came to hold it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heimdall_assets.errors import HeimdallError
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    EVALUATION_METRICS,
    IQ_FILES,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.lineage.walk import OUTSIDE
from heimdall_assets.manifests import Manifest, compute_digest
from heimdall_assets.people import name_people
from heimdall_assets.pipeline.releases.promotion import apply_promotion, promote_release, roll_back
from heimdall_assets.pipeline.results import Result
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint
from heimdall_assets.pipeline.stages.iq_files import pin_recordings
from heimdall_assets.pipeline.stages.model_release import release_model
from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint
from heimdall_assets.pipeline.stages.spectrogram_features import extract_features
from heimdall_assets.pipeline.stages.splits import split_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import train_checkpoint
from heimdall_assets.specs import (
    AugmentationSpec,
    DatasetSpec,
    DelaySpec,
    EvaluationSpec,
    ExportSpec,
    FeatureSpec,
    ModelSpec,
    PromotionSpec,
    RecordingSpec,
    SplitSpec,
    TimingSpec,
    TrainingSpec,
)
from heimdall_assets.stores.home import Stores
from heimdall_assets_tests.homes import ignore
from heimdall_assets_tests.stores.promises import find_leftovers

Made = dict[str, str]
"""Name of what was made -> its digest, or its version."""

MODEL = ModelSpec(use_spectrograms=False, width=16, num_layers=1, num_heads=2)
TRAINING = TrainingSpec(max_epochs=2, warmup_epochs=1, batch_size=8, num_threads=1)
AGAIN = "evaluated_again"


@dataclass
class Work:
    """One home and what the steps before made of it."""

    stores: Stores
    made: Made

    def read(self, kind: str) -> Manifest:
        return Manifest.decode(self.stores.objects.read_bytes(self.made[kind]))


def _name(**results: Result) -> Made:
    return {name: result.manifest.digest for name, result in results.items()}


def _snapshot(work: Work) -> Made:
    return _name(**{APPROVED_MEASUREMENTS: take_snapshot(work.stores, DatasetSpec())[0]})


def _pin(work: Work) -> Made:
    pinned = pin_recordings(work.stores.objects, work.read(APPROVED_MEASUREMENTS), RecordingSpec(), ignore)
    return _name(**{IQ_FILES: pinned.result})


def _extract(work: Work) -> Made:
    made = extract_features(work.stores.objects, work.read(IQ_FILES), FeatureSpec(), DelaySpec(), ignore)
    return _name(**{SPECTROGRAM_FEATURES: made.result})


def _split(work: Work) -> Made:
    return _name(**split_sessions(work.stores.objects, work.read(SPECTROGRAM_FEATURES), SplitSpec(), TimingSpec()))


def _train(work: Work) -> Made:
    splits, specs = (work.read(TRAIN_SPLIT), work.read(VAL_SPLIT)), (MODEL, TRAINING, AugmentationSpec())
    return _name(**{TRAINED_CHECKPOINT: train_checkpoint(work.stores.objects, work.stores.scratch, *splits, *specs)})


def _evaluate(work: Work, name: str = EVALUATION_METRICS, num_bootstrap: int = 100) -> Made:
    checkpoint, test = work.read(TRAINED_CHECKPOINT), work.read(TEST_SPLIT)
    judged = evaluate_checkpoint(work.stores.objects, checkpoint, test, EvaluationSpec(num_bootstrap=num_bootstrap))
    return _name(**{name: judged})


def _export(work: Work) -> Made:
    checkpoint, test = work.read(TRAINED_CHECKPOINT), work.read(TEST_SPLIT)
    return _name(**{ONNX_MODEL: export_checkpoint(work.stores.objects, checkpoint, test, ExportSpec())})


def _release(work: Work, evaluation: str = EVALUATION_METRICS) -> Made:
    result = release_model(work.stores, work.read(ONNX_MODEL), work.read(evaluation))
    return {**_name(**{MODEL_RELEASE: result}), "version": str(result.manifest.summary["version"])}


def _decide(work: Work) -> Made:
    apply_promotion(work.stores, work.made["version"], PromotionSpec())
    return {}


def _promote(work: Work) -> Made:
    return {"champion": promote_release(work.stores, work.made["version"], "ada", "seen in the field")}


def _roll_back(work: Work) -> Made:
    return {"champion": roll_back(work.stores, "ada", "worse in the field")}


STEPS: dict[str, Callable[[Work], Made]] = {
    "take_snapshot": _snapshot,
    "pin_recordings": _pin,
    "extract_features": _extract,
    "split_sessions": _split,
    "train_checkpoint": _train,
    "evaluate_checkpoint": _evaluate,
    "export_checkpoint": _export,
    "release_model": _release,
    "apply_promotion": _decide,
    "judge_again": lambda work: _evaluate(work, AGAIN, num_bootstrap=200),
    "release_again": lambda work: _release(work, AGAIN),
    "decide_again": _decide,
    "promote_release": _promote,
    "roll_back": _roll_back,
}
"""Every step in the order of work. The second release finds one before it: latest, champion and challenger stand."""


def describe(stores: Stores) -> dict[str, Any]:
    """Return what a home holds, by digest where it is bytes, without times; raises where a part of it is damaged."""
    releases = stores.releases
    latest = releases.files.root / "latest.json"
    folders = sorted(path for path in releases.files.root.glob("v*") if path.is_dir())
    records = [{name: value for name, value in row.items() if name != "created_at"} for row in releases.list_releases()]
    return {
        "objects": sorted(stores.objects.list_digests()),
        "references": {name: stores.objects.read_reference(name) for name in stores.objects.list_references()},
        "releases": [{**record, "aliases": None} for record in records],
        "aliases": {alias: record["version"] for record in records for alias in record["aliases"]},
        "promotions": [
            [event[name] for name in ("alias", "version", "decided_by", "reason")]
            for event in name_people(releases.list_promotion_events(), stores.read_names)
        ],
        "folders": {
            folder.name: {path.name: compute_digest(path.read_bytes()) for path in sorted(folder.iterdir())}
            for folder in folders
        },
        "latest": json.loads(latest.read_bytes())["version"] if latest.exists() else None,
    }


def find_half_done(stores: Stores, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what is neither as it was before a step nor as the step leaves it, or not whole, one line each."""
    now, objects = describe(stores), stores.objects
    broken = [f"object {digest}: cannot be read" for digest in now["objects"] if not _is_whole(stores, digest)]
    for name, digest in now["references"].items():
        if digest not in (before["references"].get(name), after["references"].get(name)):
            broken.append(f"reference {name}: points at {digest}, neither old nor new")
        broken += [f"reference {name}: lacks {lack}" for lack in _list_behind(stores, name) if not objects.exists(lack)]
    for part in ("releases", "promotions"):  # these grow: the old ones stand, and new ones came whole and in order
        if now[part] not in [after[part][:number] for number in range(len(before[part]), len(after[part]) + 1)]:
            broken.append(f"{part}: found {now[part]}")
    for record in now["releases"]:
        broken += stores.releases.find_problems(record["version"])
    for alias, version in now["aliases"].items():
        if version not in (before["aliases"].get(alias), after["aliases"].get(alias)):
            broken.append(f"alias {alias}: means {version}")
    published = [record["version"] for record in now["releases"]]
    newest = [records[-1]["version"] if records else None for records in (before["releases"], now["releases"])]
    if now["latest"] not in newest or (now["latest"] and now["latest"] not in published):
        broken.append(f"latest.json: names {now['latest']}, published are {published}")
    return broken + stores.measurements.check_ledger() + stores.releases.check_ledger()


def find_unfinished(stores: Stores, home: Path, expected: dict[str, Any]) -> list[str]:
    """Return in what a home differs from one that nobody killed, and what still lies about, one line each."""
    broken = [f"put right only afterwards: {line}" for line in stores.releases.put_right()]
    broken += [f"left: {path.relative_to(home)}" for path in find_leftovers(home)]
    if stores.scratch.is_dir():
        broken += [f"left: {path.relative_to(home)}" for path in stores.scratch.iterdir()]
    found = describe(stores)
    broken += [
        f"{part}: found {found[part]}, expected {value}" for part, value in expected.items() if found[part] != value
    ]
    return broken + stores.measurements.check_ledger() + stores.releases.check_ledger()


def _is_whole(stores: Stores, digest: str) -> bool:
    try:
        stores.objects.read_bytes(digest)
    except HeimdallError:
        return False
    return True


def _list_behind(stores: Stores, name: str) -> list[str]:
    """Return the digests that a reference stands for: the object it names and, of a result, all that belongs to it."""
    digest = stores.objects.read_reference(name)
    if digest is None or not _is_whole(stores, digest):
        return [str(digest)]
    if not name.startswith("results/"):
        return [digest]
    manifest = Manifest.decode(stores.objects.read_bytes(digest))
    held = [artifact.digest for artifact in manifest.artifacts.values()]
    parents = [parent for kind, parent in manifest.parents.items() if kind not in OUTSIDE]
    return [digest, *held, *manifest.summary.get("shards", []), *parents]
