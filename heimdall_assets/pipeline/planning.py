"""Planning: what would be computed now and why, from the first asset to the last; nothing is computed.

Dagster's own "unsynced" looks one step far. Here each stage's result is looked up by what its inputs would be: where
one is missing, everything after it would run too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import MissingDependency
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    EVALUATION_METRICS,
    MEASUREMENT_DATABASE,
    MODEL_RELEASE,
    ONNX_MODEL,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.learning.file_sizes import foresee_refusal
from heimdall_assets.manifests import Manifest, compute_digest, show_value
from heimdall_assets.pipeline.found import state_found
from heimdall_assets.pipeline.pretrained import read_pretrained, state_content
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.results import name_result, read_parent, read_result
from heimdall_assets.pipeline.starts import find_started
from heimdall_assets.pipeline.truth import read_trusted
from heimdall_assets.specs import DatasetSpec, ExportSpec, ModelSpec, Spec, TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import encode_table


@dataclass(frozen=True)
class Step:
    """What one asset would do: ``reuse`` a result, or ``compute`` one, and why."""

    asset: str
    action: str
    reason: str


def plan_materialization(stores: Stores, chosen: Sequence[Spec]) -> list[Step]:
    """Return what each asset would do if all were materialized now with the chosen specs (defaults for the others)."""
    specs = {type(spec): spec for spec in chosen}
    released = _find_released(stores)
    found: dict[str, Manifest] = {}
    steps: list[Step] = []
    for kind, stage in STAGES.items():
        if stage.is_decided or stage.is_aside:
            continue
        missing = [parent for parent in stage.parents if parent not in found and parent in STAGES]
        if missing:
            steps.append(Step(kind, "compute", f"{', '.join(missing)} would be computed"))
            continue
        used = [specs.get(cls, cls()) for cls in stage.specs]
        try:
            parents, content = _read_inputs(stores, kind, found, used)
        except MissingDependency as error:
            steps.append(Step(kind, "compute", f"{error}"))
            continue
        result = read_result(stores.objects, name_result(kind, parents, used, content))
        if result is None:
            steps.append(Step(kind, "compute", _explain(stores, kind, parents, content, used, released)))
        else:
            found[kind] = result
            steps.append(Step(kind, "reuse", "same inputs, code and numbers"))
    return steps


def foresee_rejection(chosen: Sequence[Spec]) -> str | None:
    """Return why the release of a model with the chosen specs would be rejected, known before it is trained."""
    specs = {type(spec): spec for spec in chosen}
    model, export = (specs.get(cls, cls()) for cls in (ModelSpec, ExportSpec))
    assert isinstance(model, ModelSpec)
    assert isinstance(export, ExportSpec)
    return foresee_refusal(model, export)


def _read_inputs(
    stores: Stores, kind: str, found: Mapping[str, Manifest], used: Sequence[Spec]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return a stage's parents and the digests of its inputs that are no manifests; nothing is fetched."""
    if kind == APPROVED_MEASUREMENTS:
        return _read_outside(stores, used)
    parents = {parent: found[parent].digest for parent in STAGES[kind].parents}
    models = [spec for spec in used if isinstance(spec, ModelSpec)]
    content = state_content(read_pretrained(models[0], fetch=False)) if models else {}
    for training in (spec for spec in used if isinstance(spec, TrainingSpec)):
        started = find_started(stores.objects, training)
        content |= {} if started is None else started.content
    return parents, {**content, **state_found(*used)}


def _read_outside(stores: Stores, used: Sequence[Spec]) -> tuple[dict[str, str], dict[str, str]]:
    (dataset,) = used
    assert isinstance(dataset, DatasetSpec)
    rows = read_trusted(stores.measurements, dataset).rows
    parents = {MEASUREMENT_DATABASE: stores.measurements.compute_fingerprint(dataset)}
    return parents, {"rows": compute_digest(encode_table(rows))}


def _find_released(stores: Stores) -> Manifest | None:
    releases = stores.releases.list_releases()
    return Manifest.decode(stores.objects.read_bytes(releases[-1]["manifest"])) if releases else None


def _explain(
    stores: Stores,
    kind: str,
    parents: Mapping[str, str],
    content: Mapping[str, str],
    used: Sequence[Spec],
    released: Manifest | None,
) -> str:
    """Return how the stage differs from that of the latest release."""
    if released is None:
        return "never computed; nothing is released yet"
    if kind == MODEL_RELEASE:
        return "this model is not released yet"
    if kind == ONNX_MODEL:
        before = released
    elif kind == EVALUATION_METRICS:
        return "this checkpoint was not judged on this test split"
    else:
        before = read_parent(stores.objects, released, kind)
    reasons = []
    if before.code_version != STAGES[kind].code_version:
        reasons.append(f"code version {before.code_version} -> {STAGES[kind].code_version}")
    for spec in used:
        reasons += _compare_fields(type(spec).__name__, before.specs.get(type(spec).__name__, {}), spec.dump())
    if kind == TRAINED_CHECKPOINT and before.content != content:
        reasons.append("other weights to start from than the latest release's")
    changed = [name for name, digest in parents.items() if before.parents.get(name) != digest]
    if changed and kind == APPROVED_MEASUREMENTS:
        campaigns = stores.measurements.count_sessions().values()
        approved = sum(counts.get(ApprovalStatus.APPROVED, 0) for counts in campaigns)
        then = say_count(before.summary["num_sessions"], "session")
        reasons.append(f"the approved set changed since the latest release: {then} then, {approved} approved now")
    elif changed:
        reasons.append(f"another {', '.join(changed)} than the latest release's")
    return "; ".join(reasons) or "its stored result is gone or damaged, or lacks recordings that could not be read"


def _compare_fields(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}.{field}: {show_value(before.get(field))} -> {show_value(value)}"
        for field, value in now.items()
        if before.get(field) != value
    ]
