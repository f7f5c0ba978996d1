"""Indexing: the edges of each result at rest in the index, whoever stored it, so that no answer is short.

Belongs here: which results the index lacks, taking them in, an index apart where the home's cannot be written. Does not
belong here: which edges a result has (``lineage.edges``), what is asked (``uses``).

A result is taken in before it can be found (``results.tell_results``). A home of before, a process that was killed, an
index that was lost: the references of results and of their facts say what is at rest, and what is missing is taken in
before the first answer.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from heimdall_assets.errors import HeimdallError, OutOfReach
from heimdall_assets.lineage.edges import Member, list_edges, list_members, list_parts
from heimdall_assets.lineage.walk import decode_manifest, list_followed
from heimdall_assets.manifests import RESULTS, Manifest
from heimdall_assets.stores.computing import FACTS
from heimdall_assets.stores.database.edges import EdgeIndex, lend_index
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.columns import read_values
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.things import Edge

_LOG = logging.getLogger(__name__)

EDGES_AT_ONCE = 250_000
"""Written in one transaction: others who write wait for some seconds."""

Progress = Callable[[str, int, int], None]
"""What, how many are done, of how many."""


@dataclass(frozen=True)
class WholeIndex:
    """An index that has every result at rest.

    Attributes:
        edges: the index.
        unread: one line for each result that is at rest and cannot be read: what it used nobody can say.
        num_added: results that were taken in now.
    """

    edges: EdgeIndex
    unread: list[str] = field(default_factory=list)
    num_added: int = 0


def say_nothing(what: str, done: int, total: int) -> None:
    """Hear of progress and tell nobody."""


@contextmanager
def open_whole_index(stores: Stores, progress: Progress = say_nothing) -> Iterator[WholeIndex]:
    """Give the index with every result at rest in it; what it lacks is taken in first.

    Where it cannot be written (a home that may only be read, a database of somebody else without a ledger) and lacks
    something, one is made of all results apart, for this once.

    Raises:
        HeimdallError: the database or the object store cannot be reached.
    """
    index = stores.edges
    missing = find_missing(stores, index.read_results() if index.is_there else {})
    if not missing or index.is_writable:
        yield take_in(stores.objects, index, missing, progress)
        return
    with lend_index() as apart:
        yield take_in(stores.objects, apart, find_missing(stores, {}), progress)


def rebuild(stores: Stores, progress: Progress = say_nothing) -> WholeIndex:
    """Forget the index and make it again from the results at rest; return it.

    Raises:
        Refused: the database cannot be written.
    """
    stores.edges.clear()
    return take_in(stores.objects, stores.edges, find_missing(stores, {}), progress)


def find_missing(stores: Stores, known: Mapping[str, str]) -> dict[str, str | None]:
    """Return what is at rest and not in the index: digest -> None, or reference -> itself where that alone is known.

    Args:
        known: digest -> reference of the results that the index has.
    """
    names = stores.objects.list_references()
    facts = {name.removeprefix(FACTS) for name in names if name.startswith(FACTS)}
    released = {
        str(record[part])
        for record in stores.releases.list_releases()
        for part in ("manifest", "evaluation")
        if part in record
    }
    missing: dict[str, str | None] = dict.fromkeys(sorted((facts | released) - known.keys()))
    references = set(known.values())
    for name in names:
        if name.startswith(RESULTS) and name not in references:
            missing[name] = name
    return missing


def take_in(
    objects: ObjectStore, index: EdgeIndex, missing: Mapping[str, str | None], progress: Progress = say_nothing
) -> WholeIndex:
    """Take results into the index, each after those that it was made from; return what came of it.

    Raises:
        Refused: the index cannot be written.
        StorageError: it could not be.
        OutOfReach: nobody can say what an object holds.
    """
    known = set(index.read_results()) if missing else set()
    taker = _Taker(objects, index, known)
    before = len(known)
    for place, (name, reference) in enumerate(missing.items()):
        progress("results indexed", place, len(missing))
        taker.take(name, reference)
    if missing:
        progress("results indexed", len(missing), len(missing))
    return WholeIndex(index, list(dict.fromkeys(taker.unread.values())), len(known) - before)


@dataclass
class _Taker:
    """Takes in results with those that they were made from.

    Attributes:
        known: digests of those that are in the index.
        references: of those that were taken in now.
        unread: what cannot be read -> why.
    """

    objects: ObjectStore
    index: EdgeIndex
    known: set[str]
    references: set[str] = field(default_factory=set)
    unread: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, reference: str | None) -> None:
        if name in self.references:
            return
        try:
            digest = name if reference is None else self.objects.read_reference(reference)
        except OutOfReach:
            raise
        except HeimdallError as error:
            self.unread[name] = str(error)
            return
        pending = [] if digest is None else [digest]
        while pending:
            manifest = self._read(pending[-1])
            parents = [] if manifest is None else list_followed(manifest)
            waiting = [parent for parent in parents if parent not in self.known and parent not in self.unread]
            if waiting and pending[-1] not in waiting:
                pending += waiting
                continue
            found = pending.pop()
            if manifest is not None and found not in self.known:
                self._add(found, manifest)

    def _read(self, digest: str) -> Manifest | None:
        if digest in self.known or digest in self.unread:
            return None
        try:
            return decode_manifest(digest, self.objects.read_bytes(digest))
        except OutOfReach:
            raise
        except HeimdallError as error:
            self.unread[digest] = str(error)
            return None

    def _add(self, digest: str, manifest: Manifest) -> None:
        try:
            members = _read_members(self.objects, manifest)
        except OutOfReach:
            raise
        except HeimdallError as error:
            self.unread[digest] = f"{manifest.kind} {digest}: {error}"
            self.index.add(list_edges(digest, manifest))  # what the manifest itself says is known all the same
            return
        _write_edges(self.index, digest, manifest, members)
        self.known.add(digest)
        self.references.add(manifest.reference)


def index_result(objects: ObjectStore, index: EdgeIndex, digest: str, manifest: Manifest) -> None:
    """Take one result into the index; doing it twice, or at once with another, changes nothing.

    Raises:
        Refused: the index cannot be written.
        HeimdallError: its table cannot be read, or the database cannot be reached.
    """
    _write_edges(index, digest, manifest, _read_members(objects, manifest))


def _read_members(objects: ObjectStore, manifest: Manifest) -> list[Member]:
    def read_columns(table: str, columns: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        return read_values(objects.read_bytes(table), columns)

    return list_members(manifest, read_columns)


def _write_edges(index: EdgeIndex, digest: str, manifest: Manifest, members: Sequence[Member]) -> None:
    """Write what is in a table before its parts, and those before the note that all of it is there."""
    known = index.find_known(member.thing for member in members)
    _add_in_turns(index, (member.list_edges() for member in members if member.thing not in known))
    parts = list(list_parts(digest, manifest, members))
    old = index.find_known(part for part, _ in parts)
    _add_in_turns(index, (edges[-1:] if part in old else edges for part, edges in parts))
    index.add(list_edges(digest, manifest), (digest, manifest.reference))


def build_listener(stores: Stores) -> Callable[[str, Manifest], None]:
    """Return what takes in each result as it is stored; where it cannot, whoever asks later does."""

    def listen(digest: str, manifest: Manifest) -> None:
        try:
            index = stores.edges
            if index.is_writable:
                index_result(stores.objects, index, digest, manifest)
        except HeimdallError as error:  # the result is worth more than its place in an index
            _LOG.warning("%s %s: not in the index of lineage yet (%s)", manifest.kind, digest[:12], error)

    return listen


def _add_in_turns(index: EdgeIndex, groups: Iterable[list[Edge]]) -> None:
    """Write groups of edges, each group whole in one transaction."""
    waiting: list[Edge] = []
    for group in groups:
        waiting += group
        if len(waiting) >= EDGES_AT_ONCE:
            index.add(waiting)
            waiting = []
    if waiting:
        index.add(waiting)
