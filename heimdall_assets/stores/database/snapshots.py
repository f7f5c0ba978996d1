"""Snapshots: rows of the database as one table, every field judged, and every row left out with its reason.

Belongs here: the one query that joins measurements to what they hang on, and the flattened table. Does not belong here:
what makes a value believable (``row_rules``), who approved what (``measurements``).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, Select, and_, func, select

from heimdall_assets.domain import APPROVED_COLUMNS, ApprovalStatus, Origin
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.row_rules import RawRows, find_reasons
from heimdall_assets.stores.database.shape import Kind, Shape

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ApprovedSnapshot:
    """What may be trained on, and what not.

    Attributes:
        rows: ``domain.APPROVED_COLUMNS``, sorted by session and station.
        left_out: measurement_id, session_id, reason: each row of an approved session that cannot be trained on.
        num_undecided: approval status -> number of measurements whose session is not approved.
    """

    rows: "pd.DataFrame"
    left_out: "pd.DataFrame"
    num_undecided: dict[str, int] = field(default_factory=dict)


_FIELDS: dict[str, tuple[str, str, str]] = {
    # result column: (alias, table, column)
    "measurement_id": ("m", "measurements", "id"),
    "session_id": ("m", "measurements", "recording_session_id"),
    "session_name": ("s", "recording_sessions", "session_name"),
    "campaign": ("s", "recording_sessions", "campaign"),
    "origin": ("s", "recording_sessions", "origin"),
    "session_start": ("s", "recording_sessions", "session_start"),
    "session_attributes": ("s", "recording_sessions", "attributes"),
    "session_status": ("s", "recording_sessions", "status"),
    "source_id": ("k", "known_sources", "id"),
    "source_name": ("k", "known_sources", "name"),
    "source_latitude": ("k", "known_sources", "latitude"),
    "source_longitude": ("k", "known_sources", "longitude"),
    "source_altitude_m": ("k", "known_sources", "altitude_asl"),
    "source_error_margin_m": ("k", "known_sources", "error_margin_meters"),
    "source_is_validated": ("k", "known_sources", "is_validated"),
    "station_id": ("m", "measurements", "websdr_station_id"),
    "known_station_id": ("w", "websdr_stations", "id"),
    "station_name": ("w", "websdr_stations", "name"),
    "clock_class": ("w", "websdr_stations", "clock_class"),
    "station_latitude": ("w", "websdr_stations", "latitude"),
    "station_longitude": ("w", "websdr_stations", "longitude"),
    "station_altitude_m": ("w", "websdr_stations", "altitude_asl"),
    "own_latitude": ("m", "measurements", "receiver_latitude"),
    "own_longitude": ("m", "measurements", "receiver_longitude"),
    "own_altitude_m": ("m", "measurements", "receiver_altitude_asl"),
    "timestamp": ("m", "measurements", "timestamp"),
    "frequency_hz": ("m", "measurements", "frequency_hz"),
    "signal_strength_db": ("m", "measurements", "signal_strength_db"),
    "snr_db": ("m", "measurements", "snr_db"),
    "frequency_offset_hz": ("m", "measurements", "frequency_offset_hz"),
    "iq_data_location": ("m", "measurements", "iq_data_location"),
    "iq_data_format": ("m", "measurements", "iq_data_format"),
    "iq_sample_rate_hz": ("m", "measurements", "iq_sample_rate"),
    "iq_samples_count": ("m", "measurements", "iq_samples_count"),
    "iq_start_unix_ns": ("m", "measurements", "iq_start_unix_ns"),
    "duration_s": ("m", "measurements", "duration_seconds"),
    "measurement_attributes": ("m", "measurements", "attributes"),
}

_STAND_INS = {
    ("recording_sessions", "attributes"): "{}",
    ("measurements", "attributes"): "{}",
    # A database without these columns was written by the field, which only measures and states no clock or campaign.
    ("recording_sessions", "origin"): str(Origin.MEASURED),
    ("recording_sessions", "campaign"): "field",
    ("websdr_stations", "clock_class"): "none",
}

_EVENT_FIELDS = {
    "approval_event_id": "id",
    "decision": "decision",
    "approved_by": "decided_by",
    "approved_at": "decided_at",
    "approval_reason": "reason",
    "approval_digest": "digest",
}


def pick_session(shape: Shape, sessions: Any, column: str) -> Any:
    """Return a column of ``recording_sessions``, with what stands in where the database lacks it."""
    return shape.pick(sessions, "recording_sessions", column, _STAND_INS.get(("recording_sessions", column)))


def in_scope(shape: Shape, sessions: Any, dataset: DatasetSpec) -> list[Any]:
    """Return the conditions that a session's campaign and origin are those of ``dataset``."""
    conditions = []
    if dataset.campaigns:
        conditions.append(pick_session(shape, sessions, "campaign").in_(dataset.campaigns))
    if dataset.origin != "both":
        conditions.append(pick_session(shape, sessions, "origin") == dataset.origin)
    return conditions


def latest_events(shape: Shape) -> tuple[Any, Any]:
    """Return two aliased tables: the number of each session's last approval event, and the events themselves."""
    events = shape.table("approval_events", "every")
    last = select(events.c.recording_session_id, func.max(events.c.id).label("last_id"))
    return last.group_by(events.c.recording_session_id).subquery("latest"), shape.table("approval_events", "e")


