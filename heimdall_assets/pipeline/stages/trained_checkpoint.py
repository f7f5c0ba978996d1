"""trained_checkpoint: a model fitted on stored splits, kept as objects, and read back for judging and export."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from heimdall_assets.pipeline.pretrained import read_pretrained, state_content
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, name_result
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.teachers import find_teacher, keep_teacher, read_teacher
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.scratch import CheckpointFolder

if TYPE_CHECKING:
    from heimdall_assets.learning.fitting.training import FittedModel


MEDIA_TYPES = {"weights.safetensors": SAFETENSORS_MEDIA_TYPE, "settings.json": JSON_MEDIA_TYPE}

PRETRAINED = "pretrained.safetensors"
"""Artifact: the weights that the training started from, where it did not start from random ones."""


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
) -> Result:
    """Return the checkpoint of these splits and specs: found, resumed from where it was interrupted, or trained.

    Args:
        scratch: local folder; holds checkpoints until the result is stored.
        on_epoch: called after each epoch with its number and its metrics.
        on_start: called before training with the file it goes on from, None for a fresh one; not called where the
            checkpoint was found.
        pretrained: reads the weights that a model starts from.

    Raises:
        InvalidSetting: a split is empty, ``weights_file`` is given without ``pretrained``, or there is no such teacher.
        Refused: the teacher was trained on other splits.
        MissingDependency: pretrained weights are out of reach.
        StorageError: a checkpoint or the result could not be stored.
    """
    parents = {TRAIN_SPLIT: train_split.digest, VAL_SPLIT: val_split.digest}
    weights = pretrained(model)
    taught_by = find_teacher(objects, training, parents)
    asked = (TRAINED_CHECKPOINT, parents, [model, training, augmentation])
    content = state_content(weights)
    checkpoints = CheckpointFolder(scratch / name_result(*asked, content).removeprefix(RESULTS))

    def compute() -> Computed:
        from heimdall_assets.learning.fitting.checkpoints import LAST
        from heimdall_assets.learning.fitting.training import fit_model

        train, val = load_sessions(objects, train_split), load_sessions(objects, val_split)
        for name, sessions in ((TRAIN_SPLIT, train), (VAL_SPLIT, val)):
            if not len(sessions):
                raise InvalidSetting(f"{name}: found 0 sessions, expected at least 1; approve more sites")
        resumed_from = LAST if checkpoints.exists(LAST) else None
        if on_start is not None:
            on_start(checkpoints.folder / resumed_from if resumed_from else None)
        teacher = None if taught_by is None else read_teacher(objects, taught_by)
        fitted = fit_model(
            model, training, augmentation, train, val, checkpoints, on_epoch, resumed_from, weights, teacher
        )
        artifacts = {name: objects.put_bytes(data, MEDIA_TYPES[name]) for name, data in fitted.encode().items()}
        if weights is not None:  # a file's name is no evidence: what lies there may be another tomorrow
            artifacts[PRETRAINED] = objects.put_bytes(weights.data, SAFETENSORS_MEDIA_TYPE)
        if taught_by is not None:
            artifacts |= keep_teacher(objects, taught_by)
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

    return decode_model({name: objects.read_bytes(checkpoint.artifacts[name].digest) for name in MEDIA_TYPES})


def read_training(objects: ObjectStore, checkpoint: Manifest) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Return the history of a checkpoint's training, one dict an epoch, and its facts; loads no torch."""
    settings = decode_canonical_json(objects.read_bytes(checkpoint.artifacts["settings.json"].digest))
    return settings["history"], settings["facts"]
