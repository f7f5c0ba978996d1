"""Work pool: many independent pieces of work over a few processes, told as they are done.

Belongs here: how work is cut and spread. Does not belong here: what the work is, and which machines take it when this
one does not (``spread_with`` is told).
"""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from joblib import Parallel, cpu_count, delayed

from heimdall_assets.errors import StorageError
from heimdall_assets.pipeline.processes import die_with_parent
from heimdall_assets.stores.objects.interface import ObjectStore

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, how many there are."""

PARALLEL_FROM = 64  # fewer recordings are done before worker processes have started

SEEN_BY_ALL = b"Workers of other machines look for this object before they work.\n"

_BACKEND: ContextVar[Callable[[], Any] | None] = ContextVar("heimdall_work_pool", default=None)


@contextmanager
def spread_with(build_backend: Callable[[], Any]) -> Iterator[None]:
    """Have ``run_parts`` spread its parts through another backend of joblib, whose workers may be other machines.

    A context variable, as joblib's own choice of a backend: what is computed stays the same wherever it is.

    Args:
        build_backend: returns the backend; called once there is enough to spread, and not before.
    """
    before = _BACKEND.get()
    _BACKEND.set(build_backend)
    try:
        yield
    finally:
        _BACKEND.set(before)


def cut(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Return ``items`` in parts of ``size``, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def run_parts(
    worker: Callable[..., Any], parts: Sequence[Any], num_items: int, *shared: Any, parallel_from: int = PARALLEL_FROM
) -> Iterable[Any]:
    """Yield ``worker(part, *shared)`` for each part, in order; over processes where there are enough items."""
    build_backend = _BACKEND.get()
    if num_items >= parallel_from and build_backend is not None:
        return _run_elsewhere(build_backend(), worker, parts, shared)
    jobs = cpu_count() if num_items >= parallel_from else 1
    if jobs == 1:
        return (worker(part, *shared) for part in parts)
    pool = Parallel(n_jobs=jobs, return_as="generator", initializer=die_with_parent, initargs=(os.getpid(),))
    done: Iterable[Any] = pool(delayed(worker)(part, *shared) for part in parts)
    return done


def _run_elsewhere(
    backend: Any, worker: Callable[..., Any], parts: Sequence[Any], shared: tuple[Any, ...]
) -> Iterable[Any]:
    digests = [item.put_bytes(SEEN_BY_ALL, "text/plain").digest for item in shared if isinstance(item, ObjectStore)]
    pool = Parallel(n_jobs=-1, return_as="generator", backend=backend)
    done: Iterable[Any] = pool(delayed(_work_in_same_store)(worker, part, shared, digests[:1]) for part in parts)
    return done


def _work_in_same_store(worker: Callable[..., Any], part: Any, shared: tuple[Any, ...], seen: Sequence[str]) -> Any:
    """Return ``worker(part, *shared)``, from a process that may be of another machine.

    Raises:
        StorageError: the address of the objects leads elsewhere from there; what is stored there would be lost.
    """
    for objects in (item for item in shared if isinstance(item, ObjectStore)):
        if objects.find_present(seen) != set(seen):
            raise StorageError(
                f"objects, seen from {platform.node()}: found another store than where the work was sent from, "
                "expected the same folder or bucket (HEIMDALL_OBJECTS)"
            )
    return worker(part, *shared)
