"""Arrivals and clocks of receivers as columns: what tables of many sessions and a single one have in common.

Belongs here: formulas over arrays. Does not belong here: tables (``assembly``), receivers that somebody hands in
(``inference.receivers``), what a clock class is worth (``specs.TimingSpec``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.physical import read_clock_sigma_s

if TYPE_CHECKING:
    from heimdall_assets.specs import TimingSpec


def compute_timing_sigma_s(
    clock_classes: Sequence[str],
    is_ready_made: NDArray[np.bool_],
    start_sigma_s: NDArray[np.float64],
    timing: "TimingSpec",
) -> NDArray[np.float64]:
    """Return the one-sigma error of each receiver's clock, (M,): its class, and how well its recording knows the start.

    A start that is written to the millisecond is known no better than that, however good the clock behind it. A
    ready-made arrival of no clock class has all of its error in its own sigma.

    Args:
        clock_classes: of each receiver, M of them.
        is_ready_made: bool (M,), which have an arrival that somebody else computed.
        start_sigma_s: float64 (M,); NaN: no recording, or its start is exact.
        timing: sigma of each class.
    """
    clock_s = np.array([read_clock_sigma_s(timing, name) for name in clock_classes], dtype=np.float64)
    is_free = np.array([name == "none" for name in clock_classes], dtype=np.bool_)
    clock_s[is_ready_made & is_free] = 0.0
    sigma_s: NDArray[np.float64] = np.hypot(clock_s, np.nan_to_num(start_sigma_s, nan=0.0))
    return sigma_s


def count_from_earliest_s(unix_ns: NDArray[np.int64], earliest_ns: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Return times in s from the earliest of their session.

    Nanoseconds since 1970 are subtracted as integers: float64 knows 238 ns of them.
    """
    since: NDArray[np.float64] = (unix_ns - earliest_ns).astype(np.float64) * 1e-9
    return since
