"""Session queries: which sessions an address of their list means, and the addresses that lead on from there.

Belongs here: from parameters to ``Wanted`` and back. Does not belong here: reading parameters as such (``queries``).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from heimdall_assets.counts import say_count
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import NotFound
from heimdall_assets.stores.database.session_list import Place, Wanted
from heimdall_assets.web.queries import parse_query

ALL = "all"
FILTERS = ("campaign", "station", "since", "until", "low", "high", "order")
TURNS = ("next", "previous")
LIST = ("status", *FILTERS, *TURNS, "tick", "done")
LOOK = ("status", *FILTERS, "done")
_DONE = re.compile(r"(approved|rejected)-([0-9]{1,7})")
_LONGEST = 200


@dataclass(frozen=True)
class Asked:
    """What a query asks for.

    Attributes:
        given: parameter -> text, of those that are not empty.
        wanted: which sessions they mean.
        at: where the page begins; None: at the first session.
        done: what was decided just now, for people.
    """

    given: Mapping[str, str]
    wanted: Wanted
    at: tuple[str, Place] | None
    done: str

    @property
    def status(self) -> str:
        return self.given.get("status", str(ApprovalStatus.PENDING))

    @property
    def is_narrowed(self) -> bool:
        return any(name in self.given for name in FILTERS if name != "order")

    @property
    def back(self) -> str:
        """The query by which the list and the sessions beside this one are found again."""
        return urlencode({name: self.given[name] for name in ("status", *FILTERS) if name in self.given})

    def locate_list(self, **changed: str) -> str:
        """Return the address of the list of what is asked for, with some parameters changed; an empty one goes."""
        kept = {name: value for name, value in self.given.items() if name not in (*TURNS, "tick", "done")}
        return locate("/sessions", {**kept, **changed})

    def locate_look(self, session_id: str, **changed: str) -> str:
        """Return the address of one session, from which one comes back here."""
        kept = {name: value for name, value in self.given.items() if name in ("status", *FILTERS)}
        return locate(f"/sessions/{quote(session_id, safe='')}", {**kept, **changed})


def locate(path: str, parameters: Mapping[str, str]) -> str:
    """Return an address; empty parameters are not in it."""
    said = {name: value for name, value in parameters.items() if value}
    return path + (f"?{urlencode(said)}" if said else "")


def write_place(place: Place) -> str:
    """Return a place of the list as a parameter says it."""
    return f"{place.start}|{place.session_id}"


def parse_asked(query: str, known: tuple[str, ...] = LIST) -> Asked:
    """Return what a query asks for.

    Raises:
        NotFound: one of its parameters is none that the page has, or not what it means.
    """
    given = {name: value.strip() for name, value in parse_query(query, known).items() if value.strip()}
    for name, value in given.items():
        if len(value) > _LONGEST + 128 * (name in TURNS):
            raise NotFound(f"query: found {len(value)} characters of {name}, expected at most {_LONGEST}")
    if sum(name in given for name in TURNS) > 1:
        raise NotFound("query: found next and previous, expected one of them")
    wanted = Wanted(
        status=_parse_status(given.get("status", str(ApprovalStatus.PENDING))),
        campaign=given.get("campaign"),
        station=given.get("station"),
        since=_parse_day(given, "since"),
        until=_parse_day(given, "until", timedelta(days=1)),
        low_hz=_parse_mhz(given, "low"),
        high_hz=_parse_mhz(given, "high"),
        oldest_first=_parse_order(given.get("order")),
    )
    turn = next((name for name in TURNS if name in given), None)
    return Asked(given, wanted, None if turn is None else (turn, _parse_place(given[turn])), _parse_done(given))


def _parse_status(value: str) -> ApprovalStatus | None:
    if value == ALL:
        return None
    if value not in list(ApprovalStatus):
        raise NotFound(f"query: found status {value!r:.60}, expected {', '.join(ApprovalStatus)} or {ALL}")
    return ApprovalStatus(value)


def _parse_order(value: str | None) -> bool:
    if value not in (None, "oldest"):
        raise NotFound(f"query: found order {value!r:.60}, expected oldest or none")
    return value is not None


def _parse_day(given: Mapping[str, str], name: str, later: timedelta = timedelta()) -> datetime | None:
    if name not in given:
        return None
    try:
        return datetime.strptime(given[name], "%Y-%m-%d").replace(tzinfo=UTC) + later
    except (ValueError, OverflowError):
        raise NotFound(f"query: found {name}={given[name]!r:.60}, expected a day such as 2026-07-31") from None


def _parse_mhz(given: Mapping[str, str], name: str) -> float | None:
    if name not in given:
        return None
    try:
        value = float(given[name].replace(",", "."))
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1e6:
        raise NotFound(f"query: found {name}={given[name]!r:.60}, expected MHz from 0 to 1e6")
    return value * 1e6


def _parse_place(value: str) -> Place:
    start, bar, session_id = value.partition("|")
    if not bar or not start or not session_id:
        raise NotFound(f"query: found place {value!r:.60}, expected START|ID as the list's own links say it")
    return Place(start, session_id)


def _parse_done(given: Mapping[str, str]) -> str:
    if "done" not in given:
        return ""
    found = _DONE.fullmatch(given["done"])
    if found is None:
        raise NotFound(f"query: found done={given['done']!r:.60}, expected approved-NUMBER or rejected-NUMBER")
    count = int(found[2])
    return f"{found[1].capitalize()}: {say_count(count, 'session')}." if count else f"It was {found[1]} already."
