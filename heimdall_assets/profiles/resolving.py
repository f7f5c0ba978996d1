"""Resolving: what a profile comes to beside other settings, on a machine: each value, and who says it.

Belongs here: which of two settings wins, the batch that a GPU's memory holds, the step size of a kind of training. Does
not belong here: options of commands (``cli.settings``), whether the machine is enough (``machines``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heimdall_assets.profiles.reading import Read, list_paths
from heimdall_assets.profiles.schema import KindOfTraining, Needs, Profile, list_profile_specs

DEFAULT = "default"
BATCH_SIZE, DEVICES = "TrainingSpec.batch_size", "TrainingSpec.num_devices"
LEARNING_RATE, WARMUP = "TrainingSpec.learning_rate", "TrainingSpec.warmup_epochs"
ACCELERATOR, PRECISION = "MachineSpec.accelerator", "TrainingSpec.precision"


@dataclass(frozen=True)
class Setting:
    """One value and who says it."""

    value: Any
    source: str


Settings = Mapping[str, Setting]
"""``Spec.field`` -> what it is set to; a field that nobody sets is not there."""


def overlay(levels: Sequence[Settings]) -> dict[str, Setting]:
    """Return the settings of several levels; a later one wins."""
    return {path: setting for level in levels for path, setting in level.items()}


def resolve(read: Read, others: Settings, gpu_memory_gib: float | None) -> dict[str, Setting]:
    """Return what a profile sets beside ``others``, which win.

    Args:
        read: the profile, which holds.
        others: what is set by name.
        gpu_memory_gib: of the GPU that trains, 0: none does; None: on the machine that the profile asks for.
    """
    profile = read.profile
    own = {
        path: Setting(profile.settings[spec][field], read.sources.get(path, f"profile {profile.name}"))
        for path in list_paths(read)
        for spec, field in [path.split(".")]
    }
    settings = overlay([own, others])
    memory = profile.needs.gpu_memory_gib if gpu_memory_gib is None else gpu_memory_gib
    looked_up = {**_find_batch(profile, settings, memory), **_find_learning_rate(profile, settings)}
    return {**looked_up, **settings}


def group(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return settings as spec -> field -> value."""
    found: dict[str, dict[str, Any]] = {}
    for path, setting in settings.items():
        spec, _, field = path.partition(".")
        found.setdefault(spec, {})[field] = setting.value
    return found


def find_value(settings: Settings, path: str) -> Any:
    """Return what a field is set to, or its default."""
    if path in settings:
        return settings[path].value
    spec, _, field = path.partition(".")
    return list_profile_specs()[spec].model_fields[field].get_default(call_default_factory=True)


def find_kind_of_training(settings: Settings) -> KindOfTraining:
    """Return which kind of training settings ask for."""
    if find_value(settings, "TrainingSpec.start_from") is not None:
        return "fine_tuning"
    return "transfer" if find_value(settings, "ModelSpec.pretrained") is True else "scratch"


def find_needs(profile: Profile | None, settings: Settings) -> Needs:
    """Return what a machine must have for a training with these settings, which may ask for other GPUs than a profile.

    Without a profile nothing but GPUs that are asked for by name is needed.
    """
    needs = Needs(memory_gib=1e-9) if profile is None else profile.needs
    accelerator, devices = find_value(settings, ACCELERATOR), find_value(settings, DEVICES)
    gpus = {"gpu": devices, "cpu": 0}.get(accelerator, needs.gpus)
    return needs.model_copy(update={"gpus": gpus, "gpu_memory_gib": needs.gpu_memory_gib if gpus else 0.0})


def list_doubts(profile: Profile, settings: Settings) -> list[str]:
    """Return what a profile would not have chosen, one line each; nothing of it is refused."""
    kind = find_kind_of_training(settings)
    usual, chosen = profile.learning_rate.get(kind), settings.get(LEARNING_RATE)
    if usual is None or chosen is None or not isinstance(chosen.value, int | float):
        return []
    if usual.lowest <= chosen.value <= usual.highest:
        return []
    return [
        f"{LEARNING_RATE} {chosen.value:g} ({chosen.source}): profile {profile.name} knows {usual.lowest:g} to "
        f"{usual.highest:g} for a training of kind {kind}"
    ]


def _find_batch(profile: Profile, settings: Settings, memory_gib: float) -> dict[str, Setting]:
    """Return the batch that a GPU's memory holds, times the devices; nothing where the profile has no table."""
    if find_value(settings, ACCELERATOR) == "cpu":
        memory_gib = 0.0
    # A GPU reports a little less than is written on it, and all are sold in whole GiB.
    held = [size for size in profile.batch_size if size <= memory_gib * 1.05]
    if BATCH_SIZE in settings or not profile.batch_size:
        return {}
    size = max(held, default=min(profile.batch_size))  # less than the profile asks for is refused elsewhere
    devices = find_value(settings, DEVICES)
    where = f"a GPU of {memory_gib:.0f} GiB" if memory_gib else "no GPU"
    value = profile.batch_size[size] * devices
    times = f", {devices} devices" if devices != 1 else ""
    return {BATCH_SIZE: Setting(value, f"batch_size of profile {profile.name}: {where}{times}")}


def _find_learning_rate(profile: Profile, settings: Settings) -> dict[str, Setting]:
    """Return step size and warm-up of the kind of training; nothing where the profile does not know it."""
    kind = find_kind_of_training(settings)
    known = profile.learning_rate.get(kind)
    if known is None:
        return {}
    source = f"learning_rate of profile {profile.name}: {kind}"
    found = {} if LEARNING_RATE in settings else {LEARNING_RATE: Setting(known.value, source)}
    if known.warmup_epochs is not None and WARMUP not in settings:
        found[WARMUP] = Setting(known.warmup_epochs, source)
    return found
