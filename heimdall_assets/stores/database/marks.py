"""Marks: what a session was when somebody looked at it, so that nobody decides about something else than they saw.

Belongs here: the digest of all that a session is, its last decision among it, and whether it still holds. Does not
belong here: deciding (``measurements``), what people are shown.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from heimdall_assets.errors import Refused
from heimdall_assets.manifests import compute_texts_digest
from heimdall_assets.stores.database.rows import read_by
from heimdall_assets.stores.database.shape import Kind, Shape

MARK_LENGTH = 32
_CHUNK = 10_000  # values in one IN (...); both databases allow 32 766


def read_marks(connection: Connection, shape: Shape, session_ids: Sequence[str]) -> dict[str, str]:
    """Return session id -> digest of its row, source, measurements and last decision, of those that are there."""
    found: dict[str, str] = {}
    for start in range(0, len(session_ids), _CHUNK):
        found |= _read_marks(connection, shape, session_ids[start : start + _CHUNK])
    return found


def _read_marks(connection: Connection, shape: Shape, session_ids: Sequence[str]) -> dict[str, str]:
    sessions = read_by(connection, shape, "recording_sessions", "id", session_ids)
    named = sorted({str(row["known_source_id"]) for row in sessions})
    sources = {str(row["id"]): row for row in read_by(connection, shape, "known_sources", "id", named)}
    heard: dict[str, list[str]] = defaultdict(list)
    for row in read_by(connection, shape, "measurements", "recording_session_id", session_ids):
        heard[str(row["recording_session_id"])].append(_write(row))
    last = _find_last(connection, shape, session_ids)
    found = {}
    for row in sessions:
        name = str(row["id"])
        told = [_write(row), _write(sources.get(str(row["known_source_id"]))), sorted(heard[name]), str(last.get(name))]
        found[name] = compute_texts_digest(told)[:MARK_LENGTH]
    return found


def check_seen(connection: Connection, shape: Shape, seen: Mapping[str, str]) -> None:
    """Do nothing where every session still is what it was when it was looked at.

    Args:
        connection: within the transaction that decides.
        shape: of the database.
        seen: session id -> its mark then.

    Raises:
        Refused: one is not, or is gone.
    """
    now = read_marks(connection, shape, list(seen))
    changed = [name for name in seen if now.get(name) != seen[name]]
    if not changed:
        return
    others = f" ({len(changed)} of {len(seen)} sessions are so)" if len(seen) > 1 else ""
    rows = read_by(connection, shape, "recording_sessions", "id", changed[:1])
    if not rows:
        raise Refused(f"session {changed[0]:.140}: is gone{others}, expected what was shown; nothing was decided")
    status, name = rows[0]["approval_status"], rows[0]["session_name"]
    events = read_by(connection, shape, "approval_events", "recording_session_id", changed[:1])
    last = max(events, key=lambda row: int(row["id"]), default=None)
    who = "" if last is None else f", decided by {last['decided_by']} at {str(last['decided_at'])[:19]}"
    raise Refused(
        f"session {name:.140}: changed after it was shown{others}: it is {status}{who}; nothing was decided, look again"
    )


def _find_last(connection: Connection, shape: Shape, session_ids: Sequence[str]) -> dict[str, int]:
    """Return session id -> number of its last decision; none in a database of others."""
    if shape.kind is not Kind.OURS:
        return {}
    events = shape.table("approval_events", "e")
    of = events.c.recording_session_id
    query = select(of, func.max(events.c.id)).where(of.in_(list(session_ids))).group_by(of)
    return {str(name): int(number) for name, number in connection.execute(query)}


def _write(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else repr(sorted(row.items(), key=lambda item: item[0]))
