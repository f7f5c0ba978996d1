"""Progress of long commands, on stderr: bars in a terminal, lines elsewhere, and never silent for two seconds.

Belongs here: how it is shown. Does not belong here: what is done (whoever works tells a listener), the answer
(``output``).
"""

import io
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Timer
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from heimdall_assets.cli.terminal.output import escape_text

if TYPE_CHECKING:
    from rich.console import Console

Listener = Callable[[str, str, int, int], None]
"""Called with asset, what is being done, how many are done, how many there are; of 0 it is a line to show as it is.

What is being done may have a text ``detail`` that says how it goes.
"""

SPEAK_AFTER_S = 1.0
"""Loading alone can take seconds: after this long the title is shown, whatever has begun."""

LINE_EVERY_S = 10.0
"""Where there is no terminal, a piece of work tells of itself this often."""

WAITING = "working"
"""What stands beside the clock while nobody tells of any work: packages load, a result is stored."""


class _Shown(Protocol):
    def begin(self) -> None: ...
    def listen(self, asset: str, what: str, done: int, total: int) -> None: ...
    def end(self) -> None: ...


@contextmanager
def show_progress(title: str) -> Iterator[Listener]:
    """Yield a listener that shows each piece of work; of a command that ends within a second nothing is shown.

    Import what is slow inside: whoever waits for it sees that something is under way.
    """
    with _keep_stderr() as stream:
        shown: _Shown = _Bars(title, stream) if stream.isatty() else _Lines(title, stream)
        timer = Timer(SPEAK_AFTER_S, shown.begin)
        timer.daemon = True
        timer.start()
        try:
            yield shown.listen
        finally:
            timer.cancel()
            timer.join()
            shown.end()


def without_asset(listener: Listener) -> Callable[[str, int, int], None]:
    """Return a listener as work outside of the graph calls it: with what is done, how many are, how many there are."""
    return partial(listener, "")


@contextmanager
def _keep_stderr() -> Iterator[TextIO]:
    """Yield stderr as it is now: Dagster turns the process's own into a file, in which nobody would see a bar."""
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):  # no file behind it: a test's or a notebook's
        yield sys.stderr
        return
    with io.TextIOWrapper(io.FileIO(descriptor, "w"), "utf-8", "replace", write_through=True) as stream:
        yield stream


class _Lines:
    """For pipes and files: the title, a line for each piece of work that is done, and one now and then before."""

    def __init__(self, title: str, stream: TextIO):
        self._title, self._stream = escape_text(title), stream
        self._is_begun = False
        self._told_s: dict[tuple[str, str], float] = {}

    def begin(self) -> None:
        print(self._title, file=self._stream, flush=True)
        self._is_begun = True

    def listen(self, asset: str, what: str, done: int, total: int) -> None:
        if not total:
            print(escape_text(what), file=self._stream, flush=True)
            return
        now_s = time.monotonic()
        told_s = self._told_s.setdefault((asset, what), now_s)
        is_due = done >= total or now_s - told_s >= LINE_EVERY_S
        if not self._is_begun or not is_due or told_s == math.inf:
            return
        print(_join(f"{escape_text(what)} {done}/{total}", _find_detail(what)), file=self._stream, flush=True)
        self._told_s[asset, what] = math.inf if done >= total else now_s

    def end(self) -> None:
        """Show nothing more."""


class _Bars:
    """For terminals: one bar for each piece of work, with time left, and a clock between them."""

    def __init__(self, title: str, stream: TextIO):
        from rich.console import Console

        self._title = escape_text(title)
        self._bars = _build_bars(Console(file=stream, force_terminal=True))
        self._pieces: dict[tuple[str, str], Any] = {}
        self._waiting: Any = self._bars.add_task(WAITING, total=None, detail="")
        self._is_begun = False

    def begin(self) -> None:
        from rich.text import Text

        self._bars.console.print(Text(self._title))
        self._bars.start()
        self._is_begun = True

    def listen(self, asset: str, what: str, done: int, total: int) -> None:
        if not total:
            from rich.text import Text

            self._bars.console.print(Text(escape_text(what)), soft_wrap=True)
            return
        if (asset, what) not in self._pieces:
            for piece in self._pieces.values():  # training may stop early: its clock stops with it
                self._bars.stop_task(piece)
            self._pieces[asset, what] = self._bars.add_task(escape_text(what), total=total, detail="")
        self._bars.update(self._pieces[asset, what], completed=done, total=total, detail=_find_detail(what))
        self._wait(done >= total)

    def end(self) -> None:
        self._wait(False)
        if self._is_begun:
            self._bars.stop()

    def _wait(self, waits: bool) -> None:
        if self._waiting is not None and not waits:
            self._bars.remove_task(self._waiting)
            self._waiting = None
        elif self._waiting is None and waits:
            self._waiting = self._bars.add_task(WAITING, total=None, detail="")


def _find_detail(what: str) -> str:
    return escape_text(str(getattr(what, "detail", "")))


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _build_bars(console: "Console") -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
    )
