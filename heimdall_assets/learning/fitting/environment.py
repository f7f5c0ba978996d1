"""What a fit needs around it: fixed seeds, threads and algorithms, a quiet Lightning, a working Ctrl+C.

Belongs here: context managers that change global state and give it back. Does not belong here: training itself.
"""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from heimdall_assets.specs import TrainingSpec


@contextmanager
def keep_interrupt_handler() -> Iterator[None]:
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
def make_repeatable(training: TrainingSpec) -> Iterator[None]:
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
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's banner and the advice that does not apply to one process with batches in memory."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in (
            r".*does not have many workers.*",
            r".*smaller than the logging interval.*",
            r".*Checkpoint directory .* exists and is not empty.*",
            r".*dirpath has changed.*",
            r".*in eval mode at the start of training.*",  # a frozen backbone is meant to be
            r".*recommended to use .*sync_dist=True.*",  # means are of all processes before they are logged
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
