"""Numbers among levels that are none: codes for "not heard", guessed from how the levels are distributed.

Belongs here: which value looks like a code. Does not belong here: what is done about it (``level_values`` asks). A
guess costs whoever is asked one option; a code that is believed costs a wrong position. So what is in doubt is guessed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GAP_DB = 15.0
"""Distance from all other levels at which several equal ones are no tail of a distribution."""

LOW_GAP_DB, HIGH_GAP_DB = 40.0, 60.0
"""Distance at which a single one is none: below, by the dynamic range of a receiver; above, a source may be close."""

SMALL = 50
"""Levels below which shares say nothing, and two equal ones apart from the rest are enough to ask."""

SMALL_REPEATS, SMALL_SHARE = 3, 0.2
"""What a heap at an end of so few must hold: so many, so many times the value beside it, and of all."""

LEAST_REPEATS = 5
LEAST_SHARE, LEAST_COLUMN_SHARE = 0.01, 0.10
"""Share of all levels, and of a receiver's, that a heap at an end must hold."""

FULL_SHARE = 0.05
"""Share of all levels at which the lowest is asked about where no cell is empty: it may be how that table says so."""

SMALL_FULL = 1000
"""Levels below which, where no cell is empty, the lowest is asked about however seldom it stands."""

FINE_SHARE, FINE_REPEATS = 0.9, 3
"""Share of distinct values from which levels have so many digits that no two are equal; and repeats that are no level.
"""

FAINT_DB = -95.0
"""Level in dBm at which receivers of 100 kHz and more begin to hear nothing: k T B and 10 dB are -114 dBm there."""

LEAST_INNER_REPEATS, LEAST_INNER_SHARE, INNER_RATIO = 20, 0.10, 3.0
"""What a heap among the other levels must hold: so many, of so many, so many times what any other value does."""

MAX_CODES = 4


@dataclass(frozen=True)
class Code:
    """A value that looks like a code, and the receivers in whose levels it does.

    Attributes:
        value: as it stands in the table.
        receivers: indices of those that have it, in their order.
        count: how many of their levels it is.
    """

    value: float
    receivers: tuple[int, ...]
    count: int


def find_codes(
    values: NDArray[np.float64], receiver: NDArray[np.int64], real: Sequence[float] = (), is_full: bool = False
) -> list[Code]:
    """Return what looks like a code among all levels, or among those of one receiver.

    Args:
        values: float64 (N,), finite levels as they stand in the table.
        receiver: int64 (N,), whose each is.
        real: values that are levels, however they look.
        is_full: every receiver shows a number for every transmission, which real ones seldom do.

    Examples:
        >>> rng = np.random.default_rng(1)
        >>> levels = np.concatenate([rng.normal(-85.0, 8.0, 70).round(1), np.full(30, -120.0)])
        >>> [(code.value, code.count) for code in find_codes(levels, np.zeros(100, int))]
        [(-120.0, 30)]
    """
    suspects = find_apart(values, LEAST_SHARE, real)
    if is_full and len(values) and not suspects and values.min() not in real:
        suspects += [float(values.min())] * _may_be_floor(values)
    order = np.argsort(receiver, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(receiver[order])) + 1):
        if len(own) >= SMALL:
            suspects += [value for value in find_apart(values[own], LEAST_COLUMN_SHARE, real) if value not in suspects]
    return [describe_code(value, values, receiver) for value in sorted(set(suspects))]


def describe_code(value: float, values: NDArray[np.float64], receiver: NDArray[np.int64]) -> Code:
    """Return where ``value`` stands among ``values`` (N,) of ``receiver`` (N,)."""
    there = values == value
    return Code(float(value), tuple(np.unique(receiver[there]).tolist()), int(there.sum()))


def find_apart(values: NDArray[np.float64], least_share: float, real: Sequence[float]) -> list[float]:
    """Return values at either end that stand apart from the rest or in a heap, and one that is a heap among the rest.

    Args:
        values: float64 (N,).
        least_share: of them that a heap at an end must hold.
        real: never returned; nor is what lies further inside.
    """
    distinct, counts = np.unique(values, return_counts=True)
    total, first, last = len(values), 0, len(distinct) - 1
    is_fine = total - counts.max(initial=0) > 0 and len(distinct) - 1 >= FINE_SHARE * (total - counts.max(initial=0))
    found: list[float] = []
    for is_low in (True, False):
        while first <= last and len(found) < MAX_CODES:
            end, inner = (first, first + 1) if is_low else (last, last - 1)
            if distinct[end] in real:
                break
            alone = first == last
            gap = np.inf if alone else abs(distinct[end] - distinct[inner])
            beside = 0 if alone else int(counts[inner])
            heap = _is_heap(int(counts[end]), beside, total, least_share) or (is_fine and counts[end] >= FINE_REPEATS)
            if not (heap or (not alone and _stands_apart(int(counts[end]), float(gap), total, is_low))):
                break
            found.append(float(distinct[end]))
            first, last = (first + 1, last) if is_low else (first, last - 1)
    rest = slice(first, last + 1)
    if last - first > 1:
        order = np.argsort(counts[rest])
        most, next_most = int(counts[rest][order[-1]]), int(counts[rest][order[-2]])
        value = float(distinct[rest][order[-1]])
        if value not in real and most >= max(LEAST_INNER_REPEATS, LEAST_INNER_SHARE * total, INNER_RATIO * next_most):
            found.append(value)
    return found


def _may_be_floor(values: NDArray[np.float64]) -> bool:
    """Tell whether the lowest of levels without an empty cell among them may stand for those that are missing.

    It is frequent then; or it is a whole number where receivers hear no more, among few levels or among broken ones.
    """
    lowest = float(values.min())
    is_whole = lowest.is_integer() and (lowest <= FAINT_DB or lowest == 0.0)
    if is_whole and (len(values) < SMALL_FULL or (values == np.rint(values)).mean() < 0.5):
        return True
    return len(values) >= SMALL and bool((values == lowest).mean() >= FULL_SHARE)


def _is_heap(count: int, beside: int, total: int, least_share: float) -> bool:
    """Tell whether the last value of a distribution stands in more cells than any tail or sensitivity limit explains.

    A limit cuts a smooth distribution, so that its last value is about as frequent as the one beside it; half as many
    again and three standard deviations (of a Poisson count) more are not. Among few levels, three of one are enough.
    """
    if total < SMALL:
        return count >= max(SMALL_REPEATS, SMALL_SHARE * total, SMALL_REPEATS * beside)
    return count >= max(LEAST_REPEATS, 1.5 * beside + 3.0 * math.sqrt(beside), least_share * total)


def _stands_apart(count: int, gap_db: float, total: int, is_low: bool) -> bool:
    repeated = count >= (2 if total < SMALL else LEAST_REPEATS)
    return gap_db >= (GAP_DB if repeated else LOW_GAP_DB if is_low else HIGH_GAP_DB)
