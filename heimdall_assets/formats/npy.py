"""NumPy ``.npy`` files: complex samples (N,), (N, 1) or (1, N), or pairs (N, 2) of floats or of 8 or 16 bit integers.

Belongs here: reading that one format from bytes. The file says neither rate nor time: its row does.
"""

import io
import math
import re
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.interface import NOTHING_STATED, Format, Stated, take_rate_hz, take_start
from heimdall_assets.formats.samples import Coding, convert_samples, parse_coding
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.physical import Recording

EXPECTED = (
    "expected complex64 or complex128 (N,), (N, 1) or (1, N), or pairs (N, 2) of float32, float64, int16, int8 or uint8"
)

_MAX_HEADER_BYTES = 1024  # NumPy pads the header of a plain array to 64 or 128 bytes
# What a header of a plain array can hold: anything else never reaches the expression parser inside NumPy. A digit
# before a letter would make that parser warn or accept numbers as Python 2 wrote them.
_HEADER = re.compile(rb"\{[A-Za-z0-9_'<>|=:(), ]+\} *\n")
_DIGIT_BEFORE_LETTER = re.compile(rb"[0-9][A-Za-z_]")
_COMPLEX = {"c8": "cf32", "c16": "cf64"}
_PAIRS = {"f4": "cf32", "f8": "cf64", "i2": "ci16", "i1": "ci8", "u1": "cu8"}


def decode_npy(data: bytes, name: str, stated: Stated = NOTHING_STATED, max_samples: int = 200_000_000) -> Recording:
    """Return the samples of a ``.npy`` file with the rate and start that are stated beside it.

    Args:
        data: the whole file.
        name: what to call it in an error.
        stated: its rate, which the file cannot say, and its start; without one it is untimed.
        max_samples: a header that claims more is refused before anything is allocated.

    Raises:
        InvalidRecording: no rate, not such a file, another dtype or shape, a length that is not the header's, or a
            sample that is NaN or infinite in complex64.
    """
    rate_hz = take_rate_hz(None, stated, name)
    shape, fortran_order, dtype, offset = _parse_header(data, name)
    coding, num_samples = _find_coding(shape, dtype, name)
    if num_samples > max_samples:
        raise InvalidRecording(f"{name}: header claims {num_samples} samples, expected at most {max_samples}")
    num_bytes = num_samples * coding.num_bytes
    if len(data) - offset != num_bytes:
        raise InvalidRecording(
            f"{name}: {len(data) - offset} bytes of samples, expected {num_bytes} as its header claims"
        )
    # In Fortran order all I come before all Q; of complex samples the order of one axis is the order of the other.
    pairs = np.frombuffer(data, dtype=coding.component, offset=offset)
    is_split = fortran_order and dtype.kind != "c"
    raw = pairs.reshape(2, -1).T if is_split else pairs.reshape(-1, 2)
    start_unix_ns, sigma_s = take_start(None, None, stated, name)
    return Recording(
        samples=convert_samples(raw, coding, name, stated.full_scale),
        sample_rate_hz=rate_hz,
        start_unix_ns=start_unix_ns,
        timing_sigma_s=sigma_s,
        centre_frequency_hz=stated.frequency_hz,
        largest_component=coding.largest,
    )


def _parse_header(data: bytes, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether it is in Fortran order, dtype, and offset of the first byte of samples."""
    stream = io.BytesIO(data[: _MAX_HEADER_BYTES + 16])
    try:
        version = npy_format.read_magic(stream)
    except ValueError:
        raise InvalidRecording(f"{name}: {_describe_start(data)}, expected a NumPy .npy file") from None
    if version not in ((1, 0), (2, 0)):
        raise InvalidRecording(f"{name}: .npy version {version[0]}.{version[1]}, expected 1.0 or 2.0; {EXPECTED}")
    size_bytes = 2 if version == (1, 0) else 4
    start = stream.tell()
    length = int.from_bytes(data[start : start + size_bytes], "little")
    if length > _MAX_HEADER_BYTES:
        raise InvalidRecording(f"{name}: .npy header of {length} bytes, expected at most {_MAX_HEADER_BYTES}")
    text = data[start + size_bytes : start + size_bytes + length]
    if len(text) < length or not _HEADER.fullmatch(text) or _DIGIT_BEFORE_LETTER.search(text):
        raise InvalidRecording(f"{name}: .npy header of another kind of array, or cut off; {EXPECTED}")
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    except Exception:  # a hostile expression makes the parser raise whatever it likes
        raise InvalidRecording(f"{name}: .npy header that does not parse; {EXPECTED}") from None
    return shape, fortran_order, dtype, stream.tell()


def _find_coding(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> tuple[Coding, int]:
    """Return how the samples are written, and how many they are."""
    order, kind = dtype.str[:1], dtype.str[1:]  # compared as text: an equal dtype may carry a title
    known = _COMPLEX | _PAIRS
    if kind not in known or order not in "<>|":
        raise InvalidRecording(f"{name}: dtype {dtype.str!r:.40}; {EXPECTED}")
    if kind in _COMPLEX:
        fits = len(shape) == 1 or (len(shape) == 2 and 1 in shape)
        num_samples = math.prod(shape)
    else:
        fits = len(shape) == 2 and shape[1] == 2
        num_samples = shape[0] if shape else 0
    if not fits:
        raise InvalidRecording(f"{name}: {dtype.name} of shape {_describe_shape(shape)}; {EXPECTED}")
    if num_samples == 0:
        raise InvalidRecording(f"{name}: no samples; {EXPECTED}")
    ending = "" if known[kind].endswith("8") else "_be" if order == ">" else "_le"
    return parse_coding(known[kind] + ending), num_samples


def _describe_start(data: bytes) -> str:
    return "an empty file" if not data else f"a file of {len(data)} bytes that starts with {data[:6]!r}"


def _describe_shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(str(size) for size in shape)})" if len(shape) <= 4 else f"with {len(shape)} axes"


FORMATS = (
    Format(
        name="npy",
        command="npy",
        title="NumPy array (.npy)",
        endings=(".npy",),
        media_type=NPY_MEDIA_TYPE,
        decode=decode_npy,
        may_state=frozenset({"sample_rate_hz", "start_unix_ns", "frequency_hz", "full_scale"}),
        must_state=frozenset({"sample_rate_hz", "start_unix_ns", "frequency_hz"}),
        recognises=lambda head: head.startswith(b"\x93NUMPY"),
    ),
)
