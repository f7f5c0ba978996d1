"""Sessions simulated with IQ, stored, approved, observed and split as the asset graph does it, for the benchmarks."""

from heimdall_assets.learning.splits import assign_splits
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.prediction.stored import observe_sessions
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import (
    DatasetSpec,
    DelaySpec,
    FeatureSpec,
    RecordingSpec,
    SimulationSpec,
    SplitSpec,
    TimingSpec,
)
from heimdall_assets.stores.home import Stores


def observe_simulated(
    stores: Stores, simulation: SimulationSpec, campaign: str, split: SplitSpec
) -> tuple[dict[str, SessionSet], dict[str, int]]:
    """Return the sessions of train, val and test by name, and how many of each signal were sent."""
    sessions, mix = observe_all(stores, simulation, campaign)
    rows = stores.measurements.read_approved(DatasetSpec()).rows
    splits = assign_splits(rows, split).set_index("session_id")["split"].reindex(sessions.session_id)
    parts = {name: sessions.take((splits == name).to_numpy().nonzero()[0]) for name in ("train", "val", "test")}
    return parts, mix


def observe_all(stores: Stores, simulation: SimulationSpec, campaign: str) -> tuple[SessionSet, dict[str, int]]:
    """Return every session of a world, and how many of each signal were sent."""
    mix = import_simulated(stores, simulation, campaign, tell)
    rows = stores.measurements.read_approved(DatasetSpec()).rows
    specs = RecordingSpec(), FeatureSpec(), DelaySpec(), TimingSpec()
    return observe_sessions(stores.objects, rows, *specs, tell)[0], mix


def tell(what: str, done: int, total: int) -> None:
    if done % 100 < 4 or done == total:
        print(what, done, "of", total, flush=True)
