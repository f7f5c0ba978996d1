"""Signals: a command that was told to stop says so at once, ends in order, and says how it goes on.

Belongs here: hearing SIGINT and SIGTERM, whoever handles them. Does not belong here: what a run does about them
(``defs.stopping``).
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context

from heimdall_assets.pipeline.processes import STOP_ASKED

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A command was stopped by a signal; ``exit_code`` is what a shell expects of that."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@contextmanager
def hear_stop(say: Callable[[str], None], how_it_goes_on: str) -> Iterator[None]:
    """Say at once that a signal was heard, and turn the interrupt it causes into ``Stopped``.

    Dagster and Lightning put handlers of their own in place while they work, and none of them tells which signal came:
    Python's wakeup descriptor hears each of them. A second signal ends the process at once; what it leaves half done,
    the next command puts right.

    Raises:
        Stopped: the work was interrupted by a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    STOP_ASKED.clear()
    inlet, outlet = socket.socketpair()
    outlet.setblocking(False)
    earlier = signal.set_wakeup_fd(outlet.fileno(), warn_on_full_buffer=False)
    terminated = signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Whoever is spoken to is known in this context: a thread has none of its own.
    listener = threading.Thread(target=copy_context().run, args=(_listen, inlet, heard, say), daemon=True)
    listener.start()
    interrupted = False
    told = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if _is_interrupt(lost.exc_type) else told(lost)
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.unraisablehook = told
        signal.set_wakeup_fd(earlier)
        signal.signal(signal.SIGTERM, terminated)
        outlet.close()
        listener.join()
        inlet.close()
    if interrupted:
        raise Stopped(heard[0] if heard else signal.SIGINT, how_it_goes_on)


def _is_interrupt(kind: type[BaseException] | None) -> bool:
    """Tell whether Python's or Dagster's interrupt was lost in a callback: no news, for ``STOP_ASKED`` keeps it."""
    return kind is not None and not issubclass(kind, Exception)


def _listen(inlet: socket.socket, heard: list[int], say: Callable[[str], None]) -> None:
    while data := inlet.recv(16):
        for number in data:
            if number not in STOPPING:
                continue
            if heard:
                os._exit(128 + number)
            heard.append(number)
            STOP_ASKED.set()
            say("Stopping: what is done is kept. Once more ends at once.")
