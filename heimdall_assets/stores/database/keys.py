"""Public keys that count, as the log tells: whose each is, since which entry, until which.

Belongs here: adding and retiring them, reading them back. Does not belong here: private keys (``stores.keys``).
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from heimdall_assets.errors import NotFound, Refused
from heimdall_assets.stores.database.ledger import check_words
from heimdall_assets.stores.database.log import append_entries, plain, read_clock, read_entries
from heimdall_assets.stores.database.people import name_person

KEY = "key"
"""Kind of their entries in the log."""

ADDED, RETIRED = "added", "retired"


@dataclass(frozen=True)
class KnownKey:
    """A public key that counts, or did.

    Attributes:
        id: SHA-256 of the public key in DER, 64 hex digits.
        public_pem: the public key.
        owner: whose it is, by pseudonym.
        added_at: when, ISO 8601.
        entry: of the log, that added it.
        retired_entry: of the log, that retired it; what was signed before still counts. None: it counts.
        retired_at, reason: when and why.
    """

    id: str
    public_pem: str
    owner: str
    added_at: str
    entry: int
    retired_entry: int | None = None
    retired_at: str | None = None
    reason: str | None = None


def read_keys(connection: Connection) -> dict[str, KnownKey]:
    """Return id -> key, those retired too, in the order in which they were added.

    Raises:
        CorruptObject: an entry of the log is none.
    """
    found: dict[str, KnownKey] = {}
    for number, entry in read_entries(connection, KEY).items():
        name = str(entry["key_id"])
        if entry["action"] == ADDED and name not in found:
            found[name] = KnownKey(name, entry["public_key"], entry["owner"], entry["decided_at"], number)
        elif entry["action"] == RETIRED and name in found:
            known = found[name]
            ended = (number, entry["decided_at"], entry["reason"])
            found[name] = KnownKey(known.id, known.public_pem, known.owner, known.added_at, known.entry, *ended)
    return found


def add_key(connection: Connection, key_id: str, public_pem: str, owner: str, by: str) -> None:
    """Have a key count from now on; the caller's transaction holds the write lock.

    Raises:
        Refused: it counts already, or was retired: that is for ever; or ``owner`` is blank.
    """
    owner, by = check_words(owner, by)
    if key_id in read_keys(connection):
        raise Refused(f"key {key_id}: found it in the log already, expected a new one")
    said = {"public_key": public_pem, "owner": name_person(connection, owner)}
    _append(connection, ADDED, key_id, said, by)


def retire_key(connection: Connection, key_id: str, by: str, reason: str) -> None:
    """Have a key count no more; what it signed before still does.

    Raises:
        NotFound: no such key counts.
        Refused: ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    known = read_keys(connection).get(key_id)
    if known is None or known.retired_entry is not None:
        raise NotFound(f"key {key_id}: found none of this id that counts; heimdall keys list shows them")
    _append(connection, RETIRED, key_id, {"reason": reason}, by)


def _append(connection: Connection, action: str, key_id: str, said: dict[str, Any], by: str) -> None:
    told = {"kind": KEY, "action": action, "key_id": key_id, **said}
    append_entries(connection, [{**told, "decided_by": name_person(connection, by), "decided_at": plain(read_clock())}])
