"""train_split, val_split, test_split: one decision by sites, not by rows."""

from heimdall_assets.kinds import APPROVED_MEASUREMENTS, SPECTROGRAM_FEATURES, SPLIT_KINDS
from heimdall_assets.learning.splits import assign_splits
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, read_parent
from heimdall_assets.specs import SplitSpec, TimingSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.objects.tables import artifact_of_table, load_table


def split_sessions(objects: ObjectStore, features: Manifest, split: SplitSpec, timing: TimingSpec) -> dict[str, Result]:
    """Return train, val and test of one decision, by kind."""
    approved = load_table(objects, read_parent(objects, features, APPROVED_MEASUREMENTS).artifacts["table"])
    assigned = assign_splits(approved, split)
    parents = {SPECTROGRAM_FEATURES: features.digest}

    def make(name: str, kind: str) -> Result:
        table = assigned[assigned["split"] == name].reset_index(drop=True)

        def compute() -> Computed:
            return {"table": artifact_of_table(objects, table)}, {
                "num_sessions": len(table),
                "num_sites": int(table["site"].nunique()),
            }

        return find_or_compute(objects, kind, parents, [split, timing], compute)

    return {kind: make(name, kind) for name, kind in SPLIT_KINDS.items()}
