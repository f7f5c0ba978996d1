"""``train_split``, ``val_split``, ``test_split``: one decision, three assets."""

from collections.abc import Iterator

import dagster as dg

from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import SplitsConfig
from heimdall_assets.defs.tables import preview
from heimdall_assets.learning.splits import assign_splits
from heimdall_assets.manifests import Manifest
from heimdall_assets.stores.datasets import artifact_of_table, load_table
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.results import Computed, find_or_compute, read_parent
from heimdall_assets.stores.stages import STAGES

SPLITS = ("train", "val", "test")


@dg.multi_asset(
    name="splits",
    outs={
        f"{name}_split": dg.AssetOut(
            group_name="dataset",
            description=description,
            kinds={"parquet"},
            owners=["team:heimdall"],
            code_version=STAGES["train_split"].code_version,
        )
        for name, description in {
            "train": "Sessions that the model is fitted on. Sites, not rows, are assigned, by a keyed hash.",
            "val": "Sessions that choose the epoch and calibrate the uncertainty.",
            "test": "Sessions that no choice ever looks at; the evaluation and the promotion rule use them.",
        }.items()
    },
)
def splits(
    config: SplitsConfig, spectrogram_features: Manifest, stores: dg.ResourceParam[Stores]
) -> Iterator[dg.MaterializeResult]:
    """Assign every session to train, val or test by a keyed hash of its transmitting site."""
    split, timing = config.split.pure(), config.timing.pure()
    approved = load_table(
        stores.objects, read_parent(stores.objects, spectrogram_features, "approved_measurements").artifacts["table"]
    )
    assigned = assign_splits(approved, split)
    parents = {"spectrogram_features": spectrogram_features.digest}
    for name in SPLITS:
        table = assigned[assigned["split"] == name].reset_index(drop=True)

        def compute(table=table) -> Computed:  # type: ignore[no-untyped-def]
            return {"table": artifact_of_table(stores.objects, table)}, {
                "num_sessions": len(table),
                "num_sites": int(table["site"].nunique()),
            }

        result = find_or_compute(stores.objects, f"{name}_split", parents, [split, timing], compute)
        yield materialize(result, {"sessions": preview(table)}, asset_key=f"{name}_split")
