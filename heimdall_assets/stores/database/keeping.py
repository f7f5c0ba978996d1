"""Keeping: what is held against removal, and what was erased, as entries of the log tell.

Belongs here: holds, and the tombstones of recordings and people. Does not belong here: removing bytes
(``pipeline.keeping``), names of people (``people``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import CorruptObject, NotFound, Refused
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
        what: ``session`` or ``object``.
        thing: id of the session, or digest of the object.
        placed_by, placed_at, reason: who, by pseudonym, when (ISO 8601) and why.
    """

    name: str
    what: str
    thing: str
    placed_by: str
    placed_at: str
    reason: str


@dataclass(frozen=True)
class Erasure:
    """What was erased: a session with the digests of what it left, or a person.

    Attributes:
        session, person: id, or pseudonym; one of them is None.
        measurements: ids of the rows that went with a session.
        objects: digests of the stored objects that are gone for it.
        erased_by, erased_at, reason: who, by pseudonym, when (ISO 8601) and why.
    """

    session: str | None
    person: str | None
    measurements: tuple[str, ...]
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
    for number, entry in read_entries(connection, HOLD).items():
        told = _check_texts(number, entry, ("name", "decided_by", "decided_at", "reason"))
        if entry.get("action") == PLACED:
            what, thing = _check_texts(number, entry, ("what", "thing"))
            found[told[0]] = Hold(told[0], what, thing, *told[1:])
        else:
            found.pop(told[0], None)
    return list(found.values())


def _check_texts(number: int, entry: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return some values of an entry; raises ``CorruptObject`` where one is no text."""
    for name in names:
        if not isinstance(entry.get(name), str):
            raise CorruptObject(f"log_entries {number}: found {name} {entry.get(name)!r:.60}, expected a text")
    return [str(entry[name]) for name in names]


def place_hold(connection: Connection, name: str, thing: tuple[str, str], by: str, reason: str) -> None:
    """Hold ``session`` and its id, or ``object`` and its digest; the caller's transaction holds the write lock.

    Raises:
        Refused: a hold of this name stands; ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    if any(hold.name == name for hold in read_holds(connection)):
        raise Refused(f"hold {name}: found one of this name that stands, expected a new name")
    said = {"kind": HOLD, "action": PLACED, "name": name, "what": thing[0], "thing": thing[1]}
    _append(connection, said, by, reason)


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
    return [_read_erasure(number, entry) for number, entry in read_entries(connection, ERASURE).items()]


def _read_erasure(number: int, entry: Mapping[str, Any]) -> Erasure:
    told = _check_texts(number, entry, ("decided_by", "decided_at", "reason"))
    if "session" not in entry:
        return Erasure(None, _check_texts(number, entry, ("person",))[0], (), (), *told)
    for name in ("measurements", "objects"):
        value = entry.get(name)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise CorruptObject(f"log_entries {number}: found {name} {value!r:.60}, expected a list of texts")
    (session,) = _check_texts(number, entry, ("session",))
    return Erasure(session, None, tuple(entry["measurements"]), tuple(entry["objects"]), *told)


def check_keeping(connection: Connection) -> list[str]:
    """Return which entries of holds and erasures are none, one line a problem; the first alone of each kind."""
    problems = []
    for read in (read_holds, read_erasures):
        try:
            read(connection)
        except CorruptObject as error:
            problems.append(str(error))
    return problems


def erase_session(connection: Connection, session_id: str, objects: Sequence[str], by: str, reason: str) -> None:
    """Take a session's rows away and have the log say what went; an approved one is withdrawn with it.

    Its own row stays under another name, for decisions point at it; so does the row of its source, without name and
    place, where no other session is of it. Asked again, it tells of objects that were not
    told of. The caller's transaction holds the write lock.

    Raises:
        NotFound: no such session.
        Refused: it is held; ``by`` or ``reason`` is blank.
    """
    by, reason = check_words(by, reason)
    row = connection.execute(select(recording_sessions).where(recording_sessions.c.id == session_id)).first()
    if row is None:
        raise NotFound(f"session {session_id}: found no session with this id")
    done = read_erasures(connection)
    erased = {one.session for one in done}
    told = {digest for one in done if one.session == session_id for digest in one.objects}
    if session_id in erased and told.issuperset(objects):
        return
    check_not_held(connection, [session_id, *objects])
    if row.approval_status != str(ApprovalStatus.REJECTED):
        decision = {"decision": str(ApprovalStatus.REJECTED), "decided_by": name_person(connection, by)}
        event = {"recording_session_id": session_id, **decision, "decided_at": read_clock(), "reason": reason}
        append_events(connection, approval_events, [event])
    mine = measurements.c.recording_session_id == session_id
    heard = {str(one.id) for one in connection.execute(select(measurements.c.id).where(mine))}
    heard |= {name for one in done if one.session == session_id for name in one.measurements}
    connection.execute(delete(measurements).where(mine))
    forgotten = {"session_name": f"{ERASED} {session_id}", "attributes": "{}"}
    status = {"approval_status": str(ApprovalStatus.REJECTED)}
    connection.execute(
        update(recording_sessions).where(recording_sessions.c.id == session_id).values(**forgotten, **status)
    )
    sessions = recording_sessions.c
    others = connection.execute(select(sessions.id).where(sessions.known_source_id == row.known_source_id))
    if {str(one.id) for one in others} <= {*erased, session_id}:
        nowhere = {"latitude": None, "longitude": None, "altitude_asl": None, "is_validated": False}
        connection.execute(
            update(known_sources)
            .where(known_sources.c.id == row.known_source_id)
            .values(name=f"{ERASED} {row.known_source_id}", **nowhere)
        )
    gone = {"measurements": sorted(heard), "objects": sorted(objects)}
    _append(connection, {"kind": ERASURE, "session": session_id, **gone}, by, reason)


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
