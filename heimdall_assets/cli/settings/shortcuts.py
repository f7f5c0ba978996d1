"""Shortcuts: short options for the settings of a training that people change most.

Belongs here: their names and the fields that they set; bounds and meaning are those of the field. Does not belong here:
which of two settings wins (``choosing``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import click

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.profiles.resolving import Setting
from heimdall_assets.specs import list_specs


@dataclass(frozen=True)
class Shortcut:
    """One option and the field that it sets."""

    option: str
    path: str

    @property
    def parameter(self) -> str:
        return self.option.removeprefix("--").replace("-", "_")

    def find_type(self) -> type | click.Choice[str]:
        """Return what the option takes: what its field does; its bounds are judged with all other settings."""
        annotation = self._field.annotation
        if get_origin(annotation) is Literal:
            return click.Choice([str(choice) for choice in get_args(annotation)])
        return float if annotation is float else int

    def describe(self) -> str:
        """Return what the field means."""
        return self._field.description or ""

    @property
    def _field(self) -> Any:
        spec, _, field = self.path.partition(".")
        return list_specs()[spec].model_fields[field]


SHORTCUTS = (
    Shortcut("--epochs", "TrainingSpec.max_epochs"),
    Shortcut("--batch-size", "TrainingSpec.batch_size"),
    Shortcut("--learning-rate", "TrainingSpec.learning_rate"),
    Shortcut("--accelerator", "MachineSpec.accelerator"),
    Shortcut("--devices", "TrainingSpec.num_devices"),
    Shortcut("--num-workers", "MachineSpec.num_workers"),
)


def shortcut_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add every shortcut to a command; each parameter is a tuple of what was given."""
    for one in reversed(SHORTCUTS):
        option = click.option(one.option, one.parameter, type=one.find_type(), multiple=True, help=f"{one.path}.")
        command = option(command)
    return command


def take_shortcuts(parameters: dict[str, Any]) -> Mapping[str, Setting]:
    """Take the shortcuts out of a command's parameters and return what they set.

    Raises:
        InvalidSetting: one was given twice, with two values.
    """
    found = {}
    for one in SHORTCUTS:
        values = list(dict.fromkeys(parameters.pop(one.parameter)))
        if len(values) > 1:
            raise InvalidSetting(f"{one.option}: found {' and '.join(map(str, values))}, expected one of them")
        if values:
            found[one.path] = Setting(values[0], one.option)
    return found
