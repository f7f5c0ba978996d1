"""Fitting: from a training and a validation split to a model, the same bytes for the same inputs and environment.

Belongs here: ``fit_model``, what makes it repeatable, what it keeps on the way. Does not belong here: what a model is
(tasks), where the result rests (stores). It writes checkpoints into the folder it is handed and nowhere else.
"""

import logging
import platform
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import timm
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from heimdall_assets.domain import SessionSet
from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.learning.fitted import FittedModel, decode_model
from heimdall_assets.learning.module import EpochBatches, TaskBatches, TaskModule, build_loader
from heimdall_assets.learning.task import find_task
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec

__all__ = ["FittedModel", "decode_model", "fit_model", "read_environment"]

NUM_KEPT = 3
EMERGENCY = "on_exception.ckpt"


def fit_model(
    model: ModelSpec,
    training: TrainingSpec,
    augmentation: AugmentationSpec,
    train: SessionSet,
    val: SessionSet,
    folder: Path,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    resume_from: Path | None = None,
) -> FittedModel:
    """Return the model of the epoch with the lowest validation loss, calibrated on the validation split.

    On one processor, with the same thread count, the same arguments give the same bytes; a run resumed from
    ``last.ckpt`` gives the bytes of an uninterrupted one.

    Args:
        model: architecture; its ``kind`` chooses the task.
        training: seed, epochs, rates, threads, precision.
        augmentation: disturbances of training batches.
        train: sessions to fit on.
        val: sessions that stop the training, choose the epoch and calibrate; none of them in ``train``.
        folder: takes ``epoch-NNN.ckpt`` (the three best by validation loss), ``last.ckpt``, and ``on_exception.ckpt``
            where the run was broken off.
        on_epoch: called after each epoch with its number and its metrics.
        resume_from: checkpoint of an earlier run with the same arguments.

    Raises:
        Refused: a session stands in both splits.
        InvalidInput: a split holds nothing this model can learn from, or training diverged.
        NotFound: ``resume_from`` is no file.
        MissingDependency: pretrained weights are out of reach.
        KeyboardInterrupt: the run was cancelled; the checkpoints stay.
    """
    _check_apart(train, val)
    if resume_from is not None and not resume_from.is_file():
        raise NotFound(f"checkpoint {str(resume_from)!r}: no such file")
    task = find_task(model.kind)
    with _repeatable(training):
        sessions = task.extend_training(train, training)
        statistics = task.fit_statistics(model, sessions)
        examples, val_examples = task.list_examples(sessions), task.list_examples(val)
        for name, found in (("training", examples), ("validation", val_examples)):
            if not len(found):
                raise InvalidInput(f"{name} split: 0 examples for a {model.kind} model: expected at least 1")
        torch.manual_seed(training.seed)
        network = task.build_network(model, statistics)
        task.start_network(network, model, sessions, statistics)
        accelerator, history = "cpu", list[dict[str, float]]()
        if any(weight.requires_grad for weight in network.parameters()):
            loaders = (
                build_loader(
                    TaskBatches(task, sessions, statistics, augmentation, training.seed),
                    EpochBatches(examples, training.batch_size, training.seed, shuffle=True),
                ),
                build_loader(
                    TaskBatches(task, val, statistics),
                    EpochBatches(val_examples, training.batch_size, training.seed, shuffle=False),
                ),
            )
            module = TaskModule(task, network, training, len(loaders[0]), on_epoch)
            accelerator = _run(module, loaders, training, folder, resume_from)
            history = module.history
            _load_best(module, [folder] + ([resume_from.parent] if resume_from else []))
        network = network.cpu().eval()
        calibration = task.calibrate(network, val, statistics)
    facts = {
        "best_epoch": _find_best_epoch(history) if history else None,
        "num_epochs": len(history),
        "num_train_sessions": len(train),
        "num_added_sessions": len(sessions) - len(train),
        "num_val_sessions": len(val),
        "num_train_examples": len(examples),
        "num_val_examples": len(val_examples),
        "num_weights": sum(weight.numel() for weight in network.parameters()),
    }
    settings = {
        "model": model.dump(),
        "training": training.dump(),
        "augmentation": augmentation.dump(),
        "statistics": statistics,
        "calibration": calibration,
        "environment": read_environment(training, accelerator),
        "facts": facts,
    }
    weights = {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}
    return FittedModel(weights=weights, settings=settings, history=history)


