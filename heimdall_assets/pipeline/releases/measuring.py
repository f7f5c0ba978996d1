"""Measuring: by how much a stage made again lies from what was recorded, in figures.

Belongs here: weights, answers and figures of two results compared. Does not belong here: how far they may lie apart
(``deviation``), arrays in shards (``comparison``), making stages again (``reproduction``).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.kinds import EVALUATION_METRICS, ONNX_MODEL, TEST_SPLIT, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest, decode_canonical_json
from heimdall_assets.pipeline.releases.deviation import MEDIAN, P90, POSITIONS, TOLERANCES, WEIGHTS, Measure
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint, tabulate_answers
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.specs import EvaluationSpec
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.tables import load_table


def measure_stage(objects: ObjectStore, recorded: Mapping[str, Manifest], made: Manifest) -> Iterator[Measure]:
    """Yield by how much a result made again differs; nothing where no number says.

    Of a checkpoint also what it answers to the recorded test sessions: it is judged as the recorded one was.

    Args:
        objects: holds what was recorded and what was made.
        recorded: kind -> manifest of the release.
        made: one of them made again, whose artifacts differ.
    """
    then = recorded[made.kind]
    if then.artifacts.keys() != made.artifacts.keys():
        return
    if made.kind == TRAINED_CHECKPOINT:
        yield from measure_weights(objects, then, made)
        judged = recorded[EVALUATION_METRICS]
        spec = EvaluationSpec(**judged.specs[EvaluationSpec.__name__])
        again = evaluate_checkpoint(objects, made, recorded[TEST_SPLIT], spec)
        yield from measure_figures(objects, judged, again.manifest)
    elif made.kind == EVALUATION_METRICS:
        yield from measure_figures(objects, then, made)
    elif made.kind == ONNX_MODEL:
        from heimdall_assets.learning.export.onnx_file import predict_onnx

        sessions = load_sessions(objects, recorded[TEST_SPLIT])
        fitted = load_checkpoint(objects, recorded[TRAINED_CHECKPOINT])
        files = [objects.read_bytes(each.artifacts["model.onnx"].digest) for each in (then, made)]
        before, after = (tabulate_answers(sessions, predict_onnx(fitted, data, sessions)) for data in files)
        yield from measure_positions(before, after)


def measure_weights(objects: ObjectStore, then: Manifest, now: Manifest) -> Iterator[Measure]:
    """Yield the largest difference of a weight, where both checkpoints have the same ones."""
    from safetensors.numpy import load

    name = "weights.safetensors"
    before, after = (load(objects.read_bytes(each.artifacts[name].digest)) for each in (then, now))
    unit = "of the largest weight"
    if {key: value.shape for key, value in before.items()} != {key: value.shape for key, value in after.items()}:
        yield Measure("weights, which are others", math.inf, unit, tolerance=TOLERANCES[WEIGHTS])
        return
    found = {key: _subtract(before[key], after[key]) for key in before}
    worst = max(found, key=lambda key: found[key], default="")
    largest = max((float(np.abs(value).max(initial=0.0)) for value in before.values()), default=0.0)
    difference = found.get(worst, 0.0)
    share = difference / largest if largest else math.inf if difference else 0.0
    yield Measure(f"weights, most of all {worst}", share, unit, tolerance=TOLERANCES[WEIGHTS])


def measure_figures(objects: ObjectStore, then: Manifest, now: Manifest) -> Iterator[Measure]:
    """Yield how far two evaluations of the same sessions lie apart: positions first, then each figure that differs."""
    tables = [load_table(objects, each.artifacts["predictions"]) for each in (then, now)]
    yield from measure_positions(*tables)
    figures = [
        dict(_flatten(decode_canonical_json(objects.read_bytes(each.artifacts["metrics.json"].digest))))
        for each in (then, now)
    ]
    for name in sorted({*figures[0], *figures[1]}, key=lambda name: (name not in (MEDIAN, P90), name)):
        before, after = (side.get(name) for side in figures)
        if before == after:
            continue
        share = math.inf if before is None or after is None or before == 0.0 else abs(after - before) / abs(before)
        yield Measure(name, share, "of it", before, after, TOLERANCES.get(name))


def measure_positions(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[Measure]:
    """Yield the farthest that an answer moved.

    Args:
        before, after: tables of ``tabulate_predictions``.
    """
    unit = "standard deviations of the recorded answer"
    if list(before["session_id"]) != list(after["session_id"]) or list(before["refused"]) != list(after["refused"]):
        yield Measure("positions, of other sessions", math.inf, unit, tolerance=TOLERANCES[POSITIONS])
        return
    answered = ~before["refused"].to_numpy(bool)
    if not answered.any():
        return
    places = [
        np.asarray(table.loc[answered, name], np.float64)
        for table in (before, after)
        for name in ("latitude", "longitude")
    ]
    moved_m = np.asarray(compute_distance_m(*places))
    variance = before.loc[answered, ["variance_east_m2", "variance_north_m2"]].to_numpy(np.float64)
    sigma_m = np.sqrt(variance.mean(axis=1))
    moved = moved_m / sigma_m
    worst = int(np.argmax(moved))
    name = f"positions, most of all {before.loc[answered, 'session_id'].iloc[worst]} by {moved_m[worst]:.3g} m"
    yield Measure(name, float(moved[worst]), unit, tolerance=TOLERANCES[POSITIONS])


def _subtract(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number in JSON by its dotted name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _flatten(inner, f"{name}.{place}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
