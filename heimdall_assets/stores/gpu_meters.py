"""Meters of NVIDIA GPUs: power and temperature, as their driver tells them through NVML.

Belongs here: reading. Does not belong here: what is too much (``learning.fitting.gpu_watch``).
"""

from contextlib import suppress
from functools import cache
from typing import Any


class NvmlMeters:
    """The GPUs of this machine, found by UUID: torch numbers those it may see, NVML all.

    Args:
        nvml: what talks to the driver; None: NVIDIA's own, opened where it is used, so that this may go to another
            process.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._given = nvml

    def read_power_w(self, uuid: str | None) -> float | None:
        """Return what a GPU draws in watt; None: it does not say."""
        nvml = self._given or _open()
        with suppress(nvml.NVMLError):
            return float(nvml.nvmlDeviceGetPowerUsage(_find(nvml, uuid))) / 1000.0  # it counts in milliwatt
        return None

    def read_temperature_c(self, uuid: str | None) -> float | None:
        """Return how hot a GPU is in degrees Celsius; None: it does not say."""
        nvml = self._given or _open()
        with suppress(nvml.NVMLError):
            return float(nvml.nvmlDeviceGetTemperature(_find(nvml, uuid), nvml.NVML_TEMPERATURE_GPU))
        return None


def open_meters() -> NvmlMeters | None:
    """Return the meters of this machine's NVIDIA GPUs; None: no driver answers."""
    import pynvml

    try:
        _open()
    except pynvml.NVMLError:
        return None
    return NvmlMeters()


@cache
def _open() -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def _find(nvml: Any, uuid: str | None) -> Any:
    if uuid is None:
        return nvml.nvmlDeviceGetHandleByIndex(0)
    return nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
