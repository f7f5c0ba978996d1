"""Machine: what of the computer itself decides bits: processor, instruction sets, threads, system, container.

Belongs here: what can be read off without loading anything slow. Does not belong here: packages and code
(``installation``). Nothing here names the machine or its network: where somebody computed is nobody's business.
"""

import os
import platform
import sys
from pathlib import Path
from typing import Any

PROCESSORS = Path("/proc/cpuinfo")

LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
)
"""Variables that forbid libraries an instruction set: with the processor's flags they say which one each takes."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_FLAGS = ("sse4_", "avx", "fma", "amx", "f16c", "asimd", "sve", "bf16", "i8mm")
"""Beginnings of those flags of a processor that libraries of linear algebra choose their code by."""

_CONTAINERS = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}


def describe_machine() -> dict[str, Any]:
    """Return processor, instruction sets, threads, system and container, JSON values; None: this system does not say.

    What torch takes is told where torch is loaded: oneDNN, which does not say what it takes, chooses by the
    processor's flags and the limits that stand beside them. Two machines whose torch said the same gave other bits.
    """
    processor = _read_processor()
    torch = sys.modules.get("torch")  # loading it only to ask takes longer than most stages
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": processor.get("model name") or platform.processor() or None,
        "num_processors": os.cpu_count(),
        "processor_flags": sorted(
            flag for flag in processor.get("flags", processor.get("Features", "")).split() if flag.startswith(_FLAGS)
        ),
        "instruction_limits": _pick_set(LIMITS),
        "cpu_capability": None if torch is None else torch.backends.cpu.get_cpu_capability(),
        "threads": {**_pick_set(THREADS), **({} if torch is None else {"torch": torch.get_num_threads()})},
        "accelerator": _name_accelerator(torch),
        "container": _find_container(),
    }


def _read_processor() -> dict[str, str]:
    """Return what Linux says of the first processor; empty elsewhere."""
    try:
        first = PROCESSORS.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _pick_set(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _name_accelerator(torch: Any) -> str | None:
    """Return the GPU that this process has used; one that is only there decides nothing."""
    if torch is None or not torch.cuda.is_initialized():
        return None
    return str(torch.cuda.get_device_name())


def name_cuda() -> str | None:
    """Return the version of CUDA that this process's torch was built with; None: none, or torch is not loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None or torch.version.cuda is None else str(torch.version.cuda)


def _find_container() -> str | None:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return next((name for path, name in _CONTAINERS.items() if Path(path).exists()), None)
