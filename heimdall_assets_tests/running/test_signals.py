"""A stop is heard, said and heeded, also where the interrupt that it causes is lost."""

import gc
import os
import signal
import sys
import time

import dagster as dg
import pytest

from heimdall_assets.defs.stopping import StepStopped, heed_stop, hold_stop, stop_for_good
from heimdall_assets.running.signals import Stopped, hear_stop


def wait_for_word(said: list[str]) -> None:
    deadline = time.monotonic() + 20.0
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_said_and_ends_what_it_interrupts_with_its_own_status(number: signal.Signals):
    said: list[str] = []

    def work() -> None:
        with hear_stop(said.append, "goes on"):
            os.kill(os.getpid(), number)
            time.sleep(20.0)

    with pytest.raises(Stopped, match="goes on") as caught:
        work()
    assert caught.value.exit_code == 128 + number
    assert said == ["Stopping: what is done is kept. Once more ends at once."]


def test_a_stop_whose_interrupt_is_lost_is_heeded_all_the_same():
    """As where it is raised inside a callback of the garbage collector, which Python tells of and forgets."""
    said: list[str] = []
    earlier = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with hear_stop(said.append, "goes on"):
            heed_stop()  # nothing was asked
            os.kill(os.getpid(), signal.SIGINT)
            wait_for_word(said)
            with pytest.raises(dg.DagsterExecutionInterruptedError):
                heed_stop()
    finally:
        signal.signal(signal.SIGINT, earlier)
    with hear_stop(said.append, "goes on"):
        heed_stop()  # the next command was not told to stop


class Interrupting:
    """Raises where Python can only tell of it, as in a callback of the garbage collector."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def test_an_interrupt_that_is_lost_is_not_shown_as_an_error(monkeypatch: pytest.MonkeyPatch):
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))
    with hear_stop(print, "goes on"):
        for error in (KeyboardInterrupt(), dg.DagsterExecutionInterruptedError(), ValueError()):
            Interrupting(error)
            gc.collect()
    assert told == [ValueError]
    Interrupting(KeyboardInterrupt())
    gc.collect()
    assert told == [ValueError, KeyboardInterrupt]


def test_a_held_stop_comes_when_what_holds_it_is_done():
    done = []

    def work() -> None:
        with hold_stop():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("stop", [KeyboardInterrupt, dg.DagsterExecutionInterruptedError])
def test_a_stop_becomes_an_error_that_no_retry_policy_takes_for_a_failure(stop: type[BaseException]):
    with pytest.raises(StepStopped, match="stopped; the last epoch is kept"), stop_for_good("the last epoch is kept"):
        raise stop
    assert issubclass(StepStopped, dg.DagsterError)
