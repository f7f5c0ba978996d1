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

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.interface import NOTHING_STATED, FileName, Format, Stated, take_frequency_hz
from heimdall_assets.formats.time_axis import WANTED, TimeAxis, fit_time_axis
from heimdall_assets.physical import ClockClass, Recording

MAX_RATE_ERROR = 1e-3
MAX_NAME_DIFFERENCE_NS = 3600 * 10**9  # the file's name is written by a computer with its own clock

_NAME = re.compile(r"(\d{8}T\d{6})Z_(\d{1,12})_(.+)_iq\.wav")
_HEADER_BYTES = 36


@dataclass(frozen=True)
class KiwiName:
    """What the name ``20171127T104156Z_77500_F1JEK_iq.wav`` says: start, centre frequency, station code."""

    start: datetime
    centre_frequency_hz: float
    station: str


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
    data: bytes, name: str, stated: Stated = NOTHING_STATED, max_samples: int = 200_000_000
) -> Recording:
    """Return the samples of a KiwiSDR recording on the time axis of its GNSS stamps.

    Blocks at the start whose stamps are stale are not part of it (see the module), nor is a last block that a killed
    recorder wrote without saying so in the header; ``attributes`` count them.

    Args:
        data: the whole file.
        name: the file's name, with or without folders, or any name where a start is stated.
        stated: the rough time of the start (within days), which says in which GPS week the stamps count, and the
            frequency, where the name does not say them.
        max_samples: longer recordings are refused before anything is allocated.

    Raises:
        InvalidRecording: not such a file, sizes that lie, no GNSS fix, too few fresh stamps, stamps off a line, missing
            samples, a rate that is not the header's, or no date to count the stamps from.
    """
    return parse_kiwisdr(data, name, stated, max_samples)[0]


def parse_kiwisdr(
    data: bytes, name: str, stated: Stated = NOTHING_STATED, max_samples: int = 200_000_000
) -> tuple[Recording, TimeAxis]:
    """Return what ``decode_kiwisdr`` does, and the time axis with its counts.

    Args and errors: as ``decode_kiwisdr``. Samples are complex64 (N,), full scale 1.0.

    Raises:
        InvalidRecording: as ``decode_kiwisdr``.
    """
    blocks, nominal_rate_hz, num_bytes_left_out = _parse_blocks(data, name, max_samples)
    file_name = _parse_name(name)
    hint_ns = stated.start_unix_ns
    if hint_ns is None:
        if file_name is None:
            raise InvalidRecording(
                f"{name}: neither a start nor a file name with the date, expected one of them: the stamps count from "
                "the beginning of a week"
            )
        hint_ns = int(file_name.start.timestamp()) * 10**9
    axis = fit_time_axis(blocks, hint_ns, name)
    if abs(axis.sample_rate_hz - nominal_rate_hz) > MAX_RATE_ERROR * nominal_rate_hz:
        raise InvalidRecording(
            f"{name}: {axis.sample_rate_hz:.6g} Hz by its stamps, expected the header's {nominal_rate_hz} Hz within "
            f"{MAX_RATE_ERROR:g} of it"
        )
    if stated.start_unix_ns is None and abs(axis.start_unix_ns - hint_ns) > MAX_NAME_DIFFERENCE_NS:
        raise InvalidRecording(
            f"{name}: starts {(axis.start_unix_ns - hint_ns) / 3.6e12:+.1f} h after its name says, expected at most 1 h"
        )
    pairs = blocks["iq"][axis.num_stale_blocks :]
    samples = (pairs.astype(np.float32) / np.float32(32768.0)).reshape(-1).view(np.complex64)
    named_hz = None if file_name is None else file_name.centre_frequency_hz
    attributes = {"num_fresh_stamps": axis.num_fresh, "num_stale_blocks_left_out": axis.num_stale_blocks}
    if num_bytes_left_out:
        attributes["num_bytes_left_out"] = num_bytes_left_out
    recording = Recording(
        samples=samples,
        sample_rate_hz=axis.sample_rate_hz,
        start_unix_ns=axis.start_unix_ns,
        timing_sigma_s=axis.sigma_s,
        centre_frequency_hz=take_frequency_hz(named_hz, stated, name),
        attributes=attributes,
    )
    return recording, axis


