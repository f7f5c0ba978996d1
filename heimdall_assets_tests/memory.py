"""A folder in memory for what tests write: an fsync costs nothing there, and waiting for disks was a tenth of a run."""

import os
import re
from pathlib import Path

MEMORY = Path("/dev/shm")
LEAST_FREE_BYTES = 10 << 30
"""A whole run leaves some 6 GB behind until it ends."""


def find_memory() -> Path | None:
    """Return where folders lie in memory; None where there is no such place, it is small, or nothing may run there."""
    try:
        place, memory = os.statvfs(MEMORY), Path("/proc/meminfo").read_text()
    except OSError:  # another system
        return None
    available = re.search(r"MemAvailable: +(\d+) kB", memory)
    free = min(place.f_bavail * place.f_frsize, int(available[1]) << 10 if available else 0)
    return None if place.f_flag & os.ST_NOEXEC or free < LEAST_FREE_BYTES else MEMORY
