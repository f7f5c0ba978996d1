"""Rows: what a database holds, as JSON values, whoever made it.

Belongs here: reading tables and what stands about a session. Does not belong here: judging values (``raw.rules``).
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, func, or_, select, type_coerce

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import InvalidInput, NotFound
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.log import plain
from heimdall_assets.stores.database.raw.one_table import NUM_PLACES
from heimdall_assets.stores.database.schema import SCHEMA, UtcDateTime, metadata
from heimdall_assets.stores.database.shape import Kind, Shape
from heimdall_assets.stores.database.snapshots import in_scope, latest_events

_CHUNK = 10_000

_USUAL_TIME = re.compile(
    r"(?:19|20)\d\d-(?:0\d|1[0-2])-(?:[0-2]\d|3[01])[ T](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{3}|\.\d{6})?"
    r"(?:[+-](?:0\d|1[0-4])(?::[0-5]\d)?|Z)?"
)
"""Times as databases write them, in years that both readers know."""


def read_table(
    connection: Connection, shape: Shape, name: str, source: Any, conditions: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return rows as JSON values: times as ISO 8601 text, attributes as dictionaries, absent columns as None."""
    known = metadata.tables[f"{SCHEMA}.{name}"].columns.keys()
    picked = [shape.pick(source, name, of).label(of) for of in known]
    rows = connection.execute(select(*picked).select_from(source).where(*conditions))
    return [_to_json(dict(row._mapping)) for row in rows]


def _to_json(row: dict[str, Any]) -> dict[str, Any]:
    row = {name: _to_plain(value) for name, value in row.items()}
    if "attributes" in row:
        with suppress(ValueError):  # a damaged one is shown as it lies
            row["attributes"] = json.loads(row["attributes"] or "{}")
    for name in ("is_active", "is_validated"):
        if row.get(name) in (0, 1):
            row[name] = bool(row[name])
    for name in ("session_start", "session_end", "timestamp", "decided_at"):
        if isinstance(row.get(name), str):
            row[name] = _to_iso(row[name])
    return row


def _to_plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return float(value) if isinstance(value, Decimal) else value


def _to_iso(text: str) -> str:
    if _USUAL_TIME.fullmatch(text):  # in a fraction of the time that pandas takes, which reads what else there may be
        with suppress(ValueError):  # the 31st of February
            time = datetime.fromisoformat(text)
            return (time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)).isoformat()
    import pandas as pd

    found = pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce")
    return text if pd.isna(found) else found.isoformat()


