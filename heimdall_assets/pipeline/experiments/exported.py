"""An exported or released model as the run of its training is told of it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from heimdall_assets.kinds import TEST_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.experiments.judged import load_sample
from heimdall_assets.pipeline.experiments.settings import describe_spec
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint
from heimdall_assets.specs import ExportSpec, GateSpec
from heimdall_assets.stores.experiment_entries import Entries
from heimdall_assets.stores.objects.interface import ObjectStore

MAX_TIMED_SESSIONS = 20
"""Test sessions that the exported model is timed on, each ``TIMES_EACH`` times, one by one."""

TIMES_EACH = 5

CARD, CONFIG = "README.md", "config.yaml"


def describe_export(objects: ObjectStore, onnx: Manifest, spec: ExportSpec, clock: Callable[[], float]) -> Entries:
    """Return size, parity and how long one prediction takes.

    Args:
        objects: where the results rest.
        onnx: the exported model.
        spec: how it was exported.
        clock: seconds, from any start.
    """
    parity = {
        f"onnx/{name}": float(value)
        for name, value in onnx.summary["parity"].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    settings = describe_spec(spec, "export")
    return Entries(
        params=settings.params,
        files=settings.files,
        tags={"heimdall.onnx": onnx.digest},
        metrics={"onnx/size_bytes": float(onnx.summary["size_bytes"]), **parity, **time_model(objects, onnx, clock)},
    )


def time_model(objects: ObjectStore, onnx: Manifest, clock: Callable[[], float]) -> dict[str, float]:
    """Return p50 and p95 of milliseconds a prediction takes: one example, one thread, the file alone, on this machine.

    Empty: no session of the test split can be located from.
    """
    from heimdall_assets.learning.export.single_runs import list_single_runs

    fitted = load_checkpoint(objects, read_parent(objects, onnx, TRAINED_CHECKPOINT))
    data = objects.read_bytes(onnx.artifacts["model.onnx"].digest)
    sessions = load_sample(objects, read_parent(objects, onnx, TEST_SPLIT), MAX_TIMED_SESSIONS, seed=0)
    runs = list_single_runs(fitted, data, sessions, MAX_TIMED_SESSIONS)
    for run in runs[:3]:
        run()  # the first ones make room for the others
    elapsed_ms = [1000.0 * _time(run, clock) for run in runs for _ in range(TIMES_EACH)]
    if not elapsed_ms:
        return {}
    p50, p95 = np.quantile(elapsed_ms, [0.5, 0.95])
    return {"latency/p50_ms": float(p50), "latency/p95_ms": float(p95), "latency/num_runs": float(len(elapsed_ms))}


def _time(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def describe_release(objects: ObjectStore, release: Manifest, gates: GateSpec) -> Entries:
    """Return the model card, the gates, and all settings of the chain as the release holds them."""
    settings = describe_spec(gates, "gates")
    card, whole = (objects.read_bytes(release.artifacts[name].digest) for name in (CARD, CONFIG))
    files = {**settings.files, "config/release.yaml": whole, "model_card.md": card}
    return Entries(params=settings.params, tags={"heimdall.release": release.digest}, files=files)
