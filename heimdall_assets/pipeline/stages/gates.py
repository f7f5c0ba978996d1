"""Gates: whether a judged model reaches what its settings ask of any model that is used.

Belongs here: figures to reasons. Does not belong here: what becomes of a rejected one (``stages.model_release``),
whether one model may follow another (``releases.promotion``).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heimdall_assets.counts import say_count
from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.drift import compare_with_release
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.specs import GateSpec
from heimdall_assets.stores.database.log import read_clock
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

if TYPE_CHECKING:
    import pandas as pd

_DAY_S = 86_400.0


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
    if gates.min_accuracy is not None:
        share = metrics["accuracy"].get(f"{gates.accuracy_radius_m:g}")
        if share is None or share < gates.min_accuracy:
            found.append(
                f"within {gates.accuracy_radius_m:g} m {_write(share)} of test sessions, expected at least "
                f"{gates.min_accuracy:g} (min_accuracy)"
            )
    if _asks_of_data(gates):
        snapshot = read_parent(stores.objects, onnx, APPROVED_MEASUREMENTS)
        found += _judge_data(stores, load_table(stores.objects, snapshot.artifacts["table"]), gates)
    return found


def _asks_of_data(gates: GateSpec) -> bool:
    limits = (gates.max_drift, gates.min_sessions, gates.max_age_days)
    return any(limit is not None for limit in limits) or bool(gates.max_null_shares)


def _judge_data(stores: Stores, rows: "pd.DataFrame", gates: GateSpec) -> list[str]:
    """Return a line for each gate that a model's data do not pass: how far, how many, how old, how much is missing."""
    found = []
    if gates.max_drift is not None:
        distances = compare_with_release(stores, rows)
        found += [
            f"{name} drifted by {_write(distance)}, expected at most {gates.max_drift:g} (max_drift)"
            for name, distance in distances.items()
            if distance > gates.max_drift
        ]
    if gates.min_sessions is not None and (count := rows["session_id"].nunique()) < gates.min_sessions:
        found.append(f"{say_count(count, 'session')} of data, expected at least {gates.min_sessions} (min_sessions)")
    if gates.max_age_days is not None:
        days = (read_clock() - rows["timestamp"].max()).total_seconds() / _DAY_S if len(rows) else None
        if days is None or not days <= gates.max_age_days:
            found.append(
                f"newest recording {_write(days)} days old, expected at most {gates.max_age_days:g} (max_age_days)"
            )
    for column, limit in gates.read_null_shares().items():
        # A column of which no row has a value is not in the table.
        share = float(rows[column].isna().mean()) if column in rows else 1.0
        if not share <= limit:
            found.append(f"{column} missing in {_write(share)} of rows, expected at most {limit:g} (max_null_shares)")
    return found


def _write(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
