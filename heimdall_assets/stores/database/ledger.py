"""Ledgers (append-only hash chains): each row's digest covers the one before, so a changed or missing row shows.

Belongs here: the chain of ``approval_events`` and ``promotion_events``. Does not belong here: who may decide what.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, select

from heimdall_assets.errors import Refused
from heimdall_assets.manifests import compute_json_digest
from heimdall_assets.stores.database.schema import model_aliases, plain_row, promotion_events

FIRST_LINK = "0" * 64


def check_words(by: str, reason: str) -> tuple[str, str]:
    """Return who and why, stripped.

    Raises:
        Refused: one of them is blank: a decision without a name or a reason cannot be answered for.
    """
    for value, what in ((by, "by whom"), (reason, "why")):
        if not isinstance(value, str) or not value.strip() or "\x00" in value:
            raise Refused(f"decision: found {value!r} for {what}, expected a text that is not blank")
    return by.strip(), reason.strip()


def compute_link(row: Mapping[str, Any], previous: str) -> str:
    """Return the digest over ``row`` and, through ``previous``, every row before it: a link of the hash chain."""
    values = {name: _plain(value) for name, value in row.items() if name != "digest"}
    return compute_json_digest({**values, "previous": previous})


def append_events(connection: Connection, ledger: Table, events: Sequence[dict[str, Any]]) -> None:
    """Write ``events`` after the last one, numbered and chained; the caller's transaction holds the write lock."""
    last = connection.execute(select(ledger.c.id, ledger.c.digest).order_by(ledger.c.id.desc()).limit(1)).first()
    number, previous = (last.id, last.digest) if last else (0, FIRST_LINK)
    rows = []
    for event in events:
        number += 1
        row = {"id": number, **event}
        previous = compute_link(row, previous)
        rows.append({**row, "digest": previous})
    if rows:
        connection.execute(ledger.insert(), rows)


def check_chain(connection: Connection, ledger: Table) -> list[str]:
    """Return what is wrong with the chain, one line a problem; empty: every row is as it was written."""
    problems = []
    previous, expected_id = FIRST_LINK, 1
    try:
        rows = [plain_row(row) for row in connection.execute(select(ledger).order_by(ledger.c.id))]
    except (ValueError, TypeError) as error:
        return [f"{ledger.name}: found a row that cannot be read ({error})"]
    for row in rows:
        if row["id"] != expected_id:
            problems.append(f"{ledger.name}: found event {row['id']} after {expected_id - 1}, expected {expected_id}")
        if row["digest"] != compute_link(row, previous):
            problems.append(f"{ledger.name} event {row['id']}: found other content than was written, or another order")
        previous, expected_id = row["digest"], row["id"] + 1
    return problems


def check_promotions(connection: Connection) -> list[str]:
    """Return what is wrong with ``promotion_events`` and with the aliases that they account for, one line a problem."""
    problems = check_chain(connection, promotion_events)
    events = connection.execute(select(promotion_events).order_by(promotion_events.c.id))
    last = {row.alias: row.version for row in events}
    now = {row.alias: row.version for row in connection.execute(select(model_aliases))}
    for alias in sorted(last.keys() | now.keys()):
        found, expected = now.get(alias, "nothing"), last.get(alias, "nothing")
        if found != expected:
            problems.append(f"alias {alias}: found {found}, expected {expected} by promotion_events")
    return problems


def read_clock() -> datetime:
    """Return the time now, in UTC, to the microsecond."""
    return datetime.now(UTC)


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else value
