"""Training: a training and a validation split to a model, the same bytes for the same inputs and environment.

Belongs here: ``fit_model``, what makes it repeatable, what it keeps on the way. Does not belong here: what a model is
(tasks), where the result rests (stores). Checkpoints are kept where it is told to; it opens no file itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch

from heimdall_assets.errors import InvalidInput, Refused
from heimdall_assets.learning.fitting.checkpoints import (
    BreakOffKeeper,
    CheckpointFiles,
    HandedCheckpointIO,
    build_keepers,
    check_fits,
    find_best_epoch,
    load_best,
    load_checkpoint,
)
from heimdall_assets.learning.fitting.environment import (
    keep_interrupt_handler,
    make_repeatable,
    quiet_lightning,
)
from heimdall_assets.learning.fitting.fitted import FittedModel, decode_model
from heimdall_assets.learning.fitting.module import EpochBatches, TaskBatches, TaskModule, build_loader
from heimdall_assets.learning.task import PretrainedWeights, Task, find_task
from heimdall_assets.learning.teaching import TaughtTask, Teacher
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec

__all__ = ["FittedModel", "decode_model", "fit_model"]


def fit_model(
    model: ModelSpec,
    training: TrainingSpec,
    augmentation: AugmentationSpec,
    train: SessionSet,
    val: SessionSet,
    checkpoints: CheckpointFiles,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    resume_from: str | None = None,
    weights: PretrainedWeights | None = None,
    teacher: Teacher | None = None,
) -> FittedModel:
    """Return the model of the epoch with the lowest validation loss, calibrated on the validation split.

    Where no epoch does better than the network it started from, that one is returned: training never ends worse.

    On one processor, with the same thread count, the same arguments give the same bytes; a run resumed from
    ``last.ckpt`` gives the bytes of an uninterrupted one.

    Args:
        model: architecture; its ``kind`` chooses the task.
        training: seed, epochs, rates, threads, precision.
        augmentation: disturbances of training batches.
        train: sessions to fit on.
        val: sessions that stop the training, choose the epoch and calibrate; none of them in ``train``.
        checkpoints: takes ``epoch-NNN.ckpt`` (the three best by validation loss), ``last.ckpt``, and
            ``on_exception.ckpt`` where the run was broken off.
        on_epoch: called after each epoch with its number and its metrics.
        resume_from: name among ``checkpoints`` of one that an earlier run with the same arguments kept.
        weights: what the backbone starts from where ``model.pretrained``.
        teacher: whose answers are learned beside the labels; None: labels alone.

    Raises:
        Refused: a session stands in both splits.
        InvalidInput: a split holds nothing this model can learn from, training diverged, or ``resume_from`` or
            ``weights`` belong to another model.
        InvalidSetting: ``model.pretrained`` without ``weights``, or ``weights`` without it.
        NotFound: there is no checkpoint ``resume_from``.
        CorruptObject: ``resume_from`` is damaged.
        StorageError: a checkpoint could not be kept.
        KeyboardInterrupt: the run was cancelled; the checkpoints stay.
    """
    _check_apart(train, val)
    task: Task = find_task(model.kind)
    taught = None if teacher is None else TaughtTask(task, teacher, training.teacher_share)
    with make_repeatable(training):
        sessions = task.extend_training(train, training)
        statistics = task.fit_statistics(model, sessions)
        if taught is not None:
            taught.check_inputs(statistics)
        examples, val_examples = task.list_examples(sessions), task.list_examples(val)
        for name, found in (("training", examples), ("validation", val_examples)):
            if not len(found):
                raise InvalidInput(f"{name} split: 0 examples for a {model.kind} model: expected at least 1")
        torch.manual_seed(training.seed)
        network = task.build_network(model, statistics, weights)
        task.start_network(network, model, sessions, statistics)
        batches = _Batches(
            train=build_loader(
                TaskBatches(task, sessions, statistics, augmentation, training.seed),
                EpochBatches(examples, training.batch_size, training.seed, shuffle=True),
            ),
            val=build_loader(
                TaskBatches(task, val, statistics),
                EpochBatches(val_examples, training.batch_size, training.seed, shuffle=False),
            ),
        )
        module = TaskModule(taught or task, network, training, len(batches.train), on_epoch)
        outcome = _train(module, batches, training, checkpoints, resume_from)
        network = network.cpu().eval()
        finished = task.finish_network(network, sessions, val, training)
        calibration = task.calibrate(network, val, statistics)
    facts: dict[str, Any] = {
        "initial_val_loss": outcome.initial_loss,
        "best_val_loss": outcome.best_loss,
        "best_epoch": outcome.best_epoch,
        "num_epochs": len(module.history),
        "num_train_sessions": len(train),
        "num_added_sessions": len(sessions) - len(train),
        "num_val_sessions": len(val),
        "num_train_examples": len(examples),
        "num_val_examples": len(val_examples),
        "num_weights": sum(weight.numel() for weight in network.parameters()),
        **finished,
    }
    settings = {
        "model": model.dump(),
        "training": training.dump(),
        "augmentation": augmentation.dump(),
        "statistics": statistics,
        "calibration": calibration,
        "facts": facts,
    }
    if weights is not None:
        facts["weights_file_sha256"] = weights.digest
    fitted = {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}
    return FittedModel(weights=fitted, settings=settings, history=module.history)


def _check_apart(train: SessionSet, val: SessionSet) -> None:
    both = np.intersect1d(train.session_id, val.session_id)
    if len(both):
        raise Refused(
            f"session {both[0]}: stands in the training and the validation split ({len(both)} do): expected one"
        )


@dataclass(frozen=True)
class _Batches:
    train: Any
    val: Any


@dataclass(frozen=True)
class _Outcome:
    """How training went; ``best_epoch`` None: no epoch was better than the network it started from."""

    initial_loss: float
    best_loss: float
    best_epoch: int | None


def _train(
    module: TaskModule,
    batches: _Batches,
    training: TrainingSpec,
    checkpoints: CheckpointFiles,
    resume_from: str | None,
) -> _Outcome:
    """Train ``module`` in place and leave in it the weights that did best on validation, the first ones included."""
    if resume_from is not None:
        check_fits(module, load_checkpoint(checkpoints, resume_from), checkpoints.folder / resume_from)
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    initial_loss = module.compute_mean_loss(batches.val)
    if not any(weight.requires_grad for weight in module.network.parameters()):
        return _Outcome(initial_loss, initial_loss, None)
    _run(module, batches, training, checkpoints, resume_from)
    best_loss = min(record["val_loss"] for record in module.history)
    if not best_loss < initial_loss:
        module.load_state_dict(initial)
        return _Outcome(initial_loss, initial_loss, None)
    load_best(module, module.history, checkpoints)
    return _Outcome(initial_loss, best_loss, find_best_epoch(module.history))


def _run(
    module: TaskModule,
    batches: _Batches,
    training: TrainingSpec,
    checkpoints: CheckpointFiles,
    resume_from: str | None,
) -> None:
    """Train ``module`` in place."""
    interrupted = BreakOffKeeper(checkpoints)
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            precision=training.precision,
            max_epochs=training.max_epochs,
            gradient_clip_val=training.gradient_clip,
            deterministic=True,
            callbacks=[interrupted, *build_keepers(training, checkpoints)],
            default_root_dir=checkpoints.folder,
            plugins=[HandedCheckpointIO(checkpoints)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        with keep_interrupt_handler():
            try:
                known = None if resume_from is None else checkpoints.folder / resume_from
                trainer.fit(module, batches.train, batches.val, ckpt_path=known, weights_only=True)
            except SystemExit:
                if interrupted.seen is None:
                    raise
        if interrupted.seen is not None:
            raise KeyboardInterrupt("training was cancelled; its checkpoints stay") from interrupted.seen
