"""Schema: the tables of the database, by the names of the field, and the types that SQLite and PostgreSQL share.

Belongs here: columns, and what turns Python values into them. Does not belong here: queries (``database.measurements``,
``snapshots``), how a database gets there (``migrations``), reading a database that is not ours (``shape``).
"""

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
from sqlalchemy.types import TypeDecorator

SCHEMA = "heimdall"
"""Schema of the tables on PostgreSQL; SQLite has none."""

FIELD_TABLES = ("websdr_stations", "known_sources", "recording_sessions", "measurements")
"""What the field's own database has; ours has more."""

LEDGERS = ("approval_events", "promotion_events")
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


websdr_stations = Table(
    "websdr_stations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("url", Text),
    Column("latitude", Double),  # null: moves
    Column("longitude", Double),
    Column("altitude_asl", Double),
    Column("frequency_min_hz", Double),
    Column("frequency_max_hz", Double),
    Column("is_active", Boolean, nullable=False),
    Column("clock_class", String(32), nullable=False),
)

known_sources = Table(
    "known_sources",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("frequency_hz", Double),
    Column("latitude", Double),
    Column("longitude", Double),
    Column("altitude_asl", Double),
    Column("power_dbm", Double),
    Column("source_type", String(64), nullable=False),
    Column("is_validated", Boolean, nullable=False),
    Column("error_margin_meters", Double, nullable=False),
)

recording_sessions = Table(
    "recording_sessions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("known_source_id", _ID, _key("known_sources"), nullable=False),
    Column("session_name", String(128), nullable=False),
    Column("session_start", UtcDateTime, nullable=False),
    Column("session_end", UtcDateTime),
    Column("status", String(32), nullable=False),
    Column("approval_status", String(32), nullable=False),
    Column("campaign", String(128), nullable=False),
    Column("origin", String(32), nullable=False),
    Column("attributes", Text, nullable=False),  # canonical JSON object
    Index("ix_recording_sessions_approval_status", "approval_status"),
    Index("ix_recording_sessions_session_name", "session_name"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("recording_session_id", _ID, _key("recording_sessions"), nullable=False),
    Column("websdr_station_id", _ID, _key("websdr_stations"), nullable=False),
    Column("timestamp", UtcDateTime, nullable=False),
    Column("frequency_hz", Double, nullable=False),
    Column("signal_strength_db", Double),
    Column("snr_db", Double),
    Column("frequency_offset_hz", Double),
    Column("iq_data_location", Text),
    Column("iq_data_format", String(32)),
    Column("iq_sample_rate", Double),
    Column("iq_samples_count", BigInteger),
    Column("iq_start_unix_ns", BigInteger),
    Column("duration_seconds", Double),
    Column("receiver_latitude", Double),  # only where the receiver moves
    Column("receiver_longitude", Double),
    Column("receiver_altitude_asl", Double),
    Column("attributes", Text, nullable=False),  # canonical JSON object
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
    Column("digest", String(64), nullable=False),
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
    Column("published_at", UtcDateTime),  # null: allocated, never published
    Column("files", Text),  # canonical JSON: name -> {sha256, size}
    Column("record", Text),  # canonical JSON: what the publisher says about the release
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
    Column("digest", String(64), nullable=False),
)


def plain_row(row: Any) -> dict[str, Any]:
    """Return a result row as a dictionary."""
    return dict(row._mapping)
