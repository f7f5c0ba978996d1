"""Catalogue: every setting and every variable with its default, its bounds and its meaning, told by the fields alone.

Does not belong here: the fields (``specs``, ``variables``), how they are shown (``listing``, ``configuration_page``),
reading what somebody set (``settings``).
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.other_names import OTHER_SETTINGS
from heimdall_assets.specs import (
    AcceleratorSpec,
    AssessmentSpec,
    KubernetesSpec,
    RetentionPolicy,
    RetrainPolicy,
    SimulationSpec,
    Spec,
    list_specs,
    suggest_spec,
)

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >="}
"""What annotated-types calls a bound -> how people write it."""

NOT_ON_THE_COMMAND_LINE: dict[type[Spec], str] = {
    AcceleratorSpec: "set by HEIMDALL_ACCELERATOR, as JSON, and for one run by its execution.config.accelerator",
    AssessmentSpec: "read by heimdall runs assess --thresholds FILE, as YAML",
    KubernetesSpec: "set by HEIMDALL_KUBERNETES, as JSON",
    RetrainPolicy: "set by HEIMDALL_RETRAIN, as JSON",
    RetentionPolicy: "set by HEIMDALL_RETENTION, as JSON",
    SimulationSpec: "set in Python; heimdall demo sets num_sessions and seed",
}


@dataclass(frozen=True)
class Entry:
    """One setting or one variable, as text."""

    name: str
    default: str
    bounds: str
    meaning: str
    elsewhere: tuple[str, ...] = ()
    """What others call it."""


def list_settings(spec: type[Spec]) -> list[Entry]:
    """Return the settings of one spec, in the order of its fields."""
    return [
        Entry(
            name,
            json.dumps(field.get_default(call_default_factory=True), ensure_ascii=False),
            _describe_bounds(field),
            field.description or "",
            tuple(other for other, ours in OTHER_SETTINGS[spec.__name__].items() if ours == name),
        )
        for name, field in spec.model_fields.items()
    ]


def list_places() -> list[Entry]:
    """Return the variables that say where things rest and how steps run."""
    from heimdall_assets.variables import describe_default, find_kind, list_variables

    return [
        Entry(name, describe_default(field), find_kind(field).name, field.description or "")
        for name, field in list_variables().items()
    ]


def list_quiet() -> list[Entry]:
    """Return the variables that commands set for libraries where nobody did."""
    from heimdall_assets.dagster_home import PATIENCE
    from heimdall_assets.libraries import SILENCED
    from heimdall_assets.stores.experiments import QUIET

    silenced = [Entry(name, value, "", f"{library} reports to nobody") for library, (name, value) in SILENCED.items()]
    told = {"for MLflow": QUIET, "for Dagster, by heimdall ui": PATIENCE}
    return silenced + [Entry(name, value, "", who) for who, names in told.items() for name, value in names.items()]


def _describe_bounds(field: "FieldInfo") -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if choices:
        return " | ".join(map(str, choices))
    kind = getattr(field.annotation, "__name__", str(field.annotation))
    kind = str(field.annotation) if get_args(field.annotation) else kind
    limits = [
        f"{sign} {value}"
        for item in field.metadata
        for name, sign in BOUNDS.items()
        if (value := getattr(item, name, None)) is not None
    ]
    return ", ".join([kind, *limits])


def find_spec(name: str) -> type[Spec]:
    """Return the spec called ``name``.

    Raises:
        InvalidSetting: there is none.
    """
    known = list_specs()
    if name in known:
        return known[name]
    meant = suggest_spec(name)
    hint = f"did you mean {meant}?" if meant else f"expected one of {', '.join(known)}"
    raise InvalidSetting(f"{name}: found no such spec, {hint}")


def describe_use(spec: type[Spec]) -> str:
    """Return how a spec is set, and which result it decides."""
    if spec in NOT_ON_THE_COMMAND_LINE:
        return NOT_ON_THE_COMMAND_LINE[spec]
    from heimdall_assets.pipeline.recipe import STAGES

    settings = list_settings(spec)
    first = next((one for one in settings if not one.default.startswith("[")), settings[0])  # what one types by hand
    kinds = [kind for kind, stage in STAGES.items() if spec in stage.specs]
    handled = [kind for kind, stage in STAGES.items() if spec in stage.handling]
    decides = f"decides {', '.join(kinds)}" if kinds else f"says how {', '.join(handled)} is computed"
    return f"set as in --set {spec.__name__}.{first.name}={first.default}; {decides}"
