"""Reading: what a release says of itself and of what it was made of, from its files and the object store.

Belongs here: what is asked often and loads little: no pandas. Does not belong here: whether it still holds (``audit``).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from heimdall_assets.errors import CorruptObject, HeimdallError, NotFound, OutOfReach, StorageError
from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.lineage.exports.released import Released
from heimdall_assets.lineage.findings import PROVENANCE_FILE
from heimdall_assets.lineage.listings import DECISIONS, decode_decisions
from heimdall_assets.lineage.provenance import decode_provenance
from heimdall_assets.manifests import compute_digest
from heimdall_assets.media_types import PARQUET_MEDIA_TYPE
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import read_columns


def read_provenance(stores: Stores, version: str) -> dict[str, Any]:
    """Return the frozen provenance of a release: from its files, or from the object store where that is damaged.

    Raises:
        NotFound: no such release.
        CorruptObject: neither holds it as it was released.
    """
    record = find_record(stores, version)
    digest = str(record.get("provenance") or record["files"].get(PROVENANCE_FILE, {}).get("sha256"))
    data = read_as_it_lies(stores, record, PROVENANCE_FILE)
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


def read_decisions(stores: Stores, provenance: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """Return number -> the entry of the log of what approved each session behind a model, from the object store.

    Raises:
        HeimdallError: the list of them is damaged or gone.
    """
    node = next(node for node in provenance["nodes"] if node["kind"] == APPROVED_MEASUREMENTS)
    return decode_decisions(stores.objects.read_bytes(node["artifacts"][DECISIONS]["digest"]))


def read_released(stores: Stores, version: str) -> Released:
    """Return the frozen evidence of a release that ``lineage.exports`` are made of.

    Raises:
        NotFound: no such release.
        HeimdallError: its provenance, the list of decisions or a table is damaged or gone.
    """
    provenance = read_provenance(stores, version)
    tables = {
        artifact["digest"]: read_columns(stores.objects.read_bytes(artifact["digest"]))
        for node in provenance["nodes"]
        for artifact in node["artifacts"].values()
        if artifact["media_type"] == PARQUET_MEDIA_TYPE
    }
    files = {name: str(entry["sha256"]) for name, entry in find_record(stores, version)["files"].items()}
    return Released(provenance, files, read_decisions(stores, provenance), tables)


def count_signed(stores: Stores, provenance: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Return how many decisions approved what a model was made of, and who signed how many of them."""
    decisions, signers = read_decisions(stores, provenance), stores.measurements.list_signers()
    signed = Counter(signers[number] for number in decisions if number in signers)
    return len(decisions), dict(sorted(signed.items()))


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


def read_as_it_lies(stores: Stores, release: Mapping[str, Any], name: str) -> bytes | None:
    """Return a file of a release, unchecked; None: there is none of this name, or no plain one."""
    try:
        return stores.releases.files.read(str(release["version"]), name)
    except (NotFound, CorruptObject):
        return None


def find_record(stores: Stores, version: str) -> dict[str, Any]:
    """Return the row of a release.

    Raises:
        NotFound: there is none.
        StorageError: it cannot be read.
    """
    try:
        return stores.releases.find_record(version)
    except ValueError as error:
        raise StorageError(f"model_releases {version}: found a row that cannot be read ({error})") from error
