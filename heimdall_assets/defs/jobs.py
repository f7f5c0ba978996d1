"""Jobs: how far down the graph one asks for, and with which settings the page's launchpad begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from heimdall_assets.defs.accelerator import ask_machine
from heimdall_assets.defs.origins import tag_profile
from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.kinds import (
    CHAMPION_MODEL,
    CHAMPION_ON_NEW_DATA,
    EVALUATION_METRICS,
    HYPERPARAMETER_SEARCH,
    PRODUCTION_MONITORING,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.pipeline.recipe import SETTINGS, STAGES, list_needed
from heimdall_assets.profiles.reading import Read, list_profiles, read_profile
from heimdall_assets.profiles.resolving import group, resolve
from heimdall_assets.specs import DEMO_MODEL, AcceleratorSpec, MachineSpec, Spec

INGESTED = list_needed(SPECTROGRAM_FEATURES)
FITTED = [*list_needed(TRAINED_CHECKPOINT), TEST_SPLIT]  # one step makes the three splits
TRAINED = list_needed(EVALUATION_METRICS)
SEARCHED = list_needed(HYPERPARAMETER_SEARCH)
RELEASED = list_needed(CHAMPION_MODEL)

JUDGED = [CHAMPION_ON_NEW_DATA, PRODUCTION_MONITORING]
"""What every job that trains makes first: afterwards nobody could say how the champion does on what it never saw."""

MONITORED = list_needed(PRODUCTION_MONITORING)
MONITOR_JOB = "monitor"

RELEASE = "release"
SEARCH = "search"
FIT_JOB = "fit"
"""What trains a fold: its splits are those of a comparison, not of the home's next model."""


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

    def configure(self, kinds: Sequence[str] = tuple(RELEASED)) -> dict[str, Any]:
        """Return the run configuration of a run with the profile's settings, as far as it makes ``kinds``."""
        if self.read is None:
            return {}
        made = [spec for kind in kinds for spec in (*STAGES[kind].specs, *STAGES[kind].handling)]
        return build_run_config([s for s in self.list_specs() if s.pure_class() in (*made, AcceleratorSpec)])

    def configure_again(self, kept: Sequence[Spec]) -> dict[str, Any]:
        """Return the run configuration of a retraining: the kept settings decide its result; none: the profile's do."""
        return build_run_config([*kept, *self.list_handling()]) if kept else self.configure() or build_run_config([])


def build_jobs(start: StartingPoint) -> list[Any]:
    """Return every job; those that train begin with what ``start`` says, or with a profile of the package."""
    profiles = [StartingPoint(read_profile(name), start.backend) for name in reversed(list_profiles())]
    return [
        dg.define_asset_job(
            "ingest",
            selection=dg.AssetSelection.assets(*INGESTED),
            description="Approved measurements, their recordings and features.",
        ),
        dg.define_asset_job(
            MONITOR_JOB,
            selection=dg.AssetSelection.assets(*MONITORED),
            description="The champion on what was approved since, held against limits; nothing is trained.",
        ),
        dg.define_asset_job(
            FIT_JOB,
            selection=dg.AssetSelection.assets(*FITTED, *JUDGED),
            description="Everything up to a trained checkpoint, which no test session judges: a fold, a trial.",
        ),
        dg.define_asset_job(
            SEARCH,
            selection=dg.AssetSelection.assets(*SEARCHED, TEST_SPLIT, *JUDGED),  # one step makes all splits
            description="Settings tried on the training split and judged on the validation split.",
        ),
        dg.define_asset_job(
            "train",
            selection=dg.AssetSelection.assets(*TRAINED, *JUDGED),
            config=start.configure(TRAINED) or None,
            tags=tag_profile(start.read),
            description="Everything up to a judged checkpoint.",
        ),
        _release(start, RELEASE, "Everything up to a released ONNX model."),
        dg.define_asset_job(
            "demo",
            selection=dg.AssetSelection.assets(*RELEASED, *JUDGED),
            config=build_run_config([DEMO_MODEL]),
            description="What heimdall demo runs: everything up to a released model, which sees no spectrograms.",
        ),
        *(_release(one, f"{RELEASE}_{one.name}", f"Up to a released model. {one.purpose}") for one in profiles),
    ]


def _release(start: StartingPoint, name: str, about: str) -> Any:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*RELEASED, *JUDGED),
        config=start.configure() or None,
        tags=tag_profile(start.read),
        description=about,
    )


JOBS = build_jobs(StartingPoint())
"""The jobs where no profile is named for those that name none: the same names, whatever is."""
