"""Releasing: an exported, judged model becomes a numbered folder that says where it comes from."""

from typing import Any

import yaml

from heimdall_assets.learning.model_card import render_model_card
from heimdall_assets.learning.stamp import stamp_onnx
from heimdall_assets.lineage.versions import plan_version
from heimdall_assets.manifests import BINARY_MEDIA_TYPE, Manifest, compute_digest, encode_canonical_json
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.judgements import load_metrics
from heimdall_assets.stores.objects import ObjectStore
from heimdall_assets.stores.results import OUTSIDE, Computed, Result, find_or_compute, read_parent

CODE_VERSION = "1"

RECORDED = ("num_sessions", "median_m", "p90_m", "coverage_90")


def release_model(stores: Stores, onnx: Manifest, evaluation: Manifest) -> Result:
    """Return the release of this model: the one it already has, or a new version, published whole."""

    def compute() -> Computed:
        objects = stores.objects
        specs = collect_specs(objects, onnx, evaluation)
        metrics = load_metrics(objects, evaluation)
        released = stores.releases.list_releases()
        previous = released[-1]["specs"] if released else None
        version = stores.releases.allocate_version(plan_version(previous, specs))
        provenance = encode_canonical_json(describe_provenance(stores, onnx, evaluation, version))
        digest = compute_digest(provenance)
        exported = objects.read_bytes(onnx.artifacts["model.onnx"].digest)
        files = {
            "model.onnx": stamp_onnx(exported, {"heimdall.version": version, "heimdall.provenance": digest}),
            "config.yaml": yaml.safe_dump(specs, sort_keys=True).encode(),
            "metrics.json": encode_canonical_json(metrics),
            "provenance.json": provenance,
        }
        files["README.md"] = render_card(objects, onnx, version, metrics, specs, digest).encode()
        stores.releases.publish(
            version,
            files,
            {
                "manifest": onnx.digest,
                "evaluation": evaluation.digest,
                "provenance": digest,
                "specs": specs,
                **{name: metrics.get(name) for name in RECORDED},
            },
        )
        artifacts = {name: objects.put_bytes(data, BINARY_MEDIA_TYPE) for name, data in files.items()}
        return artifacts, {"version": version}

    parents = {"onnx_model": onnx.digest, "evaluation_metrics": evaluation.digest}
    return find_or_compute(stores.objects, "model_release", CODE_VERSION, parents, [], compute)


def collect_specs(objects: ObjectStore, *manifests: Manifest) -> dict[str, Any]:
    """Return spec name -> fields over the manifests and all they were computed from."""
    specs: dict[str, Any] = {}
    pending = list(manifests)
    seen: set[str] = set()
    while pending:
        manifest = pending.pop()
        specs.update(manifest.specs)
        for name, digest in manifest.parents.items():
            if digest not in seen and name not in OUTSIDE:
                seen.add(digest)
                pending.append(Manifest.decode(objects.read_bytes(digest)))
    return specs


def render_card(
    objects: ObjectStore, onnx: Manifest, version: str, metrics: dict[str, Any], specs: dict[str, Any], provenance: str
) -> str:
    """Return the model card of a release."""
    checkpoint = read_parent(objects, onnx, "trained_checkpoint")
    snapshot = read_parent(objects, onnx, "approved_measurements")
    splits = {
        name: read_parent(objects, onnx, f"{name}_split").summary["num_sessions"] for name in ("train", "val", "test")
    }
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
        parity={name: value for name, value in onnx.summary["parity"].items() if name != "tolerances"},
        environment=checkpoint.summary["environment"],
        provenance_digest=provenance,
    )


def describe_provenance(stores: Stores, onnx: Manifest, evaluation: Manifest, version: str) -> dict[str, Any]:
    """Return where a release comes from, frozen and self-contained."""
    raise NotImplementedError
