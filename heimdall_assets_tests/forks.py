"""Forked processes that end soon, some of them killed: cheap, for they find every library loaded.

Only for a process that computes nothing itself: a fork copies locks that a thread holds, and not the thread.
"""

import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

KILLED = -signal.SIGKILL


def start_child(function: Callable[..., Any], *arguments: Any) -> tuple[int, int]:
    """Return the number of a forked process that does this, and from where its answer is read."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 0
        try:
            answer = function(*arguments)
        except BaseException:
            answer, status = traceback.format_exc(), 1
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(status)
    os.close(writer)
    return child, reader


def end_child(child: int, reader: int) -> tuple[int, Any]:
    """Return how a forked process ended (0, or minus its signal) and the JSON value of its function."""
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), json.loads(text) if text else None


def in_child(function: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    """Return how a forked process ended and the JSON value of ``function`` in it."""
    return end_child(*start_child(function, *arguments))


def need(answer: tuple[int, Any]) -> Any:
    """Return the value of a child that must end well."""
    if answer[0] != 0:
        raise SystemExit(f"a child ended with {answer[0]}\n{answer[1]}")
    return answer[1]
