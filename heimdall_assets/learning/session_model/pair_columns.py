"""Pairs of receivers as padded columns: what the pair tokens of the network model read.

Belongs here: padding and the two ways round of a pair. Does not belong here: finding the pairs (``pairs``), numbers of
order one (``pair_tokens``).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput
from heimdall_assets.session_set import PairSet, SessionSet

NUM_PAIR_NUMBERS = 3
"""Columns of a pair before its correlation: coherence, curvature, lag step."""


def list_pair_columns(
    pairs: PairSet,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Yield all pairs one way round, then the other: first (P,), second (P,) and their columns (P, C).

    Columns are coherence, curvature in 1/s^2, lag step in s, and the correlation's real, then imaginary parts, the
    first's with the second's conjugate.
    """
    numbers = np.stack([pairs.coherence, pairs.curvature, pairs.lag_step_s], axis=1)
    for first, second, values in (
        (pairs.first, pairs.second, pairs.correlation),
        (pairs.second, pairs.first, pairs.correlation[:, ::-1].conj()),
    ):
        yield first, second, np.concatenate([numbers, values.real, values.imag], axis=1).astype(np.float32)


def make_pair_columns(
    sessions: SessionSet, present: NDArray[np.bool_], num_lags: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return ``list_pair_columns`` of each ordered pair (S, R, R, C), 0 where unknown, and which are known (S, R, R).

    Args:
        sessions: S of them.
        present: bool (S, R), which receivers may take part.
        num_lags: what the model takes.

    Raises:
        InvalidInput: the sessions' correlations have another number of lags.
    """
    num, width = present.shape
    columns = np.zeros((num, width, width, NUM_PAIR_NUMBERS + 2 * num_lags), dtype=np.float32)
    known = np.zeros((num, width, width), dtype=np.bool_)
    pairs = sessions.pairs
    if pairs is None or not len(pairs.first):
        return columns, known
    if pairs.correlation.shape[1] != num_lags:
        raise InvalidInput(
            f"pairs: correlations of {pairs.correlation.shape[1]} lags: expected {num_lags}, as in training "
            "(DelaySpec.num_lags)"
        )
    owner = np.repeat(np.arange(num), pairs.num_pairs)
    for first, second, values in list_pair_columns(pairs):
        columns[owner, first, second] = values
        known[owner, first, second] = True
    known &= present[:, :, None] & present[:, None, :]
    columns[~known] = 0.0
    return columns, known
