"""Stopwatch: how long calls take, in turns, so that what else the machine does falls on all of them alike.

Belongs here: timing what it is handed. Does not belong here: what is timed. A time is a fact of the moment and of the
machine: it may stand beside a result (``computing.note_measurement``), never in it.
"""

import time
from collections.abc import Callable, Mapping, Sequence

UNIT = "ms of processor time"
"""Of the figures: what other processes take away does not count; with one thread and none other it is the latency."""

MIN_ROUNDS, MAX_ROUNDS = 5, 30


def time_in_turns(calls: Mapping[str, Callable[[], object]], max_s: float = 1.0) -> dict[str, list[float]]:
    """Return name -> times in ms, one a round, after one round that is not counted.

    Args:
        calls: name -> what is timed.
        max_s: for all rounds of all calls; at least ``MIN_ROUNDS`` are made, however long they take.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = time.monotonic()
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.monotonic() - began > max_s:
            break
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - start))
    return times


def summarize_times(times_ms: Sequence[float]) -> dict[str, float]:
    """Return median and 95th percentile, to the nearest of the times, and how many there are.

    >>> summarize_times([3.0, 1.0, 2.0])
    {'p50': 2.0, 'p95': 3.0, 'num_rounds': 3}
    """
    ranked = sorted(times_ms)
    found = {f"p{level}": ranked[-(-level * len(ranked) // 100) - 1] for level in (50, 95)}
    return {name: float(f"{value:.4g}") for name, value in found.items()} | {"num_rounds": len(ranked)}
