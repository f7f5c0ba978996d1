"""Waiting: for whoever holds the database, in short turns that a signal ends, with a word about it and about them.

Belongs here: trying again until it is free, and who holds PostgreSQL. Does not belong here: what is tried
(``connection``, ``sqlite_locks``).
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, text

from heimdall_assets.errors import StorageError

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")

BUSY_TIMEOUT_S = 60.0
"""How long somebody waits for another one before giving up."""

TURN_S = 0.2
"""Longest call into a database that waits: inside it Python hears no signal."""

SPEAK_AFTER_S = 1.0
"""A wait of this long is told of, once."""

_PAUSE_S = (0.01, 0.05)  # drawn anew each time, so that those who wait do not come in step

_HOLDER = text(
    "SELECT a.pid, a.application_name, host(a.client_addr) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = 0 AND l.objid = :key "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Busy(Exception):
    """Another process holds what was tried for; trying again may help."""


def wait_until_free(attempt: Callable[[], _Result], shown: str, find_holder: Callable[[], str | None]) -> _Result:
    """Return what ``attempt`` gives once it no longer raises ``Busy``.

    Args:
        attempt: takes at most ``TURN_S``, and leaves nothing behind where it raises ``Busy``.
        shown: the database, for messages.
        find_holder: tells who holds it; None: nobody knows.

    Raises:
        StorageError: it was not free within ``BUSY_TIMEOUT_S``.
    """
    begun, told = time.monotonic(), False
    while True:
        try:
            return attempt()
        except Busy as error:
            waited = time.monotonic() - begun
            if waited > BUSY_TIMEOUT_S:
                raise StorageError(
                    f"{shown}: found it locked for {waited:.0f} s{_by(find_holder())}, expected it free; nothing was "
                    "changed: try again when the other one has ended"
                ) from error
        if waited >= SPEAK_AFTER_S and not told:
            told = True
            said = "%s: locked%s; waiting until it is free, for up to %.0f s (Ctrl+C gives up, nothing is changed)"
            _LOG.warning(said, shown, _by(find_holder()), BUSY_TIMEOUT_S)
        time.sleep(random.uniform(*_PAUSE_S))


def _by(holder: str | None) -> str:
    return f" by {holder}" if holder else ""


def find_postgresql_holder(connection: Connection, key: int) -> str | None:
    """Return who holds the advisory lock ``key``; None: nobody any more."""
    row = connection.execute(_HOLDER, {"key": key}).first()
    if row is None:
        return None
    number, name, host = row
    return f"server process {number}" + (f" ({name})" if name else "") + (f" from {host}" if host else "")
