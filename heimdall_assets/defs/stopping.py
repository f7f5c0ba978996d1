"""Stopping: what a SIGINT or SIGTERM becomes on its way through Dagster, so that it is a stop and no failure.

Belongs here: the step's side of it. Where signals are heard: ``cli.terminal.signals``; where a run's steps end:
``executor``.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from heimdall_assets.pipeline.processes import STOP_ASKED

STOPS = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)
"""What a signal raises: plain Python's, and Dagster's while it runs a step."""


class StepStopped(dg.DagsterError):
    """Somebody stopped this step; it kept what it had.

    Dagster tries a step with a retry policy again after a ``KeyboardInterrupt``, but never after one of its own errors.
    """


def heed_stop() -> None:
    """Stop here where it was asked for: an interrupt that hits a callback of the garbage collector is lost without.

    Raises:
        dagster.DagsterExecutionInterruptedError: this process was asked to stop.
    """
    if STOP_ASKED.is_set():
        raise dg.DagsterExecutionInterruptedError("stopped by a signal to its process")


@contextmanager
def stop_for_good(kept: str) -> Iterator[None]:
    """Turn a stop into ``StepStopped``, which no retry policy takes for a failure; ``kept`` says what it leaves."""
    try:
        yield
    except STOPS as stop:
        raise StepStopped(f"stopped; {kept}") from stop


@contextmanager
def cancel_when_stopped(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Have a run that is stopped end as cancelled: Dagster takes what nobody announced for a failure."""
    try:
        yield
    except STOPS:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status is dg.DagsterRunStatus.STARTED:
            instance.report_run_canceling(run, "stopped by a signal to its process")
        raise


@contextmanager
def hold_stop() -> Iterator[None]:
    """Hold a stop back until what is done here is done: an event half told would be a database's error, not a stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    earlier = {number: signal.signal(number, lambda found, _: heard.append(found)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    for number in heard[:1]:
        handler = earlier[number]
        if callable(handler):
            handler(number, None)
