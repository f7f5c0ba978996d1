"""What recordings of a session have in common, two by two, as models take it.

Belongs here: ``add_pairs`` and the padded form (``make_pair_columns``). Does not belong here: computing correlations
(``signals.delays``), finding them again (``stores.session_delays``), what is learned of them (``network_model``).
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.domain import PairSet, SessionSet
from heimdall_assets.errors import InvalidInput


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
