"""Provenance: everything a model came from, frozen in one JSON file beside it.

Belongs here: building and checking the file. Its format is ``provenance.schema.json``. It needs no store, database or
event log to be read; those are compared with it (``audit``), not the other way round. Tables and recordings are the
objects that its manifests name by digest (``recorded`` reads them).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import CorruptObject, Refused
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, EVALUATION_METRICS
from heimdall_assets.lineage.walk import OUTSIDE, Node, ReadBytes, list_parents, walk_manifests
from heimdall_assets.manifests import Manifest, compute_json_digest, decode_canonical_json

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FORMAT = "heimdall-provenance/3"

Facts = Mapping[str, Any]
"""Who or what computed something, why, when, how long, by which run, in which ``environment``."""


def build_provenance(
    *,
    version: str,
    roots: Mapping[str, str],
    read_bytes: ReadBytes,
    read_facts: Callable[[str], Facts | None],
    released: Facts,
    log: Mapping[str, Any] | None = None,
    checks: Sequence[Mapping[str, Any]] = (),
    dagster_events: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the provenance of a release, JSON values, valid by ``provenance.schema.json``.

    Args:
        version: of the release.
        roots: asset name -> digest of the manifests it is made of (``onnx_model``, ``evaluation_metrics``).
        read_bytes: digest -> verified bytes.
        read_facts: manifest digest -> facts of the computation that gave it; None: nobody kept them.
        released: facts of the release itself.
        log: checkpoint of the log of decisions and releases: ``log``, ``size``, ``root``; None: there is none.
        checks: asset, name, passed, severity, description of each asset check that was evaluated.
        dagster_events: manifest digest -> asset, storage_id, run_id of the materialization; None: made without Dagster.

    Raises:
        Refused: the roots come from no snapshot, or from two of a kind: a model and figures of another.
        CorruptObject: something on the way is damaged.
        NotFound: something on the way is missing.
    """
    nodes = walk_manifests(roots.values(), read_bytes)
    snapshot = _find_snapshot(nodes)
    specs: dict[str, Any] = {}
    for node in nodes:
        specs.update(node.manifest.specs)
    events = dagster_events or {}
    environments: dict[str, Any] = {}
    facts = {node.digest: _share_environment(read_facts(node.digest), environments) for node in nodes}
    provenance: dict[str, Any] = {
        "format": FORMAT,
        "model": {"version": version, "manifests": dict(roots), "artifacts": _list_root_artifacts(nodes, roots)},
        "database": _describe_database(snapshot),
        "nodes": [
            {**node.describe(), "facts": facts[node.digest], "event": _pick_event(events.get(node.digest))}
            for node in nodes
        ],
        "specs": specs,
        "seeds": _collect_seeds(specs),
        "log": None if log is None else dict(log),
        "released": _share_environment(released, environments),
        "environments": environments,
        "checks": [dict(check) for check in checks],
        "metrics": _read_metrics(nodes, read_bytes),
    }
    check_format(provenance)
    return provenance


def decode_provenance(data: bytes) -> dict[str, Any]:
    """Return the provenance that ``data`` holds.

    Raises:
        CorruptObject: the bytes are no JSON, or not of the format.
    """
    try:
        provenance: dict[str, Any] = decode_canonical_json(data)
    except (ValueError, RecursionError) as error:
        raise CorruptObject(f"provenance: found bytes that are no JSON ({error!s:.80}), expected {FORMAT}") from error
    found = provenance.get("format") if isinstance(provenance, dict) else None
    if isinstance(found, str) and found != FORMAT:
        raise CorruptObject(
            f"provenance: found format {found:.60}, expected {FORMAT}; another version made it, and reads it"
        )
    check_format(provenance)
    return provenance


def check_format(provenance: Any) -> None:
    """Check ``provenance`` against ``provenance.schema.json``.

    Raises:
        CorruptObject: it does not follow the schema; names the first place where.
    """
    error = next(iter(_load_validator().iter_errors(provenance)), None)
    if error is not None:
        raise CorruptObject(f"provenance: found {error.message:.200} at {error.json_path}, expected {FORMAT}")


