"""The time axis of a GNSS-stamped recording: a robust line through the stamps that are fresh.

Belongs here: GPS time to UTC, which stamps count, and what the line cannot explain. Does not belong here: the bytes of
a file (``kiwisdr``).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidRecording

WANTED = "expected a GNSS-stamped KiwiSDR recording with a fix and at least 3 fresh stamps, one every few seconds"

GPS_EPOCH_UNIX_S = 315_964_800
"""1980-01-06T00:00:00Z, where GPS time starts. Source: IS-GPS-200, section 3.3.4."""

WEEK_NS = 604_800 * 10**9

LEAP_SECONDS = ((1_435_708_800, 17), (1_483_228_800, 18))
"""(unix second from which, GPS minus UTC in seconds): since 2015-07-01 and 2017-01-01; none announced since.

Source: IERS Bulletins C 49 and 52. The first KiwiSDRs were made in 2016, so earlier dates are refused.
"""

NO_FIX_AGE = 254
MIN_FRESH_STAMPS = 3  # a line through two has no residual, so its error would be unknown
MAX_STALE_BLOCKS = 8  # one is usual; more would hide missing samples
MAX_STAMP_ERROR_NS = 1e6  # missing samples come in blocks of 42 ms; extrapolated stamps stray by less than 1 us
MAX_RESIDUAL_NS = 10e3  # 10 to 80 ns in good recordings; beyond this the clock did not run evenly
STAMP_STEP_NS = 1.0  # stamps are whole nanoseconds: an error of 1 / sqrt(12) at least


@dataclass(frozen=True)
class TimeAxis:
    """The line through a recording's fresh stamps.

    Attributes:
        sample_rate_hz: true rate, from the slope.
        start_unix_ns: time of the first sample that is kept.
        sigma_s: one-sigma scatter of the fresh stamps around the line.
        num_fresh: stamps that made the line.
        num_stale_blocks: blocks at the start that were left out because their stamps are of another time.
    """

    sample_rate_hz: float
    start_unix_ns: int
    sigma_s: float
    num_fresh: int
    num_stale_blocks: int


def fit_time_axis(blocks: NDArray[Any], hint_ns: int, name: str) -> TimeAxis:
    """Return the time axis of a recording's blocks.

    Args:
        blocks: structured (K,) with fields ``age_s`` (of the last fix), ``week_s`` and ``ns`` (the stamp, GPS time) and
            ``iq`` (N, 2).
        hint_ns: rough time of the start in ns since 1970-01-01 UTC, right within three days.
        name: what to call the recording in an error.

    Raises:
        InvalidRecording: no fix, too few fresh stamps, stamps that lie on no line, or missing samples.
    """
    age_s = blocks["age_s"].astype(np.int64)
    fresh = np.flatnonzero((np.diff(age_s) < 0) & (age_s[1:] < NO_FIX_AGE)) + 1
    without_fix = int(np.count_nonzero(age_s >= NO_FIX_AGE))
    if without_fix and len(fresh) < MIN_FRESH_STAMPS:
        raise InvalidRecording(
            f"{name}: the receiver had no GNSS fix (age {int(age_s.max())} in {without_fix} of {len(age_s)} blocks), "
            f"so its samples cannot be timed; {WANTED}"
        )
    if len(fresh) < MIN_FRESH_STAMPS:
        raise InvalidRecording(
            f"{name}: {len(fresh)} fresh GNSS stamps in {len(age_s)} blocks, expected at least {MIN_FRESH_STAMPS} to "
            f"time its samples; {WANTED}"
        )
    block_samples = blocks["iq"].shape[1]
    index = np.arange(len(blocks), dtype=np.float64) * block_samples
    leap_s = _find_leap_seconds(hint_ns, name)
    stamp_ns = _resolve_week(blocks, hint_ns - (GPS_EPOCH_UNIX_S - leap_s) * 10**9)
    zero_ns = int(stamp_ns[fresh[0]])
    offset_ns = (stamp_ns - zero_ns).astype(np.float64)
    slope, intercept, sigma_ns, num_used = _fit_line(index[fresh], offset_ns[fresh], name)
    num_stale = _count_stale_blocks(offset_ns - (intercept + slope * index), name)
    start_ns = zero_ns + round(intercept + slope * index[num_stale])
    return TimeAxis(
        sample_rate_hz=1e9 / slope,
        start_unix_ns=start_ns + (GPS_EPOCH_UNIX_S - leap_s) * 10**9,
        sigma_s=sigma_ns * 1e-9,
        num_fresh=num_used,
        num_stale_blocks=num_stale,
    )


def _find_leap_seconds(unix_ns: int, name: str) -> int:
    """Return GPS minus UTC in seconds at ``unix_ns``."""
    for since_s, leap_s in reversed(LEAP_SECONDS):
        if unix_ns >= since_s * 10**9:
            return leap_s
    raise InvalidRecording(f"{name}: dated before 2015-07-01, expected a time at which KiwiSDRs existed")


def _resolve_week(blocks: NDArray[Any], hint_gps_ns: int) -> NDArray[np.int64]:
    """Return stamps (K,) int64 in ns of GPS time, each in the week that brings it nearest to the hint."""
    in_week_ns = blocks["week_s"].astype(np.int64) * 10**9 + blocks["ns"].astype(np.int64)
    week = np.rint((hint_gps_ns - in_week_ns) / WEEK_NS).astype(np.int64)
    return in_week_ns + week * WEEK_NS


def _fit_line(index: NDArray[np.float64], offset_ns: NDArray[np.float64], name: str) -> tuple[float, float, float, int]:
    """Return slope (ns a sample), intercept (ns), residual sigma (ns) and the number of stamps used.

    A Theil-Sen line (median of pairwise slopes, unharmed by up to 29 % outliers) says which stamps belong to it; least
    squares through those gives the answer. Source: Sen, J. Am. Stat. Assoc. 63 (1968) 1379.
    """
    from scipy.stats import theilslopes  # slow to load, and only a recording in this format needs it

    step = -(-len(index) // 300)  # pairwise slopes grow with the square; 300 stamps are plenty to start from
    start = theilslopes(offset_ns[::step], index[::step])
    residual_ns = offset_ns - (start.intercept + start.slope * index)
    spread_ns = 1.4826 * float(np.median(np.abs(residual_ns - np.median(residual_ns))))
    used = np.abs(residual_ns - np.median(residual_ns)) <= max(6.0 * spread_ns, 1000.0)
    num_used = int(np.count_nonzero(used))
    if num_used < MIN_FRESH_STAMPS or 3 * num_used < 2 * len(index):
        raise InvalidRecording(
            f"{name}: only {num_used} of {len(index)} fresh GNSS stamps lie on a line, expected two thirds and at "
            f"least {MIN_FRESH_STAMPS} (samples are missing, or stamps are wrong)"
        )
    centre = float(index[used].mean())
    slope, middle = np.polynomial.polynomial.polyfit(index[used] - centre, offset_ns[used], 1)[::-1]
    residual_ns = offset_ns[used] - (middle + slope * (index[used] - centre))
    sigma_ns = float(np.sqrt(np.sum(residual_ns**2) / (num_used - 2)))
    if not (slope > 0 and sigma_ns <= MAX_RESIDUAL_NS):
        raise InvalidRecording(
            f"{name}: fresh GNSS stamps scatter by {sigma_ns:.4g} ns around a line of {slope:.6g} ns a sample, "
            f"expected at most {MAX_RESIDUAL_NS:g} ns and a rising line (samples are missing, or stamps are wrong)"
        )
    return float(slope), float(middle - slope * centre), max(sigma_ns, STAMP_STEP_NS / 12**0.5), num_used


def _count_stale_blocks(error_ns: NDArray[np.float64], name: str) -> int:
    """Return how many blocks at the start carry a stamp off the line; one odd stamp elsewhere is only a wrong stamp."""
    on_line = np.flatnonzero(np.abs(error_ns) <= MAX_STAMP_ERROR_NS)
    num_stale = int(on_line[0]) if len(on_line) else len(error_ns)
    if num_stale > MAX_STALE_BLOCKS:
        raise InvalidRecording(
            f"{name}: the first {num_stale} blocks carry stamps of another time, expected at most {MAX_STALE_BLOCKS} "
            "(stale, or samples are missing after them)"
        )
    gaps = np.flatnonzero(np.diff(np.append(on_line, len(error_ns) + 1)) > 2)
    if len(gaps):
        block = int(on_line[gaps[0]]) + 1
        raise InvalidRecording(
            f"{name}: stamps from block {block} on are {error_ns[block] / 1e6:+.3f} ms off the line, expected "
            f"{MAX_STAMP_ERROR_NS / 1e6:g} ms at most (samples are missing)"
        )
    return num_stale
