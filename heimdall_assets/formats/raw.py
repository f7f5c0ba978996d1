"""Headerless IQ as recorders write it: I and Q one after the other, and nothing else.

Belongs here: one record a coding, and what the names of gqrx's files say. rtl_sdr writes unsigned 8 bit (``.cu8``),
hackrf_transfer signed 8 bit (``.cs8``), GNU Radio and gqrx floats (``.cf32``).
"""

import re

import numpy as np

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.interface import (
    NOTHING_STATED,
    FileName,
    Format,
    Stated,
    take_frequency_hz,
    take_rate_hz,
    take_start,
)
from heimdall_assets.formats.samples import convert_samples, count_samples, parse_coding
from heimdall_assets.formats.written_times import parse_time
from heimdall_assets.media_types import BINARY_MEDIA_TYPE
from heimdall_assets.physical import Recording

_ENDINGS = {
    "cu8": (".cu8", ".c8u"),
    "ci8": (".cs8", ".ci8", ".c8"),
    "ci16_le": (".cs16", ".ci16", ".c16", ".sc16"),
    "cf32_le": (".cf32", ".fc32", ".cfile", "_fc.raw"),
}
_GQRX = re.compile(r"(?:(?P<station>.+)_)?gqrx_(\d{8})_(\d{6})_(\d{1,12})_(\d{1,10})_fc\.raw")


def decode_raw(
    data: bytes, name: str, stated: Stated = NOTHING_STATED, max_samples: int = 200_000_000, *, coding_name: str
) -> Recording:
    """Return the samples of a headerless file, with the rate, start and frequency that are stated beside it.

    Raises:
        InvalidRecording: no rate, no whole samples, more than ``max_samples``, or a sample that is no finite number.
    """
    coding, rate_hz = parse_coding(coding_name), take_rate_hz(None, stated, name)
    num_samples = count_samples(len(data), coding, 1, name)
    if num_samples > max_samples:
        raise InvalidRecording(f"{name}: {num_samples} samples, expected at most {max_samples}")
    raw = np.frombuffer(data, dtype=coding.component).reshape(-1, 2)
    start_unix_ns, sigma_s = take_start(None, None, stated, name)
    return Recording(
        samples=convert_samples(raw, coding, name, stated.full_scale),
        sample_rate_hz=rate_hz,
        start_unix_ns=start_unix_ns,
        timing_sigma_s=sigma_s,
        centre_frequency_hz=take_frequency_hz(None, stated, name),
        largest_component=coding.largest,
    )


def read_gqrx_name(name: str) -> FileName:
    """Return what a name of gqrx says: start (UTC), frequency, rate.

    Such as gqrx_20261120_100000_145500000_1800000_fc.raw; a station's code may stand before it. Others say nothing.
    """
    match = _GQRX.fullmatch(name)
    if match is None:
        return FileName()
    try:
        start = parse_time(f"{match[2]}T{match[3]}Z")
    except ValueError:
        return FileName()
    said = Stated(
        sample_rate_hz=float(match[5]),
        start_unix_ns=start.middle_unix_ns,
        start_sigma_s=start.sigma_s,
        frequency_hz=float(match[4]),
    )
    return FileName(match["station"], said)


def _build_format(coding_name: str, endings: tuple[str, ...]) -> Format:
    def decode(data: bytes, name: str, stated: Stated, max_samples: int) -> Recording:
        return decode_raw(data, name, stated, max_samples, coding_name=coding_name)

    name = f"raw-{coding_name.removesuffix('_le')}"
    is_float = parse_coding(coding_name).is_float
    stated = {"sample_rate_hz", "start_unix_ns", "frequency_hz"}
    return Format(
        name=name,
        command=name,
        title=f"headerless IQ, {coding_name}",
        endings=endings,
        media_type=BINARY_MEDIA_TYPE,
        decode=decode,
        may_state=frozenset(stated | ({"full_scale"} if is_float else set())),
        must_state=frozenset(stated),
        read_name=read_gqrx_name if is_float else lambda name: FileName(),
    )


FORMATS = tuple(_build_format(coding, endings) for coding, endings in _ENDINGS.items())