def find_contradictions(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the file says against itself, (where, what); empty: it is whole.

    Every node's digest is computed anew from its own fields, so none can be changed and stay in place.
    """
    found: list[tuple[str, str]] = []
    digests = {node["digest"] for node in provenance["nodes"]}
    for node in provenance["nodes"]:
        manifest = Manifest.model_validate({name: node[name] for name in Manifest.model_fields})
        where = f"node {manifest.kind} {node['digest']}"
        if manifest.digest != node["digest"]:
            found.append((where, f"its fields have digest {manifest.digest}"))
        found += [(where, f"its parent {name} {parent} is no node") for name, parent in list_parents(manifest).items()
                  if parent not in digests]  # fmt: skip
        found += [(where, what) for what in _find_loose_facts(node["facts"], provenance["environments"])]
        if node["event"] is not None and node["event"]["asset"] != manifest.kind:
            found.append((where, f"its Dagster event is of {node['event']['asset']}"))
    for name, digest in provenance["model"]["manifests"].items():
        if digest not in digests:
            found.append((f"model {name} {digest}", "is no node"))
    for digest, environment in provenance["environments"].items():
        if compute_json_digest(environment) != digest:
            found.append((f"environment {digest}", f"its fields have digest {compute_json_digest(environment)}"))
    kinds = {node["kind"]: node["digest"] for node in provenance["nodes"]}
    for check in provenance["checks"]:
        if check.get("checked") is not None and kinds.get(check["asset"], check["checked"]) != check["checked"]:
            found.append((f"check {check['asset']} {check['name']}", f"it is of {check['checked']}, which is no node"))
    found += [("release", what) for what in _find_loose_facts(provenance["released"], provenance["environments"])]
    return found


def _find_loose_facts(facts: Facts | None, environments: Mapping[str, Any]) -> list[str]:
    if facts is None or facts["environment"] in environments:
        return []
    return [f"its environment {facts['environment']} is not there"]


def find_facts(provenance: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """Return the facts of the node of a kind, ``environment`` in full; None: nobody kept them."""
    told = next((node["facts"] for node in provenance["nodes"] if node["kind"] == kind), None)
    return None if told is None else {**told, "environment": provenance["environments"][told["environment"]]}


def _find_snapshot(nodes: Sequence[Node]) -> Manifest:
    """Return the snapshot; every kind stands behind a model once, or figures and model do not belong together."""
    found: dict[str, Manifest] = {}
    for node in nodes:
        if node.manifest.kind in found:
            raise Refused(f"{node.manifest.kind}: found two behind one model, expected one: train and judge again")
        found[node.manifest.kind] = node.manifest
    if APPROVED_MEASUREMENTS not in found:
        raise Refused(f"{APPROVED_MEASUREMENTS}: found none behind the model, expected one snapshot")
    return found[APPROVED_MEASUREMENTS]


def _describe_database(snapshot: Manifest) -> dict[str, Any]:
    return {
        "snapshot": snapshot.digest,
        "fingerprint": next((snapshot.parents[name] for name in OUTSIDE if name in snapshot.parents), None),
        "dataset": snapshot.specs.get("DatasetSpec"),
    }


def _list_root_artifacts(nodes: Sequence[Node], roots: Mapping[str, str]) -> dict[str, str]:
    chosen = [node for node in nodes if node.digest in set(roots.values())]
    return {name: artifact.digest for node in chosen for name, artifact in node.manifest.artifacts.items()}


def _collect_seeds(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return every number that chance hung on, ``Spec.field`` -> value."""
    return {
        f"{name}.{field}": value
        for name, fields in specs.items()
        for field, value in fields.items()
        if field in {"seed", "salt"}
    }


def _share_environment(facts: Facts | None, environments: dict[str, Any]) -> dict[str, Any] | None:
    """Return facts that name their environment by its digest, under which it is added to the others."""
    if facts is None:
        return None
    digest = compute_json_digest(facts["environment"])
    environments[digest] = dict(facts["environment"])
    return {**facts, "environment": digest}


def _read_metrics(nodes: Sequence[Node], read_bytes: ReadBytes) -> dict[str, Any]:
    for node in nodes:
        if node.manifest.kind == EVALUATION_METRICS and "metrics.json" in node.manifest.artifacts:
            metrics: dict[str, Any] = decode_canonical_json(read_bytes(node.manifest.artifacts["metrics.json"].digest))
            return metrics
    return {}


def _pick_event(event: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if event is None else {name: event[name] for name in ("asset", "storage_id", "run_id")}


@cache
def _load_schema() -> dict[str, Any]:
    text = files("heimdall_assets.lineage").joinpath("provenance.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _load_validator() -> "Validator":
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(_load_schema())
    return Draft202012Validator(_load_schema())
