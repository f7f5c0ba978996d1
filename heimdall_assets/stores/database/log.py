"""The log: every decision and every release in the order in which they were made, one table that only grows.

Belongs here: appending entries, reading them, checking them against themselves, the checkpoint over all of them. Does
not belong here: what an entry is about (``ledger``, ``releases.rows``), the tree over entries ``merkle``.

An entry is canonical JSON with a ``kind``; its leaf is RFC 6962's over these bytes. The first entry names the log. The
tables of events and releases say the same in columns that can be asked; each is compared with its entries.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, inspect, select

from heimdall_assets.errors import CorruptObject
from heimdall_assets.manifests import decode_canonical_json, encode_canonical_json
from heimdall_assets.merkle import Checkpoint, compute_root, hash_leaf
from heimdall_assets.stores.database.schema import SCHEMA, log_entries

FORMAT = "heimdall-log/1"
BEGINNING = "log"
"""Kind of the first entry, which names the log."""


def read_clock() -> datetime:
    """Return the time now, in UTC, to the microsecond."""
    return datetime.now(UTC)


def plain(value: Any) -> Any:
    """Return a column's value as an entry holds it: times are ISO 8601 in UTC to the microsecond."""
    return value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else value


def begin_log() -> dict[str, Any]:
    """Return the first entry of a new log, whose name no other has."""
    return {"kind": BEGINNING, "format": FORMAT, "log": uuid.uuid4().hex}


def append_entries(connection: Connection, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write entries after the last one and return their rows; the caller's transaction holds the write lock."""
    last = connection.execute(select(func.max(log_entries.c.id))).scalar()
    first = 0 if last is None else last + 1
    new = [] if last is not None else [begin_log()]
    rows = [_make_row(first + place, body) for place, body in enumerate([*new, *bodies])]
    if bodies:
        connection.execute(log_entries.insert(), rows)
    return rows[len(new) :]


def read_entries(connection: Connection, kind: str | None = None) -> dict[int, dict[str, Any]]:
    """Return number -> entry, in order, of one kind or of all.

    Whether they are canonical is for ``check_entries``: to ask it of each costs more than all else.

    Raises:
        CorruptObject: one of them is no entry.
    """
    found: dict[int, dict[str, Any]] = {}
    if not _has_log(connection):
        return found
    for row in connection.execute(select(log_entries.c.id, log_entries.c.body).order_by(log_entries.c.id)):
        body = _decode(row.id, row.body)
        if kind is None or body["kind"] == kind:
            found[row.id] = body
    return found


def find_entries(connection: Connection, kind: str) -> dict[int, dict[str, Any]]:
    """Return number -> entry, in order, of those that say their kind as canonical JSON does.

    Nothing else is decoded: for whoever shows entries, not for an audit.

    Raises:
        CorruptObject: one of them is no entry.
    """
    found = {number: _decode(number, body) for number, body in _list_bodies(connection, kind)}
    return {number: body for number, body in found.items() if body["kind"] == kind}


def find_numbers(connection: Connection, kind: str) -> dict[int, int]:
    """Return the ``id`` that an entry of a kind tells -> its own number; what is not written canonically tells none."""
    told = re.compile(rf'"id":([0-9]+),"kind":"{re.escape(kind)}"')
    found = ((number, told.search(body)) for number, body in _list_bodies(connection, kind))
    return {int(match.group(1)): number for number, match in found if match}


def _list_bodies(connection: Connection, kind: str) -> list[tuple[int, str]]:
    """Return number and body, in order, of the entries in whose body the kind stands."""
    if not _has_log(connection):
        return []
    query = select(log_entries.c.id, log_entries.c.body).order_by(log_entries.c.id)
    query = query.where(log_entries.c.body.contains(f'"kind":"{kind}"', autoescape=True))
    return [(row.id, row.body) for row in connection.execute(query)]


def check_entries(connection: Connection) -> list[str]:
    """Return what the log says against itself, one line a problem; empty: it is whole, from its first entry on.

    That nothing is missing at its end, and that nobody wrote all of it anew, only a checkpoint kept elsewhere tells.
    """
    if missing := find_missing_log(connection):
        return missing
    problems, expected = [], 0
    for row in connection.execute(select(log_entries).order_by(log_entries.c.id)):
        if row.id != expected:
            problems.append(f"log_entries: found entry {row.id} after {expected - 1}, expected {expected}")
        expected = row.id + 1
        try:
            body = _decode(row.id, row.body)
            if encode_canonical_json(body) != row.body.encode():
                raise _refuse(row.id, row.body)
        except CorruptObject as error:
            problems.append(str(error))
            continue
        leaf = hash_leaf(row.body.encode()).hex()
        if leaf != row.leaf:
            problems.append(f"log_entries {row.id}: found leaf {row.leaf}, expected {leaf}, that of its body")
        if (body["kind"] == BEGINNING) != (row.id == 0):
            problems.append(
                f"log_entries {row.id}: found kind {body['kind']}, expected {BEGINNING} first and nowhere else"
            )
    return problems


def read_log(connection: Connection) -> list[str]:
    """Return the bodies of all entries as they lie, in order."""
    if not _has_log(connection):
        return []
    return [row.body for row in connection.execute(select(log_entries.c.body).order_by(log_entries.c.id))]


def count_entries(connection: Connection) -> int:
    """Return how many entries there are: while it stays the same, nothing was decided or released."""
    if not _has_log(connection):
        return 0
    last = connection.execute(select(func.max(log_entries.c.id))).scalar()
    return 0 if last is None else int(last) + 1


def read_checkpoint(connection: Connection, size: int | None = None) -> Checkpoint | None:
    """Return the checkpoint over the first ``size`` entries, as their bodies are now; None: there are fewer, or none.

    Raises:
        CorruptObject: the first entry does not name the log.
    """
    bodies = read_log(connection)
    size = len(bodies) if size is None else size
    if not 0 < size <= len(bodies):
        return None
    name = str(_decode(0, bodies[0]).get("log"))
    return Checkpoint(name, size, compute_root([hash_leaf(body.encode()) for body in bodies[:size]]).hex())


def find_missing_log(connection: Connection) -> list[str]:
    """Return the one line about a database that has no log; empty: it has."""
    if _has_log(connection):
        return []
    return [f"{log_entries.name}: found no such table; open the database once where it may be written"]


def _has_log(connection: Connection) -> bool:
    """Return whether the database is of a revision that has a log; one that may only be read is not upgraded."""
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    return inspect(connection).has_table(log_entries.name, schema=schema)


def _make_row(number: int, body: Mapping[str, Any]) -> dict[str, Any]:
    encoded = encode_canonical_json(dict(body))
    return {"id": number, "body": encoded.decode(), "leaf": hash_leaf(encoded).hex()}


def _decode(number: int, body: str) -> dict[str, Any]:
    try:
        found = decode_canonical_json(body)
    except (ValueError, RecursionError):
        raise _refuse(number, body) from None
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise _refuse(number, body)
    return found


def _refuse(number: int, body: str) -> CorruptObject:
    return CorruptObject(f"log_entries {number}: found {body!r:.60}, expected canonical JSON with a kind")
