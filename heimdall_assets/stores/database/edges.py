"""Edges: the index of lineage, which says what was used for what, asked in both directions.

Belongs here: keeping edges and walking them. Does not belong here: which edges a result has (``lineage.edges``), that
all of them are here (``pipeline.tracing``).

The index is made from results at rest and evidence of nothing: ``heimdall verify`` never reads it. The number of a
thing is made from its kind and name, so that two who take in the same write the same.
"""

import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, Table, Text, and_, column, delete, func, or_, select, text, true

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.database.schema import lineage_edges, lineage_nodes, lineage_results
from heimdall_assets.things import Edge, Thing

REVISION = "0006"
"""The first schema that has the index."""

_TEXTS = ("kind", "name", "digest", "reference")
"""Columns of the index that are no numbers."""


def number_thing(thing: Thing) -> int:
    """Return the number of a thing, of 63 bits and never 0."""
    kind, name = thing
    return (int.from_bytes(sha256(f"{kind} {name}".encode()).digest()[:8]) >> 1) or 1


@dataclass(frozen=True)
class Reached:
    """What was reached, and by which edges.

    Attributes:
        things: number -> thing.
        edges: (used, used for, number of the measurement through which it was or 0), of things that were reached.
    """

    things: Mapping[int, Thing]
    edges: Sequence[tuple[int, int, int]]


class EdgeIndex:
    """The index in a database of ours."""

    def __init__(self, database: Database):
        self._database = database

    @property
    def is_there(self) -> bool:
        """Whether the database is there and has an index."""
        if self._database.is_empty or not self._database.is_ours:
            return False
        revision = self._database.shape.revision
        return revision is not None and revision >= REVISION

    @property
    def is_writable(self) -> bool:
        """Whether it is there and can be written."""
        return self.is_there and self._database.is_writable

    def read_results(self) -> dict[str, str]:
        """Return digest -> reference of each result whose edges are all here."""
        with self._database.reading() as connection:
            return {row.digest: row.reference for row in connection.execute(select(lineage_results))}

    def list_of_kind(self, kind: str) -> list[str]:
        """Return the names of all things of one kind, in alphabetical order."""
        with self._database.reading() as connection:
            query = select(lineage_nodes.c.name).where(lineage_nodes.c.kind == kind)
            return sorted(row.name for row in connection.execute(query))

    def count_edges(self) -> int:
        """Return how many edges there are."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(lineage_edges)).scalar_one())

    def find_known(self, things: Iterable[Thing]) -> set[Thing]:
        """Return those of ``things`` that are here."""
        with self._database.reading() as connection:
            query = select(lineage_nodes).where(lineage_nodes.c.id.in_(_list_numbers(connection, things)))
            return {(row.kind, row.name) for row in connection.execute(query)}

    def find_names(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return number -> name of the things of these numbers."""
        with self._database.reading() as connection:
            told = _read_rows(connection, [(number,) for number in numbers], {"id": BigInteger})
            query = select(lineage_nodes).where(lineage_nodes.c.id.in_(select(told.c.id)))
            return {row.id: row.name for row in connection.execute(query)}

    def add(self, edges: Collection[Edge], result: tuple[str, str] | None = None) -> None:
        """Take in edges, all in one transaction; those that are here stay.

        Args:
            edges: of one or more things.
            result: digest and reference of a result all whose edges are here by then; None: none is complete.

        Raises:
            Refused: the database cannot be written.
            StorageError: two things have one number, or the database could not be reached.
        """
        things = {thing for edge in edges for thing in edge if thing is not None}
        numbers = {thing: number_thing(thing) for thing in things}
        rows = sorted({(numbers[used], numbers[by], 0 if way is None else numbers[way]) for used, by, way in edges})
        with self._database.writing() as connection:
            told = _insert(connection, lineage_nodes, sorted((numbers[thing], *thing) for thing in things))
            others = select(lineage_nodes).join(told, told.c.id == lineage_nodes.c.id)
            others = others.where(or_(told.c.kind != lineage_nodes.c.kind, told.c.name != lineage_nodes.c.name))
            for other in connection.execute(others.limit(1)):
                raise StorageError(
                    f"lineage index: found {other.kind} {other.name} under the number {other.id} of another thing"
                )
            _insert(connection, lineage_edges, rows)
            _insert(connection, lineage_results, [] if result is None else [result])

    def forget(self, names: Collection[str]) -> None:
        """Forget results and objects that are no longer at rest, by digest; what nobody knows is fine."""
        with self._database.writing() as connection:
            told = _read_rows(connection, [(name,) for name in names], {"name": Text})
            numbers = select(lineage_nodes.c.id).where(lineage_nodes.c.name.in_(select(told.c.name)))
            edges = or_(lineage_edges.c.parent.in_(numbers), lineage_edges.c.child.in_(numbers))
            connection.execute(delete(lineage_edges).where(edges))
            connection.execute(delete(lineage_nodes).where(lineage_nodes.c.id.in_(numbers)))
            connection.execute(delete(lineage_results).where(lineage_results.c.digest.in_(select(told.c.name))))

    def forget_things(self, things: Collection[Thing]) -> None:
        """Forget things with all their edges; what nobody knows is fine."""
        with self._database.writing() as connection:
            numbers = _list_numbers(connection, things)
            edges = or_(lineage_edges.c.parent.in_(numbers), lineage_edges.c.child.in_(numbers))
            connection.execute(delete(lineage_edges).where(edges))
            connection.execute(delete(lineage_nodes).where(lineage_nodes.c.id.in_(numbers)))

    def clear(self) -> None:
        """Forget everything: it is taken in again from the results at rest."""
        with self._database.writing() as connection:
            for table in (lineage_results, lineage_edges, lineage_nodes):
                connection.execute(delete(table))

    def find_descendants(self, things: Collection[Thing]) -> Reached:
        """Return everything that ``things`` were used for, however many steps on, they themselves too."""
        return self._walk(things, lineage_edges.c.parent, lineage_edges.c.child, ())

    def find_ancestors(self, things: Collection[Thing], kinds: Collection[str]) -> Reached:
        """Return everything of ``kinds`` that ``things`` were made from by way of such alone, they themselves too."""
        return self._walk(things, lineage_edges.c.child, lineage_edges.c.parent, kinds)

    def find_used(self, things: Collection[Thing], kind: str) -> list[tuple[Thing, Thing]]:
        """Return each of ``things`` with each thing of ``kind`` that it was made from, one step back."""
        numbers = {number_thing(thing): thing for thing in things}
        with self._database.reading() as connection:
            query = select(lineage_edges.c.child, lineage_nodes.c.name)
            query = query.join(lineage_nodes, lineage_nodes.c.id == lineage_edges.c.parent)
            query = query.where(
                lineage_edges.c.child.in_(_list_numbers(connection, things)),
                lineage_edges.c.through == 0,
                lineage_nodes.c.kind == kind,
            )
            return [(numbers[child], (kind, name)) for child, name in connection.execute(query)]

    def _walk(self, things: Collection[Thing], start: Any, end: Any, kinds: Collection[str]) -> Reached:
        found: dict[int, Thing] = {}
        edges: list[tuple[int, int, int]] = []
        with self._database.reading() as connection:
            query = _select_reached(_list_numbers(connection, things), start, end, kinds)
            for row in connection.execute(query):
                found[row.id] = (row.kind, row.name)
                if row.parent is not None:
                    edges.append((row.parent, row.child, row.through))
        return Reached(found, [edge for edge in edges if edge[0] in found and edge[1] in found])


