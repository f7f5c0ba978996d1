"""PROV-JSON: the lineage of a release in the words of W3C PROV, as its own library writes it.

Entities are manifests, what they hold, files of the release, environments and the fingerprint of the database; each
computation, the release and each group of approvals is an activity; who started or approved something is an agent.

Sources: PROV-DM (W3C Recommendation, 30 April 2013), PROV-JSON (W3C Member Submission, 24 April 2013).
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from heimdall_assets.errors import MissingDependency
from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.lineage.exports.released import URN, Released, compute_end, encode_document
from heimdall_assets.lineage.tree import SHOWN
from heimdall_assets.lineage.walk import OUTSIDE

if TYPE_CHECKING:
    from prov.model import ProvDocument

_Told = dict[Any, Any]
"""Attributes of a record: the library takes names as texts."""

_SPACES = ("manifest", "artifact", "file", "database", "environment", "computation", "release", "approval", "agent")
"""What each kind of name begins with; ``heimdall`` is the space of attributes and types."""


def encode_prov(released: Released) -> bytes:
    """Return PROV-JSON.

    Raises:
        MissingDependency: prov is not installed.
    """
    return encode_document(json.loads(str(build_prov(released).serialize(format="json"))))


def build_prov(released: Released) -> "ProvDocument":
    """Return the lineage of a release as the library's own document.

    Raises:
        MissingDependency: prov is not installed.
    """
    try:
        from prov.model import ProvDocument
    except ImportError as error:
        raise MissingDependency("export prov: found no package prov; install heimdall-assets[exports]") from error
    document = ProvDocument()
    document.add_namespace("heimdall", f"{URN}:")
    for space in _SPACES:
        document.add_namespace(space, f"{URN}:{space}:")
    _add_people(document, released)
    for digest, environment in released.provenance["environments"].items():
        document.entity(_name("environment", digest), _describe_environment(document, digest, environment))
    for node in released.provenance["nodes"]:
        _add_node(document, node)
    _add_approvals(document, released)
    _add_release(document, released)
    return document


def _add_people(document: "ProvDocument", released: Released) -> None:
    """Add everybody that facts and decisions name, each once: a person, a sensor or a schedule, which nobody kept."""
    kept = [released.provenance["released"], *(node["facts"] for node in released.provenance["nodes"])]
    names = {str(facts["started_by"]) for facts in kept if facts is not None}
    names |= {str(entry["decided_by"]) for entry in released.decisions.values()}
    for name in sorted(names):
        document.agent(_name_agent(name), {"prov:label": name})


def _add_node(document: "ProvDocument", node: Mapping[str, Any]) -> None:
    """Add a computation, the manifest it gave, what that holds, and what it was computed from."""
    manifest, computation = _name("manifest", node["digest"]), _name("computation", node["digest"])
    label: _Told = {"prov:label": node["kind"]}
    _add_activity(document, computation, node["facts"], {**label, "heimdall:code_version": node["code_version"]})
    document.entity(manifest, {**_type(document, "Manifest"), **label, "heimdall:sha256": node["digest"]})
    document.wasGeneratedBy(manifest, computation)
    for name, artifact in node["artifacts"].items():
        held = _name("artifact", node["digest"], name)
        told: _Told = {"prov:label": f"{node['kind']} {name}", "heimdall:media_type": artifact["media_type"]}
        document.entity(held, {**_type(document, "Artifact"), **told, "heimdall:sha256": artifact["digest"]})
        document.wasGeneratedBy(held, computation)
    for name, digest in node["parents"].items():
        parent = _name("database" if name in OUTSIDE else "manifest", digest)
        if name in OUTSIDE:
            document.entity(
                parent, {**_type(document, "Fingerprint"), "prov:label": name, "heimdall:fingerprint": digest}
            )
        document.used(computation, parent)
        document.wasDerivedFrom(manifest, parent, computation)


def _add_approvals(document: "ProvDocument", released: Released) -> None:
    """Add who approved sessions of the snapshot, and why: an activity for each person and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in released.decisions.values():
        key = (str(entry["decided_by"]), str(entry["reason"]))
        groups.setdefault(key, []).append(str(entry["decided_at"]))
    snapshot = _name("computation", released.nodes[APPROVED_MEASUREMENTS]["digest"])
    for number, ((person, reason), times) in enumerate(groups.items(), start=1):
        approval = _name("approval", str(number))
        told: _Told = {"heimdall:reason": reason, "heimdall:num_sessions": len(times)}
        document.activity(approval, min(times), max(times), {**_type(document, "Approval"), **told})
        document.wasAssociatedWith(approval, _name_agent(person), other_attributes={"prov:role": "approver"})
        document.wasInformedBy(snapshot, approval)


def _add_release(document: "ProvDocument", released: Released) -> None:
    """Add the release and its files; those that are an artifact, or are made from one, say from which."""
    release = _name("release", released.version)
    _add_activity(document, release, released.provenance["released"], {"prov:label": released.version})
    roots = set(released.provenance["model"]["manifests"].values())
    for digest in sorted(roots):
        document.used(release, _name("manifest", digest))
    held = {
        name: _name("artifact", node["digest"], name)
        for node in released.provenance["nodes"]
        if node["digest"] in roots
        for name in node["artifacts"]
    }
    for name, digest in sorted(released.files.items()):
        file = _name("file", released.version, name)
        document.entity(file, {**_type(document, "File"), "prov:label": name, "heimdall:sha256": digest})
        document.wasGeneratedBy(file, release)
        if name in held:
            document.wasDerivedFrom(file, held[name], release)


def _add_activity(document: "ProvDocument", name: str, facts: Mapping[str, Any] | None, told: _Told) -> None:
    """Add a computation with who started it, why, when and under what; without facts nobody kept any of it."""
    if facts is None:
        document.activity(name, other_attributes=dict(told))
        return
    known: _Told = {"heimdall:reason": facts["reason"], "heimdall:dagster_run": facts["run_id"]}
    known["heimdall:profile"] = facts.get("profile")
    known = {key: value for key, value in known.items() if value is not None}
    document.activity(name, facts["started_at"], compute_end(facts), {**told, **known})
    document.wasAssociatedWith(name, _name_agent(facts["started_by"]), other_attributes={"prov:role": "starter"})
    document.used(name, _name("environment", facts["environment"]))


def _describe_environment(document: "ProvDocument", digest: str, environment: Mapping[str, Any]) -> _Told:
    known = {name: environment.get(name) for name in SHOWN}
    told = {f"heimdall:{name}": value for name, value in known.items() if isinstance(value, str | bool)}
    return {**_type(document, "Environment"), **told, "heimdall:sha256": digest}


def _type(document: "ProvDocument", name: str) -> _Told:
    return {"prov:type": document.valid_qualified_name(f"heimdall:{name}")}


def _name(space: str, *parts: str) -> str:
    return f"{space}:{'/'.join(quote(part, safe='') for part in parts)}"


def _name_agent(name: str) -> str:
    """Return the name of whoever is called so; a name in PROV neither begins nor ends with every character."""
    return _name("agent", name).replace("-", "%2D").replace(".", "%2E")
