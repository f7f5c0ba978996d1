"""What headerless bytes could be: a guess for people, who then say it; nothing is read by it.

Belongs here: the look of samples in each coding. Does not belong here: formats that tell themselves (their modules).
"""

import numpy as np

_LOOKED_AT_BYTES = 1 << 16
_MIN_BYTES = 512
_FLOAT_RANGE = (1e-9, 1e5)
"""Magnitudes of samples of a receiver as floats, whatever their scale: bytes of integers read so lie far outside."""

_NEAR_MIDDLE = 40.0
"""Unsigned bytes of a receiver lie around 127.5; those of anything else hardly have their mean within this."""


def guess_coding(data: bytes) -> str | None:
    """Return the name of the format that headerless ``data`` look like (``raw-cu8``, ...); None: like none.

    Examples:
        >>> noise = np.random.default_rng(1).normal(0.0, 0.1, 4096)
        >>> guess_coding(noise.astype("<f4").tobytes()), guess_coding((noise * 32768).astype("<i2").tobytes())
        ('raw-cf32', 'raw-ci16')
        >>> guess_coding((noise * 127.5 + 127.5).astype("u1").tobytes())
        'raw-cu8'
        >>> guess_coding((noise * 128).astype("i1").tobytes())
        'raw-ci8'
        >>> guess_coding(b"A letter. " * 100) is None
        True
    """
    head = data[: min(len(data), _LOOKED_AT_BYTES) // 8 * 8]
    if len(head) < _MIN_BYTES:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        floats = np.abs(np.frombuffer(head, dtype="<f4")).astype(np.float64)
        if np.mean((floats == 0) | ((floats > _FLOAT_RANGE[0]) & (floats < _FLOAT_RANGE[1]))) > 0.99:
            return "raw-cf32" if np.any(floats > 0) and not _is_text(head) else None
    if _is_text(head):
        return None
    unsigned = np.frombuffer(head, dtype=np.uint8).astype(np.float64)
    signed = np.frombuffer(head, dtype=np.int8).astype(np.float64)
    # Of 16-bit samples the upper bytes are close to zero, the lower ones are anything.
    lower, upper = signed[::2], signed[1::2]
    if upper.std() < 0.5 * lower.std() and abs(upper.mean()) < _NEAR_MIDDLE:
        return "raw-ci16"
    if abs(unsigned.mean() - 127.5) < _NEAR_MIDDLE and unsigned.std() < signed.std():
        return "raw-cu8"
    if abs(signed.mean()) < _NEAR_MIDDLE and signed.std() < unsigned.std():
        return "raw-ci8"
    return None


def _is_text(head: bytes) -> bool:
    printable = np.isin(np.frombuffer(head, dtype=np.uint8), [9, 10, 13, *range(32, 127)])
    return bool(printable.mean() > 0.99)
