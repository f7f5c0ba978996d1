"""Problems: everything that is wrong with a profile, each as path, what was found and what is allowed.

Belongs here: judging values and putting what pydantic says into our words. Does not belong here: reading files, and
what a profile extends (``reading``).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from heimdall_assets.profiles.schema import NOT_OF_A_PROFILE, Profile, list_profile_specs
from heimdall_assets.specs import UNKNOWN_SETTING, suggest_setting, suggest_spec
from heimdall_assets.suggestions import suggest_name

_PYDANTIC_SAYS = ("Input should be ", "Value should ", "String should ", "Keys should ")
_NOTHING = "nothing"
_LONGEST = 80

_OTHER_NAMES = {
    "base": "extends", "inherit": "extends", "description": "purpose", "about": "purpose", "title": "name",
    "requires": "needs", "requirements": "needs", "resources": "needs", "batch_sizes": "batch_size",
    "learning_rates": "learning_rate", "lr": "learning_rate", "logging": "tracking", "tiers": "assessment",
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: of the field, from the profile down.
        found: what stands there.
        allowed: what may.
    """

    path: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.allowed}"


def find_problems(raw: Mapping[str, Any], where: str) -> list[Problem]:
    """Return everything that is wrong with a profile, in the order of its file; none: it holds.

    Args:
        raw: its fields, those of what it extends among them, as YAML gave them.
        where: which profile or file, for what is wrong with all of it.
    """
    specs = list_profile_specs()
    found = [problem for name, value in raw.items() for problem in _judge_spec(name, value) if name in specs]
    own = {name: value for name, value in raw.items() if name in Profile.model_fields and name != "settings"}
    found += [_refuse_key(name) for name in raw if name not in specs and name not in own]
    try:
        profile = Profile.model_validate(own)
    except ValidationError as error:
        found += [_translate(line, Profile.__name__, "") for line in error.errors()]
    else:
        found += _contradict(profile, raw)
    order = {name: place for place, name in enumerate(raw)}
    return sorted(found, key=lambda problem: order.get(problem.path.split(".")[0] or where, -1))


def split_profile(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``Profile`` from those of a file that holds no problem."""
    specs = list_profile_specs()
    own = {name: value for name, value in raw.items() if name not in specs}
    return {**own, "settings": {name: dict(value) for name, value in raw.items() if name in specs}}


def show(value: Any) -> str:
    """Return a value as its file could hold it, in one short line."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # a date, say
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _judge_spec(name: str, value: Any) -> list[Problem]:
    """Return what is wrong with the settings of one spec."""
    spec = list_profile_specs().get(name)
    if spec is None:
        return []
    if not isinstance(value, dict):
        return [Problem(name, show(value), f"its fields, such as {{{next(iter(spec.model_fields))}: ...}}")]
    given = {str(field): entry for field, entry in value.items()}
    known = {field: entry for field, entry in given.items() if field in spec.model_fields}
    found = [_refuse_field(name, field) for field in given if field not in known]
    try:  # without the unknown ones, of which a spec says so and nothing of the others
        spec.model_validate(known, strict=True)
    except ValidationError as error:
        found += [_translate(line, name, f"{name}.") for line in error.errors()]
    return found


def _refuse_field(name: str, field: str) -> Problem:
    spec = list_profile_specs()[name]
    meant = suggest_setting(field, spec)
    allowed = f"{meant} (did you mean that?)" if meant else f"one of {', '.join(spec.model_fields)}"
    return Problem(f"{name}.{field}", "no such field", allowed)


def _refuse_key(name: str) -> Problem:
    """Return the problem of a name at the top of a profile that is none."""
    elsewhere = {spec.__name__: how for spec, how in NOT_OF_A_PROFILE.items()}
    if name in elsewhere:
        return Problem(name, "a spec that no profile sets", f"it left out: {elsewhere[name]}")
    fields = {field: field for field in Profile.model_fields if field != "settings"}
    meant = suggest_spec(name) if name[:1].isupper() else None
    meant = meant or suggest_name(name, fields | _OTHER_NAMES) or suggest_spec(name) or suggest_setting(name)
    known = ", ".join([*fields, *list_profile_specs()])
    return Problem(name, "no such field", f"{meant} (did you mean that?)" if meant else f"one of {known}")


def _translate(line: Any, whole: str, above: str) -> Problem:
    """Return one of pydantic's lines in our words.

    Args:
        line: what it says.
        whole: name of what was judged, for what is wrong with all of it.
        above: what the path of a field begins with.
    """
    parts = [str(part) for part in line["loc"] if part != "[key]"]
    path = f"{above}{'.'.join(parts)}".rstrip(".")
    found = _NOTHING if line["type"] == "missing" else show(line["input"])
    if line["type"] == UNKNOWN_SETTING:
        return Problem(path, "no such field", _list_fields(parts))
    if line["type"] == "value_error":
        return _read_own(str(line["ctx"]["error"]), path or whole)
    allowed = "a value" if line["type"] == "missing" else str(line["msg"])
    for beginning in _PYDANTIC_SAYS:
        allowed = allowed.removeprefix(beginning)
    return Problem(path or whole, found, allowed)


def _read_own(said: str, path: str) -> Problem:
    """Return what one of our own checks says: ``field: found ..., expected ...`` or shorter."""
    head, _, allowed = said.partition("expected ")
    field, _, found = head.rstrip(", ").rpartition(":")
    name, _, value = field.partition(" ")
    if value.startswith("+"):  # of several fields together
        return Problem(path, field, allowed)
    found = found.strip().removeprefix("found ") or value
    return Problem(f"{path}.{name}" if name else path, found or "a value that contradicts another", allowed)


def _list_fields(parts: list[str]) -> str:
    """Return the fields that stand beside one that is none."""
    kind: Any = Profile
    for part in parts[:-1]:
        fields = getattr(kind, "model_fields", {})
        if part in fields:
            kind = fields[part].annotation
        else:  # a key of a mapping, such as the name of a tier
            kind = next((arg for arg in getattr(kind, "__args__", ())[1:]), kind)
    known = list(getattr(kind, "model_fields", {}))
    return f"one of {', '.join(known)}" if known else "nothing of that name"


def _contradict(profile: Profile, raw: Mapping[str, Any]) -> list[Problem]:
    """Return where two fields of a profile contradict each other."""
    training = raw.get("TrainingSpec") if isinstance(raw.get("TrainingSpec"), dict) else {}
    machine = raw.get("MachineSpec") if isinstance(raw.get("MachineSpec"), dict) else {}
    assert isinstance(training, dict)
    assert isinstance(machine, dict)
    found = []
    devices = training.get("num_devices", 1)
    if machine.get("accelerator") == "gpu" and profile.needs.gpus != devices:
        found.append(
            Problem("needs.gpus", str(profile.needs.gpus), f"{devices}, as TrainingSpec.num_devices on accelerator gpu")
        )
    if machine.get("accelerator") == "cpu" and profile.needs.gpus:
        found.append(Problem("needs.gpus", str(profile.needs.gpus), "0, for MachineSpec.accelerator is cpu"))
    if profile.batch_size and min(profile.batch_size) > profile.needs.gpu_memory_gib:
        found.append(
            Problem(
                "batch_size",
                f"no entry below {min(profile.batch_size):g}",
                f"one for {profile.needs.gpu_memory_gib:g} GiB, as needs.gpu_memory_gib says",
            )
        )
    return found
