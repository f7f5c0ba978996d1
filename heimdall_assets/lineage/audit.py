"""Audit: do files, objects, ledger and Dagster's events still agree with the provenance frozen beside a release?

Belongs here: every comparison, and naming what disagrees. Does not belong here: reading any of it (``releases.audit``).
The frozen file is the evidence; Dagster's log is only a cross-check, for it can be edited and deleted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from heimdall_assets.errors import CorruptObject, HeimdallError, NotFound, OutOfReach
from heimdall_assets.lineage.crosschecks import (
    verify_approvals,
    verify_chain,
    verify_database,
    verify_events,
    verify_log,
    verify_record,
)
from heimdall_assets.lineage.findings import PROVENANCE_FILE, Evidence, Finding, ObjectReader
from heimdall_assets.lineage.frozen import iterate_rows
from heimdall_assets.lineage.provenance import (
    TABLES,
    DecodeTable,
    decode_provenance,
    find_contradictions,
    freeze_tables,
)
from heimdall_assets.lineage.signatures import verify_signatures
from heimdall_assets.lineage.walk import Node, decode_manifest
from heimdall_assets.manifests import Manifest, compute_digest, encode_canonical_json

__all__ = ["Evidence", "Finding", "ObjectReader", "verify_model"]

Progress = Callable[[str, int, int], None]


def verify_model(
    evidence: Evidence,
    objects: ObjectReader,
    decode_table: DecodeTable,
    releases_by_digest: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Return every disagreement about one release; empty: each byte and row is as it was when it was released.

    Re-hashes every file of the release and every object that its provenance lists, down to the recordings; rebuilds
    the frozen tables from the objects; compares the frozen file with the ledger, Dagster's events and today's rows.

    Args:
        evidence: what was read about the release.
        objects: the object store.
        decode_table: reads the tables that manifests point at.
        releases_by_digest: digest -> versions that hang on it (``uses.index_digests``); None: this release alone.
        progress: called with what is done, how many are done, how many there are.
    """
    findings = list(_verify_files(evidence, objects))
    provenance, problem = _recover_provenance(evidence, objects)
    if problem is not None:
        findings.append(problem)
    if provenance is None:
        return findings + list(verify_chain(evidence))
    damaged = list(_verify_objects(provenance, objects, progress or _ignore))
    findings += damaged
    findings += _verify_provenance(evidence, provenance, objects, decode_table, damaged)
    findings += verify_chain(evidence)
    findings += verify_signatures(evidence)
    findings += verify_log(evidence, provenance)
    findings += verify_approvals(evidence, provenance)
    findings += verify_record(evidence, provenance)
    findings += verify_events(evidence, provenance)
    findings += verify_database(evidence, provenance)
    own = (evidence.version,)
    known = releases_by_digest or {}
    return [
        finding if finding.releases else replace(finding, releases=tuple(known.get(finding.name.split()[-1], own)))
        for finding in findings
    ]


def _verify_files(evidence: Evidence, objects: ObjectReader) -> Iterator[Finding]:
    """Yield files of the release that are missing, changed, or too many."""
    recorded = evidence.release["files"]
    own = (evidence.version,)
    for name, entry in sorted(recorded.items()):
        kind = "provenance" if name == PROVENANCE_FILE else "release_file"
        label = f"{evidence.version}/{name}"
        restore = f"heimdall verify {evidence.version} --repair (writes it again from its copy)"
        if name not in evidence.files:
            yield Finding(kind, label, "no such file", f"SHA-256 {entry['sha256']}", own, restore)
            continue
        digest = compute_digest(evidence.files[name])
        if digest == entry["sha256"] and len(evidence.files[name]) == entry["size"]:
            continue
        # The release was stored as objects too: a file with a twin there is whole, so the ledger's row is what changed.
        if _has_twin(objects, digest):
            yield Finding(
                "ledger_row",
                f"model_releases {evidence.version} {name}",
                f"SHA-256 {entry['sha256']}, {entry['size']} bytes",
                f"SHA-256 {digest}, {len(evidence.files[name])} bytes, as file and object say",
                own,
                f"restore the database from its backup, then heimdall verify {evidence.version}",
            )
        else:
            yield Finding(kind, label, f"SHA-256 {digest}", f"SHA-256 {entry['sha256']}", own, restore)
    for name in sorted(set(evidence.files) - set(recorded)):
        yield Finding(
            "release_file", f"{evidence.version}/{name}", "a file that was not released", "no such file", own,
            f"move {evidence.version}/{name} away, then heimdall verify {evidence.version}",
        )  # fmt: skip


def _has_twin(objects: ObjectReader, digest: str) -> bool:
    try:
        return objects.exists(digest) and compute_digest(objects.read_bytes(digest)) == digest
    except OutOfReach:
        raise
    except HeimdallError:
        return False


