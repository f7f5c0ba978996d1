"""A program: one training on an existing home, told of in its folder, for a test that kills it.

``python -m heimdall_assets_tests.pipeline.watch_driver HOME EPOCHS``: ``test_watched_training`` runs it.
"""

import sys
from pathlib import Path

from heimdall_assets.kinds import TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.pipeline.runs import keep_tables
from heimdall_assets.pipeline.stages.trained_checkpoint import Surroundings, train_checkpoint
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.runs.folders import FINISHED
from heimdall_assets.stores.runs.writing import RunWriter
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets.training_tables import Moment, Row
from heimdall_assets_tests.homes import make_places, split_home

MODEL = ModelSpec(use_spectrograms=False, width=8, num_layers=1, num_heads=1)


class Watcher:
    """Writes the folder as the graph's asset does, without Dagster."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.writer: RunWriter | None = None

    def begin(self, fit: str, goes_on: bool) -> None:
        assert self.stores.runs is not None
        self.writer = self.stores.runs.begin(fit, {"settings": {}}, goes_on)

    def record(self, table: str, row: Row) -> None:
        assert self.writer is not None
        self.writer.append(table, row)

    def note(self, moment: Moment) -> None:
        assert self.writer is not None
        self.writer.note(moment)

    def open_checkpoints(self) -> CheckpointFolder | None:
        return None if self.writer is None else CheckpointFolder(self.writer.checkpoints)


def train(home: Path, max_epochs: int) -> str:
    """Train on the home's splits and return the digest of the checkpoint."""
    stores, splits = split_home(make_places(home))
    training = TrainingSpec(max_epochs=max_epochs, early_stopping_patience=max_epochs, num_threads=1)
    watcher = Watcher(stores)
    fit = (stores.objects, stores.scratch, splits[TRAIN_SPLIT], splits[VAL_SPLIT], MODEL, training, AugmentationSpec())
    result = train_checkpoint(*fit, around=Surroundings(watcher=watcher))
    if watcher.writer is not None:
        watcher.writer.end(FINISHED, checkpoint=result.manifest.digest)
        keep_tables(stores, watcher.writer.id, result.manifest.digest)
    return result.manifest.digest


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), int(sys.argv[2])))
