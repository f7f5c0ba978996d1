"""A program: the pipeline on a small home, from sessions to a release, while every change of a file is watched.

``python -m heimdall_assets_tests.watched_run HOME`` prints one line for each change, and each connection, that did not
come out of ``stores``: the module of the package that is nearest to it, and what it was. ``test_house`` runs it: what a
library does behind a call is in no syntax tree.
"""

import os
import sys
from pathlib import Path

# What libraries keep for themselves when they load (lists of fonts, folders of caches) is their habit, not ours.
import lightning.pytorch.callbacks  # noqa: F401
import matplotlib.font_manager  # noqa: F401
import onnxruntime  # noqa: F401
import timm  # noqa: F401
import torch.onnx  # noqa: F401

import heimdall_assets
from heimdall_assets.kinds import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint
from heimdall_assets.pipeline.stages.model_release import release_model
from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint
from heimdall_assets.pipeline.stages.trained_checkpoint import Surroundings, train_checkpoint
from heimdall_assets.specs import AugmentationSpec, EvaluationSpec, ExportSpec, ModelSpec, TrainingSpec
from heimdall_assets_tests.homes import SIMULATION, fill_home, split_home
from heimdall_assets_tests.pipeline.watch_driver import Watcher

PACKAGE = str(Path(heimdall_assets.__file__).parent) + os.sep
EVENTS = {
    "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "os.utime",
    "socket.connect", "sqlite3.connect",
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

found: list[str] = []


def watch(event: str, arguments: tuple) -> None:
    """Note a change of a file, or a connection, that another room than ``stores`` is the nearest cause of."""
    if event not in EVENTS and not (event == "open" and (arguments[2] or 0) & WRITING):
        return
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is not None:
        module = frame.f_code.co_filename.removeprefix(PACKAGE)
        if not module.startswith("stores" + os.sep):
            found.append(f"{module}: {event} {arguments[0]!r:.200}")


def run(home: Path) -> None:
    """Take a new home from no session to a release."""
    stores, splits = split_home(fill_home(home, SIMULATION.model_copy(update={"num_sessions": 12})))
    model = ModelSpec(use_spectrograms=False, width=8, num_layers=1, num_heads=1)
    training = TrainingSpec(max_epochs=2, num_threads=1)
    fit = (stores.objects, stores.scratch, splits[TRAIN_SPLIT], splits[VAL_SPLIT], model, training, AugmentationSpec())
    fitted = train_checkpoint(*fit, around=Surroundings(watcher=Watcher(stores)))
    judged = (stores.objects, fitted.manifest, splits[TEST_SPLIT])
    evaluation = evaluate_checkpoint(*judged, EvaluationSpec(num_bootstrap=100)).manifest
    release_model(stores, export_checkpoint(*judged, ExportSpec()).manifest, evaluation)


def write_as_learning(path: Path) -> None:
    """Write a file as a module of ``learning`` would, behind a call that no syntax tree shows."""
    exec(compile("getattr(path, 'write_' + 'bytes')(b'')", PACKAGE + "learning/planted.py", "exec"), {"path": path})


if __name__ == "__main__":
    sys.addaudithook(watch)
    run(Path(sys.argv[1]))
    unplanted = len(found)
    write_as_learning(Path(sys.argv[1]) / "planted")
    assert len(found) == unplanted + 1, "a planted write was not seen: nothing is proven"
    print(*found[:unplanted], sep="\n")
