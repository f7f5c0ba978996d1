"""model_release: an exported, judged model becomes a numbered folder that says where it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import yaml

from heimdall_assets.counts import say_count
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import InvalidSetting, Refused
from heimdall_assets.evaluation.model_card import render_model_card
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    EVALUATION_METRICS,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPLIT_KINDS,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.learning.export.stamp import stamp_onnx
from heimdall_assets.lineage.attestations import BUNDLE_FILE, PAYLOAD_TYPE, build_statements, encode_bundle
from heimdall_assets.lineage.provenance import build_provenance
from heimdall_assets.lineage.release_files import SUMS_FILE, encode_sums, read_format_files
from heimdall_assets.lineage.versions import plan_version
from heimdall_assets.lineage.walk import walk_manifests
from heimdall_assets.manifests import Artifact, Manifest, compute_digest, decode_canonical_json, encode_canonical_json
from heimdall_assets.media_types import BINARY_MEDIA_TYPE
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, name_result, read_parent
from heimdall_assets.pipeline.stages.evaluation_metrics import load_metrics
from heimdall_assets.pipeline.stages.gates import find_rejections
from heimdall_assets.pipeline.stages.onnx_model import LATENCY
from heimdall_assets.pipeline.stages.trained_checkpoint import read_outcome
from heimdall_assets.specs import GateSpec
from heimdall_assets.stores.computing import MEASURED, Computation, read_facts
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.keys import SigningKey
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import load_table
from heimdall_assets.stores.releases.status import REJECTED, RELEASED

WARNING = "WARN"
"""Severity of a check that is told and stops nothing, in Dagster's word."""

MAX_NAMED = 10

RECORDED = ("num_sessions", "median_m", "p90_m", "coverage_90")


def release_model(
    stores: Stores,
    onnx: Manifest,
    evaluation: Manifest,
    checks: Sequence[Mapping[str, Any]] = (),
    dagster_events: Mapping[str, Mapping[str, Any]] | None = None,
    gates: GateSpec | None = None,
) -> Result:
    """Return the release of this model: the one it already has, or a new version, published whole.

    One that does not pass its gates is published as rejected: kept with all that belongs to it, and given to nobody.

    Args:
        checks: asset checks that were evaluated on the way (see ``lineage.provenance``).
        dagster_events: manifest digest -> the materialization that Dagster recorded.
        gates: what the model must reach; None: what ``GateSpec`` says by default.
    """
    gates = gates or GateSpec.model_validate({})
    parents = {ONNX_MODEL: onnx.digest, EVALUATION_METRICS: evaluation.digest}
    name = name_result(MODEL_RELEASE, parents, [gates])

    def compute() -> Computed:
        objects, key = stores.objects, find_signing_key(stores)
        specs = collect_specs(objects, onnx, evaluation)
        metrics = load_metrics(objects, evaluation)
        released = stores.releases.list_releases()
        previous = released[-1]["specs"] if released else None
        version = stores.releases.reserve_version(plan_version(previous, specs), name)
        if stores.releases.is_published(version):
            return adopt_release(stores, version), {"version": version}
        computation, checkpoint = Computation(), stores.releases.read_checkpoint()
        provenance = encode_canonical_json(
            build_provenance(
                version=version,
                roots={ONNX_MODEL: onnx.digest, EVALUATION_METRICS: evaluation.digest},
                read_bytes=objects.read_bytes,
                read_facts=partial(read_facts, objects),
                released=computation.describe(),
                log=None if checkpoint is None else asdict(checkpoint),
                checks=checks,
                dagster_events=dagster_events,
            )
        )
        digest = compute_digest(provenance)
        exported = objects.read_bytes(onnx.artifacts["model.onnx"].digest)
        files = {
            "model.onnx": stamp_onnx(exported, {"heimdall.version": version, "heimdall.provenance": digest}),
            "config.yaml": yaml.safe_dump(specs, sort_keys=True).encode(),
            "metrics.json": encode_canonical_json(metrics),
            "provenance.json": provenance,
            **read_format_files(),
        }
        outcome = read_outcome(read_parent(objects, onnx, TRAINED_CHECKPOINT))
        rejected = find_rejections(stores, onnx, metrics, gates)
        told = [*(f"rejected: {reason}" for reason in rejected), *list_warnings(checks)]
        told += tell_withdrawn(stores, onnx)
        card = render_card(objects, onnx, version, metrics, specs, digest, told)
        files["README.md"] = card.encode()
        if key is not None:
            statements = build_statements(files, decode_canonical_json(provenance))
            files[BUNDLE_FILE] = encode_bundle([key.sign(statement, PAYLOAD_TYPE) for statement in statements])
        files[SUMS_FILE] = encode_sums(files)
        # Whoever is told of a release finds all of it: objects first, then the folder, then the row that says so.
        artifacts = {part: objects.put_bytes(data, BINARY_MEDIA_TYPE) for part, data in files.items()}
        record = {
            "manifest": onnx.digest,
            "evaluation": evaluation.digest,
            "provenance": digest,
            "specs": specs,
            "dagster_runs": sorted({str(event["run_id"]) for event in (dagster_events or {}).values()}),
            "trained": outcome.trained,
            "training": outcome.said,
            "status": REJECTED if rejected else RELEASED,
            "rejected": rejected,
            "gates": gates.dump(),
            **{name: metrics.get(name) for name in RECORDED},
        }
        try:
            stores.releases.publish(version, files, record)
        except Refused:
            if not stores.releases.is_published(version):
                raise
            return adopt_release(stores, version), {"version": version}  # another process was faster
        return artifacts, {"version": version}

    return find_or_compute(stores.objects, MODEL_RELEASE, parents, [gates], compute)


