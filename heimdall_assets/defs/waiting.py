"""Waiting: the pool in which steps wait for a place, and who holds the one that a step of a run here waits for.

Belongs here: making that pool, looking at the history beside a run, and what it means where that is away.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

import dagster as dg

from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets.defs.orphans import describe_holder, is_mine
from heimdall_assets.defs.progress import notice

LOOK_S = 1.0


def make_pool(instance: dg.DagsterInstance) -> None:
    """Have the history know the pool before a step asks for a place in it.

    Dagster makes it at the first question. Of two runs that ask at once on PostgreSQL it fails one: it goes on in a
    transaction in which it found the other's row.
    """
    if _has_pool(instance):
        return
    try:
        instance.event_log_storage.initialize_concurrency_limit_to_default(GPU_POOL)
    except Exception as error:
        if find_history_fault(error) is None or not _has_pool(instance):
            raise


def _has_pool(instance: dg.DagsterInstance) -> bool:
    return any(pool.name == GPU_POOL for pool in instance.event_log_storage.get_pool_limits())


@contextmanager
def tell_waits(instance: dg.DagsterInstance) -> Iterator[None]:
    """Say once, within two seconds, for whom a step of this process's run waits, and when it goes on.

    A thread of its own looks: whatever way of running steps is chosen, none of them tells it.
    """
    ended = threading.Event()
    watcher = threading.Thread(target=copy_context().run, args=(_watch, instance, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(instance: dg.DagsterInstance, ended: threading.Event) -> None:
    said: set[str] = set()
    while not ended.wait(LOOK_S):
        try:
            lines = find_waits(instance)
        except Exception as error:
            if find_history_fault(error) is None:
                raise
            continue  # the run itself says that its history is away
        for line in lines:
            if line not in said:
                said.add(line)
                notice(line)


def find_history_fault(error: BaseException | None) -> str | None:
    """Return what the database of Dagster's history said, in one line; None: it is not behind this error."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError  # listing the graph loads no database

    while error is not None:
        if isinstance(error, SQLAlchemyError):
            said = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()
            return said[0] if said else type(error).__name__
        error = error.__cause__ or error.__context__
    return None


def find_waits(instance: dg.DagsterInstance) -> list[str]:
    """Return a line for each step of a run in this process that waits for a place in the pool."""
    info = instance.event_log_storage.get_concurrency_info(GPU_POOL)
    waiting = [step for step in info.pending_steps if step.assigned_timestamp is None]
    holders = sorted({slot.run_id for slot in info.claimed_slots})
    return [
        f"{step.step_key} waits for its place in pool {GPU_POOL}: held by "
        + ", ".join(describe_holder(instance, run_id) for run_id in holders)
        for step in waiting
        if holders and (run := instance.get_run_by_id(step.run_id)) is not None and is_mine(run)
    ]
