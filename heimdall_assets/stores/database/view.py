"""View: the approved measurements in SQL, for whoever looks at the database without this project.

Belongs here: the columns of the snapshot as a view, defined anew by each upgrade. Does not belong here: whether the
values of a row can be believed (``raw.rules``): the view shows what may be trained on in principle.
"""

from typing import Any

from sqlalchemy import Connection, Select, and_, case, func, or_, select, text

from heimdall_assets.domain import FIELDS, SNAPSHOT, ApprovalStatus, SessionStatus
from heimdall_assets.fields import Field
from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.stores.database.schema import (
    SCHEMA,
    approval_events,
    known_sources,
    measurements,
    recording_sessions,
    websdr_stations,
)

_CONTENT = ("iq_data_location", "signal_strength_db", "arrival_unix_ns", "bearing_deg")
"""What a measurement may hold: a row with none of them says nothing."""


def drop_view(connection: Connection) -> None:
    """Take the view away, so that the columns under it can change."""
    connection.execute(text(f"DROP VIEW IF EXISTS {_name_view(connection)}"))


def create_view(connection: Connection) -> None:
    """Define the view: one row a measurement that may be trained on in principle, ``domain.APPROVED_COLUMNS``."""
    query = _select_approved().compile(
        dialect=connection.dialect,
        compile_kwargs={"literal_binds": True},
        schema_translate_map={SCHEMA: _find_schema(connection)},
        render_schema_translate=True,
    )
    drop_view(connection)
    connection.exec_driver_sql(f"CREATE VIEW {_name_view(connection)} AS {query}")


def _find_schema(connection: Connection) -> str | None:
    return SCHEMA if connection.dialect.name == "postgresql" else None


def _name_view(connection: Connection) -> str:
    schema = _find_schema(connection)
    return f"{schema}.{APPROVED_MEASUREMENTS}" if schema else APPROVED_MEASUREMENTS


def _select_approved() -> Select[Any]:
    m, s = measurements.alias("m"), recording_sessions.alias("s")
    k, w, e = known_sources.alias("k"), websdr_stations.alias("w"), approval_events.alias("e")
    last = select(approval_events.c.recording_session_id, func.max(approval_events.c.id).label("last_id"))
    latest = last.group_by(approval_events.c.recording_session_id).subquery("latest")
    tables = {
        measurements.name: m,
        recording_sessions.name: s,
        known_sources.name: k,
        websdr_stations.name: w,
        approval_events.name: e,
    }
    moves = and_(m.c.receiver_latitude.is_not(None), m.c.receiver_longitude.is_not(None))
    own = {field.path[-1]: m.c[field.name] for field in FIELDS[measurements.name] if field.is_place}

    def pick(field: Field) -> Any:
        column = tables[field.table].c[field.name]
        if field.table == websdr_stations.name and field.is_place:
            return case((moves, own[field.path[-1]]), else_=column)
        return column

    return (
        select(*[pick(field).label(field.snapshot) for field in SNAPSHOT if field.snapshot])
        .select_from(m)
        .join(s, s.c.id == m.c.recording_session_id)
        .join(k, k.c.id == s.c.known_source_id)
        .join(w, w.c.id == m.c.websdr_station_id)
        .join(latest, latest.c.recording_session_id == s.c.id)
        .join(e, e.c.id == latest.c.last_id)
        .where(
            s.c.status == str(SessionStatus.COMPLETED),
            s.c.approval_status == str(ApprovalStatus.APPROVED),
            e.c.decision == str(ApprovalStatus.APPROVED),
            k.c.is_validated,
            k.c.latitude.is_not(None),
            k.c.longitude.is_not(None),
            moves | (w.c.latitude.is_not(None) & w.c.longitude.is_not(None)),
            or_(*(m.c[name].is_not(None) for name in _CONTENT)),
        )
    )
