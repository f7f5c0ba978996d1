"""When a carrier was on: the one stretch of a recording whose power and quieting stand apart from the rest.

Belongs here: change points of two series over equal parts of a recording. Does not belong here: the series themselves
(``signal_track``), what is made of the answer (``detectors``).

Least squares of a series that takes one value while the key is down and another before and after, over every start and
end; a change is believed where it explains more than the penalty that it costs.
Source: Killick, Fearnhead, Eckley 2012, JASA 107: penalised change points; penalty of Schwarz's criterion.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_CONTRAST_DB = 4.0
"""Power risen plus noise quieted that a carrier makes at least; at 0 dB of SNR it makes 6.5."""

SATURATION_DB = 15.0
"""More contrast than this of either series is no better evidence, and modulation moves what is beyond it."""

UNQUIETED_DB = 64.0
"""A discriminator's noise where there is no carrier, dB of Hz^2 in ``signal_track.NOISE_HZ``: noise alone turns at a
pace that its channel decides, whatever its power (Rice 1948, Bell System Technical Journal 27, p. 109). Measured."""

NOISE_FLOOR_DB = 1.0
"""Spread of the series about its two values that is believed at least: receivers settle, speech leaks."""


def find_span(level_db: NDArray[Any], noise_db: NDArray[Any]) -> NDArray[np.float64]:
    """Return start and end of the stretch with a carrier, float64 (2,), in parts of the recording, 0 and T at most.

    Where no change is believed it is all of the recording: somebody recorded it because it was heard.

    Args:
        level_db: (T,), power of each part.
        noise_db: (T,), power of the discriminator's noise in each part, which a carrier lowers.

    Examples:
        Of eight parts the third to the fifth, and half of the sixth, hold a carrier 20 dB above the noise:

        >>> power = np.array([1.0, 1.0, 100.0, 100.0, 100.0, 50.5, 1.0, 1.0])
        >>> find_span(10.0 * np.log10(power), np.where(power > 60.0, 40.0, 64.0)).tolist()
        [2.0, 5.5]
    """
    level = np.asarray(level_db, dtype=np.float64)
    noise = np.asarray(noise_db, dtype=np.float64)
    num = len(level)
    contrast = np.maximum(level - level.max(), -SATURATION_DB) - np.maximum(noise, UNQUIETED_DB - SATURATION_DB)
    starts, ends, changes = _list_stretches(num)
    total, count = contrast.sum(), ends - starts
    before = np.concatenate([[0.0], np.cumsum(contrast)])
    inside = before[ends] - before[starts]
    outside, rest = total - inside, num - count
    mean_in, mean_out = inside / count, outside / np.maximum(rest, 1)
    left = np.square(contrast).sum() - inside * mean_in - outside * mean_out
    believed = (mean_in - mean_out >= MIN_CONTRAST_DB) | (rest == 0)
    cost = num * np.log(left / num + NOISE_FLOOR_DB**2) + 2.0 * changes * np.log(num)
    best = np.where(believed, cost, np.inf).argmin()
    return _refine(np.power(10.0, level / 10.0), int(starts[best]), int(ends[best]))


@lru_cache(maxsize=4)
def _list_stretches(num: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return start, end and number of changes of every stretch of at least one part."""
    starts, ends = np.triu_indices(num + 1, k=1)
    return starts, ends, (starts > 0).astype(np.int64) + (ends < num)


def _refine(power: NDArray[np.float64], start: int, end: int) -> NDArray[np.float64]:
    """Return start and end to a share of a part: a part that the carrier covers by half has half of its power."""
    num = len(power)
    outside = np.concatenate([power[: max(start - 1, 0)], power[end + 1 :]])
    middle = power[min(start + 1, end - 1) : max(end - 1, start + 1)]
    if (start == 0 and end == num) or not len(outside):
        return np.array([start, end], dtype=np.float64)
    quiet, loud = np.median(outside), np.median(middle)
    span = np.array([start, end], dtype=np.float64)
    if loud > quiet:
        # The change lies between the part before the edge and the one after it: what both hold together tells where.
        if start > 0:
            covered = np.clip((power[start - 1 : start + 1] - quiet) / (loud - quiet), 0.0, 1.0).sum()
            span[0] = start + 1 - covered
        if end < num:
            covered = np.clip((power[end - 1 : end + 1] - quiet) / (loud - quiet), 0.0, 1.0).sum()
            span[1] = end - 1 + covered
    return span
