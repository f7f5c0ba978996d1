"""Capacity: what this machine has to compute with: GPUs as NVIDIA's driver tells of them, processors, main memory.

Belongs here: what can be asked in a moment, without torch. Does not belong here: what decides bits (``machine``), what
is asked of a machine (``specs``, ``profiles``).
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from heimdall_assets.profiles.machines import Gpu, Machine

LIST_GPUS = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Which of them a process may use, by number or by UUID: SLURM, Ray and people say so."""

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def list_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use; none where there is no driver to ask."""
    try:
        told = subprocess.run(LIST_GPUS, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return ()
    gpus = tuple(_parse_gpu(line) for line in told if line.strip())
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return gpus
    named = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if all(name.isdigit() for name in named):
        return tuple(gpus[int(name)] for name in named if int(name) < len(gpus))
    return gpus[: len(named)]  # by UUID: how many, of a machine whose GPUs are alike


def find_machine() -> Machine:
    """Return what this machine has."""
    return Machine(list_gpus(), _read_memory_gib(), _count_processors())


def _parse_gpu(line: str) -> Gpu:
    name, _, mebibytes = line.rpartition(",")
    with suppress(ValueError):
        return Gpu(name.strip(), float(mebibytes) / 1024)
    return Gpu((name or line).strip(), 0.0)  # shared memory, on boards, is not told


def _count_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_memory_gib() -> float | None:
    """Return main memory in GiB, or what a container may take of it; None: the system does not say."""
    found = []
    with suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in _LIMITS:
        with suppress(ValueError, OSError):
            found.append(int(file.read_text()))
    return min(found) / 2**30 if found else None
