"""What recordings of a session have in common, two by two, as models take it.

Belongs here: ``add_pairs`` and the padded form (``make_pair_columns``). Does not belong here: computing correlations
(``signals.delays``), finding them again (``stores.session_delays``), what is learned of them (``network_model``).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.domain import PairSet, SessionSet
from heimdall_assets.errors import InvalidInput

NUM_PAIR_NUMBERS = 3
"""Columns of a pair before its correlation: coherence, curvature, lag step."""


def add_pairs(
    sessions: SessionSet, approved: pd.DataFrame, pairs: pd.DataFrame | None, correlation: NDArray[Any] | None
) -> SessionSet:
    """Return ``sessions`` with what their recordings have in common.

    A pair the other way round is the conjugate with its lags reversed: c_21(t) = conj(c_12(-t)).

    Args:
        sessions: assembled from ``approved``, each one's receivers by station id.
        approved: ``measurement_id``, ``session_id``, ``station_id``, any order.
        pairs: ``session_id``, ``first`` and ``second`` (measurements), ``coherence``, ``curvature``, ``lag_step_s``,
            ``row``; None: there are none.
        correlation: complex64 (F, num_lags), what ``row`` counts in.

    Raises:
        InvalidInput: a pair names a measurement that is not of its session, twice the same, or a number that is none.
    """
    if pairs is None or correlation is None or not len(pairs):
        return sessions
    stations = pd.MultiIndex.from_arrays(
        [np.repeat(sessions.session_id, sessions.num_receivers), sessions.station_id.astype(str)]
    )
    count = sessions.num_receivers
    place = pd.Series(np.arange(count.sum()) - np.repeat(sessions.offsets[:-1] - sessions.offsets[0], count), stations)
    keys = pd.MultiIndex.from_frame(approved[["session_id", "station_id"]].astype(str))
    place_of = pd.Series(place.reindex(keys).to_numpy(), approved["measurement_id"].astype(str))
    session_of = pd.Series(approved["session_id"].astype(str).to_numpy(), approved["measurement_id"].astype(str))
    names = [pairs[column].astype(str) for column in ("first", "second")]
    own = pairs["session_id"].astype(str).to_numpy()
    for name in names:
        strange = session_of.reindex(name).to_numpy() != own
        if strange.any():
            where = int(np.flatnonzero(strange)[0])
            raise InvalidInput(f"pairs: measurement {name.iloc[where]}: expected one of session {own[where]}")
    first, second = (place_of.reindex(name).to_numpy(dtype=np.int64) for name in names)
    values = np.asarray(correlation)[pairs["row"].to_numpy()]
    turned = first > second
    values = np.where(turned[:, None], values[:, ::-1].conj(), values)
    number = pd.Index(sessions.session_id).get_indexer(pd.Index(own))
    table = {
        "first": np.where(turned, second, first),
        "second": np.where(turned, first, second),
        **{name: pairs[name].to_numpy(dtype=np.float64) for name in ("coherence", "curvature", "lag_step_s")},
    }
    _check(own, table, values)
    order = np.lexsort((table["second"], table["first"], number))
    counts = np.bincount(number, minlength=len(sessions))
    found = PairSet(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        **{name: column[order] for name, column in table.items()},
        correlation=values[order].astype(np.complex64),
    )
    return replace(sessions, pairs=found)


def _check(own: NDArray[Any], table: dict[str, NDArray[Any]], values: NDArray[Any]) -> None:
    numbers = np.stack([table[name] for name in ("coherence", "curvature", "lag_step_s")], axis=1)
    bad = ~np.isfinite(numbers).all(axis=1) | ~np.isfinite(values).all(axis=1) | (table["lag_step_s"] <= 0)
    if bad.any():
        raise InvalidInput(f"pairs: session {own[bad][0]} has one with a number that is none: expected finite numbers")
    if (table["first"] == table["second"]).any():
        name = own[table["first"] == table["second"]][0]
        raise InvalidInput(f"pairs: session {name} has one of a recording with itself: expected two recordings")


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
