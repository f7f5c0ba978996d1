"""Uses: which results and releases a session, measurement, source, station or object went into, by the index.

Belongs here: what is asked and how it is told. Does not belong here: walking the index (``stores.database.edges``),
that it is whole (``indexing``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heimdall_assets.errors import InvalidInput
from heimdall_assets.kinds import MEASUREMENT_DATABASE, SPLIT_KINDS
from heimdall_assets.lineage.edges import read_member
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.tracing.graph import Graph
from heimdall_assets.stores.database.decisions import read_decisions
from heimdall_assets.stores.database.edges import EdgeIndex, number_thing
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.releases.status import read_status
from heimdall_assets.things import (
    MEASUREMENT,
    OBJECT,
    RELEASE,
    SESSION,
    SESSION_NAME,
    SESSION_RECORDINGS,
    SESSION_ROWS,
    SOURCE,
    SOURCE_NAME,
    STATION,
    STATION_NAME,
    Thing,
)

ASKED: dict[str, tuple[str, ...]] = {
    "session": (SESSION, SESSION_NAME),
    "measurement": (MEASUREMENT,),
    "source": (SOURCE, SOURCE_NAME),
    "station": (STATION, STATION_NAME),
    "digest": (OBJECT, *STAGES),
}
"""What is asked about -> the things that its id, name or digest may mean."""

_MEMBERS = (SESSION_ROWS, SESSION_RECORDINGS)
_SPLITS = {kind: split for split, kind in SPLIT_KINDS.items()}
_ORDER = {kind: place for place, kind in enumerate((MEASUREMENT_DATABASE, *STAGES))}


def find_uses(stores: Stores, index: EdgeIndex, **asked: str | None) -> dict[str, Any]:
    """Return which releases and which other results used the thing asked for.

    Exactly one thing is asked for: a session, source or station by id or name, a measurement by id, an object by its
    digest (a recording, a table, weights, a result).

    Args:
        stores: whose releases and decisions are told.
        index: of every result at rest.
        session, measurement, source, station, digest: what is asked for.

    Returns:
        JSON values. ``releases``, by rising version: ``version``; ``status``, released or rejected; ``sessions``: each
        with ``session_id``, ``session_name``, ``split``, ``approved_by``, ``approved_at``, ``approval_reason``;
        ``measurements``: ids; ``nodes``: kind and digest of the results that hold the object. ``results``: ``kind`` and
        ``digest`` of those that no release was made from.

    Raises:
        InvalidInput: none or several things are asked for.
    """
    wanted = {name: value for name, value in asked.items() if value is not None}
    if len(wanted) != 1 or not wanted.keys() <= ASKED.keys():
        raise InvalidInput(f"where used: found {sorted(wanted) or 'nothing'} asked for, expected one of {list(ASKED)}")
    ((what, value),) = wanted.items()
    starts = [(kind, value) for kind in ASKED[what]]
    graph = Graph()
    graph.add(index.find_descendants(starts))
    members, touched = graph.list_of(_MEMBERS), graph.list_of(STAGES)
    sessions = {read_member(graph.name(member))[0] for member in members}
    graph.add(index.find_descendants([(SESSION, name) for name in sessions]))
    behind = _find_releases(stores, graph)
    used = {version: made for version, made in behind.items() if made & touched}
    tell = _Teller(stores, index, graph, what, starts, members)
    releases = tell.describe({version: used[version] for version in sorted(used, key=list(behind).index)})
    loose = touched - {number for made in used.values() for number in made}
    return {"releases": releases, "results": [_describe_result(graph.things[number]) for number in _sort(graph, loose)]}


def find_origins(stores: Stores, index: EdgeIndex, digest: str) -> list[dict[str, str]]:
    """Return kind and digest of each result that a result, or what is part of one, was made from, first ones first.

    The result itself is the last of them; empty: nothing here was made of parts that are known.
    """
    graph = Graph()
    graph.add(index.find_descendants([(kind, digest) for kind in ASKED["digest"]]))
    holders = graph.children[number_thing((OBJECT, digest))] & graph.list_of(STAGES)
    starts = {number for number in graph.list_of(STAGES) if graph.name(number) == digest}
    starts |= {number for number in holders if _is_part(stores, graph.name(number), digest)}
    found = Graph()
    found.add(index.find_ancestors([graph.things[number] for number in starts], tuple(_ORDER)))
    return [_describe_result(found.things[number]) for number in _sort(found, set(found.things))]


def _is_part(stores: Stores, result: str, digest: str) -> bool:
    """Return whether an object is part of what a result is, and not what it was made from."""
    manifest = Manifest.decode(stores.objects.read_bytes(result))
    held = {artifact.digest for artifact in manifest.artifacts.values()}
    return digest in held or digest in manifest.summary.get("shards", [])


def _describe_result(thing: Thing) -> dict[str, str]:
    return {"kind": thing[0], "digest": thing[1]}


def _sort(graph: Graph, numbers: set[int]) -> list[int]:
    return sorted(numbers, key=lambda number: (_ORDER[graph.things[number][0]], graph.things[number][1]))


def _find_releases(stores: Stores, graph: Graph) -> dict[str, set[int]]:
    """Return version -> the results behind it that were reached, by rising version; none: it is not told."""
    digests = {name: number for number, (kind, name) in graph.things.items() if kind in STAGES}
    found = {}
    for record in stores.releases.list_releases():
        version = str(record["version"])
        roots = {digests[str(record[part])] for part in ("manifest", "evaluation") if record.get(part) in digests}
        roots |= graph.parents.get(number_thing((RELEASE, version)), set())
        found[version] = graph.find_behind(roots)
    return found


@dataclass(frozen=True)
class _Teller:
    """What is told of each release: sessions with split and approval, measurements, results that hold the object."""

    stores: Stores
    index: EdgeIndex
    graph: Graph
    what: str
    starts: list[Thing]
    members: set[int]

    def describe(self, used: Mapping[str, set[int]]) -> list[dict[str, Any]]:
        """Return one entry for each version, of the results behind it."""
        status = {str(record["version"]): read_status(record) for record in self.stores.releases.list_releases()}
        held = {member: self.graph.find_results(member) for member in self.members}
        measurements, holders = self._list_measurements(), self._find_holders()
        tell_session = self._prepare_sessions()
        told = []
        for version, made in used.items():
            mine = [member for member, results in held.items() if results & made]
            sessions = sorted({read_member(self.graph.name(member))[0] for member in mine})
            told.append(
                {
                    "version": version,
                    "status": status[version],
                    "sessions": [tell_session(session, made) for session in sessions],
                    "measurements": sorted({name for member in mine for name in measurements[member]}),
                    "nodes": [" ".join(self.graph.things[one]) for one in _sort(self.graph, holders & made)],
                }
            )
        return told

    def _prepare_sessions(self) -> Callable[[str, set[int]], dict[str, Any]]:
        """Return what tells of a session how the results behind a release have it."""
        names, decisions = self._read_names(), self._read_decisions()
        splits, approvals = self._find_splits(), self._find_approvals()

        def tell(session: str, made: set[int]) -> dict[str, Any]:
            split = next((split for result, split in splits[session].items() if result in made), None)
            approval = _describe_approval(decisions, approvals[session], made)
            return {"session_id": session, "session_name": names.get(session), "split": split, **approval}

        return tell

    def _list_sessions(self) -> list[Thing]:
        return [(SESSION, name) for name in sorted({read_member(self.graph.name(one))[0] for one in self.members})]

    def _read_names(self) -> dict[str, str]:
        return {one[1]: name[1] for one, name in self.index.find_used(self._list_sessions(), SESSION_NAME)}

    def _read_decisions(self) -> dict[int, dict[str, Any]]:
        numbers = {read_member(self.graph.name(one))[1] for one in self.graph.list_of((SESSION_ROWS,))} - {None}
        return read_decisions(self.stores.measurements.database, [number for number in numbers if number is not None])

    def _find_splits(self) -> dict[str, dict[int, str]]:
        """Return session -> result that lists it -> the split that this is."""
        found: dict[str, dict[int, str]] = {}
        for kind, name in self._list_sessions():
            results = self.graph.find_results(number_thing((kind, name)))
            kinds = {result: self.graph.things[result][0] for result in results}
            found[name] = {result: _SPLITS[kind] for result, kind in kinds.items() if kind in _SPLITS}
        return found

    def _find_approvals(self) -> dict[str, dict[int, int | None]]:
        """Return session -> snapshot that holds it -> number of the decision that had approved it then."""
        found: dict[str, dict[int, int | None]] = {name: {} for _, name in self._list_sessions()}
        for member in self.graph.list_of((SESSION_ROWS,)):
            session, decision = read_member(self.graph.name(member))
            for result in self.graph.find_results(member):
                found[session][result] = decision
        return found

    def _find_holders(self) -> set[int]:
        """Return the results that the object is, or that hold it."""
        if self.what != "digest":
            return set()
        numbers = {number_thing(start) for start in self.starts} & self.graph.things.keys()
        near = numbers | {child for number in numbers if self.graph.things[number][0] == OBJECT
                          for child in self.graph.children[number]}  # fmt: skip
        return {number for number in near if self.graph.things[number][0] in STAGES}

    def _list_measurements(self) -> dict[int, list[str]]:
        """Return member -> measurements of it that have to do with what is asked for."""
        found: dict[int, list[str]] = {member: [] for member in self.members}
        if self.what in ("session", "source"):
            things = {self.graph.things[member]: member for member in self.members}
            for thing, (_, name) in self.index.find_used(list(things), MEASUREMENT):
                found[things[thing]].append(name)
            return found
        if self.what == "measurement":
            return {member: [self.starts[0][1]] for member in self.members}
        ways = [(by, number) for (_, by), numbers in self.graph.through.items() for number in numbers]
        names = self.index.find_names({number for _, number in ways})
        for by, number in ways:
            found[by].append(names[number])
        return found


def _describe_approval(
    decisions: Mapping[int, Mapping[str, Any]], approvals: Mapping[int, int | None], made: set[int]
) -> dict[str, Any]:
    number = next((decision for result, decision in approvals.items() if result in made), None)
    decision = {} if number is None else decisions.get(number, {})
    return {
        "approved_by": decision.get("decided_by"),
        "approved_at": decision.get("decided_at"),
        "approval_reason": decision.get("reason"),
    }
