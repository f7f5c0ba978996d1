"""Judgements: which sessions a released model was judged on before any training saw them, as entries of the log tell.

Belongs here: the entries, and that none names a session that an earlier one names. Does not belong here: judging
(``pipeline.monitoring.judging``), the figures, which rest as a result.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from heimdall_assets.errors import CorruptObject
from heimdall_assets.stores.database.log import append_entries, find_entries, plain, read_clock
from heimdall_assets.stores.database.schema import model_aliases

JUDGEMENT = "judgement"
"""Kind of entries of the log."""


@dataclass(frozen=True)
class Judgement:
    """Sessions that a release was judged on.

    Attributes:
        number: of the entry of the log.
        version: of the release.
        result: digest of the manifest that holds what it said of each, and how far off that was.
        sessions: ids, ascending.
        judged_at: ISO 8601, UTC.
    """

    number: int
    version: str
    result: str
    sessions: tuple[str, ...]
    judged_at: str


def read_judgements(connection: Connection) -> list[Judgement]:
    """Return every judgement, oldest first.

    Raises:
        CorruptObject: an entry of the log is none.
    """
    return [_read(number, entry) for number, entry in find_entries(connection, JUDGEMENT).items()]


def append_judgement(connection: Connection, alias: str, version: str, result: str, sessions: Collection[str]) -> bool:
    """Have the log say that ``version`` was judged; return whether it does.

    It does not where ``alias`` means another version by now, or one of the sessions was judged meanwhile: each is
    judged once, by what the alias means then. The caller's transaction holds the write lock.
    """
    meant = connection.execute(select(model_aliases.c.version).where(model_aliases.c.alias == alias)).scalar()
    judged = {name for one in read_judgements(connection) for name in one.sessions}
    if meant != version or judged & set(sessions):
        return False
    said = {"kind": JUDGEMENT, "version": version, "result": result, "sessions": sorted(sessions)}
    append_entries(connection, [{**said, "judged_at": plain(read_clock())}])
    return True


def check_judgements(connection: Connection) -> list[str]:
    """Return which entries of judgements are none, or name a session again, one line a problem."""
    try:
        found = read_judgements(connection)
    except CorruptObject as error:
        return [str(error)]
    problems, seen = [], set[str]()
    for one in found:
        if twice := seen.intersection(one.sessions):
            problems.append(
                f"log_entries {one.number}: found session {min(twice)} judged a second time, expected each once"
            )
        seen.update(one.sessions)
    return problems


def _read(number: int, entry: dict[str, Any]) -> Judgement:
    for name in ("version", "result", "judged_at"):
        if not isinstance(entry.get(name), str):
            raise CorruptObject(f"log_entries {number}: found {name} {entry.get(name)!r:.60}, expected a text")
    sessions = entry.get("sessions")
    if not isinstance(sessions, list) or not all(isinstance(one, str) for one in sessions):
        raise CorruptObject(f"log_entries {number}: found sessions {sessions!r:.60}, expected a list of texts")
    return Judgement(number, entry["version"], entry["result"], tuple(sessions), entry["judged_at"])
