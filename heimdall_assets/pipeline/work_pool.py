"""Work pool: many independent pieces of work over a few processes, told as they are done.

Belongs here: how work is cut and spread. Does not belong here: what the work is.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from joblib import Parallel, cpu_count, delayed

from heimdall_assets.pipeline.processes import die_with_parent

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, how many there are."""

PARALLEL_FROM = 64  # fewer recordings are done before worker processes have started


def cut(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Return ``items`` in parts of ``size``, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def run_parts(
    worker: Callable[..., Any], parts: Sequence[Any], num_items: int, *shared: Any, parallel_from: int = PARALLEL_FROM
) -> Iterable[Any]:
    """Yield ``worker(part, *shared)`` for each part, in order; over processes where there are enough items."""
    jobs = cpu_count() if num_items >= parallel_from else 1
    if jobs == 1:
        return (worker(part, *shared) for part in parts)
    pool = Parallel(n_jobs=jobs, return_as="generator", initializer=die_with_parent, initargs=(os.getpid(),))
    done: Iterable[Any] = pool(delayed(worker)(part, *shared) for part in parts)
    return done