def find_signing_key(stores: Stores) -> SigningKey | None:
    """Return the key that signs releases; None: they are not signed.

    Raises:
        InvalidSetting: there is no key, or one that does not count: nobody could tell whose signature it is.
    """
    source = stores.signing_key
    if source is None:
        return None
    key = source.read()
    known = stores.releases.list_keys().get(key.id)
    if known is None:
        cure = "heimdall keys add --owner NAME"
        raise InvalidSetting(f"{source.variable}: found key {key.id}, which nobody knows; {cure}")
    if known.retired_entry is not None:
        retired = f"was retired at {known.retired_at}"
        raise InvalidSetting(f"{source.variable}: key {key.id} {retired}, expected one that counts")
    return key


def adopt_release(stores: Stores, version: str) -> dict[str, Artifact]:
    """Return the artifacts of a release that was published by a process killed before it could say so.

    Raises:
        CorruptObject: a file is not what was published.
        StorageError: an object or ``latest.json`` could not be stored.
    """
    stores.releases.point_at_latest()
    return {
        name: stores.objects.put_bytes(stores.releases.read_file(version, name), BINARY_MEDIA_TYPE)
        for name in stores.releases.find_record(version)["files"]
    }


def collect_specs(objects: ObjectStore, *manifests: Manifest) -> dict[str, Any]:
    """Return spec name -> fields over the manifests and all they were computed from."""
    specs: dict[str, Any] = {}
    for node in walk_manifests([manifest.digest for manifest in manifests], objects.read_bytes):
        specs.update(node.manifest.specs)
    return specs


def tell_withdrawn(stores: Stores, onnx: Manifest) -> list[str]:
    """Return a line where sessions of the model's data were withdrawn while it was made; empty: none was."""
    snapshot = read_parent(stores.objects, onnx, APPROVED_MEASUREMENTS)
    used = {str(name) for name in load_table(stores.objects, snapshot.artifacts["table"])["session_id"]}
    rows = stores.measurements.list_sessions(approval_status=ApprovalStatus.APPROVED)
    gone = sorted(used - {str(row["id"]) for row in rows})
    if not gone:
        return []
    named = ", ".join(gone[:MAX_NAMED]) + (", ..." if len(gone) > MAX_NAMED else "")
    return [f"{say_count(len(gone), 'session')} of its data withdrawn before its release ({named}); train again"]


def list_warnings(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the checks that failed without stopping the run found, one line each."""
    return [
        f"{check['asset']}: {check['name']}: {check['description']}"
        for check in checks
        if not check["passed"] and check["severity"] == WARNING
    ]


def render_card(
    objects: ObjectStore,
    onnx: Manifest,
    version: str,
    metrics: dict[str, Any],
    specs: dict[str, Any],
    provenance: str,
    warnings: Sequence[str] = (),
) -> str:
    """Return the model card of a release."""
    checkpoint = read_parent(objects, onnx, TRAINED_CHECKPOINT)
    facts = read_facts(objects, checkpoint.digest)
    snapshot = read_parent(objects, onnx, APPROVED_MEASUREMENTS)
    splits = {name: read_parent(objects, onnx, kind).summary["num_sessions"] for name, kind in SPLIT_KINDS.items()}
    data = {
        "num_sessions": splits,
        "sessions_by_origin": snapshot.summary["sessions_by_origin"],
        "sessions_by_campaign": snapshot.summary["sessions_by_campaign"],
        "num_simulated_sessions": checkpoint.summary["num_added_sessions"],
        "num_left_out": snapshot.summary["num_left_out"],
    }
    return render_model_card(
        version=version,
        metrics=metrics,
        data=data,
        specs=specs,
        export=onnx.summary,
        latency=(read_facts(objects, onnx.digest) or {}).get(MEASURED, {}).get(LATENCY),
        environment=facts and facts["environment"],
        provenance_digest=provenance,
        outcome=read_outcome(checkpoint),
        warnings=warnings,
    )
