"""Machines: what a machine has, whether that is enough for a profile, and which profile it is enough for.

Belongs here: comparing, in memory. Does not belong here: looking at a machine (``stores.capacity``).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from heimdall_assets.counts import say_count
from heimdall_assets.profiles.schema import Needs

AS_COUNTED = 0.9
"""Share of the GiB on a label that a machine reports: makers count in powers of ten, systems keep some of it."""


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name as the driver says it, and its memory in GiB (0: the driver does not say)."""

    name: str
    memory_gib: float


@dataclass(frozen=True)
class Machine:
    """What a machine has.

    Attributes:
        gpus: that this process may use.
        memory_gib: main memory; None: the system does not say.
        cpus: processors that this process may use.
    """

    gpus: tuple[Gpu, ...]
    memory_gib: float | None
    cpus: int

    @property
    def gpu_memory_gib(self) -> float:
        """Memory of the smallest GPU in GiB; 0: there is none."""
        return min((gpu.memory_gib for gpu in self.gpus), default=0.0)


def is_enough(machine: Machine, needs: Needs) -> bool:
    """Return whether a machine has what is needed."""
    return not _list_lacks(machine, needs)


def describe_lack(machine: Machine, needs: Needs) -> str:
    """Return ``found ..., expected ...`` of what a machine lacks, in one line; empty: nothing."""
    lacks = _list_lacks(machine, needs)
    if not lacks:
        return ""
    return f"found {_join(found for found, _ in lacks)}, expected {_join(expected for _, expected in lacks)}"


def find_nearest(machine: Machine, offered: Iterable[tuple[str, Needs]]) -> str | None:
    """Return the name of the profile that asks most of those that a machine is enough for; None: it is for none."""
    able = [(name, needs) for name, needs in offered if is_enough(machine, needs)]
    ranked = sorted(able, key=lambda one: (one[1].gpus, one[1].gpu_memory_gib, one[1].memory_gib, one[1].cpus))
    return ranked[-1][0] if ranked else None


def _list_lacks(machine: Machine, needs: Needs) -> list[tuple[str, str]]:
    lacks = []
    fitting = [gpu for gpu in machine.gpus if gpu.memory_gib >= AS_COUNTED * needs.gpu_memory_gib]
    if len(fitting) < needs.gpus:
        counted = ", ".join(f"{gpu.name} of {gpu.memory_gib:.0f} GiB" for gpu in machine.gpus[:4])
        size = f" of at least {needs.gpu_memory_gib:g} GiB" if needs.gpu_memory_gib else ""
        found = f"{say_count(len(machine.gpus), 'GPU')} ({counted})" if machine.gpus else "no GPU"
        lacks.append((found, f"{say_count(needs.gpus, 'GPU')}{size}"))
    if machine.memory_gib is not None and machine.memory_gib < AS_COUNTED * needs.memory_gib:
        lacks.append((f"{machine.memory_gib:.1f} GiB of main memory", f"{needs.memory_gib:g} GiB of it"))
    if machine.cpus < needs.cpus:
        lacks.append((say_count(machine.cpus, "processor"), say_count(needs.cpus, "processor")))
    return lacks


def _join(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
