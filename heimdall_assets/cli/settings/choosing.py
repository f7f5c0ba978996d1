"""Settings from the command line: a profile, a YAML file, options and single assignments, checked by the specs.

Belongs here: who wins, and what a run asks of the machine. Does not belong here: profiles themselves (``profiles``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from pydantic import ValidationError

from heimdall_assets.cli.intake.file_options import FILE
from heimdall_assets.cli.settings.catalogue import NOT_ON_THE_COMMAND_LINE
from heimdall_assets.cli.settings.machine_check import check_machine, check_tracking, look_at_machine
from heimdall_assets.cli.settings.profile_option import PROFILE
from heimdall_assets.cli.settings.shortcuts import shortcut_options, take_shortcuts
from heimdall_assets.cli.terminal.output import write_notice
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.pipeline.recipe import SETTINGS
from heimdall_assets.places import read_places
from heimdall_assets.profiles.reading import Read, read_profile
from heimdall_assets.profiles.resolving import Setting, find_needs, group, list_doubts, overlay, resolve
from heimdall_assets.specs import AcceleratorSpec, DatasetSpec, Spec, describe_invalid, suggest_setting, suggest_spec

if TYPE_CHECKING:
    from heimdall_assets.variables import Places

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
_profile_option = click.option(
    "--profile",
    type=PROFILE,
    help="Settings for a kind of machine; else HEIMDALL_PROFILE.",
)


@dataclass(frozen=True)
class Asked:
    """What somebody typed who chose data and settings of a run.

    Attributes:
        campaigns: whose sessions; none: of all.
        file: YAML of settings.
        assignments: ``Spec.field=value``, as ``--set`` takes them.
        shortcuts: ``Spec.field`` -> what an option of its own set it to.
        profile: name or file.
    """

    campaigns: tuple[str, ...] = ()
    file: Path | None = None
    assignments: tuple[str, ...] = ()
    shortcuts: Mapping[str, Setting] = dataclass_field(default_factory=dict)
    profile: str | None = None


@dataclass(frozen=True)
class Chosen:
    """What a run is made with.

    Attributes:
        specs: that are set, and what is asked of the machine that trains; every other one keeps its defaults.
        settings: ``Spec.field`` -> its value and who said it.
        read: the profile; None: there is none.
    """

    specs: list[Spec]
    settings: Mapping[str, Setting]
    read: Read | None = None


def settings_options(command: Command) -> Command:
    """Add the options that choose data and settings of a run, the same for all that plan one or start one.

    The command is given them as one ``Asked``, called ``asked``.
    """

    @wraps(command)
    def gather(**parameters: Any) -> None:
        shortcuts = take_shortcuts(parameters)
        asked = Asked(
            campaigns=parameters.pop("campaigns"),
            file=parameters.pop("settings_file"),
            assignments=parameters.pop("assignments"),
            shortcuts=shortcuts,
            profile=parameters.pop("profile"),
        )
        command(asked=asked, **parameters)

    return campaigns_option(_profile_option(_file_option(shortcut_options(assignments_option(gather)))))


def read_chosen(asked: Asked) -> Chosen:
    """Return what somebody chose: profile, then file, then options, then assignments; a later one wins.

    Raises:
        InvalidSetting: an unknown profile, spec or field, a value out of its bounds, one field set to two values in one
            place, campaigns chosen twice over, or a machine that is not enough.
        MissingDependency: the profile wants a package that is not installed.
    """
    assigned = _read_assignments(asked.assignments)
    filed = {} if asked.file is None else _read_file(asked.file)
    others = overlay([_say_who(filed, f"--settings {asked.file}"), asked.shortcuts, _say_who(assigned, "--set")])
    named = _build(others)
    others = _take_values(others, named)
    if asked.campaigns and any(isinstance(spec, DatasetSpec) for spec in named):
        raise InvalidSetting("--campaign and DatasetSpec: expected one of them")
    places = read_places()
    read = _find_profile(asked.profile, places)
    settings = others if read is None else resolve(read, others, None)
    machine = look_at_machine(read, settings, places.executor)
    if machine is not None:
        if read is not None:
            settings = resolve(read, others, machine.gpu_memory_gib)
        check_machine(machine, read, settings)
    specs = _build(settings)
    check_tracking(read)
    _tell(asked, others, settings, read)
    specs += _ask(read, settings, places.executor)
    specs += [DatasetSpec(campaigns=list(asked.campaigns))] if asked.campaigns else []
    return Chosen(specs, settings, read)


def find_dataset(chosen: Sequence[Spec]) -> DatasetSpec:
    """Return which data the chosen specs take."""
    return next((spec for spec in chosen if isinstance(spec, DatasetSpec)), DatasetSpec())


def read_settings(file: Path | None, assignments: tuple[str, ...]) -> list[Spec]:
    """Return the specs that a YAML file and ``Spec.field=value`` assignments (which win) set.

    Raises:
        InvalidSetting: an unknown spec or field, or a value out of its bounds.
    """
    chosen = {} if file is None else _read_file(file)
    for name, fields in _read_assignments(assignments).items():
        chosen.setdefault(name, {}).update(fields)
    return [build_spec(name, fields) for name, fields in chosen.items()]


def _read_assignments(assignments: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return spec -> field -> value of ``--set``; what is set to two values is refused."""
    found: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        spec, name, value = _split_assignment(assignment)
        loaded = _load_yaml(value, f"--set {assignment!r}")
        before = found.setdefault(spec, {}).setdefault(name, loaded)
        if before != loaded:
            raise InvalidSetting(f"--set {spec}.{name}: found {before!r:.40} and {loaded!r:.40}, expected one of them")
    return found


