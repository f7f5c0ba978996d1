"""Audit: a release's evidence read from the stores, and handed to the lineage floor to judge.

Belongs here: reading files, rows and ledgers as they lie. Does not belong here: any comparison (``lineage.audit``).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from heimdall_assets.errors import CorruptObject, HeimdallError, NotFound, OutOfReach, StorageError
from heimdall_assets.lineage.audit import list_recordings, verify_model
from heimdall_assets.lineage.crosschecks import compare_logs
from heimdall_assets.lineage.findings import PROVENANCE_FILE, Evidence, Finding
from heimdall_assets.lineage.provenance import decode_provenance
from heimdall_assets.lineage.recorded import ReadTable, RecordedData, read_recorded
from heimdall_assets.lineage.signatures import list_signers
from heimdall_assets.lineage.uses import list_digests
from heimdall_assets.manifests import compute_digest
from heimdall_assets.merkle import Checkpoint
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.tables import decode_table

Progress = Callable[[str, int, int], None]


def read_provenance(stores: Stores, version: str) -> dict[str, Any]:
    """Return the frozen provenance of a release: from its files, or from the object store where that is damaged.

    Raises:
        NotFound: no such release.
        CorruptObject: neither holds it as it was released.
    """
    record = _find_record(stores, version)
    digest = str(record.get("provenance") or record["files"].get(PROVENANCE_FILE, {}).get("sha256"))
    data = _read_as_it_lies(stores, record, PROVENANCE_FILE)
    if data is None or compute_digest(data) != digest:
        try:
            data = stores.objects.read_bytes(digest)
        except OutOfReach:
            raise
        except HeimdallError as error:
            raise CorruptObject(
                f"release {version}: {PROVENANCE_FILE} is damaged and has no whole copy; run heimdall verify {version}"
            ) from error
    return decode_provenance(data)


def read_data(stores: Stores, provenance: Mapping[str, Any], columns: Collection[str] | None = None) -> RecordedData:
    """Return what a model was made of, from the object store; see ``lineage.recorded.read_recorded``."""
    return read_recorded(provenance, _open_tables(stores.objects), columns)


def read_releases(stores: Stores, columns: Collection[str]) -> list[tuple[dict[str, Any], RecordedData]]:
    """Return provenance and data of every release, by rising version; a table that several have is read once.

    Raises:
        CorruptObject: one of them is damaged: where something was used could not be answered for.
    """
    read_table = cache(_open_tables(stores.objects))
    versions = [str(record["version"]) for record in stores.releases.list_releases()]
    provenances = [read_provenance(stores, version) for version in versions]
    return [(provenance, read_recorded(provenance, read_table, columns)) for provenance in provenances]


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
        rows = stores.measurements.read_approved(DatasetSpec(**(provenance["database"]["dataset"] or {}))).rows
        log = _read_checkpoint(stores, provenance["log"])
    release = _find_record(stores, version)
    return Evidence(
        version=version,
        files=_read_files(stores, release),
        release=release,
        approval_events=stores.measurements.list_approval_events(),
        ledger_problems=list(dict.fromkeys([*stores.measurements.check_ledger(), *stores.releases.check_ledger()])),
        log=log,
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
    return list_digests(provenance, list_recordings(provenance, objects, _open_tables(objects)))


def _open_tables(objects: ObjectStore) -> ReadTable:
    return lambda digest, columns: decode_table(objects.read_bytes(digest), columns)


def audit_log(stores: Stores, kept: Checkpoint) -> list[Finding]:
    """Return that the log is no longer the one, or no longer begins as the one, that ``kept`` was taken of."""
    found = _read_checkpoint(stores, asdict(kept))
    return list(compare_logs(asdict(kept), found, "the checkpoint", ()))


def list_recorded_events(provenance: Mapping[str, Any]) -> dict[int, str]:
    """Return storage id -> asset of the Dagster events that a provenance names."""
    events = [node["event"] for node in provenance["nodes"] if node["event"] is not None]
    return {event["storage_id"]: event["asset"] for event in events}


def list_cited_runs(stores: Stores) -> set[str]:
    """Return the Dagster runs that the lineage of a release names: their events are evidence.

    Raises:
        CorruptObject: a release from before its record named them has a damaged provenance.
    """
    cited: set[str] = set()
    for record in stores.releases.list_releases():
        if "dagster_runs" in record:
            cited |= set(record["dagster_runs"])
        else:
            nodes = read_provenance(stores, str(record["version"]))["nodes"]
            cited |= {str(node["event"]["run_id"]) for node in nodes if node["event"] is not None}
    return cited


def read_signers(stores: Stores, version: str) -> list[str]:
    """Return whose signatures hold on a release; empty: it is not signed, or none of them holds."""
    release = _find_record(stores, version)
    return list_signers(Evidence(version, _read_files(stores, release), release, **_read_keys(stores, version)))


def _read_files(stores: Stores, release: Mapping[str, Any]) -> dict[str, bytes]:
    names = stores.releases.files.list_files(str(release["version"]))
    read = {name: _read_as_it_lies(stores, release, name) for name in names}
    return {name: data for name, data in read.items() if data is not None}


def _read_keys(stores: Stores, version: str) -> dict[str, Any]:
    """Return the keys that count or did, and the release's entry of the log; nothing where the log cannot be read."""
    try:
        return {"keys": stores.releases.list_keys(), "entry": stores.releases.find_log_entry(version)}
    except (CorruptObject, KeyError):
        return {}  # the log's own problems say so


def _read_checkpoint(stores: Stores, then: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the checkpoint of today's log over as many entries as then; None: it has fewer, or no name."""
    try:
        found = None if then is None else stores.releases.read_checkpoint(then["size"])
    except CorruptObject:
        return None
    return None if found is None else asdict(found)


def _read_as_it_lies(stores: Stores, release: Mapping[str, Any], name: str) -> bytes | None:
    """Return a file of a release, unchecked; None: there is none of this name, or no plain one."""
    try:
        return stores.releases.files.read(str(release["version"]), name)
    except (NotFound, CorruptObject):
        return None


def _find_record(stores: Stores, version: str) -> dict[str, Any]:
    try:
        return stores.releases.find_record(version)
    except ValueError as error:
        raise StorageError(f"model_releases {version}: found a row that cannot be read ({error})") from error
