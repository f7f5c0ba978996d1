"""Training: a training and a validation split to a model, the same bytes for the same inputs and environment.

Belongs here: ``fit_model``, what is done once: before the first step and after the last. Does not belong here: what a
model is (tasks), the loop (``job``), where the result rests (stores). Checkpoints are kept where it is told to; it
opens no file itself.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput, Refused
from heimdall_assets.learning.fitting.checkpoints import (
    LAST,
    PROGRESS,
    CheckpointFiles,
    check_fits,
    find_best_epochs,
    load_best,
    load_checkpoint,
)
from heimdall_assets.learning.fitting.devices import choose_device, count_gpus
from heimdall_assets.learning.fitting.environment import make_repeatable
from heimdall_assets.learning.fitting.fitted import FittedModel, decode_model
from heimdall_assets.learning.fitting.hooks import Hooks, Start
from heimdall_assets.learning.fitting.job import Data, Job, run_job
from heimdall_assets.learning.fitting.module import EpochCallback, TaskModule
from heimdall_assets.learning.fitting.processes import run_processes
from heimdall_assets.learning.fitting.range_test import RateSearch, search_rate
from heimdall_assets.learning.fitting.savings import check_compiler
from heimdall_assets.learning.fitting.starting import load_start
from heimdall_assets.learning.task import RATE_SEARCH, PretrainedWeights, Task, find_task
from heimdall_assets.learning.teaching import TaughtTask
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, MachineSpec, ModelSpec, TrainingSpec

__all__ = ["FittedModel", "decode_model", "fit_model"]


def fit_model(
    model: ModelSpec,
    training: TrainingSpec,
    augmentation: AugmentationSpec,
    train: SessionSet,
    val: SessionSet,
    checkpoints: CheckpointFiles,
    on_epoch: EpochCallback | None = None,
    resume_from: str | None = None,
    weights: PretrainedWeights | None = None,
    machine: MachineSpec = MachineSpec(),  # noqa: B008 - frozen
    start: Start = Start(),  # noqa: B008 - frozen
    hooks: Hooks = Hooks(),  # noqa: B008 - frozen
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
        machine: how this machine is used; changes no bit on processors.
        start: a fitted model to start from, and a teacher to learn from.
        hooks: whom it tells of what.

    Raises:
        Refused: a session stands in both splits.
        InvalidInput: a split holds nothing this model can learn from, training diverged, or ``resume_from``,
            ``weights`` or ``start`` belong to another model.
        InvalidSetting: ``model.pretrained`` without ``weights``, or ``weights`` without it; a device that is not there.
        MissingDependency: ``training.compile`` without a compiler.
        NotFound: there is no checkpoint ``resume_from``.
        CorruptObject: ``resume_from`` is damaged.
        StorageError: a checkpoint could not be kept.
        WorkersLost: one of several processes ended before it was done.
        KeyboardInterrupt: the run was cancelled; the checkpoints stay.
    """
    _check_apart(train, val)
    device = choose_device(training, machine, count_gpus())
    if machine.pin_memory and device.accelerator == "cpu":
        hooks.on_notice("MachineSpec.pin_memory: it trains on processors, there is no way to a GPU to make faster")
    if training.compile:
        check_compiler(device.kind)
    task: Task = find_task(model.kind)
    taught = None if start.teacher is None else TaughtTask(task, start.teacher, training.teacher_share)
    with make_repeatable(training):
        data = _prepare(task, model, training, augmentation, train, val)
        if taught is not None:
            taught.check_inputs(data.statistics)
        torch.manual_seed(training.seed)
        network = task.build_network(model, data.statistics, weights)
        if start.model is None:
            task.start_network(network, model, data.train, data.statistics)
        else:
            data = replace(data, statistics=load_start(network, start.model))
        job = Job(taught or task, network, data, training, machine, device, checkpoints, resume_from)
        outcome = train_network(job, on_epoch, hooks)
        network = network.cpu().eval()
        if hooks.record is not None:
            task.report_to(hooks.record)
        finished = task.finish_network(network, data.train, val, training)
        calibration = task.calibrate(network, val, data.statistics)
    facts: dict[str, Any] = {
        "initial_val_loss": outcome.initial_loss,
        "best_val_loss": outcome.best_loss,
        "best_epoch": outcome.best_epoch,
        "num_epochs": len(outcome.history),
        "num_train_sessions": len(train),
        "num_added_sessions": len(data.train) - len(train),
        "num_val_sessions": len(val),
        "num_train_examples": len(data.examples),
        "num_val_examples": len(data.val_examples),
        "num_weights": sum(weight.numel() for weight in network.parameters()),
        **finished,
        **outcome.describe(),
        **start.facts,
    }
    settings = {
        "model": model.dump(),
        "training": training.dump(),
        "augmentation": augmentation.dump(),
        "statistics": data.statistics,
        "calibration": calibration,
        "facts": facts,
    }
    if weights is not None:
        facts["weights_file_sha256"] = weights.digest
    fitted = {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}
    return FittedModel(weights=fitted, settings=settings, history=outcome.history)


