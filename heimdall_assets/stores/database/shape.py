"""Shape: which of the tables and columns that we know a database has, so that one read serves ours and the field's.

Belongs here: reflection, and columns that stand in where a database lacks one. Does not belong here: what rows mean.
"""

from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from typing import Any

from sqlalchemy import Connection, String, Text, cast, column, inspect, literal, null, select, table, type_coerce
from sqlalchemy.sql.elements import ColumnClause, ColumnElement
from sqlalchemy.sql.selectable import TableClause

from heimdall_assets.domain import FIELDS
from heimdall_assets.errors import StorageError
from heimdall_assets.stores.database.raw.one_table import COLUMNS, OneTable, is_one_table, read_one_table
from heimdall_assets.stores.database.raw.stated_receivers import Statement
from heimdall_assets.stores.database.schema import FIELD_TABLES, LEDGERS, SCHEMA, UtcDateTime, metadata

VERSION_TABLE = "heimdall_schema_version"
_STEPS = files("heimdall_assets.stores.database.migrations").joinpath("versions")
REVISION = max(step.name.split("_")[1] for step in _STEPS.iterdir() if step.name.startswith("step_"))
"""The newest migration: a database that has it needs none, and is opened without asking who else writes."""

REQUIRED = {
    "websdr_stations": ("id", "name", "latitude", "longitude"),
    "known_sources": ("id", "name", "latitude", "longitude", "is_validated"),
    "recording_sessions": ("id", "known_source_id", "session_name", "session_start", "status", "approval_status"),
    "measurements": ("id", "recording_session_id", "websdr_station_id", "timestamp", "frequency_hz"),
}
"""Columns without which no snapshot can be read; the others may be missing in a database that is not ours."""

_STAND_INS = {
    (table, field.name): field.stand_in for table, fields in FIELDS.items() for field in fields if field.stand_in
}


class Kind(Enum):
    """Whose database it is."""

    EMPTY = "empty"  # none of our tables: an upgrade makes them
    OURS = "ours"  # made by our migrations
    FIELD = "field"  # the field's own tables without our ledger: read as it is, never written
    ONE_TABLE = "one table"  # of somebody else, seen as the field's: read as it is, never written

    @property
    def is_foreign(self) -> bool:
        """Whether it belongs to somebody else, and is never written."""
        return self in (Kind.FIELD, Kind.ONE_TABLE)


@dataclass(frozen=True)
class Shape:
    """Tables and columns found.

    Attributes:
        kind: whose database it is.
        schema: where its tables are; None on SQLite.
        columns: table -> names of its columns.
        revision: the last migration that ran; None: not ours.
        reads_as_text: PostgreSQL: ids, times and JSON are cast to text, whatever type the field gave them.
        one_table: the one table of a database that has no other; None: it has.
    """

    kind: Kind
    schema: str | None
    columns: dict[str, frozenset[str]]
    reads_as_text: bool
    revision: str | None = None
    one_table: OneTable | None = None

    def table(self, name: str, alias: str) -> Any:
        """Return the table ``name`` of this database, or what stands for it, under an alias."""
        if self.one_table is not None:
            return self.one_table.select(name).subquery(alias)
        columns: list[ColumnClause[Any]] = [column(known) for known in sorted(self.columns.get(name, ()))]
        clause: TableClause = table(name, *columns, schema=self.schema)
        return clause.alias(alias)

    def pick(self, source: Any, name: str, of: str) -> ColumnElement[Any]:
        """Return column ``of`` of table ``name`` as read raw; where this database lacks it, what stands in for it."""
        if of not in self.columns.get(name, ()):
            stand_in = _STAND_INS.get((name, of))
            return null() if stand_in is None else literal(stand_in)
        found: ColumnElement[Any] = source.c[of]
        known = metadata.tables[f"{SCHEMA}.{name}"].c[of].type
        if isinstance(known, String | Text | UtcDateTime):
            # A driver that parses a wrong date raises for the whole result; text is judged row by row. The field may
            # number its rows or use enumerations: as text, they are compared with texts.
            is_plain = not self.reads_as_text and (self.kind is Kind.OURS or not of.endswith("id"))
            return type_coerce(found, String) if is_plain else cast(found, Text)
        return found


def read_shape(connection: Connection, shown: str, statement: Statement) -> Shape:
    """Return the shape of the database behind ``connection``; ``shown`` names it in errors.

    Raises:
        StorageError: it has some of the field's tables or columns but not all that a snapshot needs.
        InvalidSetting: it is one table, and ``statement`` does not say what that leaves open.
    """
    is_postgresql = connection.dialect.name == "postgresql"
    inspector = inspect(connection)
    for schema in [SCHEMA, inspector.default_schema_name] if is_postgresql else [None]:
        names = set(inspector.get_table_names(schema=schema)) | set(inspector.get_view_names(schema=schema))
        if "measurements" in names or "recording_sessions" in names:
            break
    else:
        return Shape(Kind.EMPTY, SCHEMA if is_postgresql else None, {}, is_postgresql)
    if "recording_sessions" not in names:
        found = {each["name"]: each["type"] for each in inspector.get_columns("measurements", schema=schema)}
        if is_one_table(names, set(found)):
            one_table = read_one_table(connection, found, schema, statement, shown)
            seen = {name: frozenset(given) for name, given in COLUMNS.items()}
            return Shape(Kind.ONE_TABLE, schema, seen, is_postgresql, one_table=one_table)
    ours = {"approval_events", VERSION_TABLE} <= names
    wanted = [*FIELD_TABLES, *LEDGERS] if ours else list(FIELD_TABLES)
    columns = {
        name: frozenset(found["name"] for found in inspector.get_columns(name, schema=schema))
        for name in wanted
        if name in names
    }
    for name, required in REQUIRED.items():
        missing = sorted(set(required) - columns.get(name, frozenset()))
        if missing:
            raise StorageError(f"{shown}: table {name} lacks {', '.join(missing)}; expected {', '.join(required)}")
    if not ours:
        return Shape(Kind.FIELD, schema, columns, is_postgresql)
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    revision = connection.execute(select(versions.c.version_num)).scalar()
    return Shape(Kind.OURS, schema, columns, is_postgresql, revision)