def read_by(
    connection: Connection, shape: Shape, name: str, column: str, values: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return the rows of table ``name`` whose ``column`` is one of ``values``."""
    source = shape.table(name, "t")
    return read_table(connection, shape, name, source, [shape.pick(source, name, column).in_(list(values))])


def has_name(shape: Shape, sessions: Any) -> list[Any]:
    """Return the condition that a session has an id; only a database of one table holds rows of none."""
    return [sessions.c.id != ""] if shape.kind is Kind.ONE_TABLE else []


def count_nameless(connection: Connection, shape: Shape) -> int:
    """Return how many measurements say no session: none of them can be used."""
    if shape.kind is not Kind.ONE_TABLE:
        return 0
    heard = shape.table("measurements", "m")
    query = select(func.count()).select_from(heard).where(heard.c.recording_session_id == "")
    return int(connection.execute(query).scalar_one())


def read_events(connection: Connection, shape: Shape, session_id: str | None) -> list[dict[str, Any]]:
    """Return every decision, oldest first, of one session or of all."""
    if shape.kind is not Kind.OURS:
        return []
    events = shape.table("approval_events", "e")
    conditions = [] if session_id is None else [events.c.recording_session_id == session_id]
    rows = read_table(connection, shape, "approval_events", events, conditions)
    return sorted(rows, key=lambda row: row["id"])


def resolve_session(connection: Connection, shape: Shape, name: str) -> str:
    """Return the id of the session with this id or name; raises as ``resolve_sessions``."""
    return resolve_sessions(connection, shape, [name])[0]


def resolve_sessions(connection: Connection, shape: Shape, names: Sequence[str]) -> list[str]:
    """Return the ids of sessions given by id or name, in their order.

    Raises:
        NotFound: there is no session of one of the names.
        InvalidInput: several sessions have one of them.
    """
    sessions = shape.table("recording_sessions", "s")
    identity = shape.pick(sessions, "recording_sessions", "id")
    called = shape.pick(sessions, "recording_sessions", "session_name")
    found: dict[str, list[str]] = {name: [] for name in names}
    for start in range(0, len(found), _CHUNK):
        chosen = set(list(found)[start : start + _CHUNK])
        query = select(identity, called).where(or_(identity.in_(chosen), called.in_(chosen)))
        for known, name in connection.execute(query):
            for given in {known, name} & chosen:
                found[given].append(known)
    return [_choose(name, found[name]) for name in names]


def _choose(name: str, found: Sequence[str]) -> str:
    if not found:
        raise NotFound(f"session {name:.140}: found no session with this id or name")
    if len(found) > 1 and name not in found:
        raise InvalidInput(f"session {name:.140}: found {len(found)} of this name, expected an id: {sorted(found)[:3]}")
    return name if name in found else found[0]


def count_measurements(connection: Connection, shape: Shape) -> dict[str, int]:
    """Return session id -> number of its measurements."""
    heard = shape.table("measurements", "m")
    session = shape.pick(heard, "measurements", "recording_session_id")
    counts = connection.execute(select(session, func.count()).group_by(session))
    return {str(name): int(count) for name, count in counts}


def count_sessions(connection: Connection, shape: Shape, dataset: DatasetSpec) -> dict[str, dict[str, int]]:
    """Return campaign -> approval status -> number of the sessions of ``dataset`` that have an id."""
    sessions = shape.table("recording_sessions", "s")
    picked = [shape.pick(sessions, "recording_sessions", name).label(name) for name in ("campaign", "approval_status")]
    counted = [*in_scope(shape, sessions, dataset), *has_name(shape, sessions)]
    rows = select(*picked).select_from(sessions).where(*counted).subquery()
    query = select(rows.c.campaign, rows.c.approval_status, func.count())
    found: dict[str, dict[str, int]] = {}
    for campaign, status, count in connection.execute(query.group_by(rows.c.campaign, rows.c.approval_status)):
        found.setdefault(str(campaign), {})[str(status)] = int(count)
    return found


def read_standing(
    connection: Connection, shape: Shape, session_ids: Sequence[str] | None = None
) -> dict[str, tuple[str, str | None]]:
    """Return session id -> (approval_status of its row, last decision of the ledger), of these sessions or of all."""
    latest, events = latest_events(shape, session_ids)
    sessions = shape.table("recording_sessions", "s")
    joined = sessions.outerjoin(latest, latest.c.recording_session_id == sessions.c.id)
    joined = joined.outerjoin(events, events.c.id == latest.c.last_id)
    query = select(sessions.c.id, sessions.c.approval_status, events.c.decision).select_from(joined)
    if session_ids is not None:
        query = query.where(sessions.c.id.in_(list(session_ids)))
    return {row[0]: (row[1], row[2]) for row in connection.execute(query)}


def stands(standing: tuple[str, str | None], decision: ApprovalStatus) -> bool:
    """Return whether both the session's row and the ledger already say ``decision``."""
    status, last = standing
    return status == str(decision) and (last or str(ApprovalStatus.PENDING)) == str(decision)


def read_approved_sessions(
    connection: Connection, shape: Shape, sessions: Any, scope: Sequence[Any]
) -> list[list[str]]:
    """Return id, status, and number and time of the approving event, of each session in ``scope``."""
    columns = [shape.pick(sessions, "recording_sessions", name) for name in ("id", "status")]
    joined = sessions
    if shape.kind is Kind.OURS:
        latest, events = latest_events(shape)
        joined = joined.outerjoin(latest, latest.c.recording_session_id == sessions.c.id)
        joined = joined.outerjoin(events, events.c.id == latest.c.last_id)
        columns += [events.c.id, type_coerce(events.c.decided_at, UtcDateTime)]
    if shape.kind is Kind.ONE_TABLE:  # no event tells of a place that was corrected
        columns += [shape.pick(sessions, "recording_sessions", "known_source_id"), sessions.c[NUM_PLACES]]
    rows = connection.execute(select(*columns).select_from(joined).where(*scope))
    return [["" if value is None else str(plain(value)) for value in row] for row in rows]
