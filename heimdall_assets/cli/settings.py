"""Settings from the command line: a YAML file and single assignments, checked by the specs themselves."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from heimdall_assets import specs
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.pipeline.recipe import SPECS


def read_settings(file: Path | None, assignments: tuple[str, ...]) -> list[specs.Spec]:
    """Return the specs that a YAML file and ``Spec.field=value`` assignments (which win) set.

    Raises:
        InvalidSetting: an unknown spec or field, or a value out of its bounds.
    """
    chosen: dict[str, dict[str, Any]] = {}
    if file is not None:
        loaded = yaml.safe_load(file.read_text()) or {}
        if not isinstance(loaded, dict) or not all(isinstance(fields, dict) for fields in loaded.values()):
            raise InvalidSetting(f"{file}: expected a mapping from spec names to fields")
        chosen.update({str(name): dict(fields) for name, fields in loaded.items()})
    for assignment in assignments:
        name, found, value = assignment.partition("=")
        spec, dot, field = name.partition(".")
        if not found or not dot:
            raise InvalidSetting(f"--set {assignment!r}: expected Spec.field=value")
        chosen.setdefault(spec, {})[field] = yaml.safe_load(value)
    return [build_spec(name, fields) for name, fields in chosen.items()]


def build_spec(name: str, fields: dict[str, Any]) -> specs.Spec:
    """Return the spec called ``name`` with ``fields`` set.

    Raises:
        InvalidSetting: an unknown spec or field, or a value out of its bounds.
    """
    if name not in SPECS:
        raise InvalidSetting(f"{name}: found no such spec, expected one of {', '.join(SPECS)}")
    try:
        return SPECS[name](**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSetting(f"{name}.{where}: {first['msg']}; found {first.get('input')!r:.80}") from None
