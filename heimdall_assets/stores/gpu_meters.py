"""Meters of NVIDIA GPUs: power and temperature, as their driver tells them through NVML.

Belongs here: reading. Does not belong here: what is too much (``learning.fitting.gpu_watch``).
"""

from contextlib import suppress
from typing import Any


class NvmlMeters:
    """The GPUs of this machine, found by UUID: torch numbers those it may see, NVML all."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def read_power_w(self, uuid: str | None) -> float | None:
        """Return what a GPU draws in watt; None: it does not say."""
        with suppress(self._nvml.NVMLError):
            return float(self._nvml.nvmlDeviceGetPowerUsage(self._find(uuid))) / 1000.0  # it counts in milliwatt
        return None

    def read_temperature_c(self, uuid: str | None) -> float | None:
        """Return how hot a GPU is in degrees Celsius; None: it does not say."""
        with suppress(self._nvml.NVMLError):
            return float(self._nvml.nvmlDeviceGetTemperature(self._find(uuid), self._nvml.NVML_TEMPERATURE_GPU))
        return None

    def _find(self, uuid: str | None) -> Any:
        if uuid is None:
            return self._nvml.nvmlDeviceGetHandleByIndex(0)
        return self._nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")


def open_meters() -> NvmlMeters | None:
    """Return the meters of this machine's NVIDIA GPUs; None: no driver answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return NvmlMeters(pynvml)
