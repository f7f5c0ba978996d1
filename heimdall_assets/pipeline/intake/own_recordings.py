"""Each receiver's own recording: two that were given one of them would show a time difference that means nothing.

Belongs here: what an import refuses for it. Does not belong here: how a copy is told from a second receiver
(``signals.copies``), recordings that another session holds (``stores.database.held_recordings``).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.signals.copies import MOST_SAMPLES, find_copies, say_lag


def keep_beginning(samples: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return what of a recording is compared with others, complex64; a copy where that is not all of it."""
    return samples if len(samples) <= MOST_SAMPLES else samples[:MOST_SAMPLES].copy()


def check_own(names: Sequence[str], samples: Sequence[NDArray[np.complex64]], owners: Sequence[int]) -> None:
    """Check that no two receivers have one recording, or cuts of one.

    Args:
        names: what each is called in an error.
        samples: complex64 (N,) each.
        owners: which receiver each is of.

    Raises:
        InvalidRecording: two have.
    """
    for copy in find_copies(samples, owners)[:1]:
        raise InvalidRecording(
            f"{names[copy.second]}: the same recording as {names[copy.first]}, {say_lag(copy.lag)}: they differ by "
            "no more than rounding, expected each receiver's own, with noise of its own"
        )
