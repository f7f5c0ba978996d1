"""Samples that are numbers: what every format of floating samples must promise."""

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidRecording


def refuse_infinite(samples: NDArray[np.complex64], name: str) -> None:
    """Check that every sample, complex64 (N,), is a number.

    Raises:
        InvalidRecording: one is NaN or infinite; the message names ``name``, how many, and the first.
    """
    finite = np.isfinite(samples)
    if not finite.all():
        raise InvalidRecording(
            f"{name}: {np.count_nonzero(~finite)} samples are not finite, the first is number "
            f"{np.flatnonzero(~finite)[0]}; expected numbers only"
        )
