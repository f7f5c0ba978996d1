"""Session list: the sessions that somebody looks for, a page at a time, however many there are.

A page begins after the last session of the one before (its start and its id), and not after so many sessions: nothing
is counted that is not shown, and nobody's decision in between moves a session off the page that is read next.

Belongs here: which sessions are on a page, how many have which status. Does not belong here: what a query of an address
means (``web``), rows of one session (``rows``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Text, and_, cast, exists, func, literal, select, tuple_
from sqlalchemy.engine import Connection

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import NotFound
from heimdall_assets.stores.database.rows import has_name, read_by
from heimdall_assets.stores.database.shape import Kind, Shape

LONGEST_LIST = 500
"""Names that a form offers to choose from; more are typed."""


@dataclass(frozen=True)
class Wanted:
    """Which sessions somebody looks for; None: whichever.

    Attributes:
        status, campaign, station: as the database says them; the station is an id.
        since, until: session starts at or after the one, before the other.
        low_hz, high_hz: between them somebody heard it.
        oldest_first: the order.
    """

    status: ApprovalStatus | None = None
    campaign: str | None = None
    station: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    low_hz: float | None = None
    high_hz: float | None = None
    oldest_first: bool = False


@dataclass(frozen=True)
class Place:
    """Between which sessions a page begins: start, as the database writes it, and id of one of its neighbours."""

    start: str
    session_id: str


@dataclass(frozen=True)
class SessionPage:
    """One page.

    Attributes:
        rows: of ``recording_sessions``, each with ``source`` (a row or None), ``heard``: its measurements' rows.
        previous, next: where the pages beside it begin; None: there is none.
    """

    rows: list[dict[str, Any]]
    previous: Place | None
    next: Place | None


def read_page(
    connection: Connection, shape: Shape, wanted: Wanted, at: tuple[str, Place] | None, length: int
) -> SessionPage:
    """Return a page of the sessions that are wanted.

    Args:
        connection: that reads.
        shape: of the database.
        wanted: which, and in which order.
        at: ``next`` or ``previous`` and the place that a page told of; None: the first page.
        length: of a page.
    """
    sessions = shape.table("recording_sessions", "s")
    conditions = _list_conditions(shape, sessions, wanted)
    goes_back = at is not None and at[0] == "previous"
    key = (_pick_start(shape, sessions), sessions.c.id)
    is_rising = wanted.oldest_first != goes_back
    text = cast(key[0], Text) if shape.reads_as_text else key[0]
    query = select(text, sessions.c.id).where(*conditions)
    if at is not None:
        mark = tuple_(_bind_start(shape, at[1].start), literal(at[1].session_id))
        query = query.where(tuple_(*key) > mark if is_rising else tuple_(*key) < mark)
    order = [column.asc() if is_rising else column.desc() for column in key]
    found = [
        Place(str(start), str(name)) for start, name in connection.execute(query.order_by(*order).limit(length + 1))
    ]
    has_more, found = len(found) > length, found[:length]
    if goes_back:
        found.reverse()
    before, after = (at is not None, has_more) if not goes_back else (has_more, True)
    rows = _read_rows(connection, shape, [place.session_id for place in found])
    return SessionPage(rows, found[0] if found and before else None, found[-1] if found and after else None)


def count_statuses(connection: Connection, shape: Shape, wanted: Wanted) -> dict[str, int]:
    """Return approval status -> number of the sessions that are wanted whatever their status; 0 where none is."""
    sessions = shape.table("recording_sessions", "s")
    status = shape.pick(sessions, "recording_sessions", "approval_status").label("status")
    conditions = _list_conditions(shape, sessions, replace(wanted, status=None))
    rows = select(status).where(*conditions).subquery()
    query = select(rows.c.status, func.count()).group_by(rows.c.status)
    return {
        **dict.fromkeys(map(str, ApprovalStatus), 0),
        **{str(name): int(n) for name, n in connection.execute(query)},
    }


def find_neighbour(connection: Connection, shape: Shape, wanted: Wanted, session_id: str) -> str | None:
    """Return the id of the session after one, among those that are wanted, in their order; None: it is the last.

    The one may have a status that is not wanted any more.
    """
    sessions = shape.table("recording_sessions", "s")
    key = (_pick_start(shape, sessions), sessions.c.id)
    own = select(cast(key[0], Text) if shape.reads_as_text else key[0]).where(sessions.c.id == session_id)
    start = connection.execute(own).scalar()
    if start is None:
        return None
    mark = tuple_(_bind_start(shape, str(start)), literal(session_id))
    beyond = tuple_(*key) > mark if wanted.oldest_first else tuple_(*key) < mark
    order = [column.asc() if wanted.oldest_first else column.desc() for column in key]
    query = select(sessions.c.id).where(*_list_conditions(shape, sessions, wanted), beyond)
    found = connection.execute(query.order_by(*order).limit(1)).scalar()
    return None if found is None else str(found)


def list_campaigns(connection: Connection, shape: Shape) -> list[str]:
    """Return the campaigns that sessions have, by name; at most ``LONGEST_LIST``."""
    sessions = shape.table("recording_sessions", "s")
    rows = select(shape.pick(sessions, "recording_sessions", "campaign").label("name")).where(
        *has_name(shape, sessions)
    )
    name = rows.subquery().c.name
    return [str(row[0]) for row in connection.execute(select(name).distinct().order_by(name).limit(LONGEST_LIST))]


def _list_conditions(shape: Shape, sessions: Any, wanted: Wanted) -> list[Any]:
    conditions = has_name(shape, sessions)
    for name, value in (("approval_status", wanted.status), ("campaign", wanted.campaign)):
        if value is not None:
            conditions.append(shape.pick(sessions, "recording_sessions", name) == str(value))
    start = _pick_start(shape, sessions)
    if wanted.since is not None:
        conditions.append(start >= _bind_start(shape, _write_time(wanted.since)))
    if wanted.until is not None:
        conditions.append(start < _bind_start(shape, _write_time(wanted.until)))
    heard = shape.table("measurements", "m")
    of_heard = []
    if wanted.station is not None:
        of_heard.append(shape.pick(heard, "measurements", "websdr_station_id") == wanted.station)
    frequency = shape.pick(heard, "measurements", "frequency_hz")
    if wanted.low_hz is not None:
        of_heard.append(frequency >= wanted.low_hz)
    if wanted.high_hz is not None:
        of_heard.append(frequency <= wanted.high_hz)
    if of_heard:
        linked = shape.pick(heard, "measurements", "recording_session_id") == sessions.c.id
        conditions.append(exists(select(literal(1)).select_from(heard).where(and_(linked, *of_heard))))
    return conditions


def _pick_start(shape: Shape, sessions: Any) -> Any:
    """Return when a session starts, as the database itself orders it: its index holds no text made of a time."""
    if shape.kind is Kind.OURS:
        return sessions.c.session_start
    return shape.pick(sessions, "recording_sessions", "session_start")


def _bind_start(shape: Shape, start: str) -> Any:
    """Return a start as the database compares it; raises ``NotFound`` where it compares times and this is none."""
    if shape.kind is not Kind.OURS or not shape.reads_as_text:
        return literal(start)
    try:
        datetime.fromisoformat(start)
    except ValueError:
        raise NotFound(f"place {start!r:.60}: expected a time, as the list's own links say it") from None
    return cast(literal(start), DateTime(timezone=True))


def _write_time(time: datetime) -> str:
    """Return a time of UTC as SQLite holds ours; others' texts that begin with a date compare with it by that."""
    return time.strftime("%Y-%m-%d %H:%M:%S.%f")


def _read_rows(connection: Connection, shape: Shape, session_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of sessions in this order, with what each hangs on."""
    sessions = {str(row["id"]): row for row in read_by(connection, shape, "recording_sessions", "id", session_ids)}
    named = sorted({str(row["known_source_id"]) for row in sessions.values()})
    sources = {str(row["id"]): row for row in read_by(connection, shape, "known_sources", "id", named)}
    heard: dict[str, list[dict[str, Any]]] = {name: [] for name in session_ids}
    for row in read_by(connection, shape, "measurements", "recording_session_id", session_ids):
        heard[str(row["recording_session_id"])].append(row)
    return [
        {**sessions[name], "source": sources.get(str(sessions[name]["known_source_id"])), "heard": heard[name]}
        for name in session_ids
    ]
