"""Keys that callers of the service show: made once, kept as a hash, expiring, revoked; each in a ledger.

Belongs here: drawing them, what is kept of them, whether one counts. Does not belong here: keys that sign
(``database.keys``), passwords of people (``web.passwords``).

A key is ``hk_ID_SECRET``: an id of 64 bits, which is no secret, and 256 random bits. Kept is SHA-256 of the secret, and
that is enough: a slow hash with a salt, such as Argon2, protects what people choose, which can be guessed by trying
what people choose. Of 256 random bits none can be tried, the hash is of no use to whoever reads it (it lies in the log,
which is given away), and a request costs microseconds rather than a tenth of a second and 64 MiB.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from heimdall_assets.errors import InvalidSetting, NotFound
from heimdall_assets.people import is_pseudonym
from heimdall_assets.serving_rules import check_caller
from heimdall_assets.stores.database.ledger import append_events, check_words, has_table
from heimdall_assets.stores.database.log import read_clock
from heimdall_assets.stores.database.people import name_person, read_names
from heimdall_assets.stores.database.schema import plain_row, service_key_events, service_key_uses

MADE, REVOKED = "made", "revoked"
MAX_DAYS = 3650
_ID_BYTES, _SECRET_BYTES = 8, 32
_KEY = re.compile(rf"hk_([0-9a-f]{{{2 * _ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")
_NOBODYS = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class ServiceKey:
    """A key of a caller; nothing of it lets anybody in.

    Attributes:
        id: 16 hex digits, the part of the key that is no secret.
        owner: whose requests they are, by name; by pseudonym where the name was erased.
        made_at, made_by, reason: when (ISO 8601), by whom (pseudonym) and why.
        expires_at: from when on it counts no more, ISO 8601.
        revoked_at, revoked_by, revoked_reason: the same of its end; None: nobody revoked it.
        last_used_on: day of UTC on which it let somebody in last; None: it never did, or nobody could note it.
        state: counts, expired, revoked, or erased where the name of its owner was.
    """

    id: str
    owner: str
    made_at: str
    made_by: str
    reason: str
    expires_at: str
    state: str
    revoked_at: str | None = None
    revoked_by: str | None = None
    revoked_reason: str | None = None
    last_used_on: str | None = None

    @property
    def counts(self) -> bool:
        """Whether it lets its owner in."""
        return self.state == "counts"


def read_service_keys(connection: Connection) -> dict[str, ServiceKey]:
    """Return id -> key, in the order in which they were made; none where the database knows no such keys."""
    return {key.id: key for key, _ in _read(connection)}


def find_service_key(connection: Connection, shown: str) -> ServiceKey | None:
    """Return the key that somebody shows, where it counts; None: it does not, and they are not told why.

    Hashes are compared in the same time however much of them agrees, and one is where there is no such id.
    """
    parts = _KEY.fullmatch(shown)
    key_id, secret = parts.groups() if parts else ("", "")
    key, told = {key.id: (key, told) for key, told in _read(connection)}.get(key_id, (None, _NOBODYS))
    is_right = hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), told)
    return key if key is not None and is_right and key.counts else None


def make_service_key(connection: Connection, owner: str, days: int, by: str, reason: str) -> tuple[ServiceKey, str]:
    """Make a key and return it, and what its owner shows, which is nowhere else; the caller holds the write lock.

    Raises:
        InvalidIdentifier: ``owner`` is no name.
        InvalidSetting: it would expire at once, or in more than ten years.
        Refused: ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    check_caller(owner)
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MAX_DAYS:
        raise InvalidSetting(f"service key of {owner}: found {days!r:.40} days, expected 1 to {MAX_DAYS}")
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    said = {
        "secret_sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "owner": name_person(connection, owner),
        "expires_at": read_clock() + timedelta(days=days),
    }
    _append(connection, MADE, key_id, said, (by, reason))
    return read_service_keys(connection)[key_id], f"hk_{key_id}_{secret}"


def revoke_service_key(connection: Connection, key_id: str, by: str, reason: str) -> None:
    """Have a key let nobody in any more; the caller's transaction holds the write lock.

    Raises:
        NotFound: there is none of this id, or it was revoked.
        Refused: ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    known = read_service_keys(connection).get(key_id)
    if known is None or known.revoked_at is not None:
        raise NotFound(
            f"service key {key_id!r:.40}: found none of this id that is not revoked; heimdall service-keys list shows "
            "them"
        )
    _append(connection, REVOKED, key_id, {"secret_sha256": None, "owner": None, "expires_at": None}, (by, reason))


def note_use(connection: Connection, key_id: str, day: date) -> None:
    """Keep the day on which a key was used last; the caller's transaction holds the write lock."""
    connection.execute(delete(service_key_uses).where(service_key_uses.c.key_id == key_id))
    connection.execute(insert(service_key_uses), [{"key_id": key_id, "last_used_on": day.isoformat()}])


def _read(connection: Connection) -> list[tuple[ServiceKey, str]]:
    """Return every key with the hash of its secret."""
    if not has_table(connection, service_key_events):
        return []
    query = select(service_key_events).order_by(service_key_events.c.id)
    rows = [plain_row(row) for row in connection.execute(query)]
    ends = {row["key_id"]: row for row in rows if row["action"] == REVOKED}
    used = {row.key_id: row.last_used_on for row in connection.execute(select(service_key_uses))}
    names, now = read_names(connection) if rows else {}, read_clock()
    made = [row for row in rows if row["action"] == MADE]
    return [
        (_describe(row, ends.get(row["key_id"]), (names, now, used.get(row["key_id"]))), row["secret_sha256"])
        for row in made
    ]


def _describe(
    made: dict[str, Any], end: dict[str, Any] | None, known: tuple[dict[str, str], datetime, str | None]
) -> ServiceKey:
    names, now, used = known
    owner = names.get(made["owner"], made["owner"])
    state = "counts" if now < made["expires_at"] else "expired"
    if is_pseudonym(owner):
        state = "erased"
    if end is not None:
        state = "revoked"
    return ServiceKey(
        id=made["key_id"],
        owner=owner,
        made_at=made["decided_at"].isoformat(),
        made_by=made["decided_by"],
        reason=made["reason"],
        expires_at=made["expires_at"].isoformat(),
        state=state,
        revoked_at=None if end is None else end["decided_at"].isoformat(),
        revoked_by=None if end is None else end["decided_by"],
        revoked_reason=None if end is None else end["reason"],
        last_used_on=used,
    )


def _append(connection: Connection, action: str, key_id: str, said: dict[str, Any], why: tuple[str, str]) -> None:
    decided = {"decided_by": name_person(connection, why[0]), "decided_at": read_clock(), "reason": why[1]}
    append_events(connection, service_key_events, [{"action": action, "key_id": key_id, **said, **decided}])
