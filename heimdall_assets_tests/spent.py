"""What a piece of work costs in a process of its own: seconds of a processor at rest, and the most memory it ever held.

A processor that does other work beside, or is slow, makes seconds longer by up to three times: what is known to cost
``QUICK_S`` on one at rest is timed before and after the work, and seconds are told as they would be there.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MAX_MEMORY_BYTES = 256 << 20
"""What a file may cost whoever reads it, with Python and every library that reading it loads."""

QUICK_S = 0.08
"""What ``quick`` below costs on a processor at rest (AMD EPYC, about the least of forty)."""

_RUN = """
import sys, time
from pathlib import Path


def quick():
    began = time.process_time()
    for _ in range(4):
        sum(float(cell) for cell in ",".join(str(number / 7) for number in range(20_000)).split(","))
    return time.process_time() - began


_, path, *warm = sys.argv
for one in warm:
    work(Path(one))
before = quick()
started = time.process_time()
said = ""
try:
    work(Path(path))
except Exception as error:
    said = f"{type(error).__name__}: {error}"
seconds = time.process_time() - started
slowness = max(1.0, (before + quick()) / 2 / QUICK_S)
# Not resource.getrusage: at exec it keeps what the process before, the test's own, had held.
status = Path("/proc/self/status").read_text()
print(seconds / slowness, int(status.partition("VmHWM:")[2].split()[0]) * 1024, said, sep="\\n")
"""


@dataclass(frozen=True)
class Spent:
    """What it cost, and the error in which it ended; empty: none."""

    seconds: float
    memory_bytes: int
    error: str


def spend(program: str, path: Path, *warm: Path) -> Spent:
    """Return what ``work(path)`` of ``program`` costs, after it has worked on each of ``warm``: loading is not counted.

    Memory is that of the whole process, loading included.
    """
    command = [sys.executable, "-c", f"QUICK_S = {QUICK_S}\n{program}{_RUN}", str(path), *map(str, warm)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seconds, memory_bytes, error = done.stdout.split("\n", 2)
    return Spent(float(seconds), int(memory_bytes), error.strip())
