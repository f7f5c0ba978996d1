"""trained_checkpoint: a model fitted on stored splits, kept as objects, and read back for judging and export."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from heimdall_assets.errors import CorruptObject, InvalidSetting
from heimdall_assets.evaluation.outcome import Outcome, describe_outcome
from heimdall_assets.kinds import TRAIN_SPLIT, TRAINED_CHECKPOINT, VAL_SPLIT
from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.learning.task import PretrainedWeights
from heimdall_assets.manifests import RESULTS, Manifest, decode_canonical_json
from heimdall_assets.media_types import JSON_MEDIA_TYPE, SAFETENSORS_MEDIA_TYPE
from heimdall_assets.pipeline.found import find_found, state_found
from heimdall_assets.pipeline.pretrained import read_pretrained, state_content
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, name_result
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.pipeline.starts import (
    FILES,
    Continued,
    ReadFile,
    Start,
    check_not_seen,
    find_started,
    read_continued,
)
from heimdall_assets.pipeline.teachers import find_teacher, keep_teacher, read_teacher
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, MachineSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.gpu_meters import open_meters
from heimdall_assets.stores.objects.folder import ObjectStore
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets.training_tables import Moment, Row

if TYPE_CHECKING:
    from heimdall_assets.learning.fitting.checkpoints import CheckpointFiles
    from heimdall_assets.learning.fitting.hooks import Start as FitStart
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
        """Hear where the training is, after each step."""

    def open_checkpoints(self) -> "CheckpointFiles | None":
        """Return what takes the training's checkpoints when its result is stored; None: they go."""


@dataclass(frozen=True)
class Surroundings:
    """How a training is run, and what it leaves beside its result; no result depends on it.

    Attributes:
        machine: how the machine is used.
        hooks: whom it tells of what.
        watcher: sees how it goes.
        kept: takes its checkpoints when its result is stored: the best epochs and the last, and those between that
            ``checkpoint_every_epochs`` asks for, each as NAME.safetensors and NAME.json; None: what the watcher has.
    """

    machine: MachineSpec = field(default_factory=MachineSpec)
    hooks: Hooks = field(default_factory=Hooks)
    watcher: Watcher | None = None
    kept: "CheckpointFiles | None" = None


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
    around: Surroundings = Surroundings(),
    start: Start | None = None,
    earlier: ReadFile | None = None,
) -> Result:
    """Return the checkpoint of these splits and specs: found, resumed from where it was interrupted, or trained.

    Args:
        scratch: local folder; holds checkpoints until the result is stored.
        on_epoch: called after each epoch with its number and its metrics.
        on_start: called before training with the file it goes on from, None for a fresh one; not called where the
            checkpoint was found.
        pretrained: reads the weights that a model starts from.
        load: reads the sessions of a split.
        around: how it is run, and where its checkpoints are kept after it.
        start: what it starts from in place of the model that ``training.start_from`` leads to today.
        earlier: reads the kept checkpoints of a shorter training with the same settings, by name. Where the step size
            does not depend on how many epochs there are (constant, plateau), the result is that of a training that was
            never shorter. Else (cosine, one_cycle) it takes over the weights and the optimiser, its schedule is that of
            the longer training from there on, and it is a result of its own, which says so (``resumed_from``).

    Raises:
        NotFound: the search that ``training.found_by`` names is gone, or was none.
        Refused: it was made on sessions that were split otherwise; so was the teacher.
        InvalidSetting: a split is empty, ``weights_file`` is given without ``pretrained``, or there is no such teacher.
        InvalidInput: what it should start or go on from is of something else.
        Refused: a session of the validation split was trained on by the model it starts from.
        MissingDependency: pretrained weights are out of reach.
        StorageError: a checkpoint or the result could not be stored.
    """
    parents = {TRAIN_SPLIT: train_split.digest, VAL_SPLIT: val_split.digest}
    found = find_found(objects, training, train_split)
    weights = pretrained(model)
    start = start or find_started(objects, training)
    taught_by = find_teacher(objects, training, parents)
    about = {"model": model.dump(), "training": training.dump(), "augmentation": augmentation.dump()}
    continued = read_continued(earlier, {**about, "parents": parents})
    asked = (TRAINED_CHECKPOINT, parents, [model, training, augmentation])
    content = {
        **state_content(weights),
        **state_found(training),
        **(start.content if start else {}),
        **(continued.content if continued else {}),
    }
    checkpoints = CheckpointFolder(scratch / name_result(*asked, content).removeprefix(RESULTS))

    def compute() -> Computed:
        from heimdall_assets.learning.fitting.checkpoints import LAST
        from heimdall_assets.learning.fitting.training import fit_model

        train, val = load(objects, train_split), load(objects, val_split)
        for name, sessions in ((TRAIN_SPLIT, train), (VAL_SPLIT, val)):
            if not len(sessions):
                raise InvalidSetting(f"{name}: found 0 sessions, expected at least 1; approve more sites")
        if continued is not None and not checkpoints.exists(LAST):
            continued.write(checkpoints)
        resumed_from = LAST if checkpoints.exists(LAST) else None
        if around.watcher is not None:
            around.watcher.begin(checkpoints.folder.name, resumed_from is not None)
        if on_start is not None:
            on_start(checkpoints.folder / resumed_from if resumed_from else None)
        begun = _describe_start(objects, start, continued, val_split)
        if taught_by is not None:
            begun = replace(begun, teacher=read_teacher(objects, taught_by))
        fitted = fit_model(
            *(model, training, augmentation, train, val, checkpoints),
            *(on_epoch, resumed_from, weights, around.machine, begun, _build_hooks(around)),
        )
        artifacts = {name: objects.put_bytes(data, MEDIA_TYPES[name]) for name, data in fitted.encode().items()}
        if weights is not None:  # a file's name is no evidence: what lies there may be another tomorrow
            artifacts[PRETRAINED] = objects.put_bytes(weights.data, SAFETENSORS_MEDIA_TYPE)
        artifacts |= found.list_artifacts() if found else {}
        artifacts |= start.list_artifacts() if start else {}
        artifacts |= continued.list_artifacts(objects) if continued else {}
        artifacts |= keep_teacher(objects, taught_by) if taught_by else {}
        return artifacts, {
            **fitted.settings["facts"],
            "mix": describe_mix(train) | {"added by the simulator": fitted.settings["facts"]["num_added_sessions"]},
        }

    result = find_or_compute(objects, *asked, compute, content)
    if result.reused and around.watcher is not None and checkpoints.exists("last.ckpt"):
        around.watcher.begin(checkpoints.folder.name, goes_on=True)  # killed when the result was stored: to its end
    _keep(objects, result.manifest, checkpoints, around, {**about, "parents": parents})
    checkpoints.discard()  # not before the result is stored: a kill in between would cost the whole training
    return result