@contextmanager
def lend_index() -> Iterator[EdgeIndex]:
    """Give an empty index in a database of its own, which goes away at the end."""
    with tempfile.TemporaryDirectory(prefix="heimdall-lineage-") as folder:
        database = Database(f"sqlite:///{folder}/index.db")
        database.upgrade()
        try:
            yield EdgeIndex(database)
        finally:
            database.close()


def _select_reached(numbers: Any, start: Any, end: Any, kinds: Collection[str]) -> Select[Any]:
    reached = select(lineage_nodes.c.id).where(lineage_nodes.c.id.in_(numbers)).cte("reached", recursive=True)
    step = select(end).join(reached, start == reached.c.id)
    if kinds:  # backwards, where only an edge without a measurement has an index, and only such lead from kind to kind
        step = step.join(lineage_nodes, lineage_nodes.c.id == end)
        step = step.where(lineage_edges.c.through == 0, lineage_nodes.c.kind.in_(kinds))
    reached = reached.union(step)
    joined = and_(start == reached.c.id, lineage_edges.c.through == 0) if kinds else start == reached.c.id
    known = reached.join(lineage_nodes, lineage_nodes.c.id == reached.c.id)
    return select(lineage_nodes, lineage_edges).select_from(known.outerjoin(lineage_edges, joined))


def _list_numbers(connection: Connection, things: Iterable[Thing]) -> Any:
    """Return the query of the numbers of things."""
    return select(_read_rows(connection, [(number_thing(thing),) for thing in things], {"id": BigInteger}).c.id)


def _read_rows(connection: Connection, rows: Sequence[tuple[Any, ...]], columns: Mapping[str, Any]) -> Any:
    """Return rows as a table of the query: one value, for a query of a million takes long to write."""
    kinds = list(columns.values())
    if connection.dialect.name == "postgresql":
        picked = [f"CAST(value->>{at} AS {kind()})" for at, kind in enumerate(kinds)]
        source = "json_array_elements(CAST(:told AS json)) AS told(value)"
    else:
        picked = [f"json_extract(value, '$[{at}]')" for at in range(len(kinds))]
        source = "json_each(:told)"
    named = ", ".join(f"{pick} AS {name}" for pick, name in zip(picked, columns, strict=True))
    told = text(f"SELECT {named} FROM {source}").bindparams(told=json.dumps(rows, ensure_ascii=False))
    return told.columns(*(column(name, kind) for name, kind in columns.items())).subquery("told")


def _insert(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> Any:
    """Add rows, pass over those whose key is there, and return all of them as a table of a query."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    names = list(table.columns.keys())
    told = _read_rows(connection, rows, {name: Text if name in _TEXTS else BigInteger for name in names})
    picked = select(*(told.c[name] for name in names)).where(true())
    connection.execute(insert(table).from_select(names, picked).on_conflict_do_nothing())
    return told