def _read_name(name: str) -> FileName:
    parsed = _parse_name(name)
    return FileName() if parsed is None else FileName(parsed.station)


def _parse_name(name: str) -> KiwiName | None:
    match = _NAME.fullmatch(name.rpartition("/")[2])  # an object's name has folders before the file's
    if match is None or float(match[2]) <= 0:
        return None
    try:
        start = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return KiwiName(start, float(match[2]), match[3])


def _parse_blocks(data: bytes, name: str, max_samples: int) -> tuple[NDArray[Any], int, int]:
    """Return blocks as a structured array (K,) that views ``data``, the header's rate in Hz, and bytes left out."""
    if len(data) < _HEADER_BYTES + 26 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise InvalidRecording(f"{name}: {len(data)} bytes that are no RIFF/WAVE file, expected a KiwiSDR recording")
    claimed = int.from_bytes(data[4:8], "little") + 8
    data_bytes = int.from_bytes(data[58:62], "little")
    # The recorder writes a block, then the header's new size: one that is killed leaves the last block unsaid.
    num_unsaid = len(data) - claimed if 0 < len(data) - claimed <= 26 + data_bytes else 0
    if claimed + num_unsaid != len(data):
        raise InvalidRecording(f"{name}: {len(data)} bytes, expected {claimed} as its RIFF header claims")
    header = np.frombuffer(data, dtype="<u2,<u2,<u4,<u4,<u2,<u2", count=1, offset=20)[0]
    coding, num_channels, rate_hz, _, align, bits = (int(value) for value in header)
    if data[12:20] != b"fmt \x10\0\0\0" or (coding, num_channels, align, bits) != (1, 2, 4, 16) or rate_hz == 0:
        raise InvalidRecording(
            f"{name}: coding {coding}, {num_channels} channels, {bits} bit at {rate_hz} Hz, expected PCM (1), 2 "
            "channels (I, Q), 16 bit"
        )
    if data[36:44] != b"kiwi\x0a\0\0\0" or data[54:58] != b"data":
        raise InvalidRecording(f"{name}: no GNSS stamps (chunks 'kiwi' before 'data'); {WANTED}")
    num_pairs, remainder = divmod(claimed - _HEADER_BYTES, 26 + data_bytes)
    if data_bytes == 0 or data_bytes % 4 or remainder or num_pairs == 0:
        raise InvalidRecording(
            f"{name}: {claimed - _HEADER_BYTES} bytes after the header, expected whole blocks of {26 + data_bytes} "
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
    blocks = np.frombuffer(data, dtype=layout, count=num_pairs, offset=_HEADER_BYTES)
    for chunk in ("kiwi", "data"):
        odd = np.flatnonzero(blocks[chunk] != blocks[chunk][0])
        if len(odd):
            raise InvalidRecording(
                f"{name}: block {odd[0]} of {num_pairs} starts with {bytes(blocks[chunk][odd[0]])!r}, expected "
                f"{bytes(blocks[chunk][0])!r}"
            )
    return blocks, rate_hz, num_unsaid


FORMATS = (
    Format(
        name="kiwisdr-wav",
        command="kiwisdr",
        title="GNSS-stamped KiwiSDR recording (.wav)",
        endings=("_iq.wav",),
        media_type="audio/vnd.wave",
        decode=decode_kiwisdr,
        may_state=frozenset({"start_unix_ns", "frequency_hz"}),
        clock_class=ClockClass.GNSS,
        read_name=_read_name,
        recognises=lambda head: head[:4] == b"RIFF" and head[36:40] == b"kiwi",
    ),
)
