"""Profiles of runs: what a run starts with that takes its settings from a profile, and how its tags say so.

Belongs here: run configuration and tags from a profile, for the jobs of the page, for what starts by itself and for the
command line. Does not belong here: profiles themselves (``profiles``), each spec as configuration (``settings``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from heimdall_assets.defs.accelerator import ask_machine
from heimdall_assets.defs.origins import PROFILE_TAG
from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.pipeline.recipe import SETTINGS, STAGES
from heimdall_assets.profiles.reading import Read
from heimdall_assets.profiles.resolving import group, resolve
from heimdall_assets.specs import AcceleratorSpec, MachineSpec, Spec

if TYPE_CHECKING:
    from heimdall_assets.defs.tracking.resource import ExperimentTracking

MLFLOW_TAG, WANDB_TAG = "heimdall/mlflow", "heimdall/wandb"
"""Who is told of a run's training, in the words of ``profiles.schema.Tracking``; not there: MLflow alone."""


def tag_profile(read: Read | None) -> dict[str, str]:
    """Return the tags of a run that starts from a profile; none: it starts from none."""
    if read is None:
        return {}
    tracking = read.profile.tracking
    return {
        PROFILE_TAG: read.title,
        MLFLOW_TAG: "on" if tracking.mlflow else "off",
        WANDB_TAG: tracking.wandb,
    }


def choose_tracking(tracking: "ExperimentTracking", run: dg.DagsterRun) -> "ExperimentTracking":
    """Return the tracking of a run: MLflow hears nothing of a training whose profile says so."""
    return replace(tracking, enabled=False) if run.tags.get(MLFLOW_TAG) == "off" else tracking


@dataclass(frozen=True)
class StartingPoint:
    """What a run starts with where nobody says more.

    Attributes:
        read: the profile; None: the defaults of the specs.
        backend: where steps run.
    """

    read: Read | None = None
    backend: str = "in_process"

    def list_specs(self) -> list[Spec]:
        """Return everything that the profile sets, on the machine that it asks for."""
        if self.read is None:
            return []
        profile = self.read.profile
        chosen = group(resolve(self.read, {}, None))
        asked = ask_machine(profile.needs, chosen.pop(AcceleratorSpec.__name__, {}), self.backend)
        return [*(SETTINGS[name].model_validate(fields) for name, fields in chosen.items()), *asked]

    def list_handling(self) -> list[Spec]:
        """Return what the profile sets of how a run uses its machine, which changes no result."""
        return [spec for spec in self.list_specs() if isinstance(spec, MachineSpec | AcceleratorSpec)]

    @property
    def name(self) -> str:
        return self.read.profile.name if self.read is not None else ""

    @property
    def purpose(self) -> str:
        return self.read.profile.purpose if self.read is not None else ""

    def configure(self, kinds: Sequence[str] = tuple(STAGES)) -> dict[str, Any]:
        """Return the run configuration of a run with the profile's settings, as far as it makes ``kinds``."""
        if self.read is None:
            return {}
        made = [spec for kind in kinds for spec in (*STAGES[kind].specs, *STAGES[kind].handling)]
        return build_run_config([s for s in self.list_specs() if s.pure_class() in (*made, AcceleratorSpec)])

    def configure_again(self, kept: Sequence[Spec]) -> dict[str, Any]:
        """Return the run configuration of a retraining: the kept settings decide its result; none: the profile's do."""
        return build_run_config([*kept, *self.list_handling()]) if kept else self.configure() or build_run_config([])
