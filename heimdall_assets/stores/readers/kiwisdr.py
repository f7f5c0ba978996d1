"""KiwiSDR IQ recordings (``.wav``) whose blocks carry GNSS time stamps.

The file is RIFF/WAVE: ``fmt `` (PCM, 2 channels, 16 bit), then pairs of a ``kiwi`` chunk (age of the last fix, GPS
second of week, nanosecond) and a ``data`` chunk (I, Q as int16). ``wave`` and scipy cannot hand out ``kiwi`` chunks.

What a reader must know (seen in real files): the stamp is the time of its block's first sample. The first blocks can
carry a stamp, and samples, of minutes or days ago: they are left out and counted. Stamps are extrapolated between
fixes; only where the age *falls* is a stamp fresh. Ages 254 and 255 mean that there is no fix. The rate in the header
is a rounded one: the true rate is the slope of a line through the fresh stamps, its scatter the error of the time axis.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes

from heimdall_assets.domain import Recording
from heimdall_assets.errors import InvalidRecording

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
MAX_RATE_ERROR = 1e-3
STAMP_STEP_NS = 1.0  # stamps are whole nanoseconds: an error of 1 / sqrt(12) at least
MAX_NAME_DIFFERENCE_NS = 3600 * 10**9  # the file's name is written by a computer with its own clock

_NAME = re.compile(r"(\d{8}T\d{6})Z_(\d{1,12})_(.+)_iq\.wav")
_HEADER_BYTES = 36
_WANTED = "expected a GNSS-stamped KiwiSDR recording of at least 15 s, with a fix"


@dataclass(frozen=True)
class KiwiName:
    """What the name ``20171127T104156Z_77500_F1JEK_iq.wav`` says: start, centre frequency, station code."""

    start: datetime
    centre_frequency_hz: float
    station: str


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


def parse_kiwisdr_name(name: str) -> KiwiName:
    """Return start, centre frequency in Hz and station code from a file's name.

    Raises:
        InvalidRecording: the name is not like ``20171127T104156Z_77500_F1JEK_iq.wav``.
    """
    parsed = _parse_name(name)
    if parsed is None:
        raise InvalidRecording(
            f"{name}: not a KiwiSDR file name, expected TIME_FREQUENCY_STATION_iq.wav "
            "such as 20171127T104156Z_77500_F1JEK_iq.wav"
        )
    return parsed


def decode_kiwisdr(
    data: bytes, *, name: str, start_unix_ns: int | None = None, max_samples: int = 200_000_000
) -> Recording:
    """Return the samples of a KiwiSDR recording on the time axis of its GNSS stamps.

    Blocks at the start whose stamps are stale are not part of it (see the module); ``parse_kiwisdr`` counts them.

    Args:
        data: the whole file.
        name: the file's name, or any name where ``start_unix_ns`` is given.
        start_unix_ns: rough time of the start (within days), which says in which GPS week the stamps count; None: the
            name says it.
        max_samples: longer recordings are refused before anything is allocated.

    Raises:
        InvalidRecording: not such a file, sizes that lie, no GNSS fix, too few fresh stamps, stamps off a line, missing
            samples, a rate that is not the header's, or no date to count the stamps from.
    """
    return parse_kiwisdr(data, name=name, start_unix_ns=start_unix_ns, max_samples=max_samples)[0]


def parse_kiwisdr(
    data: bytes, *, name: str, start_unix_ns: int | None = None, max_samples: int = 200_000_000
) -> tuple[Recording, TimeAxis]:
    """Return what ``decode_kiwisdr`` does, and the time axis with its counts."""
    blocks, nominal_rate_hz = _parse_blocks(data, name, max_samples)
    file_name = _parse_name(name)
    hint_ns = start_unix_ns
    if hint_ns is None:
        if file_name is None:
            raise InvalidRecording(
                f"{name}: neither a start nor a file name with the date, expected one of them: the stamps count from "
                "the beginning of a week"
            )
        hint_ns = int(file_name.start.timestamp()) * 10**9
    axis = _fit_time_axis(blocks, hint_ns, name)
    if abs(axis.sample_rate_hz - nominal_rate_hz) > MAX_RATE_ERROR * nominal_rate_hz:
        raise InvalidRecording(
            f"{name}: {axis.sample_rate_hz:.6g} Hz by its stamps, expected the header's {nominal_rate_hz} Hz within "
            f"{MAX_RATE_ERROR:g} of it"
        )
    if start_unix_ns is None and abs(axis.start_unix_ns - hint_ns) > MAX_NAME_DIFFERENCE_NS:
        raise InvalidRecording(
            f"{name}: starts {(axis.start_unix_ns - hint_ns) / 3.6e12:+.1f} h after its name says, expected at most 1 h"
        )
    pairs = blocks["iq"][axis.num_stale_blocks :]
    samples = (pairs.astype(np.float32) / np.float32(32768.0)).reshape(-1).view(np.complex64)
    recording = Recording(
        samples=samples,
        sample_rate_hz=axis.sample_rate_hz,
        start_unix_ns=axis.start_unix_ns,
        timing_sigma_s=axis.sigma_s,
        centre_frequency_hz=None if file_name is None else file_name.centre_frequency_hz,
    )
    return recording, axis


def _parse_name(name: str) -> KiwiName | None:
    match = _NAME.fullmatch(name)
    if match is None or float(match[2]) <= 0:
        return None
    try:
        start = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return KiwiName(start, float(match[2]), match[3])


def _parse_blocks(data: bytes, name: str, max_samples: int) -> tuple[NDArray[Any], int]:
    """Return blocks as a structured array (K,) that views ``data``, and the header's rate in Hz."""
    if len(data) < _HEADER_BYTES + 26 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise InvalidRecording(f"{name}: {len(data)} bytes that are no RIFF/WAVE file, expected a KiwiSDR recording")
    claimed = int.from_bytes(data[4:8], "little") + 8
    if claimed != len(data):
        raise InvalidRecording(f"{name}: {len(data)} bytes, expected {claimed} as its RIFF header claims")
    header = np.frombuffer(data, dtype="<u2,<u2,<u4,<u4,<u2,<u2", count=1, offset=20)[0]
    coding, num_channels, rate_hz, _, align, bits = (int(value) for value in header)
    if data[12:20] != b"fmt \x10\0\0\0" or (coding, num_channels, align, bits) != (1, 2, 4, 16) or rate_hz == 0:
        raise InvalidRecording(
            f"{name}: coding {coding}, {num_channels} channels, {bits} bit at {rate_hz} Hz, expected PCM (1), 2 "
            "channels (I, Q), 16 bit"
        )
    if data[36:44] != b"kiwi\x0a\0\0\0" or data[54:58] != b"data":
        raise InvalidRecording(f"{name}: no GNSS stamps (chunks 'kiwi' before 'data'); {_WANTED}")
    data_bytes = int.from_bytes(data[58:62], "little")
    num_pairs, remainder = divmod(len(data) - _HEADER_BYTES, 26 + data_bytes)
    if data_bytes == 0 or data_bytes % 4 or remainder or num_pairs == 0:
        raise InvalidRecording(
            f"{name}: {len(data) - _HEADER_BYTES} bytes after the header, expected whole blocks of {26 + data_bytes} "
            "bytes each (cut off, or sizes that lie)"
        )
    if num_pairs * (data_bytes // 4) > max_samples:
        raise InvalidRecording(f"{name}: {num_pairs * data_bytes // 4} samples, expected at most {max_samples}")
    layout = np.dtype(
        [
            ("kiwi", "V8"),
            ("age_s", "u1"),
            ("unused", "u1"),
            ("week_s", "<u4"),
            ("ns", "<u4"),
            ("data", "V8"),
            ("iq", "<i2", (data_bytes // 4, 2)),
        ]
    )
    blocks = np.frombuffer(data, dtype=layout, offset=_HEADER_BYTES)
    for chunk in ("kiwi", "data"):
        odd = np.flatnonzero(blocks[chunk] != blocks[chunk][0])
        if len(odd):
            raise InvalidRecording(
                f"{name}: block {odd[0]} of {num_pairs} starts with {bytes(blocks[chunk][odd[0]])!r}, expected "
                f"{bytes(blocks[chunk][0])!r}"
            )
    return blocks, rate_hz


def _fit_time_axis(blocks: NDArray[Any], hint_ns: int, name: str) -> TimeAxis:
    age_s = blocks["age_s"].astype(np.int64)
    fresh = np.flatnonzero((np.diff(age_s) < 0) & (age_s[1:] < NO_FIX_AGE)) + 1
    without_fix = int(np.count_nonzero(age_s >= NO_FIX_AGE))
    if without_fix and len(fresh) < MIN_FRESH_STAMPS:
        raise InvalidRecording(
            f"{name}: the receiver had no GNSS fix (age {int(age_s.max())} in {without_fix} of {len(age_s)} blocks), "
            f"so its samples cannot be timed; {_WANTED}"
        )
    if len(fresh) < MIN_FRESH_STAMPS:
        raise InvalidRecording(
            f"{name}: {len(fresh)} fresh GNSS stamps in {len(age_s)} blocks, expected at least {MIN_FRESH_STAMPS} to "
            f"time its samples; {_WANTED}"
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
