"""Schema: the tables of the database, by the names of the field, and the types that SQLite and PostgreSQL share.

Belongs here: the table of fields (``domain.FIELDS``) as SQL, the tables that only we have, and what turns Python values
into columns. Does not belong here: queries (``database.measurements``, ``snapshots``), how a database gets there
(``migrations``), reading a database that is not ours (``shape``).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from heimdall_assets.domain import FIELDS
from heimdall_assets.fields import Field

SCHEMA = "heimdall"
"""Schema of the tables on PostgreSQL; SQLite has none."""

FIELD_TABLES = ("websdr_stations", "known_sources", "recording_sessions", "measurements")
"""What the field's own database has; ours has more."""

LEDGERS = ("approval_events", "promotion_events", "serving_rule_events", "service_key_events", "log_entries")
"""Tables whose rows are written once: the database itself refuses to change or delete one."""


class UtcDateTime(TypeDecorator[datetime]):
    """Timestamp with time zone; on SQLite, which has none, UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# Ids are uuids as text: the field's databases hold either uuid or text columns, and both read as text.
_ID = String(128)

metadata = MetaData(schema=SCHEMA)


def _key(target: str) -> ForeignKey:
    return ForeignKey(f"{SCHEMA}.{target}.id")


_TYPES: dict[type, TypeEngine[Any] | type[TypeEngine[Any]]] = {
    float: Double,
    int: BigInteger,
    bool: Boolean,
    datetime: UtcDateTime,
    dict: Text,  # canonical JSON object
}
CHOICE_LENGTH = 32
"""Of the longest text that a column of choices holds."""


def _make_columns(table: str) -> Iterator[Column[Any]]:
    for field in FIELDS[table]:
        keys = [_key(field.refers_to)] if field.refers_to else []
        is_key = field.name == "id"
        yield Column(field.name, _pick_type(field), *keys, primary_key=is_key, nullable=field.may_be_null)


def _pick_type(field: Field) -> Any:
    if field.choices:
        return String(CHOICE_LENGTH)
    if field.kind is str:
        return Text if field.max_length is None else String(field.max_length)
    return _TYPES[field.kind]


websdr_stations = Table("websdr_stations", metadata, *_make_columns("websdr_stations"))
known_sources = Table("known_sources", metadata, *_make_columns("known_sources"))
recording_sessions = Table(
    "recording_sessions",
    metadata,
    *_make_columns("recording_sessions"),
    Index("ix_recording_sessions_approval_status", "approval_status"),
    Index("ix_recording_sessions_session_name", "session_name"),
)
measurements = Table(
    "measurements",
    metadata,
    *_make_columns("measurements"),
    Index("ix_measurements_recording_session_id", "recording_session_id"),
)

approval_events = Table(
    "approval_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3 ... without a gap
    Column("recording_session_id", _ID, _key("recording_sessions"), nullable=False),
    Column("decision", String(32), nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_approval_events_recording_session_id", "recording_session_id"),
)

model_releases = Table(
    "model_releases",
    metadata,
    Column("version", String(64), primary_key=True),
    Column("major", Integer, nullable=False),
    Column("minor", Integer, nullable=False),
    Column("patch", Integer, nullable=False),
    Column("allocated_at", UtcDateTime, nullable=False),
    Column("published_at", UtcDateTime),  # null: reserved, not published
    Column("files", Text),  # canonical JSON: name -> {sha256, size}; said before the folder is written
    Column("record", Text),  # canonical JSON: the result it is reserved for, and what the publisher says of the release
    UniqueConstraint("major", "minor", "patch"),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("alias", String(128), primary_key=True),
    Column("version", String(64), ForeignKey(f"{SCHEMA}.model_releases.version"), nullable=False),
)

promotion_events = Table(
    "promotion_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("alias", String(128), nullable=False),
    Column("version", String(64), ForeignKey(f"{SCHEMA}.model_releases.version"), nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
)

serving_rule_events = Table(
    "serving_rule_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("rule", String(32), nullable=False),  # canary, flag or shadow
    Column("version", String(64), ForeignKey(f"{SCHEMA}.model_releases.version")),  # null: the rule ends
    Column("share", Double),
    Column("salt", String(128)),
    Column("user", Text),  # of a flag, by pseudonym
    Column("receiver", String(128)),
    Column("num_promotions", Integer, nullable=False),  # how many promotion_events there were before it
    Column("decided_by", Text, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
)

service_key_events = Table(
    "service_key_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("action", String(32), nullable=False),  # made or revoked
    Column("key_id", String(32), nullable=False),
    Column("secret_sha256", String(64)),  # null: revoked
    Column("owner", Text),  # by pseudonym
    Column("expires_at", UtcDateTime),
    Column("decided_by", Text, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
)

service_key_uses = Table(
    "service_key_uses",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("last_used_on", String(10), nullable=False),  # a day of UTC; nobody audits it
)

people = Table(
    "people",
    metadata,
    Column("pseudonym", String(64), primary_key=True),
    Column("name", Text, unique=True),  # null: erased
    Column("secret", String(64)),  # hex, of the pseudonym; null: destroyed with the name
)

log_entries = Table(
    "log_entries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 0, 1, 2 ... without a gap
    Column("body", Text, nullable=False),  # canonical JSON with a kind
    Column("leaf", String(64), nullable=False),  # RFC 6962's, of the body
)

_THING = BigInteger().with_variant(Integer(), "sqlite")  # of 63 bits on both; on SQLite so the key of the row itself

lineage_nodes = Table(
    "lineage_nodes",
    metadata,
    Column("id", _THING, primary_key=True, autoincrement=False),  # made from kind and name
    Column("kind", String(32), nullable=False),
    Column("name", Text, nullable=False),
)
"""The index of lineage, these three: made from results at rest, made again from them where it is lost, and evidence of
nothing. Rows may be deleted and nobody audits them."""

lineage_edges = Table(
    "lineage_edges",
    metadata,
    Column("parent", _THING, primary_key=True, autoincrement=False),
    Column("child", _THING, primary_key=True, autoincrement=False),
    Column("through", _THING, primary_key=True, autoincrement=False),  # a measurement; 0: none
    sqlite_with_rowid=False,
)
_IS_PLAIN = lineage_edges.c.through == 0  # nobody asks backwards for a station or a recording: two thirds of all edges
Index(
    "ix_lineage_edges_child",
    lineage_edges.c.child,
    lineage_edges.c.parent,
    sqlite_where=_IS_PLAIN,
    postgresql_where=_IS_PLAIN,
)

lineage_results = Table(
    "lineage_results",
    metadata,
    Column("digest", String(64), primary_key=True),  # of a result whose edges are all there
    Column("reference", String(128), nullable=False),  # under which it is looked for
    sqlite_with_rowid=False,
)


def plain_row(row: Any) -> dict[str, Any]:
    """Return a result row as a dictionary."""
    return dict(row._mapping)
