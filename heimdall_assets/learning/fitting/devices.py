"""Devices: what a fit runs on, and the refusal of what this machine cannot do.

Belongs here: the choice from settings and from what is there. Does not belong here: whether a GPU gets too hot
(``gpu_watch``).
"""

from dataclasses import dataclass

import torch

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.specs import MachineSpec, TrainingSpec


@dataclass(frozen=True)
class Device:
    """``cpu`` or ``gpu``, in Lightning's words, and how many processes share each batch."""

    accelerator: str
    num_processes: int = 1

    @property
    def kind(self) -> str:
        """In torch's words."""
        return "cuda" if self.accelerator == "gpu" else "cpu"

    @property
    def backend(self) -> str:
        """What processes talk through."""
        return "nccl" if self.accelerator == "gpu" else "gloo"


def choose_device(training: TrainingSpec, machine: MachineSpec, num_gpus: int) -> Device:
    """Return what to fit on.

    Args:
        training: its precision and its number of devices.
        machine: which accelerator is asked for.
        num_gpus: GPUs that torch can use.

    Raises:
        InvalidSetting: this machine has not what is asked for.
    """
    asked = machine.accelerator
    accelerator = asked if asked != "auto" else "gpu" if num_gpus else "cpu"
    if accelerator == "gpu" and num_gpus < training.num_devices:
        found = f"found {say_count(num_gpus, 'GPU')} that torch {torch.__version__} can use"
        more = "" if training.num_devices == 1 else f" with TrainingSpec.num_devices {training.num_devices}"
        raise InvalidSetting(
            f"MachineSpec.accelerator {asked}{more}: {found}, expected at least {training.num_devices}; "
            "accelerator cpu trains on processors"
        )
    if training.batch_size < training.num_devices:
        raise InvalidSetting(
            f"TrainingSpec.batch_size {training.batch_size}: processes share each batch, expected at least num_devices "
            f"{training.num_devices}"
        )
    if training.precision == "16-mixed" and accelerator == "cpu":
        raise InvalidSetting(
            f"TrainingSpec.precision 16-mixed: found {say_count(num_gpus, 'GPU')} with MachineSpec.accelerator "
            f"{asked}, expected a GPU; 32-true and bf16-mixed run on processors"
        )
    return Device(accelerator, training.num_devices)


def count_gpus() -> int:
    """Return the number of GPUs that torch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