def read_environment(training: TrainingSpec, accelerator: str = "cpu") -> dict[str, Any]:
    """Return what decides the bits beside specs and data: versions, threads, instruction set, accelerator."""
    return {
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "num_threads": training.num_threads,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": accelerator,
    }


def _check_apart(train: SessionSet, val: SessionSet) -> None:
    both = np.intersect1d(train.session_id, val.session_id)
    if len(both):
        raise Refused(
            f"session {both[0]}: stands in the training and the validation split ({len(both)} do): expected one"
        )


def _run(
    module: TaskModule, loaders: tuple[Any, Any], training: TrainingSpec, folder: Path, resume_from: Path | None
) -> str:
    """Train ``module`` in place and return the kind of device it ran on."""
    interrupted = _BreakOffKeeper(folder)
    with _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            precision=training.precision,
            max_epochs=training.max_epochs,
            gradient_clip_val=training.gradient_clip,
            deterministic=True,
            callbacks=[interrupted, *_build_keepers(training, folder)],
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        with _keep_interrupt_handler():
            try:
                trainer.fit(module, *loaders, ckpt_path=resume_from, weights_only=True)
            except SystemExit:
                if interrupted.seen is None:
                    raise
        if interrupted.seen is not None:
            raise KeyboardInterrupt("training was cancelled; its checkpoints stay") from interrupted.seen
    return trainer.strategy.root_device.type


def _build_keepers(training: TrainingSpec, folder: Path) -> list[Callback]:
    return [
        EarlyStopping(
            monitor="val_loss",
            patience=training.early_stopping_patience,
            min_delta=training.early_stopping_min_delta,
            check_on_train_epoch_end=True,
        ),
        ModelCheckpoint(
            dirpath=folder,
            filename="epoch-{epoch:03d}",
            auto_insert_metric_name=False,
            monitor="val_loss",
            save_top_k=NUM_KEPT,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]


def _find_best_epoch(history: list[dict[str, float]]) -> int:
    """Return the epoch with the lowest validation loss, the first of equals."""
    return int(min(history, key=lambda record: record["val_loss"])["epoch"])


def _load_best(module: TaskModule, folders: list[Path]) -> None:
    """Load the weights of the best epoch; a resumed run may have left them in the earlier run's folder."""
    name = f"epoch-{_find_best_epoch(module.history):03d}.ckpt"
    for folder in folders:
        if (folder / name).is_file():
            module.load_state_dict(torch.load(folder / name, map_location="cpu", weights_only=True)["state_dict"])
            return
    raise NotFound(f"checkpoint {name} of the best epoch: in none of {[str(folder) for folder in folders]}")


class _BreakOffKeeper(Callback):
    """Saves where a run was broken off, and remembers a KeyboardInterrupt: Lightning makes an exit of it.

    Lightning's own ``OnExceptionCheckpoint`` is not used: with it in place a fresh run silently resumes an earlier one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: BaseException | None = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        trainer.save_checkpoint(self.folder / EMERGENCY)
        if isinstance(exception, KeyboardInterrupt):
            self.seen = exception


@contextmanager
def _keep_interrupt_handler() -> Iterator[None]:
    """Put the handler of Ctrl+C back: Lightning leaves it ignored after an interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _repeatable(training: TrainingSpec) -> Iterator[None]:
    """Fix threads, seeds and algorithms, and give them back as they were."""
    num_threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    with torch.random.fork_rng():
        try:
            torch.set_num_threads(training.num_threads)
            torch.use_deterministic_algorithms(True)
            yield
        finally:
            torch.set_num_threads(num_threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.backends.cudnn.benchmark = benchmark


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's banner and the advice that does not apply to one process with batches in memory."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in (
            r".*does not have many workers.*",
            r".*smaller than the logging interval.*",
            r".*Checkpoint directory .* exists and is not empty.*",
            r".*dirpath has changed.*",
            r".*isinstance\(treespec, LeafSpec\).*",
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
