"""The field's tables, the approval ledger, the releases, and the view of what may be trained on."""

import sqlalchemy as sa
from alembic import op

from heimdall_assets.stores.database.migrations.append_only import protect

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String(128)
_TIME = sa.DateTime(timezone=True)
_LEDGERS = ("approval_events", "promotion_events")


def upgrade() -> None:
    """Make every table, refuse changes to the ledgers, and define the view."""
    schema = "heimdall" if op.get_bind().dialect.name == "postgresql" else None
    _create_field_tables(schema)
    _create_approval_events(schema)
    _create_release_tables(schema)
    if schema:
        _make_refusal()
    for table in _LEDGERS:
        protect(table)
    op.execute(_VIEW.replace("{schema}", f"{schema}." if schema else ""))


def _key(schema: str | None, target: str, column: str = "id") -> sa.ForeignKey:
    return sa.ForeignKey(f"{schema}.{target}.{column}" if schema else f"{target}.{column}")


def _create_field_tables(schema: str | None) -> None:
    op.create_table(
        "websdr_stations",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("latitude", sa.Double),
        sa.Column("longitude", sa.Double),
        sa.Column("altitude_asl", sa.Double),
        sa.Column("frequency_min_hz", sa.Double),
        sa.Column("frequency_max_hz", sa.Double),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("clock_class", sa.String(32), nullable=False),
        schema=schema,
    )
    op.create_table(
        "known_sources",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("frequency_hz", sa.Double),
        sa.Column("latitude", sa.Double),
        sa.Column("longitude", sa.Double),
        sa.Column("altitude_asl", sa.Double),
        sa.Column("power_dbm", sa.Double),
        sa.Column("source_type", sa.String(64), nullable=False),
        sa.Column("is_validated", sa.Boolean, nullable=False),
        sa.Column("error_margin_meters", sa.Double, nullable=False),
        schema=schema,
    )
    op.create_table(
        "recording_sessions",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("known_source_id", _ID, _key(schema, "known_sources"), nullable=False),
        sa.Column("session_name", sa.String(128), nullable=False),
        sa.Column("session_start", _TIME, nullable=False),
        sa.Column("session_end", _TIME),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("approval_status", sa.String(32), nullable=False),
        sa.Column("campaign", sa.String(128), nullable=False),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        schema=schema,
    )
    for column in ("approval_status", "session_name"):
        op.create_index(f"ix_recording_sessions_{column}", "recording_sessions", [column], schema=schema)
    op.create_table(
        "measurements",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("recording_session_id", _ID, _key(schema, "recording_sessions"), nullable=False),
        sa.Column("websdr_station_id", _ID, _key(schema, "websdr_stations"), nullable=False),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("frequency_hz", sa.Double, nullable=False),
        sa.Column("signal_strength_db", sa.Double),
        sa.Column("snr_db", sa.Double),
        sa.Column("frequency_offset_hz", sa.Double),
        sa.Column("iq_data_location", sa.Text),
        sa.Column("iq_data_format", sa.String(32)),
        sa.Column("iq_sample_rate", sa.Double),
        sa.Column("iq_samples_count", sa.BigInteger),
        sa.Column("iq_start_unix_ns", sa.BigInteger),
        sa.Column("duration_seconds", sa.Double),
        sa.Column("receiver_latitude", sa.Double),
        sa.Column("receiver_longitude", sa.Double),
        sa.Column("receiver_altitude_asl", sa.Double),
        sa.Column("attributes", sa.Text, nullable=False),
        schema=schema,
    )
    op.create_index("ix_measurements_recording_session_id", "measurements", ["recording_session_id"], schema=schema)


