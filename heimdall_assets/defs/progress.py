"""Progress of long steps: to whoever listens in this process (the command line's bar), else to the step's log.

A context variable, not a resource: the graph stays the same whether anybody watches.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import dagster as dg

from heimdall_assets.defs.stopping import heed_stop, hold_stop

Listener = Callable[[str, str, int, int], None]
"""Called with asset, what is being done, how many are done, how many there are; of 0, it is a line to be read."""


class Work(str):
    """What is being done, as a listener is told it, and beside it how it goes: two with one name are one work."""

    detail: str

    def __new__(cls, name: str, detail: str) -> "Work":
        work = super().__new__(cls, name)
        work.detail = detail
        return work


_LISTENER: ContextVar[Listener | None] = ContextVar("heimdall_progress", default=None)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Send progress of assets that run in this process to ``listener``."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def notice(line: str) -> None:
    """Have whoever listens say a line."""
    listener = _LISTENER.get()
    if listener is not None:
        listener("", line, 0, 0)


def tell_detail(asset: str, work: Work, done: int, total: int) -> None:
    """Have whoever listens show how work goes between two reports; nothing is logged of it."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(asset, work, done, total)


def tell_step(event: dg.DagsterEvent) -> None:
    """Tell the listener that a step in another process began or ended: what it reports itself stays in its log."""
    listener = _LISTENER.get()
    if listener is not None and event.step_key is not None and (event.is_step_start or event.is_step_success):
        listener(event.step_key, "in a process of its own", int(event.is_step_success), 1)


def report_to(context: dg.AssetExecutionContext | dg.OpExecutionContext, asset: str) -> Callable[[str, int, int], None]:
    """Return the progress callable that an asset hands to the stores: it logs each tenth, and tells the listener."""
    logged: tuple[str, int] | None = None

    def report(what: str, done: int, total: int) -> None:
        nonlocal logged
        heed_stop()
        listener = _LISTENER.get()
        if listener is not None:
            listener(asset, what, done, total)
        tenth = (what, 10 * done // max(total, 1))
        if tenth != logged:
            logged = tenth
            with hold_stop():
                context.log.info(f"{what}: {done} of {total}")

    return report
