"""Machine check: whether the machine at hand is enough for a training, told before anything slow is loaded.

Belongs here: looking, refusing in one line, naming the profile that would run. Does not belong here: what a training
needs (``profiles.resolving``), machines that a cluster looks for by itself (``defs.accelerator``).
"""

from heimdall_assets.cli.terminal.output import write_notice
from heimdall_assets.errors import InvalidSetting, MissingDependency
from heimdall_assets.profiles.machines import Machine, describe_lack, find_nearest
from heimdall_assets.profiles.reading import Read, list_profiles, read_profile
from heimdall_assets.profiles.resolving import ACCELERATOR, DEVICES, PRECISION, Settings, find_needs, find_value
from heimdall_assets.stores.capacity import find_machine
from heimdall_assets.stores.wandb_runs import is_installed

HERE = ("in_process", "local")
"""Executors whose trainings run on this machine."""


def look_at_machine(read: Read | None, settings: Settings, backend: str) -> Machine | None:
    """Return the machine that a training would run on; None: another one, or nothing is asked of it.

    Args:
        read: the profile; None: there is none.
        settings: what is set by name.
        backend: where steps run.
    """
    asked = find_value(settings, ACCELERATOR) == "gpu" or find_value(settings, PRECISION) == "16-mixed"
    return find_machine() if backend in HERE and (read is not None or asked) else None


def check_machine(machine: Machine, read: Read | None, settings: Settings) -> None:
    """Refuse a training that a machine is not enough for.

    Raises:
        InvalidSetting: it lacks something; what, and which profile of the package would run, stand in one line.
    """
    needs = find_needs(None if read is None else read.profile, settings)
    lack = describe_lack(machine, needs)
    if lack:
        who = _name_asker(settings) if read is None else f"profile {read.profile.name}"
        raise InvalidSetting(f"{who}: this machine: {lack}; {_offer(machine, needs.gpus)}")
    on_processors = find_value(settings, ACCELERATOR) == "cpu" or not machine.gpus
    if find_value(settings, PRECISION) == "16-mixed" and on_processors:
        source = settings[PRECISION].source
        raise InvalidSetting(f"{PRECISION} ({source}): found 16-mixed without a GPU, expected 32-true or bf16-mixed")


def check_tracking(read: Read | None) -> None:
    """Say or refuse that a profile wants Weights & Biases told and it is not installed.

    Raises:
        MissingDependency: the profile wants it always.
    """
    wanted = "never" if read is None else read.profile.tracking.wandb
    if wanted == "never" or is_installed():
        return
    assert read is not None
    said = f"profile {read.profile.name}, tracking.wandb {wanted}: found no package wandb"
    if wanted == "always":
        raise MissingDependency(f"{said}, expected heimdall-assets[wandb] installed")
    write_notice(f"{said}; Weights & Biases is told nothing (heimdall-assets[wandb] brings it)")


def _name_asker(settings: Settings) -> str:
    """Return which settings ask for GPUs, as whoever set them wrote them."""
    asking = [settings[path] for path in (ACCELERATOR, DEVICES) if path in settings]
    return ", ".join(f"{one.source} {one.value}" for one in asking)


def _offer(machine: Machine, gpus: int) -> str:
    """Return what would run on a machine instead."""
    nearest = find_nearest(machine, [(name, read_profile(name).profile.needs) for name in list_profiles()])
    fewer = f", or --devices {len(machine.gpus)}" if 0 < len(machine.gpus) < gpus else ""
    return f"nearest profile that runs here: {nearest or 'none'}{fewer}"
