"""Several processes at once, each with its own copy of everything; cheap to start, for many tests need them."""

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "heimdall_assets.stores.database.measurements",
        "heimdall_assets.stores.releases.opening",
        "heimdall_assets.stores.database.migrations",
        "alembic.command",
    ]
)


def run_at_once(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
    """Return what ``function`` gave for each of ``calls``, each in a process of its own, all started together."""
    start = _CONTEXT.Barrier(len(calls))
    answers = [_CONTEXT.Pipe(duplex=False) for _ in calls]
    processes = [
        _CONTEXT.Process(target=_run, args=(start, sender, function, call), daemon=True)
        for (_, sender), call in zip(answers, calls, strict=True)
    ]
    for process in processes:
        process.start()
    results = []
    for (receiver, sender), process in zip(answers, processes, strict=True):
        sender.close()
        assert receiver.poll(90), f"{function.__name__}: no answer after 90 s"
        kind, value = receiver.recv()
        assert kind == "result", value
        results.append(value)
        receiver.close()
        process.join(30)
        process.close()
    return results


def start_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return a started process, which the caller may kill."""
    process = _CONTEXT.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def _run(start: Any, sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        start.wait(60)
        sender.send(("result", function(*arguments)))
    except BaseException:
        sender.send(("error", traceback.format_exc()))
