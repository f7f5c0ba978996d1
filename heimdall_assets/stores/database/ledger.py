"""Ledgers: tables of decisions that only grow, each row also an entry of the log.

Belongs here: ``approval_events``, ``promotion_events`` and their like, and whether they say what the log says. Does not
belong here: who may decide what; the log itself (``log``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, inspect, select

from heimdall_assets.errors import CorruptObject, Refused
from heimdall_assets.stores.database.log import append_entries, find_missing_log, plain, read_entries
from heimdall_assets.stores.database.schema import SCHEMA, model_aliases, plain_row, promotion_events

KINDS = {
    "approval_events": "approval",
    "promotion_events": "promotion",
    "serving_rule_events": "rule",
    "service_key_events": "service_key",
}
"""Ledger -> kind of its entries in the log."""


def check_words(by: str, reason: str) -> tuple[str, str]:
    """Return who and why, stripped.

    Raises:
        Refused: one of them is blank: a decision without a name or a reason cannot be answered for.
    """
    for value, what in ((by, "by whom"), (reason, "why")):
        if not isinstance(value, str) or not value.strip() or "\x00" in value or not _is_unicode(value):
            raise Refused(f"decision: found {value!r} for {what}, expected a text that is not blank")
    return by.strip(), reason.strip()


def _is_unicode(text: str) -> bool:
    """Return whether a text can be kept: a terminal's bytes that are no UTF-8 reach us as halves of characters."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def append_events(connection: Connection, ledger: Table, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write ``events`` after the last one, and into the log, whose new rows are returned.

    The caller's transaction holds the write lock.
    """
    last = connection.execute(select(ledger.c.id).order_by(ledger.c.id.desc()).limit(1)).scalar() or 0
    rows = [{"id": number, **event} for number, event in enumerate(events, start=last + 1)]
    if not rows:
        return []
    entries = append_entries(connection, [describe_event(ledger, row) for row in rows])
    connection.execute(ledger.insert(), rows)
    return entries


def describe_event(ledger: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of the log of a row."""
    return {"kind": KINDS[ledger.name], **{name: plain(value) for name, value in row.items()}}


def check_events(connection: Connection, ledger: Table) -> list[str]:
    """Return where a ledger and the log differ, one line a problem; empty: every row is as it was written."""
    if missing := find_missing_log(connection):
        return missing
    problems, expected = [], 1
    try:
        rows = [plain_row(row) for row in connection.execute(select(ledger).order_by(ledger.c.id))]
        entries = read_entries(connection, KINDS[ledger.name])
        numbers = {entry.get("id"): number for number, entry in entries.items()}
    except (ValueError, TypeError) as error:
        return [f"{ledger.name}: found a row that cannot be read ({error})"]
    except CorruptObject as error:
        return [str(error)]
    for row in rows:
        if row["id"] != expected:
            problems.append(f"{ledger.name}: found event {row['id']} after {expected - 1}, expected {expected}")
        expected = row["id"] + 1
        number = numbers.get(row["id"], -1)
        entry, said = entries.pop(number, None), describe_event(ledger, row)
        if entry is None:
            problems.append(f"{ledger.name} event {row['id']}: found no entry of it in the log")
        elif entry != said:
            wrong = sorted(name for name in {*entry, *said} if entry.get(name) != said.get(name))
            problems.append(
                f"{ledger.name} event {row['id']}: found {_list_pairs(said, wrong)}, expected "
                f"{_list_pairs(entry, wrong)} by entry {number} of the log"
            )
    for number, entry in entries.items():
        problems.append(
            f"{ledger.name} event {entry.get('id')}: found no row, expected the one of entry {number} of the log"
        )
    return problems


def check_known_ledger(connection: Connection, ledger: Table) -> list[str]:
    """Return what ``check_events`` does; nothing where the database is of a revision without this ledger."""
    return check_events(connection, ledger) if has_table(connection, ledger) else []


def has_table(connection: Connection, wanted: Table) -> bool:
    """Return whether the database is of a revision that has a table; one that may only be read is not upgraded."""
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    return inspect(connection).has_table(wanted.name, schema=schema)


def check_promotions(connection: Connection) -> list[str]:
    """Return what is wrong with ``promotion_events`` and with the aliases that they account for, one line a problem."""
    problems = check_events(connection, promotion_events)
    events = connection.execute(select(promotion_events).order_by(promotion_events.c.id))
    last = {row.alias: row.version for row in events}
    now = {row.alias: row.version for row in connection.execute(select(model_aliases))}
    for alias in sorted(last.keys() | now.keys()):
        found, expected = now.get(alias, "nothing"), last.get(alias, "nothing")
        if found != expected:
            problems.append(f"alias {alias}: found {found}, expected {expected} by promotion_events")
    return problems


def _list_pairs(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {values.get(name)!r:.80}" for name in names)
