"""From the table of pairs and their correlations to the flat columns of a ``PairSet``.

Belongs here: which pair belongs to which session, and the one order that pairs and their receivers have there. Does not
belong here: the other columns of sessions (``assembly``), reading tables from a store.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput
from heimdall_assets.session_set import PairSet

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("coherence", "curvature", "lag_step_s")


def match_pairs(
    rows: "pd.DataFrame",
    offsets: NDArray[np.int64],
    pairs: "pd.DataFrame | None",
    correlations: NDArray[Any] | None,
) -> PairSet:
    """Return the pairs whose receivers both stand in ``rows``, by session and place.

    Args:
        rows: ``measurement_id`` of each receiver, session by session.
        offsets: int64 (S + 1,), where each session's rows start and end.
        pairs: ``first``, ``second`` (measurement ids), ``coherence``, ``curvature``, ``lag_step_s``, and ``row``: where
            the pair's correlation lies in ``correlations``.
        correlations: complex64 (Q, num_lags), maybe memory-mapped.

    Raises:
        InvalidInput: one is given without the other, a correlation is missing or of an even number of lags, a value is
            not finite, or a pair is no two receivers of one session or stands in the table twice.
    """
    import pandas as pd

    if pairs is None or correlations is None:
        raise InvalidInput("pairs and correlations: found one without the other, expected both or neither")
    _check_correlations(pairs, correlations)
    places = {str(name): place for place, name in enumerate(rows["measurement_id"])}
    ends = pd.DataFrame({end: pairs[end].astype(str).map(places) for end in ("first", "second")}).astype("Int64")
    known = ends.notna().all(axis=1).to_numpy()
    table = pairs[known]
    first, second = ends[known].to_numpy(dtype=np.int64).T
    session = np.searchsorted(offsets, first, side="right") - 1
    is_pair = (session == np.searchsorted(offsets, second, side="right") - 1) & (first != second)
    _refuse(table, ~is_pair, "found no two receivers of one session")
    low, high = np.minimum(first, second), np.maximum(first, second)
    _refuse(table, pd.DataFrame({"low": low, "high": high}).duplicated().to_numpy(), "stands in the table twice")
    values = np.asarray(correlations[table["row"].to_numpy(dtype=np.int64)], dtype=np.complex64)
    numbers = table[list(NUMBERS)].to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse(table, ~(np.isfinite(numbers).all(axis=1) & np.isfinite(values).all(axis=1)), "found a value not finite")
    return order_pairs(offsets, (first, second), numbers, values)


def order_pairs(
    offsets: NDArray[np.int64],
    ends: tuple[NDArray[np.int64], NDArray[np.int64]],
    numbers: NDArray[np.float64],
    values: NDArray[np.complex64],
) -> PairSet:
    """Return pairs in the one order that they have: by session and place, the receiver that stands first named first.

    Args:
        offsets: int64 (S + 1,), where each session's receivers start and end.
        ends: rows (P,) of the receivers of each pair, either way round; both of one session.
        numbers: float64 (P, 3), ``NUMBERS``.
        values: complex64 (P, num_lags), correlation of the first with the conjugate of the second.
    """
    first, second = ends
    low, high = np.minimum(first, second), np.maximum(first, second)
    session = np.searchsorted(offsets, first, side="right") - 1
    # c_ji(t) = sum_f X_j X_i* e^(iwt) = conj(sum_f X_i X_j* e^(-iwt)) = conj(c_ij(-t)): lags turn around the middle.
    values = np.where((first > second)[:, None], values[:, ::-1].conj(), values)
    order = np.lexsort((high, low))
    start = offsets[session]
    counts = np.bincount(session, minlength=len(offsets) - 1)
    return PairSet(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        first=(low - start)[order],
        second=(high - start)[order],
        **{name: numbers[order, column] for column, name in enumerate(NUMBERS)},
        correlation=values[order],
    )


def _check_correlations(pairs: "pd.DataFrame", correlations: NDArray[Any]) -> None:
    if correlations.ndim != 2 or not np.iscomplexobj(correlations) or correlations.shape[1] % 2 == 0:
        raise InvalidInput(
            f"correlations: {correlations.dtype} of shape {correlations.shape}: expected complex (pairs, an odd number "
            "of lags)"
        )
    if len(pairs) and not pairs["row"].between(0, len(correlations) - 1).all():
        raise InvalidInput(
            f"pairs: rows {pairs['row'].min()} to {pairs['row'].max()}: expected 0 to {len(correlations) - 1} of the "
            "correlations"
        )


def _refuse(table: "pd.DataFrame", is_bad: NDArray[np.bool_], found: str) -> None:
    if is_bad.any():
        pair = table[is_bad].iloc[0]
        raise InvalidInput(
            f"pair of measurements {pair['first']} and {pair['second']}: {found} ({int(is_bad.sum())} of {len(table)})"
        )