def _create_approval_events(schema: str | None) -> None:
    op.create_table(
        "approval_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("recording_session_id", _ID, _key(schema, "recording_sessions"), nullable=False),
        sa.Column("decision", sa.String(32), nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("decided_at", _TIME, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        schema=schema,
    )
    op.create_index(
        "ix_approval_events_recording_session_id", "approval_events", ["recording_session_id"], schema=schema
    )


def _create_release_tables(schema: str | None) -> None:
    op.create_table(
        "model_releases",
        sa.Column("version", sa.String(64), primary_key=True),
        sa.Column("major", sa.Integer, nullable=False),
        sa.Column("minor", sa.Integer, nullable=False),
        sa.Column("patch", sa.Integer, nullable=False),
        sa.Column("allocated_at", _TIME, nullable=False),
        sa.Column("published_at", _TIME),
        sa.Column("files", sa.Text),
        sa.Column("record", sa.Text),
        sa.UniqueConstraint("major", "minor", "patch"),
        schema=schema,
    )
    op.create_table(
        "model_aliases",
        sa.Column("alias", sa.String(128), primary_key=True),
        sa.Column("version", sa.String(64), _key(schema, "model_releases", "version"), nullable=False),
        schema=schema,
    )
    op.create_table(
        "promotion_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("alias", sa.String(128), nullable=False),
        sa.Column("version", sa.String(64), _key(schema, "model_releases", "version"), nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("decided_at", _TIME, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        schema=schema,
    )


def _make_refusal() -> None:
    op.execute(
        "CREATE FUNCTION heimdall.refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; "
        "END $$"
    )


# Only whether a row may be trained on in principle; whether its values are sane is for the snapshot to say.
_VIEW = """
CREATE VIEW {schema}approved_measurements AS
SELECT
    m.id AS measurement_id,
    s.id AS session_id,
    s.session_name AS session_name,
    s.campaign AS campaign,
    s.origin AS origin,
    s.session_start AS session_start,
    s.attributes AS session_attributes,
    k.id AS source_id,
    k.name AS source_name,
    k.latitude AS source_latitude,
    k.longitude AS source_longitude,
    k.altitude_asl AS source_altitude_m,
    k.error_margin_meters AS source_error_margin_m,
    w.id AS station_id,
    w.name AS station_name,
    w.clock_class AS clock_class,
    COALESCE(m.receiver_latitude, w.latitude) AS receiver_latitude,
    COALESCE(m.receiver_longitude, w.longitude) AS receiver_longitude,
    CASE WHEN m.receiver_latitude IS NULL THEN w.altitude_asl ELSE m.receiver_altitude_asl END AS receiver_altitude_m,
    m.timestamp AS timestamp,
    m.frequency_hz AS frequency_hz,
    m.signal_strength_db AS signal_strength_db,
    m.snr_db AS snr_db,
    m.frequency_offset_hz AS frequency_offset_hz,
    m.iq_data_location AS iq_data_location,
    m.iq_data_format AS iq_data_format,
    m.iq_sample_rate AS iq_sample_rate_hz,
    m.iq_samples_count AS iq_samples_count,
    m.iq_start_unix_ns AS iq_start_unix_ns,
    m.duration_seconds AS duration_s,
    m.attributes AS measurement_attributes,
    e.decided_by AS approved_by,
    e.decided_at AS approved_at,
    e.reason AS approval_reason,
    e.id AS approval_event_id
FROM {schema}measurements m
JOIN {schema}recording_sessions s ON s.id = m.recording_session_id
JOIN {schema}known_sources k ON k.id = s.known_source_id
JOIN {schema}websdr_stations w ON w.id = m.websdr_station_id
JOIN (
    SELECT recording_session_id, MAX(id) AS last_id FROM {schema}approval_events GROUP BY recording_session_id
) latest ON latest.recording_session_id = s.id
JOIN {schema}approval_events e ON e.id = latest.last_id
WHERE s.status = 'completed'
  AND s.approval_status = 'approved'
  AND e.decision = 'approved'
  AND k.is_validated
  AND k.latitude IS NOT NULL
  AND k.longitude IS NOT NULL
  AND (m.receiver_latitude IS NOT NULL OR w.latitude IS NOT NULL)
  AND (m.receiver_longitude IS NOT NULL OR w.longitude IS NOT NULL)
  AND (m.iq_data_location IS NOT NULL OR m.signal_strength_db IS NOT NULL)
"""
