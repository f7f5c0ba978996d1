"""Going on with a training that ended, for more epochs: with which settings, and from which of its kept checkpoints.

Belongs here: finding the last state of a training beside the settings that may change. Does not belong here: one that
was broken off (``running.earlier``), weights alone (``starting``), what a fit does with it (``starts``).
"""

from collections.abc import Sequence

from heimdall_assets.errors import InvalidInput, InvalidSetting, NotFound
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.learning.fitting.continuing import LENGTH, PATIENCE, check_same_fit, is_exact
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.starts import RESUMED, SHA256, ReadFile
from heimdall_assets.pipeline.trainings.starting import Started, lay_over, recall_specs
from heimdall_assets.specs import AugmentationSpec, ModelSpec, Spec, TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.runs.writing import CHECKPOINTS
from heimdall_assets.stores.scratch import CheckpointFolder

_PARTS: dict[str, type[Spec]] = {"model": ModelSpec, "training": TrainingSpec, "augmentation": AugmentationSpec}
_LAST = "last.json"


def go_on(stores: Stores, named: str, checkpoint: Manifest, specs: Sequence[Spec]) -> Started:
    """Return settings with which a training that ended goes on: its own, but for what somebody set.

    With more epochs than it had, they are trained from its last state on: weights, optimiser and random numbers. Else
    it is asked for again as it was, and found, where the approved sessions are the same.

    Args:
        stores: of the home; its folders of trainings hold the last state.
        named: what people call the checkpoint.
        checkpoint: its manifest.
        specs: what somebody set; ``TrainingSpec.max_epochs`` counts the epochs it had too.

    Raises:
        InvalidSetting: something else of the training was set otherwise, there are no more epochs than it had, or it
            stopped early and would at once again.
        NotFound: its last state is not kept any more.
    """
    recalled = recall_specs(stores.objects, checkpoint)
    merged = lay_over(recalled, specs)
    before, now = (_pick(found) for found in (recalled, merged))
    done = int(checkpoint.summary["num_epochs"])
    if now.max_epochs == before.max_epochs and now.early_stopping_patience == before.early_stopping_patience:
        line = f"{named} ended after {done} of {before.max_epochs} epochs: it is asked for again as it was"
        _check_settings(named, recalled, merged)
        went_on = f"{SHA256}{checkpoint.digest}" if _holds_earlier(checkpoint) else None
        return Started(merged, [f"{line}; with a larger TrainingSpec.{LENGTH} it would go on"], went_on)
    if now.max_epochs <= done:
        found = f"found {now.max_epochs}, expected more than the {done} that {named} had"
        raise InvalidSetting(f"TrainingSpec.{LENGTH}: {found}")
    _check_settings(named, recalled, merged)
    if done < before.max_epochs and now.early_stopping_patience == before.early_stopping_patience:
        raise InvalidSetting(
            f"TrainingSpec.{PATIENCE}: {named} stopped by itself after {done} of {before.max_epochs} epochs, and would "
            f"at once again: found {now.early_stopping_patience}, expected more"
        )
    find_earlier(stores, checkpoint, now)
    began = "from its last state"
    if not is_exact(before.dump(), now.dump()):
        began += f"; step sizes are those of {now.max_epochs} epochs from there on, so it is no training of that length"
    line = f"{named} had {done} epochs: up to {now.max_epochs - done} more, {began}"
    return Started(merged, [line], f"{SHA256}{checkpoint.digest}")


def find_earlier(stores: Stores, checkpoint: Manifest, training: TrainingSpec) -> ReadFile:
    """Return what reads the kept checkpoints that a training goes on from, by name.

    Args:
        stores: of the home.
        checkpoint: whose training goes on; with as many epochs and as much patience as it had, what it went on from
            itself.
        training: of the one that goes on.

    Raises:
        NotFound: they are not kept here.
    """
    own = TrainingSpec.model_validate(checkpoint.specs["TrainingSpec"])
    if own == training and _holds_earlier(checkpoint):
        held = checkpoint.artifacts
        return lambda name: stores.objects.read_bytes(held[f"{RESUMED}{name}"].digest)
    if stores.runs is not None:
        for told in stores.runs.list_runs():
            folder = CheckpointFolder(stores.runs.locate(told["id"]) / CHECKPOINTS)
            if told.get("checkpoint") == checkpoint.digest and folder.exists(_LAST):
                return folder.read
    raise NotFound(
        f"checkpoint {checkpoint.digest[:12]}: the last state of its training is not kept in this home (any more), "
        "expected it in runs/ID/checkpoints; --from takes its weights alone"
    )


def read_earlier(stores: Stores, resumes: str | None, training: TrainingSpec) -> ReadFile | None:
    """Return what reads the kept checkpoints that ``resumes`` leads to; None: nothing goes on.

    Raises:
        InvalidInput: it is no digest of a checkpoint.
        NotFound: there is none, or its last state is not kept here.
    """
    if resumes is None:
        return None
    manifest = Manifest.decode(stores.objects.read_bytes(resumes.removeprefix(SHA256)))
    if manifest.kind != TRAINED_CHECKPOINT:
        raise InvalidInput(f"resume: found {manifest.kind} {resumes}, expected a {TRAINED_CHECKPOINT}")
    return find_earlier(stores, manifest, training)


def _holds_earlier(checkpoint: Manifest) -> bool:
    return any(name.startswith(RESUMED) for name in checkpoint.artifacts)


def _check_settings(named: str, recalled: Sequence[Spec], merged: Sequence[Spec]) -> None:
    """Refuse here what the fit would refuse, before anything runs."""
    then, now = ({type(spec): spec.dump() for spec in specs} for specs in (recalled, merged))
    parts = {part: spec for part, spec in _PARTS.items() if spec in then}
    try:
        check_same_fit(*({part: found[spec] for part, spec in parts.items()} for found in (then, now)))
    except InvalidInput as error:
        raise InvalidSetting(f"{named}: {error}") from error


def _pick(specs: Sequence[Spec]) -> TrainingSpec:
    return next(spec for spec in specs if isinstance(spec, TrainingSpec))
