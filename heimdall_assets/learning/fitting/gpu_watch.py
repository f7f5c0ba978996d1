"""A GPU's power and temperature while it trains: a line where one is above what the settings allow.

Belongs here: when to look, what to say. Does not belong here: reading the device (``stores.gpu_meters``), which is
handed in.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from heimdall_assets.learning.fitting.hooks import GpuMeters
from heimdall_assets.specs import MachineSpec

STEPS_BETWEEN = 20
"""Steps between two looks: a board heats over seconds."""


class GpuWatch(Callback):
    """Tells once each time a limit is crossed from below."""

    def __init__(self, machine: MachineSpec, meters: GpuMeters, tell: Callable[[str], None]) -> None:
        self.machine, self.meters, self.tell = machine, meters, tell
        self._above: set[str] = set()
        self._num_steps = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self._num_steps % STEPS_BETWEEN == 0:
            self.look(_find_uuid(pl_module.device))
        self._num_steps += 1

    def look(self, uuid: str | None) -> None:
        """Read both meters where there is a limit, and tell what is above it."""
        if self.machine.max_power_w is not None:
            self._judge("max_power_w", self.meters.read_power_w(uuid), self.machine.max_power_w, "draws", "W")
        if self.machine.max_temperature_c is not None:
            found = self.meters.read_temperature_c(uuid)
            self._judge("max_temperature_c", found, self.machine.max_temperature_c, "is at", "degrees C")

    def _judge(self, name: str, found: float | None, limit: float, verb: str, unit: str) -> None:
        if found is None:
            if name not in self._above:
                self._above.add(name)
                self.tell(f"MachineSpec.{name} {limit:g}: this GPU does not tell, it cannot be watched")
        elif found <= limit:
            self._above.discard(name)
        elif name not in self._above:
            self._above.add(name)
            self.tell(f"MachineSpec.{name} {limit:g}: the GPU {verb} {found:.0f} {unit}, which is above it")


def build_watch(
    machine: MachineSpec, on_gpu: bool, meters: GpuMeters | None, tell: Callable[[str], None]
) -> list[Callback]:
    """Return the callback that watches, none where no limit is set; where it cannot watch, that is told."""
    limits = {name: getattr(machine, name) for name in ("max_power_w", "max_temperature_c")}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    if not limits:
        return []
    if on_gpu and meters is not None:
        return [GpuWatch(machine, meters, tell)]
    why = "no NVIDIA driver answers" if on_gpu else "it trains on processors"
    tell(f"MachineSpec.{', '.join(f'{name} {limit:g}' for name, limit in limits.items())}: cannot be watched, {why}")
    return []


def _find_uuid(device: torch.device) -> str | None:
    if device.type != "cuda":
        return None
    return str(torch.cuda.get_device_properties(device).uuid)
