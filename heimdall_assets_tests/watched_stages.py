"""A program: each stage that computes in a process of its own, over a small home, its opened files in a log of its own.

``python -m heimdall_assets_tests.watched_stages ROOT`` makes a home below ROOT, computes every stage of it, adds
sessions, and computes those stages again that find parts in cumulative tables. It prints a JSON array, an element for
each process. ``test_what_is_opened`` starts it. Processes are forked: each finds libraries loaded, and nothing open.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What libraries read when they load is no input of a stage.
import lightning.pytorch.callbacks  # noqa: F401
import matplotlib.backends.backend_svg
import matplotlib.font_manager  # noqa: F401
import torch.onnx  # noqa: F401

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
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.intake.simulated import import_simulated
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
    RecordingSpec,
    SplitSpec,
    TimingSpec,
    TrainingSpec,
)
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.variables import Places
from heimdall_assets_tests.forks import end_child, start_child
from heimdall_assets_tests.homes import SIMULATION, ignore, make_places

MODEL = ModelSpec(use_spectrograms=False, width=8, num_layers=1, num_heads=1)
TRAINING = TrainingSpec(max_epochs=1, num_threads=1)
SIMULATED = SIMULATION.model_copy(update={"num_sessions": 12})


class Home:
    """The home as a stage's process sees it: its objects, and what was computed before."""

    def __init__(self, places: Places, made: dict[str, str]) -> None:
        self.places, self._made = places, made
        self.objects = FolderObjectStore(Path(str(places.objects)))

    def read(self, kind: str) -> Manifest:
        return Manifest.decode(self.objects.read_bytes(self._made[kind]))


def approve(home: Home) -> list[Manifest]:
    return [take_snapshot(home.places.open_stores(), DatasetSpec())[0].manifest]


def pin(home: Home) -> list[Manifest]:
    return [pin_recordings(home.objects, home.read(APPROVED_MEASUREMENTS), RecordingSpec(), ignore).result.manifest]


def extract(home: Home) -> list[Manifest]:
    given = (home.objects, home.read(IQ_FILES), FeatureSpec(), DelaySpec(), ignore)
    return [extract_features(*given).result.manifest]


def split(home: Home, salt: str = "1") -> list[Manifest]:
    spec = SplitSpec.model_validate({**SplitSpec().model_dump(), **({} if salt == "1" else {"salt": salt})})
    made = split_sessions(home.objects, home.read(SPECTROGRAM_FEATURES), spec, TimingSpec())
    return [result.manifest for result in made.values()]


def train(home: Home) -> list[Manifest]:
    splits = (home.read(TRAIN_SPLIT), home.read(VAL_SPLIT))
    specs = (MODEL, TRAINING, AugmentationSpec())
    return [train_checkpoint(home.objects, home.places.scratch, *splits, *specs).manifest]


def evaluate(home: Home) -> list[Manifest]:
    given = (home.objects, home.read(TRAINED_CHECKPOINT), home.read(TEST_SPLIT))
    return [evaluate_checkpoint(*given, EvaluationSpec(num_bootstrap=100)).manifest]


def export(home: Home) -> list[Manifest]:
    given = (home.objects, home.read(TRAINED_CHECKPOINT), home.read(TEST_SPLIT))
    return [export_checkpoint(*given, ExportSpec()).manifest]


def publish(home: Home) -> list[Manifest]:
    stores = home.places.open_stores()
    return [release_model(stores, home.read(ONNX_MODEL), home.read(EVALUATION_METRICS)).manifest]


def split_with_a_look_aside(home: Home) -> list[Manifest]:
    """Compute splits anew, and open what is none of theirs: an object, a file of nobody's, another machine."""
    import socket

    home.objects.read_bytes(home.read(EVALUATION_METRICS).artifacts["metrics.json"].digest)
    (home.places.home.parent / "elsewhere.bin").read_bytes()
    for address in (("planted.example.org", 80), ("192.0.2.1", 80)):
        try:
            socket.create_connection(address, timeout=5)
        except OSError:
            continue
        raise AssertionError(f"{address} was reached")
    return split(home, salt="planted")


COMPUTING: dict[str, Callable[[Home], list[Manifest]]] = {
    APPROVED_MEASUREMENTS: approve,
    IQ_FILES: pin,
    SPECTROGRAM_FEATURES: extract,
    "splits": split,
    TRAINED_CHECKPOINT: train,
    EVALUATION_METRICS: evaluate,
    ONNX_MODEL: export,
    MODEL_RELEASE: publish,
}
CACHING = (APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES)
"""What is computed again once there are more sessions: two of them find parts of it in cumulative tables."""


def list_files(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file()]


def watch(root: Path, name: str, compute: Callable[[Home], list[Manifest]], home: Home) -> dict[str, Any]:
    """Return what a process of its own computed, where its log is, and which files there were before."""
    before, log = list_files(root), root / f"{name}.log"

    def work() -> dict[str, str]:
        os.environ["OPENED_LOG"] = str(log)
        return {manifest.kind: manifest.digest for manifest in compute(home)}

    status, made = end_child(*start_child(work))
    assert status == 0, made
    return {"name": name, "made": made, "before": before, "log": str(log)}


def run(root: Path) -> list[dict[str, Any]]:
    places = make_places(root / "home")
    (root / "elsewhere.bin").write_bytes(b"nobody's")
    made: dict[str, str] = {}
    watched = []
    stores = places.open_stores()
    import_simulated(stores, SIMULATED, "demo", ignore)
    for name, compute in COMPUTING.items():
        watched.append(watch(root, name, compute, Home(places, made)))
        made |= watched[-1]["made"]
    watched.append(watch(root, "planted", split_with_a_look_aside, Home(places, dict(made))))
    import_simulated(stores, SIMULATED.model_copy(update={"num_sessions": 2, "seed": 7}), "more", ignore)
    for name in CACHING:
        watched.append(watch(root, f"{name} again", COMPUTING[name], Home(places, made)))
        made |= watched[-1]["made"]
    return watched


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
