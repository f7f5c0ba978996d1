"""Needed: which stored objects something hangs on, and which references lead to what is still asked for.

Belongs here: the walk from releases, results, recordings and holds to bytes. Does not belong here: removing anything
(``collecting``), what Dagster knows (``defs``).

A reference that was used lately is alive, and so is all that hangs on it; one that was not is alive where its result is
behind a release, the latest of its asset, or held. The cumulative tables that stages keep count while they are used.
"""

from collections.abc import Collection, Iterable, Mapping

from heimdall_assets.errors import HeimdallError, OutOfReach, Refused
from heimdall_assets.kinds import IQ_FILES
from heimdall_assets.lineage.listings import RECORDINGS, decode_recordings
from heimdall_assets.lineage.walk import find_beside, list_followed
from heimdall_assets.manifests import RESULTS, Manifest, decode_canonical_json
from heimdall_assets.pipeline.releases.reading import read_provenance
from heimdall_assets.pipeline.runs import TRAININGS
from heimdall_assets.stores.computing import ENVIRONMENT, FACTS
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.tables import decode_table

EXPERIMENTS = "experiments/"
"""What references begin with whose second part is, as that of facts, the digest of a manifest: they live with it. So
do those of ``TRAININGS``."""

ALIASES = EXPERIMENTS + "aliases"

_POINTERS = ("shard", "digest")
"""Columns of cumulative tables that hold digests of objects."""

SHA256 = "sha256:"


class Reach:
    """Everything that is reached so far: manifests, and the digests of all objects, each with why it stays."""

    def __init__(self, objects: ObjectStore):
        self.objects = objects
        self.manifests: set[str] = set()
        self.why: dict[str, str] = {}
        self._unread: dict[str, list[str]] = {}

    def add(self, digests: Iterable[str], why: str) -> None:
        """Reach objects that nothing else is read from."""
        for digest in digests:
            self.why.setdefault(digest, why)

    def walk(self, roots: Iterable[str], why: str) -> None:
        """Reach manifests, what they hold, and their parents.

        Raises:
            HeimdallError: one of them, or its list of recordings, cannot be read.
            ValueError: one is no manifest.
        """
        pending = [digest for digest in roots if digest not in self.manifests]
        while pending:
            pending += self._visit(pending.pop(), why)

    def walk_what_is_there(self, roots: Iterable[str], why: str) -> int:
        """Reach as ``walk`` does, past what cannot be read; return how much of it cannot.

        Raises:
            OutOfReach: nobody can say what can.
        """
        pending, lost = [digest for digest in roots if digest not in self.manifests], 0
        while pending:
            digest = pending.pop()
            try:
                pending += self._visit(digest, why)
            except OutOfReach:
                raise
            except (HeimdallError, ValueError):
                lost += 1
                self.add([digest], why)
                pending += self._unread.pop(digest, [])
        return lost

    def _visit(self, digest: str, why: str) -> list[str]:
        """Reach one manifest and return its parents."""
        if digest in self.manifests:
            return []
        manifest = Manifest.decode(self.objects.read_bytes(digest))
        self.manifests.add(digest)
        parents = list_followed(manifest)
        self.add([digest, *list_parts(manifest)], why)
        self._unread[digest] = parents  # whatever becomes of its list of recordings
        self.add(list_recordings(self.objects, manifest), why)
        return self._unread.pop(digest)


def copy_reach(reach: Reach) -> Reach:
    """Return what reaches as far, and may reach farther."""
    copy = Reach(reach.objects)
    copy.manifests, copy.why = set(reach.manifests), dict(reach.why)
    return copy


def list_parts(manifest: Manifest) -> list[str]:
    """Return the digests of the objects that a manifest names itself."""
    held = [artifact.digest for artifact in manifest.artifacts.values()]
    return [*held, *(str(digest) for digest in manifest.summary.get("shards", []))]


def list_recordings(objects: ObjectStore, manifest: Manifest) -> list[str]:
    """Return the digests of the recordings that a manifest of ``iq_files`` lists; none: it is of another kind.

    Raises:
        HeimdallError: the list cannot be read.
    """
    if manifest.kind != IQ_FILES or RECORDINGS not in manifest.artifacts:
        return []
    return list(dict(decode_recordings(objects.read_bytes(manifest.artifacts[RECORDINGS].digest))))


