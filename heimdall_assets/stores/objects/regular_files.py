"""Regular files: what holds bytes and ends, told from pipes, devices and sockets before anything waits for those.

Belongs here: refusing what is none, wherever a path is somebody's word: a file to import, settings, receivers, a
database; reading files of ours without following links. Does not belong here: how much is read, what the bytes mean.

A pipe that nobody writes to holds its reader for ever, a device such as ``/dev/zero`` never ends, and a file is often
read twice, once for its first bytes: a pipe would have lost them.
"""

import errno
import os
import stat
from pathlib import Path

from heimdall_assets.errors import HeimdallError, InvalidInput

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def name_special(path: Path) -> str | None:
    """Return what lies at ``path`` that is no regular file, such as ``a pipe``; None: a regular file, or nothing.

    What cannot be looked at is none either: whoever opens it is told why.

    Examples:
        >>> name_special(Path("/dev/null")), name_special(Path("/")), name_special(Path(__file__))
        ('a device', 'a folder', None)
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def check_regular_file(path: Path, what: str = "", error: type[HeimdallError] = InvalidInput) -> None:
    """Do nothing where ``path`` is a regular file, or nothing at all.

    Args:
        path: a link counts as what it leads to.
        what: names it in the message; empty: the path does.
        error: the type to raise.

    Raises:
        HeimdallError: of type ``error``: a pipe, a device, a socket or a folder lies there.
    """
    found = name_special(path)
    if found is not None:
        raise error(f"{what or path}: found {found}, expected a regular file")


def read_regular_file(path: Path) -> bytes:
    """Return the bytes of a file that is no link; raises ``OSError``.

    Non-blocking, so that a pipe at that name never holds the reader.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "found no regular file")
        return file.read()
