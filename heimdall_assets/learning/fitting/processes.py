"""Several processes that share each batch: started, listened to and ended by the one that asked for the fit.

Belongs here: starting, what the first of them tells, the end of all where one ends. Does not belong here: what each
does (``job``), how they add up (``ranks``). The first process alone writes checkpoints; whoever asked for the fit
reads its result there, and runs the callbacks. On a GPU the words are ``cuda`` and ``nccl``, and nothing else differs.

They meet at a port of this machine that the system chose when it was opened: none is free by luck or taken by others.
"""

import copy
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not in its __all__

from heimdall_assets.errors import HeimdallError, WorkersLost
from heimdall_assets.learning.fitting.environment import make_repeatable
from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.learning.fitting.job import Job, run_job
from heimdall_assets.learning.fitting.module import EpochCallback
from heimdall_assets.learning.fitting.ranks import Ranks
from heimdall_assets.training_tables import Moment

ADDRESS = "127.0.0.1"
PATIENCE_S = 20.0
"""How long a process may take to keep its checkpoint after it was asked to end."""

MEETING_S = 300.0
"""How long processes wait for one another: the first step of a large model may take its time."""

CANCELLED = "training was cancelled; its checkpoints stay"

_DONE, _FAILED, _STOPPED = "done", "failed", "stopped"


@dataclass
class _Process:
    """A process by its rank, what it tells, and the pipe whose end it takes for its parent's."""

    process: Any
    told: Connection
    lifeline: Connection
    is_done: bool = False


def run_processes(job: Job, on_epoch: EpochCallback | None, hooks: Hooks) -> None:
    """Return when all processes have ended well; ``last.ckpt`` is the state then.

    Raises:
        WorkersLost: one ended without a word; the others were ended.
        HeimdallError: what one of them raised.
        KeyboardInterrupt: cancelled here; the first process was given time to keep its checkpoint.
    """
    context = torch.multiprocessing.get_context("spawn")  # a forked process could use neither GPU nor threads
    store = TCPStore(ADDRESS, 0, is_master=True, wait_for_workers=False)
    mute = replace(hooks, on_notice=_Told.nothing, record=None, on_step=None, callbacks=(), meters=None)
    processes: list[_Process] = []
    with _cancel_on_sigterm():
        try:
            for rank in range(job.device.num_processes):
                told, tell = context.Pipe(duplex=False)
                ended, lifeline = context.Pipe(duplex=False)
                given = replace(mute, callbacks=hooks.callbacks, meters=hooks.meters) if rank == 0 else mute
                wanted = hooks.record is not None, hooks.on_step is not None
                process = context.Process(
                    target=_run_rank, args=(job, rank, store.port, given, tell, ended, wanted), daemon=False
                )
                process.start()
                tell.close()
                ended.close()
                processes.append(_Process(process, told, lifeline))
            _listen(processes, on_epoch, hooks)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or not isinstance(error, HeimdallError):
                _ask_to_end(processes)
            raise
        finally:
            for one in processes:
                if one.process.is_alive():
                    one.process.kill()
                one.process.join()
                one.told.close()
                one.lifeline.close()


def _listen(processes: list[_Process], on_epoch: EpochCallback | None, hooks: Hooks) -> None:
    """Hand on what the processes tell until all are done."""
    while left := [one for one in processes if not one.is_done]:
        for ready in wait([one.told for one in left]):
            one = next(one for one in left if one.told is ready)
            rank = processes.index(one)
            try:
                kind, *told = one.told.recv()
            except EOFError:
                one.process.join(PATIENCE_S)
                raise WorkersLost(
                    f"training: process {rank + 1} of {len(processes)} ended with code {one.process.exitcode} before "
                    "it was done, and the others with it; checkpoints stay, and the next start goes on from the last"
                ) from None
            if kind == _DONE:
                one.is_done = True
            elif kind == _STOPPED:
                raise KeyboardInterrupt(CANCELLED)
            elif kind == _FAILED:
                raise told[0]
            elif kind == "epoch" and on_epoch is not None:
                on_epoch(*told)
            elif kind == "notice":
                hooks.on_notice(*told)
            elif kind == "record" and hooks.record is not None:
                hooks.record(*told)
            elif kind == "step" and hooks.on_step is not None:
                hooks.on_step(*told)


def _ask_to_end(processes: list[_Process]) -> None:
    """Let the first process keep its checkpoint; it does so between two steps."""
    if processes and processes[0].process.is_alive():
        processes[0].process.terminate()
        processes[0].process.join(PATIENCE_S)


@contextmanager
def _cancel_on_sigterm() -> Iterator[None]:
    """Make SIGTERM what Ctrl+C is, where this thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(*_: Any) -> None:
        raise KeyboardInterrupt(CANCELLED)

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Told:
    """What a process tells its parent of, through its pipe."""

    def __init__(self, tell: Connection) -> None:
        self._tell, self._lock = tell, threading.Lock()

    def send(self, *message: Any) -> None:
        with self._lock, suppress(OSError):  # whoever listened is gone: this process ends soon
            self._tell.send(message)

    def epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        self.send("epoch", epoch, metrics)

    def notice(self, text: str) -> None:
        self.send("notice", text)

    def record(self, table: str, row: dict[str, Any]) -> None:
        self.send("record", table, row)

    def step(self, moment: Moment) -> None:
        self.send("step", moment)

    @staticmethod
    def nothing(_: str) -> None:
        """Tell nobody: the first process says it."""


def _run_rank(
    job: Job, rank: int, port: int, hooks: Hooks, tell: Connection, ended: Connection, wanted: tuple[bool, bool]
) -> None:
    """Be one of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all of a terminal's: the parent decides
    threading.Thread(target=_end_with_parent, args=(ended,), daemon=True).start()
    told = _Told(tell)
    try:
        if rank == 0:
            record, on_step = (told.record if wanted[0] else None), (told.step if wanted[1] else None)
            hooks = replace(hooks, on_notice=told.notice, record=record, on_step=on_step)
        with make_repeatable(job.training):
            _meet(job, rank, port)
            ranks = Ranks(rank, job.device.num_processes)
            job = replace(job, network=copy.deepcopy(job.network))  # what came lies in memory that all of them share
            module = job.build_module(hooks.on_notice, ranks, told.epoch if rank == 0 else None)
            run_job(job, module, hooks)
        told.send(_DONE)
    except KeyboardInterrupt:
        told.send(_STOPPED)
    except HeimdallError as error:
        told.send(_FAILED, error)
    except Exception as error:  # a type of its own may not travel
        told.send(_FAILED, WorkersLost(f"training: process {rank + 1}: {type(error).__name__}: {error}"))
    # at once: talking to processes that ended would only wait for them
    tell.close()
    os._exit(0)


def _end_with_parent(ended: Connection) -> None:
    with suppress(EOFError, OSError):
        ended.recv()
    os._exit(1)


def _meet(job: Job, rank: int, port: int) -> None:
    patience = timedelta(seconds=MEETING_S)
    store = TCPStore(ADDRESS, port, is_master=False, timeout=patience)
    if job.device.accelerator == "gpu":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        job.device.backend, store=store, rank=rank, world_size=job.device.num_processes, timeout=patience
    )
