"""Audit: a release's evidence read from the stores, and handed to the lineage floor to judge.

Belongs here: reading files, rows and ledgers as they lie. Does not belong here: any comparison (``lineage.audit``).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from heimdall_assets.errors import CorruptObject
from heimdall_assets.lineage.audit import list_objects, list_recordings, verify_model
from heimdall_assets.lineage.crosschecks import compare_logs
from heimdall_assets.lineage.findings import Erasure, Evidence, Finding
from heimdall_assets.lineage.notes import judge_note
from heimdall_assets.lineage.recorded import ReadTable, RecordedData, read_recorded
from heimdall_assets.lineage.signatures import list_signers
from heimdall_assets.merkle import Checkpoint
from heimdall_assets.pipeline.releases.reading import find_record, read_as_it_lies, read_provenance
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.tables import decode_table

Progress = Callable[[str, int, int], None]


def read_data(stores: Stores, provenance: Mapping[str, Any]) -> RecordedData:
    """Return what a model was made of, from the object store; see ``lineage.recorded.read_recorded``."""
    return read_recorded(provenance, _open_tables(stores.objects))


def gather_evidence(
    stores: Stores, version: str, dagster_events: Mapping[int, Mapping[str, Any]] | None = None
) -> Evidence:
    """Return everything at rest about one release, unchecked, as it lies.

    Args:
        stores: the opened stores.
        version: of a published release.
        dagster_events: storage id -> what Dagster says today; None: not compared.

    Raises:
        NotFound: no such release.
    """
    rows, log = None, None
    try:
        provenance = read_provenance(stores, version)
    except CorruptObject:
        pass  # which rows and entries to compare stands in it; that it is damaged is found by the audit
    else:
        rows = stores.measurements.read_tables(DatasetSpec(**(provenance["database"]["dataset"] or {})))
        log = _read_checkpoint(stores, provenance["log"])
    release = find_record(stores, version)
    return Evidence(
        version=version,
        files=_read_files(stores, release),
        release=release,
        approval_events=stores.measurements.list_approval_events(),
        ledger_problems=list(dict.fromkeys([*stores.measurements.check_ledger(), *stores.releases.check_ledger()])),
        strangers=stores.releases.find_strangers(),
        log=log,
        erased=_read_erased(stores),
        **_read_keys(stores, version),
        dagster_events=dagster_events,
        database_rows=rows,
    )


def audit_release(
    stores: Stores,
    version: str,
    dagster_events: Mapping[int, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Return every disagreement about one release; see ``lineage.audit.verify_model``."""
    evidence = gather_evidence(stores, version, dagster_events)
    objects = stores.objects.at_rest()

    def find_releases(digests: Collection[str]) -> dict[str, list[str]]:
        """Return digest -> releases that hang on it, of those whose provenance can be read."""
        found: dict[str, list[str]] = {digest: [] for digest in digests}
        for record in stores.releases.list_releases():
            try:
                hung = list_hung(stores, read_provenance(stores, str(record["version"])))
            except CorruptObject:
                continue  # a finding of that release's own audit
            for digest in hung & found.keys():
                found[digest].append(str(record["version"]))
        return {digest: versions for digest, versions in found.items() if versions}

    return verify_model(evidence, objects, _open_tables(objects), find_releases, progress)


def list_hung(stores: Stores, provenance: Mapping[str, Any]) -> set[str]:
    """Return the digest of every object that a release hangs on; without its recordings where no list of them is whole.

    Raises:
        OutOfReach: nobody can say.
    """
    objects = stores.objects.at_rest()
    return set(list_objects(provenance, list_recordings(provenance, objects, _open_tables(objects))))


def _open_tables(objects: ObjectStore) -> ReadTable:
    return lambda digest: decode_table(objects.read_bytes(digest))


def audit_log(stores: Stores, kept: Checkpoint, note: str = "", name: str = "the checkpoint") -> list[Finding]:
    """Return that the log is no longer the one, or no longer begins as the one, that ``kept`` was taken of.

    Args:
        stores: the opened stores.
        kept: the checkpoint.
        note: it with its signatures; those of known keys must hold.
        name: what to call it.
    """
    found = _read_checkpoint(stores, asdict(kept))
    findings = list(compare_logs(asdict(kept), found, name, ()))
    for key in judge_note(note, {key: known.public_pem for key, known in stores.releases.list_keys().items()})[1]:
        findings.append(
            Finding(
                "signature", name, f"a signature of key {key} that does not hold",
                "one over its three lines", (), "compare it with another copy of the same checkpoint",
            )
        )  # fmt: skip
    return findings


def read_signers(stores: Stores, version: str) -> list[str]:
    """Return whose signatures hold on a release; empty: it is not signed, or none of them holds."""
    release = find_record(stores, version)
    return list_signers(Evidence(version, _read_files(stores, release), release, **_read_keys(stores, version)))


def _read_files(stores: Stores, release: Mapping[str, Any]) -> dict[str, bytes]:
    names = stores.releases.files.list_files(str(release["version"]))
    read = {name: read_as_it_lies(stores, release, name) for name in names}
    return {name: data for name, data in read.items() if data is not None}


def _read_keys(stores: Stores, version: str) -> dict[str, Any]:
    """Return the keys that count or did, and the release's entry of the log; nothing where the log cannot be read."""
    try:
        keys, found = stores.releases.list_keys(), stores.releases.find_log_entry(version)
        number, entry = found or (None, {})
        return {"keys": keys, "entry": number, "logged": dict(entry.get("files", {}))}
    except (CorruptObject, KeyError, TypeError, ValueError):
        return {}  # the log's own problems say so


def _read_erased(stores: Stores) -> list[Erasure]:
    """Return the sessions that were erased, without the objects that a measurement of today names again.

    Nothing where the log cannot be read, which it says itself.
    """
    try:
        erasures = stores.measurements.list_erasures()
    except CorruptObject:
        return []
    located = stores.measurements.list_locations() if erasures else set()
    return [
        replace(one, objects=tuple(digest for digest in one.objects if f"sha256:{digest}" not in located))
        for one in erasures
        if one.session is not None
    ]


def _read_checkpoint(stores: Stores, then: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the checkpoint of today's log over as many entries as then; None: it has fewer, or no name."""
    try:
        found = None if then is None else stores.releases.read_checkpoint(then["size"])
    except CorruptObject:
        return None
    return None if found is None else asdict(found)
