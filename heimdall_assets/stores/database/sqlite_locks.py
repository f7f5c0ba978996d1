"""Locks of SQLite's file: waited for, and who holds them.

Belongs here: what happens where SQLite is busy. Does not belong here: opening it and transactions (``connection``), how
long one waits (``waiting``).
"""

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from heimdall_assets.stores.database.waiting import Busy, wait_until_free

_Result = TypeVar("_Result")

_LOCKS = Path("/proc/locks")
_PROCESSES = Path("/proc")

# Bytes on which SQLite takes its locks: https://sqlite.org/walformat.html, section 2.3, and os.h of its source.
_LOG_WRITER = range(120, 121)  # of the file FILE-shm
_ROLLBACK_WRITER = range(0x40000000, 0x40000000 + 512)  # of the file itself


def wait_for_sqlite(attempt: Callable[[], _Result], path: Path, shown: str) -> _Result:
    """Return what ``attempt`` asks of the SQLite file ``path``, once no other connection is in its way.

    Raises:
        StorageError: another one was, for longer than ``waiting.BUSY_TIMEOUT_S``.
    """

    def try_once() -> _Result:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise Busy from error
            raise

    return wait_until_free(try_once, shown, partial(find_sqlite_holder, path))


def lies_where_nothing_may_be_written(path: Path) -> bool:
    """Return whether a file is there and nothing can be made beside it: neither its journal nor its log."""
    folder = path.parent
    asked = os.access in os.supports_effective_ids
    return path.is_file() and not os.access(folder, os.W_OK | os.X_OK, effective_ids=asked)


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether SQLite refused because of another connection's lock."""
    code = getattr(error, "sqlite_errorcode", None)  # none where the driver itself refuses
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def find_sqlite_holder(path: Path) -> str | None:
    """Return who writes to a SQLite file, as Linux lists locks; None: elsewhere, or nobody that can be seen."""
    watched = {}
    for file, span in ((path.with_name(f"{path.name}-shm"), _LOG_WRITER), (path, _ROLLBACK_WRITER)):
        if file.exists():
            watched[file.stat().st_ino] = span
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number = _find_writer(line.split(), watched)
        if number > 0:
            return _describe_process(number)
    return None


def _find_writer(words: list[str], watched: dict[int, range]) -> int:
    """Return the process of one line of /proc/locks that writes to a watched span; 0: it does not."""
    if len(words) != 8 or words[1] != "POSIX" or words[3] != "WRITE":  # "1: -> POSIX ..." has nine: it waits as we do
        return 0
    span = watched.get(int(words[5].rpartition(":")[2]))
    first, last = int(words[6]), int(words[7]) if words[7].isdecimal() else 2**63
    return int(words[4]) if span is not None and first < span.stop and last >= span.start else 0


def _describe_process(number: int) -> str:
    if number == os.getpid():
        return "this very process"
    try:  # its name alone: an argument may hold a password
        name = (_PROCESSES / str(number) / "comm").read_text().strip()
    except OSError:
        name = ""
    return f"process {number}" + (f" ({name})" if name else "")
