"""``train_split``, ``val_split``, ``test_split``: one decision, three assets."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import SPLITS_OP, SplitsConfig
from heimdall_assets.defs.tables import preview
from heimdall_assets.kinds import SPLIT_KINDS, TRAIN_SPLIT
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table


@dg.multi_asset(
    name=SPLITS_OP,
    deps=STAGES[TRAIN_SPLIT].after,
    outs={
        SPLIT_KINDS[name]: dg.AssetOut(
            group_name="heimdall",
            description=description,
            kinds={"parquet"},
            owners=["team:heimdall"],
            code_version=STAGES[TRAIN_SPLIT].code_version,
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
) -> Iterator[dg.MaterializeResult[Any]]:
    """Assign every session to train, val or test by a keyed hash of its transmitting site."""
    from heimdall_assets.pipeline.stages.splits import split_sessions

    made = split_sessions(stores.objects, spectrogram_features, config.split.pure(), config.timing.pure())
    for kind, result in made.items():
        sessions = preview(load_table(stores.objects, result.manifest.artifacts["table"]), ["session_id", "site"], 4)
        yield materialize(result, {"sessions": sessions}, asset_key=kind)