def _recover_provenance(evidence: Evidence, objects: ObjectReader) -> tuple[dict[str, Any] | None, Finding | None]:
    """Return the provenance from the file, or, where that is damaged, from its twin in the object store."""
    entry = evidence.release["files"].get(PROVENANCE_FILE, {})
    digest = evidence.release.get("provenance") or entry.get("sha256", "")
    data = evidence.files.get(PROVENANCE_FILE, b"")
    # A changed file may still read well: what was released is taken instead wherever it still exists.
    if compute_digest(data) != digest and _has_twin(objects, digest):
        data = objects.read_bytes(digest)
    try:
        return decode_provenance(data), None
    except CorruptObject as error:
        return None, Finding(
            "provenance", f"{evidence.version}/{PROVENANCE_FILE}", str(error), "the frozen provenance",
            (evidence.version,), f"restore {evidence.version}/{PROVENANCE_FILE} from a copy of the release",
        )  # fmt: skip


def _verify_objects(provenance: Mapping[str, Any], objects: ObjectReader, progress: Progress) -> Iterator[Finding]:
    """Yield every object at rest that is missing or changed: manifests, what they hold, shards, recordings."""
    wanted = _list_objects(provenance)
    version = provenance["model"]["version"]
    for count, (digest, (kind, label)) in enumerate(sorted(wanted.items()), start=1):
        name = f"{label} {digest}"
        again = _tell_cure(kind, label, version)
        try:
            found = compute_digest(objects.read_bytes(digest))
            if found != digest:
                yield Finding(kind, name, f"bytes with SHA-256 {found}", f"SHA-256 {digest}", (), again)
            elif kind == "manifest":
                decode_manifest(digest, objects.read_bytes(digest))
        except NotFound:
            yield Finding(kind, name, "no such object", f"SHA-256 {digest}", (), again)
        except OutOfReach:
            raise
        except HeimdallError as error:
            yield Finding(kind, name, str(error), f"SHA-256 {digest}", (), again)
        progress("objects hashed", count, len(wanted))


def _tell_cure(kind: str, label: str, version: str) -> str:
    if kind == "recording":
        return f"heimdall import (the same recording again), then heimdall verify {version}"
    if label.startswith("approved_measurements/"):  # made from rows that the database may no longer hold so
        return (
            f"heimdall verify {version} --repair, then heimdall train if the same sessions are approved; else restore "
            "the object from a backup"
        )
    return f"heimdall reproduce {version} --repair (makes the same bytes again)"


def _list_objects(provenance: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return digest -> (kind, label) of everything a release hangs on; each once, the most telling label."""
    wanted: dict[str, tuple[str, str]] = {}
    for row in iterate_rows(provenance["measurements"]):
        if row["iq_digest"]:
            wanted[row["iq_digest"]] = ("recording", f"of measurement {row['measurement_id']}")
    for node in provenance["nodes"]:
        for digest in node["summary"].get("shards", []):
            wanted[digest] = ("object", f"{node['kind']} shard")
        for name, artifact in node["artifacts"].items():
            wanted[artifact["digest"]] = ("object", f"{node['kind']}/{name}")
        wanted[node["digest"]] = ("manifest", node["kind"])
    return wanted


def _verify_provenance(
    evidence: Evidence,
    provenance: Mapping[str, Any],
    objects: ObjectReader,
    decode_table: DecodeTable,
    damaged: Sequence[Finding],
) -> Iterator[Finding]:
    """Yield what the frozen file says against itself, against the model file, and against the stored tables."""
    own = (evidence.version,)
    label = f"{evidence.version}/{PROVENANCE_FILE}"
    again = f"heimdall verify {evidence.version} --repair (writes it again from its copy)"
    contradictions = find_contradictions(provenance)
    for where, what in contradictions:
        yield Finding("provenance", f"{label} {where}", what, "a file that agrees with itself", own, again)
    if provenance["model"]["version"] != evidence.version:
        yield Finding("provenance", label, f"version {provenance['model']['version']}", evidence.version, own, again)
    model = evidence.files.get("model.onnx", b"")
    entry = evidence.release["files"].get("model.onnx", {})
    digest = compute_digest(evidence.files.get(PROVENANCE_FILE, b""))
    # The digest stands as text in the model's metadata; a changed file is a finding of its own.
    is_listed = digest == evidence.release["files"].get(PROVENANCE_FILE, {}).get("sha256")
    if is_listed and compute_digest(model) == entry.get("sha256") and digest.encode() not in model:
        yield Finding("provenance", label, f"SHA-256 {digest}", "the one in model.onnx's metadata", own, again)
    if contradictions:
        return  # nodes that are not what they were point anywhere
    nodes = [
        Node(node["digest"], Manifest.model_validate({name: node[name] for name in Manifest.model_fields}), 0)
        for node in provenance["nodes"]
    ]
    try:
        tables = freeze_tables(nodes, objects.read_bytes, decode_table)
    except OutOfReach:
        raise
    except HeimdallError as error:
        if not damaged:  # else the damaged table is named already
            yield Finding("provenance", label, str(error), "tables that can be read", own, again)
        return
    for name in TABLES:
        if tables[name] != provenance[name]:
            stored = {encode_canonical_json(row) for row in tables[name]["rows"]}
            strange = [row for row in provenance[name]["rows"] if encode_canonical_json(row) not in stored]
            found = f"{len(strange)} rows that the stored snapshot does not hold ({strange[:1]!s:.120})"
            yield Finding("provenance", f"{label} {name}", found, "the rows of the stored snapshot", own, again)


def _ignore(what: str, done: int, total: int) -> None:
    """Tell nobody."""