def read_snapshot(connection: Connection, shape: Shape, dataset: DatasetSpec) -> ApprovedSnapshot:
    """Return the approved, trainable rows of ``dataset``."""
    sessions = shape.table("recording_sessions", "s")
    status = shape.pick(sessions, "recording_sessions", "approval_status")
    scope = in_scope(shape, sessions, dataset)
    approved = _build_query(shape, sessions).where(and_(status == str(ApprovalStatus.APPROVED), *scope))
    raw = _read_raw(connection, approved)
    reasons = find_reasons(raw, needs_truth=True, needs_decision=shape.kind is Kind.OURS)
    measurements = shape.table("measurements", "m")
    counts = (
        select(status, func.count())
        .select_from(measurements.join(sessions, sessions.c.id == measurements.c.recording_session_id))
        .where(and_(status != str(ApprovalStatus.APPROVED), *scope))
        .group_by(sessions.c.approval_status)
    )
    undecided = {str(name): int(count) for name, count in connection.execute(counts)}
    return ApprovedSnapshot(*_part_rows(raw, reasons), dict(sorted(undecided.items())))


def read_one_session(connection: Connection, shape: Shape, session_id: str) -> ApprovedSnapshot:
    """Return the usable rows of one session, whatever its approval; NaN for the place of a source that is not known."""
    sessions = shape.table("recording_sessions", "s")
    identity = shape.pick(sessions, "recording_sessions", "id")
    raw = _read_raw(connection, _build_query(shape, sessions).where(identity == session_id))
    return ApprovedSnapshot(*_part_rows(raw, find_reasons(raw, needs_truth=False, needs_decision=False)))


def _build_query(shape: Shape, sessions: Any) -> Select[Any]:
    tables = {
        "m": shape.table("measurements", "m"),
        "s": sessions,
        "k": shape.table("known_sources", "k"),
        "w": shape.table("websdr_stations", "w"),
    }
    columns = [
        shape.pick(tables[alias], table, column, _STAND_INS.get((table, column))).label(name)
        for name, (alias, table, column) in _FIELDS.items()
    ]
    joined = (
        tables["m"]
        .join(sessions, sessions.c.id == tables["m"].c.recording_session_id)
        .outerjoin(tables["k"], tables["k"].c.id == sessions.c.known_source_id)
        .outerjoin(tables["w"], tables["w"].c.id == tables["m"].c.websdr_station_id)
    )
    if shape.kind is Kind.OURS:
        latest, events = latest_events(shape)
        joined = joined.outerjoin(latest, latest.c.recording_session_id == sessions.c.id)
        joined = joined.outerjoin(events, events.c.id == latest.c.last_id)
        columns += [shape.pick(events, "approval_events", of).label(name) for name, of in _EVENT_FIELDS.items()]
    return select(*columns).select_from(joined)


def _read_raw(connection: Connection, query: Select[Any]) -> RawRows:
    result = connection.execute(query)
    names = list(result.keys())
    rows = result.fetchall()
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {name: () for name in names}
    for name in _EVENT_FIELDS:
        columns.setdefault(name, (None,) * len(rows))
    return RawRows({name: list(values) for name, values in columns.items()}, len(rows))


def _part_rows(raw: RawRows, reasons: np.ndarray) -> "tuple[pd.DataFrame, pd.DataFrame]":
    import pandas as pd

    good = np.array([reason is None for reason in reasons], dtype=bool)
    rows = _flatten(raw).loc[good].sort_values(["session_id", "station_id", "measurement_id"], ignore_index=True)
    left_out = pd.DataFrame(
        {
            "measurement_id": raw.texts("measurement_id")[~good],
            "session_id": raw.texts("session_id")[~good],
            "reason": reasons[~good],
        }
    ).astype("string")
    return rows, left_out.sort_values(["session_id", "measurement_id", "reason"], ignore_index=True)


def _flatten(raw: RawRows) -> "pd.DataFrame":
    import pandas as pd

    moves = ~np.isnan(raw.numbers("own_latitude")) & ~np.isnan(raw.numbers("own_longitude"))
    columns: dict[str, Any] = {}
    for name, dtype in APPROVED_COLUMNS.items():
        if name.startswith("receiver_"):
            part = name.removeprefix("receiver_")
            columns[name] = np.where(moves, raw.numbers(f"own_{part}"), raw.numbers(f"station_{part}"))
        elif dtype == "float64":
            columns[name] = raw.numbers(name)
        elif dtype == "Int64":
            columns[name] = raw.integers(name)
        elif dtype.startswith("datetime64"):
            columns[name] = raw.times(name)
        else:
            columns[name] = raw.texts(name)
    # Heights are metres above sea level; a row that states none lies on it.
    for name in ("source_altitude_m", "receiver_altitude_m", "source_error_margin_m"):
        columns[name] = np.nan_to_num(columns[name], nan=0.0)
    for part in ("source_latitude", "source_longitude"):
        columns[part] = np.where(raw.has_truth(), columns[part], np.nan)
    return pd.DataFrame(columns).astype(APPROVED_COLUMNS)
