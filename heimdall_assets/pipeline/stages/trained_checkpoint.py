"""trained_checkpoint: a model fitted on stored splits, kept as objects, and read back for judging and export."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.evaluation.outcome import Outcome, describe_outcome
from heimdall_assets.kinds import TRAIN_SPLIT, TRAINED_CHECKPOINT, VAL_SPLIT
from heimdall_assets.learning.task import PretrainedWeights
from heimdall_assets.manifests import (
    JSON_MEDIA_TYPE,
    RESULTS,
    SAFETENSORS_MEDIA_TYPE,
    Manifest,
    decode_canonical_json,
)
from heimdall_assets.pipeline.found import find_found, state_found
from heimdall_assets.pipeline.pretrained import read_pretrained, state_content
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, name_result
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets.training_tables import Moment, Row

if TYPE_CHECKING:
    from heimdall_assets.learning.fitting.training import FittedModel


MEDIA_TYPES = {"weights.safetensors": SAFETENSORS_MEDIA_TYPE, "settings.json": JSON_MEDIA_TYPE}

PRETRAINED = "pretrained.safetensors"
"""Artifact: the weights that the training started from, where it did not start from random ones."""


class Watcher(Protocol):
    """Who sees how a training goes."""

    def begin(self, fit: str, goes_on: bool) -> None:
        """Hear that a training begins; ``fit`` names what is computed, ``goes_on``: from where it was interrupted."""

    def record(self, table: str, row: Row) -> None:
        """Take a row of ``training_tables``."""

    def note(self, moment: Moment) -> None:
        """Hear where the training is, after each batch."""


def train_checkpoint(
    objects: ObjectStore,
    scratch: Path,
    train_split: Manifest,
    val_split: Manifest,
    model: ModelSpec,
    training: TrainingSpec,
    augmentation: AugmentationSpec,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_start: Callable[[Path | None], None] | None = None,
    pretrained: Callable[[ModelSpec], PretrainedWeights | None] = read_pretrained,
    load: Callable[[ObjectStore, Manifest], SessionSet] = load_sessions,
    watcher: Watcher | None = None,
) -> Result:
    """Return the checkpoint of these splits and specs: found, resumed from where it was interrupted, or trained.

    Args:
        scratch: local folder; holds checkpoints until the result is stored.
        on_epoch: called after each epoch with its number and its metrics.
        on_start: called before training with the file it goes on from, None for a fresh one; not called where the
            checkpoint was found.
        pretrained: reads the weights that a model starts from.
        load: reads the sessions of a split.
        watcher: sees how the training goes, and decides nothing of it.

    Raises:
        NotFound: the search that ``training.found_by`` names is gone, or was none.
        Refused: it was made on sessions that were split otherwise.
        InvalidSetting: a split is empty, or ``weights_file`` is given without ``pretrained``.
        MissingDependency: pretrained weights are out of reach.
        StorageError: a checkpoint or the result could not be stored.
    """
    parents = {TRAIN_SPLIT: train_split.digest, VAL_SPLIT: val_split.digest}
    found = find_found(objects, training, train_split)
    weights = pretrained(model)
    asked = (TRAINED_CHECKPOINT, parents, [model, training, augmentation])
    content = {**state_content(weights), **state_found(training)}
    checkpoints = CheckpointFolder(scratch / name_result(*asked, content).removeprefix(RESULTS))

    def compute() -> Computed:
        from heimdall_assets.learning.fitting.checkpoints import LAST
        from heimdall_assets.learning.fitting.diagnostics import Diagnostics, Steps
        from heimdall_assets.learning.fitting.training import fit_model

        train, val = load(objects, train_split), load(objects, val_split)
        for name, sessions in ((TRAIN_SPLIT, train), (VAL_SPLIT, val)):
            if not len(sessions):
                raise InvalidSetting(f"{name}: found 0 sessions, expected at least 1; approve more sites")
        resumed_from = LAST if checkpoints.exists(LAST) else None
        if watcher is not None:
            watcher.begin(checkpoints.folder.name, resumed_from is not None)
        if on_start is not None:
            on_start(checkpoints.folder / resumed_from if resumed_from else None)
        callbacks = [] if watcher is None else [Diagnostics(watcher.record), Steps(watcher.note)]
        kept = (checkpoints, on_epoch, resumed_from, weights)
        fitted = fit_model(model, training, augmentation, train, val, *kept, callbacks=callbacks)
        artifacts = {name: objects.put_bytes(data, MEDIA_TYPES[name]) for name, data in fitted.encode().items()}
        if weights is not None:  # a file's name is no evidence: what lies there may be another tomorrow
            artifacts[PRETRAINED] = objects.put_bytes(weights.data, SAFETENSORS_MEDIA_TYPE)
        if found is not None:
            artifacts |= found.list_artifacts()
        return artifacts, {
            **fitted.settings["facts"],
            "mix": describe_mix(train) | {"added by the simulator": fitted.settings["facts"]["num_added_sessions"]},
        }

    result = find_or_compute(objects, *asked, compute, content)
    checkpoints.discard()  # not before the result is stored: a kill in between would cost the whole training
    return result


def describe_mix(sessions: SessionSet) -> dict[str, int]:
    """Return the number of sessions of each origin."""
    origins, counts = np.unique(sessions.strata["origin"].astype(str), return_counts=True)
    return {str(origin): int(count) for origin, count in zip(origins, counts, strict=True)}


def read_outcome(checkpoint: Manifest) -> Outcome:
    """Return whether a checkpoint's training made it better than it started, as its manifest says."""
    return describe_outcome(checkpoint.summary, int(checkpoint.specs["TrainingSpec"]["max_epochs"]))


def load_checkpoint(objects: ObjectStore, checkpoint: Manifest) -> "FittedModel":
    """Return the fitted model at rest behind a checkpoint's manifest."""
    from heimdall_assets.learning.fitting.fitted import decode_model

    return decode_model({name: objects.read_bytes(artifact.digest) for name, artifact in checkpoint.artifacts.items()})


def read_training(objects: ObjectStore, checkpoint: Manifest) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Return the history of a checkpoint's training, one dict an epoch, and its facts; loads no torch."""
    settings = decode_canonical_json(objects.read_bytes(checkpoint.artifacts["settings.json"].digest))
    return settings["history"], settings["facts"]