def _check_apart(train: SessionSet, val: SessionSet) -> None:
    both = np.intersect1d(train.session_id, val.session_id)
    if len(both):
        raise Refused(
            f"session {both[0]}: stands in the training and the validation split ({len(both)} do): expected one"
        )


def _prepare(
    task: Task,
    model: ModelSpec,
    training: TrainingSpec,
    augmentation: AugmentationSpec,
    train: SessionSet,
    val: SessionSet,
) -> Data:
    """Return what is trained and judged on."""
    sessions = task.extend_training(train, training)
    statistics = task.fit_statistics(model, sessions)
    examples, val_examples = task.list_examples(sessions), task.list_examples(val)
    for name, found in (("training", examples), ("validation", val_examples)):
        if len(found) < training.num_devices:
            raise InvalidInput(
                f"{name} split: {say_count(len(found), 'example')} for a {model.kind} model: expected at least "
                f"{training.num_devices}"
            )
    return Data(sessions, val, examples, val_examples, statistics, augmentation)


@dataclass(frozen=True)
class Outcome:
    """How training went; ``best_epoch`` None: no epoch was better than the network it started from."""

    initial_loss: float
    best_loss: float
    best_epoch: int | None
    history: list[dict[str, float]]
    num_pieces: int = 1
    search: RateSearch | None = None

    def describe(self) -> dict[str, Any]:
        """Return the facts of what not every fit has."""
        facts: dict[str, Any] = {} if self.num_pieces == 1 else {"num_pieces_of_a_batch": self.num_pieces}
        return facts if self.search is None else {**facts, RATE_SEARCH: self.search.describe()}


def train_network(job: Job, on_epoch: EpochCallback | None, hooks: Hooks) -> Outcome:
    """Train the job's network in place and leave in it the weights that did best on validation, the first included."""
    module = job.build_module(hooks.on_notice, on_epoch=on_epoch)
    if job.resume_from is not None:
        known = load_checkpoint(job.checkpoints, job.resume_from)
        check_fits(module, known, job.checkpoints.folder / job.resume_from)
        module.pieces.count = max(module.pieces.count, known[PROGRESS]["pieces"])
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    initial_loss = module.compute_mean_loss(job.load_val())
    if not module.list_trained():
        return Outcome(initial_loss, initial_loss, None, [])
    search = search_rate(job, module) if job.training.find_learning_rate else None
    module.peak_rate = job.training.learning_rate if search is None else search.chosen
    if job.device.num_processes > 1:
        ready = replace(job, peak_rate=module.peak_rate, num_pieces=module.pieces.count)
        run_processes(ready, on_epoch, hooks)
        last = load_checkpoint(job.checkpoints, LAST)
        module.history, module.pieces.count = last["history"], last[PROGRESS]["pieces"]
    else:
        run_job(job, module, hooks)
    return _choose_best(job, module, Outcome(initial_loss, initial_loss, None, module.history), initial, search)


def _choose_best(
    job: Job, module: TaskModule, start: Outcome, initial: dict[str, torch.Tensor], search: RateSearch | None
) -> Outcome:
    """Leave the best weights in the module; return the outcome."""
    outcome = replace(start, num_pieces=module.pieces.count, search=search)
    best_loss = min(record["val_loss"] for record in module.history)
    if not best_loss < outcome.initial_loss:
        module.load_state_dict(initial)
        return outcome
    load_best(module, module.history, job.checkpoints)
    return replace(outcome, best_loss=best_loss, best_epoch=find_best_epochs(module.history)[0])