def _keep(
    objects: ObjectStore, result: Manifest, checkpoints: CheckpointFolder, around: Surroundings, about: dict[str, Any]
) -> None:
    """Keep the checkpoints of a training that is done, also where it was killed between its result and this."""
    kept = around.kept
    if kept is None and around.watcher is not None:
        kept = around.watcher.open_checkpoints()
    if kept is None or not checkpoints.exists("last.ckpt"):
        return
    from heimdall_assets.learning.fitting.kept import keep_checkpoints

    settings = decode_canonical_json(objects.read_bytes(result.artifacts["settings.json"].digest))
    try:
        keep_checkpoints(checkpoints, kept, {**about, "statistics": settings["statistics"]})
    except CorruptObject as error:  # the result is stored: what was left of the way to it is no reason to fail
        around.hooks.on_notice(f"{error}: not kept")


def _describe_start(
    objects: ObjectStore, start: Start | None, continued: Continued | None, val_split: Manifest
) -> "FitStart":
    """Return what the fit starts from."""
    from heimdall_assets.learning.fitting.hooks import Start as FitStart

    facts = {} if continued is None else continued.describe()
    if start is None:
        return FitStart(facts=facts)
    check_not_seen(objects, start, val_split)
    return FitStart(model=start.decode(objects), facts={**facts, "started_from": start.digest})


def _build_hooks(around: Surroundings) -> Hooks:
    """Return the hooks with the watcher, and with the meters of this machine's GPUs where a limit is set."""
    machine, hooks, watcher = around.machine, around.hooks, around.watcher
    if watcher is not None:
        hooks = replace(hooks, record=watcher.record, on_step=watcher.note)
    if hooks.meters is not None or (machine.max_power_w is None and machine.max_temperature_c is None):
        return hooks
    return replace(hooks, meters=open_meters())


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

    return decode_model({name: objects.read_bytes(checkpoint.artifacts[name].digest) for name in FILES})


def read_learned(objects: ObjectStore, checkpoint: Manifest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return statistics and calibration of a checkpoint's model; loads no torch."""
    settings = decode_canonical_json(objects.read_bytes(checkpoint.artifacts["settings.json"].digest))
    return settings["statistics"], settings["calibration"]


def read_training(objects: ObjectStore, checkpoint: Manifest) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Return the history of a checkpoint's training, one dict an epoch, and its facts; loads no torch."""
    settings = decode_canonical_json(objects.read_bytes(checkpoint.artifacts["settings.json"].digest))
    return settings["history"], settings["facts"]
