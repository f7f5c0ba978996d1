"""Decisions about some sessions: who approved, withdrew or rejected each, when, why, and whether they signed it.

Belongs here: reading them by session or by number. Does not belong here: deciding (``measurements``), whether ledger
and log agree (``ledger``).
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, select

from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.database.decision_signatures import read_signers
from heimdall_assets.stores.database.log import find_numbers
from heimdall_assets.stores.database.rows import read_by, read_table
from heimdall_assets.stores.database.shape import Kind, Shape
from heimdall_assets.stores.database.waivers import find_waiver

APPROVAL = "approval"
_LATEST, _OFFERED = 300, 12
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
        rows = _read_rows(connection, shape, "recording_session_id", sessions)
        signers = _find_signers(connection, [int(row["id"]) for row in rows])
    return [{**row, "signed_by": signers.get(row["id"])} for row in sorted(rows, key=lambda row: int(row["id"]))]


def read_decisions(database: Database, numbers: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return number -> decision of those of these numbers that are there."""
    with database.reading() as connection:
        shape = database.shape
        rows = _read_rows(connection, shape, "id", sorted(numbers)) if shape.kind is Kind.OURS else []
    return {int(row["id"]): row for row in rows}


def find_signers(database: Database, numbers: Collection[int]) -> dict[int, str]:
    """Return number of a decision -> whose signature on it holds, of those of these numbers that somebody signed."""
    with database.reading() as connection:
        return _find_signers(connection, numbers) if database.shape.kind is Kind.OURS else {}


def list_reasons(database: Database) -> list[str]:
    """Return the reasons of the latest decisions, each once, the latest first, without what they waive."""
    with database.reading() as connection:
        if database.shape.kind is not Kind.OURS:
            return []
        events = database.shape.table("approval_events", "e")
        rows = connection.execute(select(events.c.reason).order_by(events.c.id.desc()).limit(_LATEST))
        reasons = [str(row[0]) for row in rows]
    return list(dict.fromkeys(one for one in reasons if find_waiver(one) is None))[:_OFFERED]


def _read_rows(connection: Connection, shape: Shape, name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    events, rows = shape.table("approval_events", "e"), []
    for start in range(0, len(values), _CHUNK):
        chosen = [events.c[name].in_(values[start : start + _CHUNK])]
        rows += read_table(connection, shape, "approval_events", events, chosen)
    return rows


def _find_signers(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    signers, wanted = read_signers(connection), set(numbers)
    if not signers or not wanted:
        return {}
    entries = find_numbers(connection, APPROVAL)
    return {number: signers[entries[number]] for number in wanted if entries.get(number) in signers}
