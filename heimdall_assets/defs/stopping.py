"""Stopping: what a SIGINT or SIGTERM becomes on its way through Dagster, so that it is a stop and no failure.

Belongs here: the step's side of it. Where signals are heard: ``running.signals``; where a run's steps end:
``executor``.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


STOPPED_TAG = "heimdall/stopped"
"""Of a run: the step that it has stopped, said before the step hears of it."""

_POD_VARIABLE = "DAGSTER_RUN_STEP_KEY"
"""dagster-k8s tells a pod by it which step it runs."""


def announce_stop(instance: dg.DagsterInstance, run_id: str, step: str) -> None:
    """Say that a run stops a step of its own, which a pod cannot tell from a machine that is taken away under it."""
    instance.add_run_tags(run_id, {STOPPED_TAG: step})


@contextmanager
def stop_for_good(kept: str, context: Any = None) -> Iterator[None]:
    """Turn a stop into ``StepStopped``, which no retry policy takes for a failure.

    A pod is also told to end by its cluster, which drains or takes back a machine: that is a failure to be tried again,
    elsewhere. An attempt that was given up while nobody heard of its machine ends without a word, for another one has
    taken its place.

    Args:
        kept: says what the step leaves.
        context: of the step; None: whoever stops it means it.
    """
    try:
        yield
    except STOPS as stop:
        step = os.environ.get(_POD_VARIABLE)
        if context is not None and step is not None:
            if _is_given_up(context, step):
                os.kill(os.getpid(), signal.SIGKILL)
            if not _is_announced(context, step):
                raise dg.Failure(f"its machine was taken away; {kept}", allow_retries=True) from stop
        raise StepStopped(f"stopped; {kept}") from stop


def _is_given_up(context: Any, step: str) -> bool:
    kinds = {dg.DagsterEventType.STEP_UP_FOR_RETRY}
    records = context.instance.get_records_for_run(context.run_id, of_type=kinds).records
    return bool(sum(record.event_log_entry.step_key == step for record in records) > context.retry_number)


def _is_announced(context: Any, step: str) -> bool:
    run = context.instance.get_run_by_id(context.run_id)
    if run is None or run.is_finished or run.status is dg.DagsterRunStatus.CANCELING:
        return True
    return bool(run.tags.get(STOPPED_TAG) == step)


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
