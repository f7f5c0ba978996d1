"""Small homes with simulated sessions, for tests of the graph and the command line."""

from pathlib import Path
from typing import Any

from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.pipeline.stages.iq_files import pin_recordings
from heimdall_assets.pipeline.stages.spectrogram_features import extract_features
from heimdall_assets.pipeline.stages.splits import split_sessions
from heimdall_assets.places import read_places
from heimdall_assets.running.graph_run import run_graph
from heimdall_assets.specs import (
    DatasetSpec,
    DelaySpec,
    EvaluationSpec,
    FeatureSpec,
    ModelSpec,
    RecordingSpec,
    SimulationSpec,
    Spec,
    SplitSpec,
    TimingSpec,
    TrainingSpec,
)
from heimdall_assets.stores.home import Stores
from heimdall_assets.variables import Places

SIMULATION = SimulationSpec(num_sessions=20, min_receivers=4, max_receivers=4, duration_s=0.8)
TINY: list[Spec] = [
    ModelSpec(use_spectrograms=False, width=16, num_layers=1, num_heads=2),
    TrainingSpec(max_epochs=2, num_threads=1),
    EvaluationSpec(num_bootstrap=100),
]


def ignore(*_: Any) -> None:
    """Hear of progress and do nothing."""


def make_places(folder: Path) -> Places:
    """Return the embedded places below ``folder``, whatever the environment says; without MLflow: it costs seconds."""
    return read_places({"HEIMDALL_HOME": str(folder), "HEIMDALL_TRACKING": "off"})


def fill_home(folder: Path, simulation: SimulationSpec = SIMULATION) -> Places:
    """Return the places of a home with approved simulated sessions."""
    places = make_places(folder)
    import_simulated(places.open_stores(), simulation, "demo", ignore)
    return places


def split_home(places: Places) -> tuple[Stores, dict[str, Manifest]]:
    """Return the opened stores of a home and its splits by kind, computed stage by stage without Dagster."""
    stores = places.open_stores()
    snapshot = take_snapshot(stores, DatasetSpec())[0].manifest
    pinned = pin_recordings(stores.objects, snapshot, RecordingSpec(), ignore).result.manifest
    features = extract_features(stores.objects, pinned, FeatureSpec(), DelaySpec(), ignore).result.manifest
    made = split_sessions(stores.objects, features, SplitSpec(), TimingSpec())
    return stores, {name: result.manifest for name, result in made.items()}


def release(places: Places, *specs: Spec) -> dict[str, Any]:
    """Return what the whole graph made with tiny settings; ``specs`` win over them."""
    chosen = {type(spec): spec for spec in [*TINY, *specs]}
    return run_graph(places, "release", list(chosen.values()), ignore)
