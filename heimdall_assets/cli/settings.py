"""Settings from the command line: a YAML file and single assignments, checked by the specs themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from heimdall_assets.cli.catalogue import NOT_ON_THE_COMMAND_LINE
from heimdall_assets.cli.intake.file_options import FILE
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.pipeline.recipe import SETTINGS
from heimdall_assets.specs import DatasetSpec, Spec, describe_invalid, suggest_setting, suggest_spec

Command = Callable[..., None]

assignments_option = click.option(
    "--set", "assignments", multiple=True, metavar="Spec.field=value", help="One field; may be repeated."
)
campaigns_option = click.option(
    "--campaign", "campaigns", multiple=True, help="Only sessions of this campaign; may be repeated."
)
_file_option = click.option(
    "--settings",
    "settings_file",
    type=FILE,
    help="YAML: spec name -> fields, for example TrainingSpec: {max_epochs: 10}.",
)


def settings_options(command: Command) -> Command:
    """Add the options that choose data and settings of a run, the same for all that plan one or start one."""
    return campaigns_option(_file_option(assignments_option(command)))


def read_chosen(campaigns: tuple[str, ...], file: Path | None, assignments: tuple[str, ...]) -> list[Spec]:
    """Return the specs that ``settings_options`` set.

    Raises:
        InvalidSetting: an unknown spec or field, a value out of its bounds, or campaigns chosen twice over.
    """
    chosen = read_settings(file, assignments)
    if campaigns:
        if any(isinstance(spec, DatasetSpec) for spec in chosen):
            raise InvalidSetting("--campaign and DatasetSpec: expected one of them")
        chosen.append(DatasetSpec(campaigns=list(campaigns)))
    return chosen


def find_dataset(chosen: list[Spec]) -> DatasetSpec:
    """Return which data the chosen specs take."""
    return next((spec for spec in chosen if isinstance(spec, DatasetSpec)), DatasetSpec())


def read_settings(file: Path | None, assignments: tuple[str, ...]) -> list[Spec]:
    """Return the specs that a YAML file and ``Spec.field=value`` assignments (which win) set.

    Raises:
        InvalidSetting: an unknown spec or field, or a value out of its bounds.
    """
    chosen: dict[str, dict[str, Any]] = {}
    if file is not None:
        chosen.update(_read_file(file))
    for assignment in assignments:
        spec, field, value = _split_assignment(assignment)
        chosen.setdefault(spec, {})[field] = _load_yaml(value, f"--set {assignment!r}")
    return [build_spec(name, fields) for name, fields in chosen.items()]


def build_spec(name: str, fields: dict[str, Any]) -> Spec:
    """Return the spec called ``name`` with ``fields`` set.

    Raises:
        InvalidSetting: an unknown spec or field, or a value out of its bounds.
    """
    if name not in SETTINGS:
        raise InvalidSetting(f"{name}: {_refuse_spec(name)}")
    for field, value in fields.items():  # pydantic takes yes for 1
        known = SETTINGS[name].model_fields.get(field)
        if isinstance(value, bool) and known is not None and known.annotation in (int, float):
            raise InvalidSetting(f"{name}.{field}: found {str(value).lower()}, expected a number")
    try:
        return SETTINGS[name].model_validate(fields)
    except ValidationError as error:
        raise InvalidSetting(describe_invalid(name, error)) from None


def _split_assignment(assignment: str) -> tuple[str, str, str]:
    """Return spec, field and value of one ``--set``."""
    name, found, value = assignment.partition("=")
    spec, dot, field = name.partition(".")
    if found and dot:
        return spec, field, value
    hint = " (heimdall settings lists all)"
    if name in SETTINGS:
        hint = f" (heimdall settings {name} lists its fields)"
    elif found and (meant := suggest_setting(name)):
        hint = f", such as {meant}={value}"
    raise InvalidSetting(f"--set {assignment!r}: expected Spec.field=value{hint}")


def _refuse_spec(name: str) -> str:
    """Return what to say of a spec ``name`` that cannot be set."""
    meant, known = suggest_spec(name), f"expected one of {', '.join(SETTINGS)}"
    elsewhere = {spec.__name__: how for spec, how in NOT_ON_THE_COMMAND_LINE.items()}
    if name in elsewhere:
        return f"found a spec that is {elsewhere[name]}; {known}"
    return f"found no such spec, did you mean {meant}?" if meant in SETTINGS else f"found no such spec, {known}"


def _read_file(file: Path) -> dict[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidSetting(f"{file}: found bytes that are no text, expected YAML") from None
    loaded = _load_yaml(text, str(file)) or {}
    if not isinstance(loaded, dict):
        raise InvalidSetting(f"{file}: expected a mapping from spec names to fields")
    for name, fields in loaded.items():
        if not isinstance(fields, dict):
            spec, _, field = (suggest_setting(str(name)) or "").partition(".")
            hint = f", such as {spec}: {{{field}: {fields}}}" if field else ""
            raise InvalidSetting(
                f"{file}: {name}: found {fields!r:.60}, expected a mapping from spec names to fields{hint}"
            )
    return {str(name): {str(field): value for field, value in fields.items()} for name, fields in loaded.items()}


def _load_yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        raise InvalidSetting(
            f"{what}: found no YAML{line} ({getattr(error, 'problem', None) or 'unreadable'})"
        ) from None
