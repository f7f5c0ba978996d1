"""Gates: whether a judged model reaches what its settings ask of any model that is used.

Belongs here: figures to reasons. Does not belong here: what becomes of a rejected one (``stages.model_release``),
whether one model may follow another (``releases.promotion``).
"""

from collections.abc import Mapping
from typing import Any

from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.drift import compare_with_release
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.specs import GateSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table


def find_rejections(stores: Stores, onnx: Manifest, metrics: Mapping[str, Any], gates: GateSpec) -> list[str]:
    """Return why a model is rejected, one line for each gate that it does not pass; an unknown figure passes none.

    Args:
        stores: where the latest release and the model's data rest.
        onnx: the exported model.
        metrics: its evaluation.
        gates: what it must reach.
    """
    found = [str(line) for line in onnx.summary.get("rejected", [])]  # what keeps each of its files from being released
    if gates.max_median_m is not None:
        median_m = metrics["median_m"]
        if median_m is None or median_m > gates.max_median_m:
            found.append(f"median error {_write(median_m)} m, expected at most {gates.max_median_m:g} m (max_median_m)")
    if gates.min_skill is not None:
        best = metrics["best_baseline"]
        skill = None if best is None else metrics["baselines"][best]["skill"]
        if skill is None or skill < gates.min_skill:
            found.append(f"skill over {best} {_write(skill)}, expected at least {gates.min_skill:g} (min_skill)")
    if gates.max_drift is not None:
        snapshot = read_parent(stores.objects, onnx, APPROVED_MEASUREMENTS)
        distances = compare_with_release(stores, load_table(stores.objects, snapshot.artifacts["table"]))
        far = {name: distance for name, distance in distances.items() if distance > gates.max_drift}
        found += [
            f"{name} drifted by {_write(distance)}, expected at most {gates.max_drift:g} (max_drift)"
            for name, distance in far.items()
        ]
    return found


def _write(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
