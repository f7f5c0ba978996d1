"""Decisions about some sessions: who approved, withdrew or rejected each, when, why, and whether they signed it.

Belongs here: reading them by session or by number. Does not belong here: deciding (``measurements``), whether ledger
and log agree (``ledger``).
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection

from heimdall_assets.manifests import encode_canonical_json
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.database.decision_signatures import read_signers
from heimdall_assets.stores.database.log import find_entries
from heimdall_assets.stores.database.rows import read_by, read_table
from heimdall_assets.stores.database.shape import Kind

APPROVAL = "approval"
_CHUNK = 10_000  # values in one IN (...); both databases allow 32 766


def read_history(database: Database, called: str) -> list[dict[str, Any]]:
    """Return every decision, oldest first, about the sessions of this id or name; none in a database of others.

    Each has ``id``, ``recording_session_id``, ``decision``, ``decided_by``, ``decided_at``, ``reason`` and
    ``signed_by``: whose signature on it holds; None: nobody's.
    """
    with database.reading() as connection:
        shape = database.shape
        if shape.kind is not Kind.OURS:
            return []
        found = [read_by(connection, shape, "recording_sessions", name, [called]) for name in ("id", "session_name")]
        sessions = sorted({str(row["id"]) for rows in found for row in rows})
        events = shape.table("approval_events", "e")
        rows = read_table(
            connection, shape, "approval_events", events, [events.c.recording_session_id.in_(sessions[:_CHUNK])]
        )
        signers = _find_signers(connection, sessions)
    return [{**row, "signed_by": signers.get(row["id"])} for row in sorted(rows, key=lambda row: int(row["id"]))]


def read_decisions(database: Database, numbers: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return number -> decision of those of these numbers that are there."""
    wanted, found = sorted(numbers), {}
    with database.reading() as connection:
        shape = database.shape
        if shape.kind is not Kind.OURS:
            return {}
        events = shape.table("approval_events", "e")
        for start in range(0, len(wanted), _CHUNK):
            chosen = [events.c.id.in_(wanted[start : start + _CHUNK])]
            for row in read_table(connection, shape, "approval_events", events, chosen):
                found[int(row["id"])] = row
    return found


def _find_signers(connection: Connection, sessions: Sequence[str]) -> dict[int, str]:
    """Return number of a decision -> who signed it, of those about some sessions."""
    signers = read_signers(connection)
    if not signers:
        return {}
    found = {}
    for session in sessions:
        words = f'"recording_session_id":{encode_canonical_json(session).decode()}'
        for number, entry in find_entries(connection, APPROVAL, words).items():
            if number in signers and entry.get("recording_session_id") == session:
                found[int(entry["id"])] = signers[number]
    return found
