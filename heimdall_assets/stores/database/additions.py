"""Additions: one import's rows into the database, all or nothing, and idempotent: twice has the effect of once.

Belongs here: nouns to rows, and what a batch must be. Does not belong here: reading files (``intake.files``),
connections.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, select

from heimdall_assets.domain import FIELDS, ApprovalStatus, ImportBatch, Session, Word
from heimdall_assets.errors import InvalidInput, Refused
from heimdall_assets.stores.database.held_recordings import Held, check_added
from heimdall_assets.stores.database.schema import (
    known_sources,
    measurements,
    plain_row,
    recording_sessions,
    websdr_stations,
)

_CHUNK = 10_000


@dataclass(frozen=True)
class ImportReport:
    """How many rows an import added, and how many were there before, unchanged."""

    num_stations: int
    num_sources: int
    num_sessions: int
    num_measurements: int
    num_unchanged: int


def add_batch(connection: Connection, batch: ImportBatch) -> ImportReport:
    """Return what was added; the caller's transaction makes it all or nothing.

    Raises:
        InvalidInput: a row points at nothing, a session hears one station twice, or a session is not pending.
        Refused: a row with the same id says something else, a session that is already approved would grow, or a
            recording is in another session.
    """
    _check_sessions(batch.sessions)
    num_unchanged, added = 0, []
    nouns: tuple[tuple[Table, Sequence[Word]], ...] = (
        (websdr_stations, batch.stations),
        (known_sources, batch.sources),
        (recording_sessions, batch.sessions),
        (measurements, batch.measurements),
    )
    for table, wanted in nouns:
        rows = [_make_row(table, noun) for noun in wanted]
        new = _find_new(connection, table, rows)
        if table is recording_sessions:
            _check_targets(connection, new, "known_source_id", known_sources)
        if table is measurements:
            _check_measurements(connection, new)
        if new:
            connection.execute(table.insert(), new)
        added.append(len(new))
        num_unchanged += len({row["id"] for row in rows}) - len(new)
    return ImportReport(added[0], added[1], added[2], added[3], num_unchanged)


def _check_sessions(sessions: Sequence[Session]) -> None:
    for session in sessions:
        if session.approval_status is not ApprovalStatus.PENDING:
            raise InvalidInput(
                f"session {session.name}: found {session.approval_status}, expected pending: only a decision with "
                "a name and a reason approves"
            )


def _find_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are not there yet, each once."""
    wanted: dict[str, dict[str, Any]] = {}
    for row in rows:
        _compare(table, wanted.setdefault(row["id"], row), row)
    for start in range(0, len(rows), _CHUNK):
        ids = [row["id"] for row in rows[start : start + _CHUNK]]
        for found in connection.execute(select(table).where(table.c.id.in_(ids))):
            known = plain_row(found)
            if known["id"] in wanted:
                _compare(table, known, wanted.pop(known["id"]))
    return list(wanted.values())


def _compare(table: Table, known: dict[str, Any], row: dict[str, Any]) -> None:
    if known is row:
        return
    for name, value in row.items():
        # The status is what people decided since; an import never takes a decision back.
        if name != "approval_status" and known[name] != value:
            raise Refused(
                f"{table.name} {row['id']}: found {name} {value!r:.80}, expected {known[name]!r:.80} as stored: a row "
                "never changes; give another id to what is another thing"
            )


def _check_targets(
    connection: Connection, rows: Sequence[dict[str, Any]], column: str, target: Table
) -> dict[str, dict[str, Any]]:
    """Return target id -> target row of all that ``rows`` point at."""
    wanted = sorted({row[column] for row in rows})
    found: dict[str, Any] = {}
    for start in range(0, len(wanted), _CHUNK):
        query = select(target).where(target.c.id.in_(wanted[start : start + _CHUNK]))
        found |= {row.id: plain_row(row) for row in connection.execute(query)}
    for name in wanted:
        if name not in found:
            raise InvalidInput(f"{column} {name}: found no such row in {target.name}, expected it added before")
    return found


def _check_measurements(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    sessions = _check_targets(connection, rows, "recording_session_id", recording_sessions)
    stations = _check_targets(connection, rows, "websdr_station_id", websdr_stations)
    for session in sessions.values():
        if session["approval_status"] == ApprovalStatus.APPROVED:
            raise Refused(
                f"session {session['session_name']}: is approved and would get new measurements; reject it first, so "
                "that somebody approves what it then holds"
            )
    held = [
        Held(
            row["iq_data_location"],
            row["iq_channel"],
            row["iq_first_sample"],
            row["iq_samples_count"],
            row["recording_session_id"],
            sessions[row["recording_session_id"]]["session_name"],
        )
        for row in rows
        if row["iq_data_location"] is not None
    ]
    check_added(connection, held)
    pairs = Counter((row["recording_session_id"], row["websdr_station_id"]) for row in rows)
    names = sorted(sessions)
    for start in range(0, len(names), _CHUNK):
        known = measurements.c.recording_session_id.in_(names[start : start + _CHUNK])
        query = select(measurements.c.recording_session_id, measurements.c.websdr_station_id).where(known)
        pairs.update((row[0], row[1]) for row in connection.execute(query))
    for (session_id, station_id), count in pairs.items():
        if count > 1:
            raise InvalidInput(
                f"session {sessions[session_id]['session_name']}: found {count} measurements of station "
                f"{stations.get(station_id, {}).get('name', station_id)}, expected one"
            )


def _make_row(table: Table, noun: Word) -> dict[str, Any]:
    """Return column -> value of the row that ``noun`` is."""
    row: dict[str, Any] = {}
    for field in FIELDS[table.name]:
        value: Any = noun
        for attribute in field.path:
            value = None if value is None else getattr(value, attribute)
        if field.kind is datetime:
            value = _utc(value)
        elif field.kind is dict:
            value = _encode_attributes(value, noun)
        elif field.choices and value is not None:
            value = str(value)
        row[field.name] = value
    return row


def _utc(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _encode_attributes(attributes: dict[str, Any], noun: Word) -> str:
    if not attributes:
        return "{}"
    try:
        return json.dumps(attributes, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        what = f"{type(noun).__name__.lower()} {getattr(noun, 'name', getattr(noun, 'id', ''))}"
        raise InvalidInput(f"{what}: found attributes that are no JSON ({error}), expected finite values") from error
