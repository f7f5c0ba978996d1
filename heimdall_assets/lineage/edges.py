"""Edges of a result: what it was made from, down to each session, measurement and recording, as pairs of things.

Belongs here: from a manifest and its table to edges, few where most of a table is as in the result before. Does not
belong here: keeping and walking them (``stores.database.edges``).

What stands of a session in a snapshot is one thing, named by its content, and so are neighbours in a table: a snapshot
with one session more shares all others, and all parts of the table but one, with the snapshot before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    CHAMPION_ON_NEW_DATA,
    IQ_FILES,
    MODEL_RELEASE,
    SPLIT_KINDS,
)
from heimdall_assets.lineage.walk import BESIDE, find_beside
from heimdall_assets.manifests import Manifest, compute_texts_digest
from heimdall_assets.things import (
    DECISION,
    MEASUREMENT,
    OBJECT,
    PART,
    RELEASE,
    SESSION,
    SESSION_NAME,
    SESSION_RECORDINGS,
    SESSION_ROWS,
    SOURCE,
    SOURCE_NAME,
    STATION,
    STATION_NAME,
    Edge,
    Thing,
)

ReadColumns = Callable[[str, Sequence[str]], Mapping[str, Sequence[Any]]]
"""Digest of a table, and columns -> column -> its values, None in a column that the table lacks."""

PART_LENGTH = 64
"""Members of a part, on average."""

_NO_DECISION = "-"
_COLUMNS = {
    APPROVED_MEASUREMENTS: (
        "session_id", "session_name", "source_id", "source_name", "approval_event_id", "measurement_id", "station_id",
        "station_name",
    ),
    IQ_FILES: ("session_id", "measurement_id", "digest"),
    **dict.fromkeys((*SPLIT_KINDS.values(), CHAMPION_ON_NEW_DATA), ("session_id",)),
}  # fmt: skip
"""Kind of a result -> what is read of its table."""

TABLE = "table"


@dataclass(frozen=True)
class Member:
    """What a table holds of one session: a thing, and the edges to it, which are the same wherever it stands.

    Attributes:
        thing: named by its rows.
        session: its id.
        rows: of the table, in the order of the columns that are read of it.
    """

    thing: Thing
    session: str
    rows: Sequence[tuple[Any, ...]]

    def list_edges(self) -> list[Edge]:
        """Return the edges to it and to the names of what stands in it, each once."""
        if self.thing[0] == SESSION_ROWS:
            return list(dict.fromkeys(_list_row_edges(self)))
        if self.thing[0] == SESSION_RECORDINGS:
            return [((OBJECT, digest), self.thing, (MEASUREMENT, str(name))) for _, name, digest in self.rows if digest]
        return []


def list_edges(digest: str, manifest: Manifest) -> list[Edge]:
    """Return the edges that a manifest itself tells: to it, and to the release that it is."""
    result = (manifest.kind, digest)
    held = {artifact.digest for artifact in manifest.artifacts.values()}
    beside = find_beside(manifest)
    held |= set(manifest.content.values()) - set(beside.values())
    held |= {*map(str, manifest.summary.get("shards", []))}
    edges: list[Edge] = [(parent, result, None) for parent in manifest.parents.items()]
    edges += [((BESIDE[name], found), result, None) for name, found in beside.items()]
    edges += [((OBJECT, name), result, None) for name in sorted(held)]
    if manifest.kind == MODEL_RELEASE and "version" in manifest.summary:
        edges.append((result, (RELEASE, str(manifest.summary["version"])), None))
    return edges


def list_members(manifest: Manifest, read_columns: ReadColumns) -> list[Member]:
    """Return what stands of each session in the table of a result, in the table's order; empty: it lists none.

    Raises:
        HeimdallError: ``read_columns`` found the table missing or damaged.
    """
    columns = _COLUMNS.get(manifest.kind)
    if columns is None or TABLE not in manifest.artifacts:
        return []
    read = read_columns(manifest.artifacts[TABLE].digest, columns)
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for row in zip(*(read[name] for name in columns), strict=True):
        rows.setdefault(str(row[0]), []).append(row)
    if manifest.kind == APPROVED_MEASUREMENTS:
        return [_describe_rows(name, found) for name, found in rows.items()]
    if manifest.kind == IQ_FILES:
        return [_describe_recordings(name, found) for name, found in rows.items()]
    return [Member((SESSION, name), name, ()) for name in rows]


def list_parts(digest: str, manifest: Manifest, members: Sequence[Member]) -> Iterator[tuple[Thing, list[Edge]]]:
    """Yield each part of a table with the edges to it; the last edge of each is to the result itself.

    Where a part ends is decided by its last member alone: what is put in or taken out changes the part that it is in.
    """
    part: list[Thing] = []
    for place, member in enumerate(members):
        part.append(member.thing)
        is_end = sha256(" ".join(member.thing).encode()).digest()[-1] % PART_LENGTH == 0
        if is_end or place == len(members) - 1:
            thing = (PART, compute_texts_digest(part))
            yield thing, [*((one, thing, None) for one in part), (thing, (manifest.kind, digest), None)]
            part = []


def read_member(name: str) -> tuple[str, int | None]:
    """Return session and number of the decision that approved it, of the name of a member; None: of none.

    Examples:
        >>> read_member("17 0f3a2b night 3")
        ('night 3', 17)
    """
    decision, _, session = name.split(" ", 2)
    return session, None if decision == _NO_DECISION else int(decision)


def _name_member(decision: int | None, rows: Sequence[Sequence[Any]], session: str) -> str:
    told = sorted([["" if value is None else str(value) for value in row] for row in rows])
    return f"{_NO_DECISION if decision is None else decision} {compute_texts_digest(told)[:32]} {session}"


def _describe_rows(session: str, rows: Sequence[tuple[Any, ...]]) -> Member:
    decision = rows[0][4]
    name = _name_member(None if decision is None else int(decision), rows, session)
    return Member((SESSION_ROWS, name), session, rows)


def _list_row_edges(member: Member) -> Iterator[Edge]:
    _, name, source, source_name, decision, *_ = member.rows[0]
    session, thing = (SESSION, member.session), member.thing
    yield session, thing, None
    if name is not None:
        yield (SESSION_NAME, str(name)), session, None
    if source is not None:
        yield (SOURCE, str(source)), thing, None
        if source_name is not None:
            yield (SOURCE_NAME, str(source_name)), (SOURCE, str(source)), None
    if decision is not None:
        yield (DECISION, str(int(decision))), thing, None
    for *_, measurement_id, station, station_name in member.rows:
        measurement = (MEASUREMENT, str(measurement_id))
        yield measurement, thing, None
        yield (STATION, str(station)), thing, measurement
        if station_name is not None:
            yield (STATION_NAME, str(station_name)), (STATION, str(station)), None


def _describe_recordings(session: str, rows: Sequence[tuple[Any, ...]]) -> Member:
    held = [(name, digest) for _, name, digest in rows if digest is not None]
    return Member((SESSION_RECORDINGS, _name_member(None, held, session)), session, rows)