def _say_who(chosen: Mapping[str, Mapping[str, Any]], source: str) -> dict[str, Setting]:
    return {
        f"{spec}.{name}": Setting(value, source) for spec, fields in chosen.items() for name, value in fields.items()
    }


def _build(settings: Mapping[str, Setting]) -> list[Spec]:
    """Return the specs of settings, but for what is asked of a machine."""
    grouped = group(settings)
    return [build_spec(name, fields) for name, fields in grouped.items() if name != AcceleratorSpec.__name__]


def _take_values(settings: Mapping[str, Setting], specs: Sequence[Spec]) -> dict[str, Setting]:
    """Return settings with their values as the specs read them: 1e-3 is a number."""
    values = {f"{type(spec).__name__}.{name}": value for spec in specs for name, value in spec}
    return {path: Setting(values.get(path, setting.value), setting.source) for path, setting in settings.items()}


def _find_profile(named: str | None, places: "Places") -> Read | None:
    name = named if named is not None else places.profile
    return None if name is None else read_profile(name)


def _ask(read: Read | None, settings: Mapping[str, Setting], backend: str) -> list[AcceleratorSpec]:
    """Return what the machine that trains is asked for by a profile.

    Raises:
        InvalidSetting: the profile asks what steps that run there cannot be given.
    """
    if read is None:
        return []
    from heimdall_assets.defs.accelerator import ask_machine, refuse_unkept

    own = group(settings).get(AcceleratorSpec.__name__, {})
    asked = ask_machine(find_needs(read.profile, settings), own, backend)
    for spec in asked:
        refuse_unkept(backend, spec)
    return asked


def _tell(asked: Asked, others: Mapping[str, Setting], settings: Mapping[str, Setting], read: Read | None) -> None:
    """Say in one line each where one option wins over another, and what the profile would not have chosen."""
    for path, setting in asked.shortcuts.items():
        if others[path].value != setting.value:
            won = others[path]
            write_notice(f"{path}: {won.source} {won.value} wins over {setting.source} {setting.value}")
    for line in [] if read is None else list_doubts(read.profile, settings):
        write_notice(line)


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
