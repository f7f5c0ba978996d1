"""NumPy ``.npy`` files with complex samples: complex64, complex128, or int16 pairs (N, 2).

Belongs here: reading that one format from bytes. The file says neither rate nor time: its row does.
"""

import io
import re
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from heimdall_assets.domain import Recording
from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.finite import refuse_infinite

EXPECTED = "expected complex64 or complex128 (N,) or int16 pairs (N, 2), little endian, in C order"

STATED_TIME_SIGMA_S = 1e-9
"""Resolution of a start that a row states in nanoseconds; the clock behind it is the station's ``clock_class``."""

_MAX_HEADER_BYTES = 1024  # NumPy pads the header of a plain array to 64 or 128 bytes
_INT16_SCALE = 1.0 / 32768.0
# What a header of a plain array can hold: anything else never reaches the expression parser inside NumPy. A digit
# before a letter would make that parser warn or accept numbers as Python 2 wrote them.
_HEADER = re.compile(rb"\{[A-Za-z0-9_'<>|=:(), ]+\} *\n")
_DIGIT_BEFORE_LETTER = re.compile(rb"[0-9][A-Za-z_]")


def decode_npy(
    data: bytes,
    *,
    name: str,
    sample_rate_hz: float | None,
    start_unix_ns: int | None = None,
    max_samples: int = 200_000_000,
) -> Recording:
    """Return the samples of a ``.npy`` file with the rate and start that its row states.

    Args:
        data: the whole file.
        name: what to call it in an error.
        sample_rate_hz: samples in a second; the file cannot say.
        start_unix_ns: receiver's time of sample 0 in ns since 1970-01-01 UTC; None: untimed.
        max_samples: a header that claims more is refused before anything is allocated.

    Raises:
        InvalidRecording: no rate, not such a file, another dtype, order or shape, a length that is not the header's,
            or a sample that is NaN or infinite in complex64.
    """
    if sample_rate_hz is None:
        raise InvalidRecording(f"{name}: no sample rate, expected one beside a .npy file, which carries none")
    dtype, num_samples, offset = _parse_header(data, name)
    if num_samples > max_samples:
        raise InvalidRecording(f"{name}: header claims {num_samples} samples, expected at most {max_samples}")
    num_bytes = num_samples * (4 if dtype == np.int16 else dtype.itemsize)
    if len(data) - offset != num_bytes:
        raise InvalidRecording(
            f"{name}: {len(data) - offset} bytes of samples, expected {num_bytes} as its header claims"
        )
    return Recording(
        samples=_convert(data, dtype, offset, name),
        sample_rate_hz=float(sample_rate_hz),
        start_unix_ns=start_unix_ns,
        timing_sigma_s=None if start_unix_ns is None else STATED_TIME_SIGMA_S,
    )


def _parse_header(data: bytes, name: str) -> tuple[np.dtype[Any], int, int]:
    """Return dtype, number of samples and offset of the first byte of samples."""
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
    # compared as text: an equal dtype may carry a title or a byte order
    if dtype.str not in ("<c8", "<c16", "<i2"):
        raise InvalidRecording(f"{name}: dtype {dtype.str!r:.40}; {EXPECTED}")
    if fortran_order:
        raise InvalidRecording(f"{name}: Fortran order; {EXPECTED}")
    if len(shape) != (2 if dtype == np.int16 else 1) or (dtype == np.int16 and shape[1] != 2):
        raise InvalidRecording(f"{name}: {dtype.name} of shape {_describe_shape(shape)}; {EXPECTED}")
    if shape[0] == 0:
        raise InvalidRecording(f"{name}: no samples; {EXPECTED}")
    return dtype, shape[0], stream.tell()


def _convert(data: bytes, dtype: np.dtype[Any], offset: int, name: str) -> NDArray[np.complex64]:
    raw = np.frombuffer(data, dtype=dtype, offset=offset)
    if dtype == np.int16:
        return (raw.astype(np.float32) * np.float32(_INT16_SCALE)).view(np.complex64)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite and is refused below
        samples = raw.astype(np.complex64)
    refuse_infinite(samples, name)
    return samples


def _describe_start(data: bytes) -> str:
    return "an empty file" if not data else f"a file of {len(data)} bytes that starts with {data[:6]!r}"


def _describe_shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(str(size) for size in shape)})" if len(shape) <= 4 else f"with {len(shape)} axes"
