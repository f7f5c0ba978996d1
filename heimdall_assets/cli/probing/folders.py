"""Folders of this machine: there or to be made, writable or not, with how much room."""

import os
from pathlib import Path

from heimdall_assets.cli.probing.finding import Finding, State
from heimdall_assets.errors import HeimdallError
from heimdall_assets.stores.home_format import may_write, read_format

LEAST_FREE_BYTES = 2_000_000_000
"""Below it a training of the default size may not end: features, checkpoints and a release of some hundred sessions."""


def probe_folder(place: str, folder: Path, is_written: bool = True) -> Finding:
    """Return how a folder is.

    Args:
        place: the variable that names it.
        folder: it need not exist.
        is_written: whether work needs to write there; recordings of others are only read.
    """
    nearest = next(part for part in (folder, *folder.parents) if part.exists())
    told = [str(folder) if nearest == folder else f"{folder}: not there yet"]
    if not nearest.is_dir():
        return Finding(place, State.WRONG, f"{folder}: {nearest} is a file", "expected a folder; choose another path")
    if not os.access(nearest, os.R_OK | os.X_OK):
        return Finding(place, State.WRONG, f"{told[0]}, {nearest} may not be read", f"ls -ld {nearest} says by whom")
    writable = may_write(nearest)
    disk = os.statvfs(nearest)
    free = disk.f_bavail * disk.f_frsize
    told += ["writable" if writable else "read-only", f"{free / 1e9:.1f} GB free"]
    if is_written and not writable:
        advice = f"chown or chmod {nearest}, or set {place}; what only reads works as it is"
        return Finding(place, State.WARNING, ", ".join(told), advice)
    if is_written and free < LEAST_FREE_BYTES:
        return Finding(place, State.WARNING, ", ".join(told), f"make room, or set {place} to a larger disk")
    return Finding(place, State.OK, ", ".join(told))


def probe_home(place: str, home: Path) -> Finding:
    """Return how the home is, its format too."""
    found = probe_folder(place, home)
    if found.state is State.WRONG:
        return found
    try:
        number = read_format(home)
    except HeimdallError as error:
        return Finding(place, State.WRONG, str(error))
    begun = "nothing made there yet" if number is None else f"format {number}"
    return Finding(place, found.state, f"{found.told}, {begun}", found.advice)
