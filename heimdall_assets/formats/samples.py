"""Bytes of samples, however coded, to complex samples of full scale 1.0: one table of codings for every format.

Belongs here: integers and floats, their zero and their full scale, byte order, channels, real samples. Does not belong
here: headers (one module a format), whether a signal is any good (``signals.iq``).
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.physical import LARGEST_OF_16_BIT

_LOOKED_AT = 1 << 16  # samples from which the width of floats is told
_LARGEST_HALF = 8.0
_LEAST_HALF = 1e-3
"""Floats of 32 bit are a signal where none is larger than the one, and most are more than the other of the largest."""

_CODING = re.compile(r"(c|r)(f32|f64|i32|i16|i8|u32|u16|u8)(?:_(le|be))?")


@dataclass(frozen=True)
class Coding:
    """How samples are written.

    Attributes:
        name: as SigMF's ``core:datatype`` writes it: ``ci16_le``, ``cu8``, ``rf32_be``.
        component: dtype of I, of Q, or of a real sample.
        is_complex: each sample is I and Q; else one real number.
        zero: the value that is nothing: half a step above the middle of unsigned numbers, whose steps have none.
        full_scale: distance of the farthest value from ``zero``; floats: 1.0.
    """

    name: str
    component: np.dtype[Any]
    is_complex: bool
    zero: float
    full_scale: float

    @property
    def num_bytes(self) -> int:
        """Bytes of one sample of one channel."""
        return self.component.itemsize * (2 if self.is_complex else 1)

    @property
    def is_float(self) -> bool:
        return bool(self.component.kind == "f")

    @property
    def largest(self) -> float:
        """The largest value of |I| or |Q| that every converter of this coding reaches, in full scales."""
        if self.is_float:  # most were integers once
            return LARGEST_OF_16_BIT
        return 1.0 if self.component.kind == "u" else 1.0 - 1.0 / self.full_scale


def parse_coding(text: str) -> Coding:
    """Return the coding that SigMF calls ``text``.

    Raises:
        ValueError: it is none, or leaves the order of several bytes open.

    Examples:
        >>> coding = parse_coding("cu8")
        >>> coding.num_bytes, coding.zero, coding.full_scale
        (2, 127.5, 127.5)
    """
    match = _CODING.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.40}")
    kind, bits = match[2][0], int(match[2][1:])
    if bits > 8 and match[3] is None:
        raise ValueError(f"{text!r:.40} without _le or _be")
    component = np.dtype(f"{'>' if match[3] == 'be' else '<'}{kind}{bits // 8}")
    half = float(2 ** (bits - 1))
    zero, full_scale = {"f": (0.0, 1.0), "i": (0.0, half), "u": (half - 0.5, half - 0.5)}[kind]
    return Coding(text, component, match[1] == "c", zero, full_scale)


def count_samples(num_bytes: int, coding: Coding, num_channels: int, name: str) -> int:
    """Return how many samples of each channel ``num_bytes`` are.

    Raises:
        InvalidRecording: none, or not a whole number of them.
    """
    size = coding.num_bytes * num_channels
    num_samples, rest = divmod(num_bytes, size)
    if num_samples == 0 or rest:
        channels = "" if num_channels == 1 else f" of {num_channels} channels"
        raise InvalidRecording(
            f"{name}: {num_bytes} bytes of samples, expected whole samples{channels} of {size} bytes each "
            f"({coding.name})"
        )
    return num_samples


def convert_samples(
    raw: NDArray[Any], coding: Coding, name: str, full_scale: float | None = None
) -> NDArray[np.complex64]:
    """Return samples as complex64 (N,), full scale 1.0; real ones as their analytic signal.

    Args:
        raw: (N, 2) or, of a real coding, (N,), of ``coding.component``'s type.
        coding: how they are written.
        name: what to call the recording in an error.
        full_scale: value of floating samples that is full scale; None: 1.0.

    Raises:
        InvalidRecording: a full scale is stated of integers, which have their own, a sample is no finite number, or
            floats of 32 bit are said to be of 64.
    """
    if full_scale is not None and not coding.is_float:
        raise InvalidRecording(
            f"{name}: full scale {full_scale:g} stated of {coding.name}, expected none: integers have their own"
        )
    _refuse_shorter_floats(raw, coding, name)
    scale = coding.full_scale if full_scale is None else full_scale
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite and is refused below
        if coding.is_float and full_scale is None:
            values = raw.astype(np.float32)
        elif coding.component.itemsize <= 2:  # exact in float32
            values = (raw.astype(np.float32) - np.float32(coding.zero)) * np.float32(1.0 / scale)
        else:
            values = ((raw.astype(np.float64) - coding.zero) / scale).astype(np.float32)
    if coding.is_complex:
        samples = np.ascontiguousarray(values).view(np.complex64).reshape(-1)
    else:
        _refuse_infinite(values, name)
        samples = make_analytic(values)
    _refuse_infinite(samples, name)
    return samples


def make_analytic(values: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Return the analytic signal of real samples, complex64 (N,), at the same rate: 0 to half the rate is what it has.

    Source: Marple, IEEE Trans. Signal Processing 47 (1999) 2600.
    """
    from scipy.fft import next_fast_len  # slow to load, and hardly a recording is real
    from scipy.signal import hilbert

    length = next_fast_len(len(values))
    analytic: NDArray[np.complex64] = hilbert(values, N=length)[: len(values)].astype(np.complex64)
    return analytic


def _refuse_shorter_floats(raw: NDArray[Any], coding: Coding, name: str) -> None:
    """Refuse floats of 64 bit that make sense as twice as many of 32: they were written as those.

    The lower halves of true ones are random bits, of which every second is no number of a signal, or zeros where the
    samples were integers once.
    """
    if coding.component.kind != "f" or coding.component.itemsize != 8:
        return
    halves = np.abs(np.ascontiguousarray(raw[:_LOOKED_AT]).view(coding.component.str[:1] + "f4"))
    if not (halves <= _LARGEST_HALF).all():  # nor NaN
        return
    if float(np.quantile(halves, 0.4)) > _LEAST_HALF * float(halves.max()):
        raise InvalidRecording(
            f"{name}: found floats of 32 bit, expected floats of 64 as {coding.name} says; stated as "
            f"{coding.name.replace('64', '32')} they make sense"
        )


def _refuse_infinite(samples: NDArray[Any], name: str) -> None:
    finite = np.isfinite(samples)
    if not finite.all():
        raise InvalidRecording(
            f"{name}: {np.count_nonzero(~finite)} samples are not finite, the first is number "
            f"{np.flatnonzero(~finite)[0]}; expected numbers only"
        )
