"""Audit: do files, objects, ledger and Dagster's events still agree with the provenance frozen beside a release?

Belongs here: every comparison, and naming what disagrees. Does not belong here: reading any of it (``releases.audit``).
The frozen file is the evidence; Dagster's log is only a cross-check, for it can be edited and deleted.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from heimdall_assets.errors import CorruptObject, HeimdallError, NotFound, OutOfReach
from heimdall_assets.kinds import IQ_FILES, SPECTROGRAM_FEATURES
from heimdall_assets.lineage.cache_checks import verify_caches
from heimdall_assets.lineage.crosschecks import (
    verify_chain,
    verify_events,
    verify_log,
    verify_record,
    verify_references,
    verify_strangers,
)
from heimdall_assets.lineage.data_checks import verify_data
from heimdall_assets.lineage.findings import PROVENANCE_FILE, Erasure, Evidence, Finding, ObjectReader
from heimdall_assets.lineage.listings import RECORDINGS, decode_recordings, encode_recordings
from heimdall_assets.lineage.provenance import decode_provenance, find_contradictions
from heimdall_assets.lineage.recorded import ReadTable
from heimdall_assets.lineage.signatures import verify_signatures
from heimdall_assets.lineage.walk import decode_manifest
from heimdall_assets.manifests import compute_digest

__all__ = ["Evidence", "Finding", "ObjectReader", "verify_model"]

Progress = Callable[[str, int, int], None]

GONE = "no such object"

FindReleases = Callable[[Collection[str]], Mapping[str, Sequence[str]]]
"""Digests of objects -> versions that hang on each."""


def verify_model(
    evidence: Evidence,
    objects: ObjectReader,
    read_table: ReadTable,
    find_releases: FindReleases | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Return every disagreement about one release; empty: each byte and row is as it was when it was released.

    Re-hashes every file of the release and every object behind it, down to the recordings; compares tables with one
    another, and all of it with the ledger, Dagster's events and today's rows.

    Args:
        evidence: what was read about the release.
        objects: the object store.
        read_table: reads the tables that manifests point at.
        find_releases: asked for what is damaged; None: this release alone.
        progress: called with what is done, how many are done, how many there are.
    """
    findings = list(_verify_files(evidence, objects))
    provenance, problem = _recover_provenance(evidence, objects)
    if problem is not None:
        findings.append(problem)
    findings += verify_strangers(evidence)
    if provenance is None:
        return findings + list(verify_chain(evidence))
    recordings = list_recordings(provenance, objects, read_table)
    found = _tell_erased(_verify_objects(provenance, recordings, objects, progress or _ignore), evidence.erased)
    findings += found
    damaged = [finding for finding in found if finding.severity == "error"]
    findings += _verify_provenance(evidence, provenance)
    findings += verify_chain(evidence)
    findings += verify_signatures(evidence)
    findings += verify_log(evidence, provenance)
    findings += verify_record(evidence, provenance)
    findings += verify_events(evidence, provenance)
    findings += verify_references(evidence, provenance, objects)
    findings += verify_data(evidence, provenance, objects, read_table, damaged)
    findings += verify_caches(provenance, objects, read_table) if not damaged else ()
    own = (evidence.version,)
    known = find_releases([finding.name.split()[-1] for finding in findings]) if findings and find_releases else {}
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
        # The log says which of them changed. Without it: the release was stored as objects too, so a file with a twin
        # there is whole, unless it was put there from another release.
        if evidence.logged.get(name) == digest or (not evidence.logged and _has_twin(objects, digest)):
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
        objects.read_bytes(digest)  # hashed where it is read; a twin may be empty
    except OutOfReach:
        raise
    except HeimdallError:
        return False
    return True


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


def list_recordings(provenance: Mapping[str, Any], objects: ObjectReader, read_table: ReadTable) -> dict[str, str]:
    """Return digest -> measurement of every recording behind a release, from its list or, is that damaged, its table.

    Empty where both are: each is an object by itself, and found as such.

    Raises:
        OutOfReach: nobody can say.
    """
    node = next((node for node in provenance["nodes"] if node["kind"] == IQ_FILES), None)
    held = {} if node is None else node["artifacts"]
    for name in (RECORDINGS, "table"):
        try:
            if name == RECORDINGS and name in held:
                return dict(decode_recordings(objects.read_bytes(held[name]["digest"])))
            if name in held:
                return dict(decode_recordings(encode_recordings(read_table(held[name]["digest"]))))
        except OutOfReach:
            raise
        except (HeimdallError, KeyError):
            continue
    return {}


def _verify_objects(
    provenance: Mapping[str, Any], recordings: Mapping[str, str], objects: ObjectReader, progress: Progress
) -> Iterator[Finding]:
    """Yield every object at rest that is missing or changed: manifests, what they hold, shards, recordings."""
    wanted = list_objects(provenance, recordings)
    version = provenance["model"]["version"]
    for count, (digest, (kind, label)) in enumerate(sorted(wanted.items()), start=1):
        name = f"{label} {digest}"
        again = _tell_cure(kind, label, version)
        try:
            data = objects.read_bytes(digest)  # hashed where it is read
            if kind == "manifest":
                decode_manifest(digest, data)
        except NotFound:
            yield Finding(kind, name, GONE, f"SHA-256 {digest}", (), again)
        except OutOfReach:
            raise
        except HeimdallError as error:
            yield Finding(kind, name, str(error), f"SHA-256 {digest}", (), again)
        progress("objects hashed", count, len(wanted))


def _tell_erased(findings: Iterable[Finding], erased: Sequence[Erasure]) -> list[Finding]:
    """Return findings in which a recording, or a file of features, that went with an erased session is no fault.

    No erasure takes anything else, whatever an entry of the log says.
    """
    why = {
        f"{label} {digest}": erasure.describe()
        for erasure in erased
        for digest in erasure.objects
        for label in (*(f"of measurement {name}" for name in erasure.measurements), f"{SPECTROGRAM_FEATURES} shard")
    }
    return [
        replace(finding, found=why[finding.name], severity="notice", next_command="nothing: it was meant to go")
        if finding.found == GONE and finding.name in why
        else finding
        for finding in findings
    ]


def _tell_cure(kind: str, label: str, version: str) -> str:
    if kind == "recording":
        return f"heimdall import (the same recording again), then heimdall verify {version}"
    if label.startswith("approved_measurements/"):  # made from rows that the database may no longer hold so
        return (
            f"heimdall verify {version} --repair, then heimdall train if the same sessions are approved; else restore "
            "the object from a backup"
        )
    return f"heimdall reproduce {version} --repair (makes the same bytes again)"


def list_objects(provenance: Mapping[str, Any], recordings: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return digest -> (kind, label) of everything a release hangs on; each once, the most telling label."""
    wanted = {digest: ("recording", f"of measurement {name}") for digest, name in recordings.items()}
    for node in provenance["nodes"]:
        for digest in node["summary"].get("shards", []):
            wanted[digest] = ("object", f"{node['kind']} shard")
        for name, artifact in node["artifacts"].items():
            wanted[artifact["digest"]] = ("object", f"{node['kind']}/{name}")
        wanted[node["digest"]] = ("manifest", node["kind"])
    return wanted


def _verify_provenance(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the frozen file says against itself and against the model file."""
    own = (evidence.version,)
    label = f"{evidence.version}/{PROVENANCE_FILE}"
    again = f"heimdall verify {evidence.version} --repair (writes it again from its copy)"
    for where, what in find_contradictions(provenance):
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


def _ignore(what: str, done: int, total: int) -> None:
    """Tell nobody."""
