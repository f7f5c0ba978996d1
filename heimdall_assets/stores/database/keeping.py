"""Keeping: what is held against removal, and what was erased, as entries of the log tell.

Belongs here: holds, and the tombstones of recordings and people. Does not belong here: removing bytes
(``pipeline.keeping``), names of people (``people``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, text, update

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import NotFound, Refused
from heimdall_assets.stores.database.ledger import append_events, check_words
from heimdall_assets.stores.database.log import append_entries, plain, read_clock, read_entries
from heimdall_assets.stores.database.people import ERASURE, name_person
from heimdall_assets.stores.database.schema import approval_events, known_sources, measurements, recording_sessions

HOLD = "hold"
"""Kind of entries of the log."""

PLACED, ENDED = "placed", "ended"

ERASED = "erased"
"""What an erased session, and a source of which nothing else is recorded, is called from then on, with its id."""


@dataclass(frozen=True)
class Hold:
    """Something that must stay, and why.

    Attributes:
        name: of the hold.
        thing: digest of an object, or id of a session.
        placed_by, placed_at, reason: who, by pseudonym, when (ISO 8601) and why.
    """

    name: str
    thing: str
    placed_by: str
    placed_at: str
    reason: str


@dataclass(frozen=True)
class Erasure:
    """What was erased: a session with the digests of what it left, or a person.

    Attributes:
        session, person: id, or pseudonym; one of them is None.
        objects: digests of the stored objects that are gone for it.
        erased_by, erased_at, reason: who, by pseudonym, when (ISO 8601) and why.
    """

    session: str | None
    person: str | None
    objects: tuple[str, ...]
    erased_by: str
    erased_at: str
    reason: str

    def describe(self) -> str:
        """Return when, by whom and why, in words."""
        return f"erased at {self.erased_at} by {self.erased_by} ({self.reason})"


def read_holds(connection: Connection) -> list[Hold]:
    """Return what is held now, in the order in which it was placed.

    Raises:
        CorruptObject: an entry of the log is none.
    """
    found: dict[str, Hold] = {}
    for entry in read_entries(connection, HOLD).values():
        if entry["action"] == PLACED:
            said = (entry["decided_by"], entry["decided_at"], entry["reason"])
            found[entry["name"]] = Hold(entry["name"], entry["thing"], *said)
        else:
            found.pop(entry["name"], None)
    return list(found.values())


def place_hold(connection: Connection, name: str, thing: str, by: str, reason: str) -> None:
    """Hold something from now on; the caller's transaction holds the write lock.

    Raises:
        Refused: a hold of this name stands; ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    if any(hold.name == name for hold in read_holds(connection)):
        raise Refused(f"hold {name}: found one of this name that stands, expected a new name")
    _append(connection, {"kind": HOLD, "action": PLACED, "name": name, "thing": thing}, by, reason)


def end_hold(connection: Connection, name: str, by: str, reason: str) -> None:
    """Hold something no more.

    Raises:
        NotFound: no such hold stands.
        Refused: ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    if all(hold.name != name for hold in read_holds(connection)):
        raise NotFound(f"hold {name}: found none of this name; heimdall hold list shows them")
    _append(connection, {"kind": HOLD, "action": ENDED, "name": name}, by, reason)


def read_erasures(connection: Connection) -> list[Erasure]:
    """Return what was erased, oldest first.

    Raises:
        CorruptObject: an entry of the log is none.
    """
    return [
        Erasure(
            entry.get("session"), entry.get("person"), tuple(entry.get("objects", ())),
            str(entry.get("decided_by")), str(entry.get("decided_at")), str(entry.get("reason")),
        )
        for entry in read_entries(connection, ERASURE).values()
    ]  # fmt: skip


def erase_session(connection: Connection, session_id: str, objects: Sequence[str], by: str, reason: str) -> None:
    """Take a session's rows away and have the log say what went; an approved one is withdrawn with it.

    Its own row stays under another name, for decisions point at it; so does the row of its source, without name and
    place, where no other session is of it. SQLite overwrites the bytes. The caller's transaction holds the write lock.

    Raises:
        NotFound: no such session.
        Refused: it is held; ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete = ON"))
    row = connection.execute(select(recording_sessions).where(recording_sessions.c.id == session_id)).first()
    if row is None:
        raise NotFound(f"session {session_id}: found no session with this id")
    if row.session_name == f"{ERASED} {session_id}" and not objects:
        return
    check_not_held(connection, [session_id, *objects])
    if row.approval_status != str(ApprovalStatus.REJECTED):
        told = {"decision": str(ApprovalStatus.REJECTED), "decided_by": name_person(connection, by)}
        event = {"recording_session_id": session_id, **told, "decided_at": read_clock(), "reason": reason}
        append_events(connection, approval_events, [event])
    connection.execute(delete(measurements).where(measurements.c.recording_session_id == session_id))
    forgotten = {"session_name": f"{ERASED} {session_id}", "attributes": "{}"}
    status = {"approval_status": str(ApprovalStatus.REJECTED)}
    connection.execute(
        update(recording_sessions).where(recording_sessions.c.id == session_id).values(**forgotten, **status)
    )
    others = select(recording_sessions.c.session_name).where(
        recording_sessions.c.known_source_id == row.known_source_id,
        ~recording_sessions.c.session_name.like(f"{ERASED} %"),
    )
    if connection.execute(others).first() is None:
        nowhere = {"latitude": None, "longitude": None, "altitude_asl": None, "is_validated": False}
        connection.execute(
            update(known_sources)
            .where(known_sources.c.id == row.known_source_id)
            .values(name=f"{ERASED} {row.known_source_id}", **nowhere)
        )
    _append(connection, {"kind": ERASURE, "session": session_id, "objects": sorted(objects)}, by, reason)


def check_not_held(connection: Connection, things: Sequence[str]) -> None:
    """Do nothing where none of ``things`` is held.

    Raises:
        Refused: one is.
    """
    wanted = set(things)
    for hold in read_holds(connection):
        if hold.thing in wanted:
            raise Refused(
                f"{hold.thing}: found it held ({hold.name}, since {hold.placed_at}: {hold.reason}), expected no hold; "
                "heimdall hold end ends it"
            )


def _append(connection: Connection, said: Mapping[str, Any], by: str, reason: str) -> None:
    decided = {"decided_by": name_person(connection, by), "decided_at": plain(read_clock()), "reason": reason}
    append_entries(connection, [{**said, **decided}])
