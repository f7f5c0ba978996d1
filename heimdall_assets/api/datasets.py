"""A split as a torch ``Dataset``; whoever imports this imports torch.

Belongs here: ``SessionDataset``: which examples, found in a home. Does not belong here: what an item is
(``learning.receiver_model.examples``).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from heimdall_assets.api.home import Home, open_home
from heimdall_assets.errors import InvalidInput, InvalidSetting, Refused
from heimdall_assets.kinds import SPLIT_KINDS, TEST_SPLIT, TRAIN_SPLIT
from heimdall_assets.learning.receiver_model.examples import ExampleDataset, Examples
from heimdall_assets.learning.receiver_model.frame import compute_source_frame
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.stages.datasets import find_sibling, list_examples
from heimdall_assets.stores.objects.shards import ShardReader


class SessionDataset(ExampleDataset):
    """The spectrograms of a split, each with where its source stood: a torch ``Dataset``.

    An item is what one receiver recorded of one session: a session that seven receivers heard is seven items. Receivers
    without a spectrogram, and sessions without a known source, are none.

    ``dataset[i]`` is ``(features, label)``: features are float32 (3, 128, 32) (channels, mel bands, time; as
    ``FeatureSpec`` says), dB of full scale, not standardised, after ``transform`` where one is given; the label is

    | key | what | type |
    |---|---|---|
    | ``position`` | latitude, longitude of the source, degrees of WGS-84 | float64 (2,) |
    | ``target`` | north, east of the middle of the training sources, in units of their spread | float32 (2,) |
    | ``target_sigma`` | one-sigma error of that truth, in the same units | float32 (2,) |
    | ``session_id`` ``station_id`` ``measurement_id`` | whose it is | str |

    Middle and spread are those of the training split of the same decision, whichever split this is;
    ``to_degrees(target)`` leads back. A batch is read in one go from memory-mapped files, in workers too, forked or
    spawned; to spawned ones ``transform`` goes too, so it must be a function of a module.

    The test split is there only for whoever asks for it by the name ``"test"``. A choice that looked at it (of a model,
    an epoch, a setting) has no sessions left that tell how good it is: figures on test are then too good, and nothing
    here can know. Choose on ``"val"``, look at ``"test"`` once, at the end.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``; or the manifest of a training or validation split.
        home: opened, or its folder; None: where the environment says.
        model: the released model (version, ``latest`` or alias) whose split it is; None: of the latest decision.
        transform: is given an item's features and returns what stands in their place, such as an augmentation.

    Raises:
        NotFound: no such split or model, or the graph has split nothing yet.
        Refused: the manifest of a test split.
        InvalidInput: no receiver of the split has a spectrogram and a known source, or training sources do not spread.
        CorruptObject: what was stored is damaged; a spectrogram is looked at when it is asked for.
    """

    def __init__(
        self,
        split: str | Manifest,
        home: Home | Path | str | None = None,
        *,
        model: str | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        opened = home if isinstance(home, Home) else open_home(home)
        self.manifest = _find_manifest(opened, split, model)
        objects = opened.stores.objects
        rows = list_examples(objects, self.manifest)
        if not len(rows):
            raise InvalidInput(
                f"{self.manifest.kind}: found 0 receivers with a spectrogram and a known source, expected at least 1"
            )
        trained = rows
        if self.manifest.kind != TRAIN_SPLIT:
            trained = list_examples(objects, find_sibling(objects, self.manifest, TRAIN_SPLIT))
        latitude, longitude = (trained[f"source_{axis}"].to_numpy(np.float64) for axis in ("latitude", "longitude"))
        examples = Examples(
            measurement_id=rows["measurement_id"].to_numpy(np.str_),
            session_id=rows["session_id"].to_numpy(np.str_),
            station_id=rows["station_id"].to_numpy(np.str_),
            latitude=rows["source_latitude"].to_numpy(np.float64),
            longitude=rows["source_longitude"].to_numpy(np.float64),
            error_margin_m=rows["source_error_margin_m"].to_numpy(np.float64),
            frame=compute_source_frame(latitude, longitude),
        )
        reader = ShardReader(objects, rows["shard"].tolist(), rows["row"].to_numpy(np.int64))
        super().__init__(examples, reader.read, transform)


def _find_manifest(home: Home, split: str | Manifest, model: str | None) -> Manifest:
    if isinstance(split, str):
        return home.find_split(split, model)
    if split.kind not in SPLIT_KINDS.values():
        raise InvalidInput(
            f"split: found a manifest of {split.kind}, expected one of {', '.join(SPLIT_KINDS.values())}"
        )
    if split.kind == TEST_SPLIT:
        raise Refused('split: found the manifest of a test split, expected its name, "test": who looks there says so')
    if model is not None:
        raise InvalidSetting("split and model: found a manifest and a model, expected one of them")
    return split
