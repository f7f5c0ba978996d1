"""Jobs: how far down the graph one asks for, and with which settings the page's launchpad begins."""

from typing import TYPE_CHECKING

import dagster as dg

from heimdall_assets.defs.profiles import StartingPoint, tag_profile
from heimdall_assets.defs.settings import build_run_config
from heimdall_assets.kinds import (
    CHAMPION_MODEL,
    EVALUATION_METRICS,
    HYPERPARAMETER_SEARCH,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAINED_CHECKPOINT,
)
from heimdall_assets.pipeline.recipe import list_needed
from heimdall_assets.profiles.reading import list_profiles, read_profile
from heimdall_assets.specs import DEMO_MODEL

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

INGESTED = list_needed(SPECTROGRAM_FEATURES)
FITTED = [*list_needed(TRAINED_CHECKPOINT), TEST_SPLIT]  # one step makes the three splits
TRAINED = list_needed(EVALUATION_METRICS)
SEARCHED = list_needed(HYPERPARAMETER_SEARCH)
RELEASED = list_needed(CHAMPION_MODEL)

RELEASE = "release"
SEARCH = "search"


def build_jobs(start: StartingPoint) -> list["UnresolvedAssetJobDefinition"]:
    """Return every job; those that train begin with what ``start`` says, or with a profile of the package."""
    profiles = [StartingPoint(read_profile(name), start.backend) for name in reversed(list_profiles())]
    return [
        dg.define_asset_job(
            "ingest",
            selection=dg.AssetSelection.assets(*INGESTED),
            description="Approved measurements, their recordings and features.",
        ),
        dg.define_asset_job(
            "fit",
            selection=dg.AssetSelection.assets(*FITTED),
            description="Everything up to a trained checkpoint, which no test session judges: a fold, a trial.",
        ),
        dg.define_asset_job(
            SEARCH,
            selection=dg.AssetSelection.assets(*SEARCHED, TEST_SPLIT),  # one step makes all splits
            description="Settings tried on the training split and judged on the validation split.",
        ),
        dg.define_asset_job(
            "train",
            selection=dg.AssetSelection.assets(*TRAINED),
            config=start.configure(TRAINED) or None,
            tags=tag_profile(start.read),
            description="Everything up to a judged checkpoint.",
        ),
        _release(start, RELEASE, "Everything up to a released ONNX model."),
        dg.define_asset_job(
            "demo",
            selection=dg.AssetSelection.assets(*RELEASED),
            config=build_run_config([DEMO_MODEL]),
            description="What heimdall demo runs: everything up to a released model, which sees no spectrograms.",
        ),
        *(_release(one, f"{RELEASE}_{one.name}", f"Up to a released model. {one.purpose}") for one in profiles),
    ]


def _release(start: StartingPoint, name: str, about: str) -> "UnresolvedAssetJobDefinition":
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*RELEASED),
        config=start.configure() or None,
        tags=tag_profile(start.read),
        description=about,
    )


JOBS = build_jobs(StartingPoint())
"""The jobs where no profile is named for those that name none: the same names, whatever is."""