def reach_released(stores: Stores, reach: Reach) -> None:
    """Reach whatever a release hangs on, its own files' copies too.

    Raises:
        Refused: what one of them needs is not known: nothing may be removed then.
    """
    for record in stores.releases.list_releases():
        version = str(record["version"])
        try:
            nodes = read_provenance(stores, version)["nodes"]
            for node in nodes:
                manifest = Manifest.model_validate({name: node[name] for name in Manifest.model_fields})
                reach.manifests.add(node["digest"])
                reach.add([node["digest"], *list_parts(manifest)], version)
                reach.add(list_recordings(stores.objects, manifest), version)
                reach.walk_what_is_there(list(find_beside(manifest).values()), version)
        except OutOfReach:
            raise
        except HeimdallError as error:
            raise Refused(
                f"release {version}: what it hangs on cannot be told ({error}), expected it whole; nothing was "
                f"removed; run heimdall verify {version}"
            ) from error
        reach.add((str(entry["sha256"]) for entry in record["files"].values()), version)
        reach.add(filter(None, [record.get("provenance")]), version)


def reach_judged(stores: Stores, reach: Reach) -> None:
    """Reach what the champion said of sessions before they were trained on: it is kept for ever."""
    reach.walk_what_is_there([one.result for one in stores.releases.list_judgements()], "judgements of new sessions")


def reach_recordings(stores: Stores, reach: Reach) -> None:
    """Reach the recording of every measurement that the database names by content, whatever its approval."""
    located = stores.measurements.list_locations()
    reach.add((text.removeprefix(SHA256) for text in located if text.startswith(SHA256)), "the database")


def reach_references(objects: ObjectStore, reach: Reach, targets: Mapping[str, str]) -> int:
    """Reach what references point at; return how many of them lead to nothing that can be read.

    Args:
        objects: where they rest.
        reach: what is reached so far.
        targets: reference -> digest.
    """
    lost = 0
    for name, digest in targets.items():
        try:
            if name.startswith(RESULTS):
                lost += reach.walk_what_is_there([digest], "results used lately")
            elif name.startswith(FACTS):
                environment = decode_canonical_json(objects.read_bytes(digest))[ENVIRONMENT]
                reach.add([digest, str(environment)], "facts")
            else:
                reach.add([digest, *_list_pointed(objects, name, digest)], "tables of what is computed")
        except OutOfReach:
            raise
        except (HeimdallError, ValueError, KeyError, TypeError):
            lost += 1
            reach.add([digest], "references")
    return lost


def find_owner(name: str) -> str | None:
    """Return the digest of the manifest that a reference is about and lives with; None: it is about none.

    Examples:
        >>> find_owner("facts/" + "0" * 64) == "0" * 64, find_owner("results/" + "0" * 64)
        (True, None)
    """
    for begins in (FACTS, EXPERIMENTS, TRAININGS):
        if name.startswith(begins) and name != ALIASES:
            return name.removeprefix(begins)
    return None


def list_held_objects(stores: Stores) -> list[str]:
    """Return the digests that holds name."""
    return [hold.thing for hold in stores.measurements.list_holds() if hold.what == "object"]


def walk_roots(reach: Reach, roots: Collection[str], why: str) -> None:
    """Reach from digests that are manifests, or other objects; one that is gone itself needs nothing.

    Raises:
        Refused: one is damaged, or lacks something that it hangs on: what it needs is not known.
    """
    for digest in sorted(reach.objects.find_present(roots)):
        try:
            reach.walk([digest], why)
        except OutOfReach:
            raise
        except (HeimdallError, ValueError) as error:
            if isinstance(error, ValueError) and digest not in reach.manifests:
                reach.add([digest], why)  # whole, and something else than a manifest
                continue
            raise Refused(
                f"{why}: what {digest} hangs on cannot be told ({error}), expected it whole; nothing was removed; "
                "heimdall train or heimdall reproduce makes it again"
            ) from error


def _list_pointed(objects: ObjectStore, name: str, digest: str) -> list[str]:
    if name.startswith((EXPERIMENTS, TRAININGS)):
        return []
    table = decode_table(objects.read_bytes(digest))
    return [str(value) for column in _POINTERS if column in table for value in table[column].dropna().unique()]
