"""People: whose name each pseudonym stands for, in a table whose rows can be emptied, beside ledgers that never change.

Belongs here: giving pseudonyms, reading names back, forgetting a name. Does not belong here: what a pseudonym is
(``people``), what is decided under it (``ledger``).

The secret of a row ties its name to the pseudonym that entries of the log hold: a name that was changed is found. Once
both are gone, nobody can tell whose the pseudonym was, and every digest over it still holds.
"""

import secrets
from typing import Any

from sqlalchemy import Connection, insert, inspect, select, update

from heimdall_assets.errors import CorruptObject, NotFound
from heimdall_assets.people import ITSELF, is_pseudonym, make_pseudonym
from heimdall_assets.stores.database.ledger import check_words
from heimdall_assets.stores.database.log import append_entries, plain, read_clock, read_entries
from heimdall_assets.stores.database.schema import SCHEMA, people

ERASURE = "erasure"
"""Kind of entries of the log: what stood for somebody, or was recorded, was erased."""

_WHO = ("decided_by", "owner", "person", "user")
"""Fields of entries that say who."""

_SECRET_BYTES = 32


def draw_secret() -> bytes:
    """Return a new secret, which nobody can guess."""
    return secrets.token_bytes(_SECRET_BYTES)


def name_person(connection: Connection, name: str) -> str:
    """Return the pseudonym of a person, given now where they had none; the caller's transaction holds the write lock.

    What is no person's name stays: the program's own, and a pseudonym that stands here already.
    """
    if name == ITSELF:
        return name
    known = _find(connection, name)
    if known is not None:
        return known
    secret = draw_secret()
    pseudonym = make_pseudonym(secret, name)
    connection.execute(insert(people), [{"pseudonym": pseudonym, "name": name, "secret": secret.hex()}])
    return pseudonym


def find_pseudonym(connection: Connection, name: str) -> str | None:
    """Return the pseudonym of a person, by name or as it is; None: nobody of this name decided anything."""
    return _find(connection, name) if has_people(connection) else None


def _find(connection: Connection, name: str) -> str | None:
    column = people.c.pseudonym if is_pseudonym(name) else people.c.name
    found = connection.execute(select(people.c.pseudonym).where(column == name)).scalar()
    return None if found is None else str(found)


def read_names(connection: Connection) -> dict[str, str]:
    """Return pseudonym -> name, of those whose name was not erased."""
    if not has_people(connection):
        return {}
    query = select(people.c.pseudonym, people.c.name).where(people.c.name.is_not(None))
    return {row.pseudonym: row.name for row in connection.execute(query.order_by(people.c.name))}


def check_people(connection: Connection) -> list[str]:
    """Return which names are not those that their pseudonyms were given for, one line a problem.

    A row that is gone is found too, and a name that is gone although nobody's decision erased it.
    """
    if not has_people(connection):
        return []
    try:
        entries = read_entries(connection)
    except CorruptObject as error:
        return [str(error)]
    erased = {str(entry.get("person")) for entry in entries.values() if entry["kind"] == ERASURE}
    named = {str(entry.get(field)) for entry in entries.values() for field in _WHO}
    named = {name for name in named if is_pseudonym(name)}  # a reason may quote anybody's
    problems = []
    for row in connection.execute(select(people).order_by(people.c.pseudonym)):
        named.discard(row.pseudonym)
        if row.name is None and row.secret is None and row.pseudonym in erased:
            continue
        if not _is_own(row.pseudonym, row.name, row.secret):
            problems.append(
                f"people {row.pseudonym}: found name {row.name!r:.80}, expected the one that the pseudonym was made of"
            )
        elif row.pseudonym in erased:
            problems.append(f"people {row.pseudonym}: found a name, expected none since it was erased")
    return problems + [f"people {name}: found no row, expected that of who stands in the log" for name in sorted(named)]


def _is_own(pseudonym: str, name: Any, secret: Any) -> bool:
    try:
        return make_pseudonym(bytes.fromhex(secret), name) == pseudonym
    except (TypeError, ValueError, AttributeError):
        return False


def erase_person(connection: Connection, name: str, by: str, reason: str) -> str:
    """Destroy a person's name and the secret that ties it to the pseudonym, which is returned; the log says so.

    The caller's transaction holds the write lock.

    Raises:
        NotFound: nobody of this name, or pseudonym, decided anything, or their name is gone already.
        Refused: ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    name, _ = check_words(name, reason)
    pseudonym = _find(connection, name)
    if pseudonym is None or pseudonym not in read_names(connection):
        raise NotFound(f"person {name}: found nobody of this name, expected one who decided or started something")
    decided = {"decided_by": name_person(connection, by), "decided_at": plain(read_clock()), "reason": reason}
    connection.execute(update(people).where(people.c.pseudonym == pseudonym).values(name=None, secret=None))
    append_entries(connection, [{"kind": ERASURE, "person": pseudonym, **decided}])
    return pseudonym


def has_people(connection: Connection) -> bool:
    """Return whether the database is of a revision that has the table; one that may only be read is not upgraded."""
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    return inspect(connection).has_table(people.name, schema=schema)
