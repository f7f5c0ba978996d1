"""Locks: that one process of a home does something, and who that is.

Belongs here: a lock file that names its holder. The kernel lets go of it when the last process that has it ends,
however that ends: there are no stale locks. Does not belong here: what it guards; the locks of writers
(``objects.files``, ``database.connection``).
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heimdall_assets.errors import Refused, StorageError
from heimdall_assets.stores.objects.files import describe

_POLL_S = 0.05


@contextmanager
def hold_lock(path: Path, holder: str, wait_s: float = 0.0) -> Iterator[int]:
    """Yield the descriptor of the lock file ``path``, which says who holds it; a child that is handed it holds it too.

    Args:
        path: its folder is made where there is none.
        holder: one line, for whoever finds it held.
        wait_s: so long somebody else may still hold it.

    Raises:
        Refused: somebody holds it; the message names whom.
        StorageError: the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise StorageError(f"lock {path}: could not be opened ({describe(error)})") from error
    try:
        deadline_s = time.monotonic() + wait_s
        while not _try(descriptor):
            if time.monotonic() >= deadline_s:
                found = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
                raise Refused(f"{path}: held by {found or 'somebody who has not said so yet'}")
            time.sleep(_POLL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{holder}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
