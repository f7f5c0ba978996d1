"""Processes that end with whoever started them, and when they are asked to: none goes on working for nobody.

Linux alone tells a child of its parent's end; elsewhere these do nothing.
"""

import ctypes
import os
import signal
import sys
import threading

STOP_ASKED = threading.Event()
"""Set once this process was told to stop: whoever works here looks at it where it may end."""

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: a forked child must not load anything


def interrupt_with_parent() -> None:
    """Have this process interrupted when its parent ends: for a child between fork and exec."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends, or now, where process ``parent`` is that no more.

    For workers that keep nothing; Ctrl+C, which a terminal sends to all, is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
