"""Sessions into the session model's graph and its outputs back to sessions, all in numpy: a graph runs without torch.

Belongs here: names and arrays of inputs, batches, rows of what came back. Does not belong here: tables
(``session_model.table``), the traced module (``session_model.graph``), running it in PyTorch
(``session_model.network_run``).
``statistics`` is what ``NetworkTask.fit_statistics`` gave, or what an exported graph says of its inputs
(``read_inputs``): ``feature_shape``, ``pairs``, ``bearings`` and ``signal_tasks`` are read here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import CannotLocate
from heimdall_assets.learning.receiver_model.frame import read_features
from heimdall_assets.learning.session_model.pair_columns import NUM_PAIR_NUMBERS, make_pair_columns
from heimdall_assets.learning.session_model.table import MAX_RECEIVERS, ReceiverTable, assemble_table
from heimdall_assets.learning.session_model.tracks import OUTPUTS, collect_tracks
from heimdall_assets.session_set import Predictions, SessionSet


def name_inputs(statistics: dict[str, Any]) -> list[str]:
    """Return the names of the graph's inputs, in its order."""
    names = ["origin", "receivers"]
    names += ["spectrograms", "seen"] if statistics["feature_shape"] is not None else []
    names += ["pairs", "paired"] if statistics["pairs"] is not None else []
    names += ["bearings"] if statistics.get("bearings") else []
    return names + (["tracks", "tracked"] if statistics.get("signal_tasks") else [])


def name_outputs(statistics: dict[str, Any]) -> list[str]:
    """Return the names of the graph's outputs where it has all its inputs, in its order."""
    signals = list(OUTPUTS) if statistics.get("signal_tasks") else []
    return ["positions", "uncertainties", "covariance", *signals]


def read_inputs(shapes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return of statistics what feeding needs, as an exported graph's inputs tell it.

    Args:
        shapes: input name -> its axes, a number where it is fixed.

    Examples:
        >>> fixed = {"pairs": ["batch", "receivers", "receivers", 69], "bearings": ["batch", "receivers", 2]}
        >>> read_inputs({"origin": ["batch", 2], **fixed, "paired": ["batch", "receivers", "receivers"]})
        {'feature_shape': None, 'pairs': {'num_lags': 33}, 'bearings': True, 'signal_tasks': []}
    """
    pairs = shapes.get("pairs")
    return {
        "feature_shape": [int(side) for side in shapes["spectrograms"][2:]] if "spectrograms" in shapes else None,
        "pairs": None if pairs is None else {"num_lags": (int(pairs[3]) - NUM_PAIR_NUMBERS) // 2},
        "bearings": "bearings" in shapes,
        "signal_tasks": list(OUTPUTS) if "tracks" in shapes else [],
    }


def read_more(
    sessions: SessionSet, table: ReceiverTable, statistics: dict[str, Any], whole: bool
) -> dict[str, NDArray[Any]]:
    """Return spectrograms, pairs and tracks, each with which are there, and bearings.

    Args:
        sessions: that ``table`` came from.
        table: receivers at unknown places have no place in it, and nothing is read of them.
        statistics: of the model.
        whole: also where there are none; and tracks, which only signals are read off.
    """
    arrays = _read_spectrograms(sessions, table, statistics, whole)
    if statistics["pairs"] is not None and (whole or sessions.pairs is not None):
        present = np.isfinite(table.receivers[..., 0])
        columns, known = make_pair_columns(sessions, present, statistics["pairs"]["num_lags"])
        if whole or known.any():
            arrays |= {"pairs": columns, "paired": known}
    if statistics.get("bearings"):
        arrays |= {"bearings": table.bearings}
    if whole and statistics.get("signal_tasks"):
        tracks, tracked = collect_tracks(sessions)
        tracked &= np.isfinite(table.receivers[..., 0])
        arrays |= {"tracks": np.where(tracked[..., None, None], tracks, np.float32(0.0)), "tracked": tracked}
    return arrays


def _read_spectrograms(
    sessions: SessionSet, table: ReceiverTable, statistics: dict[str, Any], whole: bool
) -> dict[str, NDArray[Any]]:
    """Return spectrograms (B, R, 3, mels, frames) in dB and which are there; none where no receiver has one.

    Args:
        sessions: that ``table`` came from.
        table: its feature rows say which.
        statistics: of the model.
        whole: also where there are none, as a traced graph has all its inputs always.
    """
    shape = statistics["feature_shape"]
    seen = table.feature_row >= 0
    if shape is None or not (whole or seen.any()):
        return {}
    values = np.zeros((*seen.shape, *shape), dtype=np.float32)
    if seen.any():
        values[seen] = read_features(sessions, table.feature_row[seen], statistics)
    return {"spectrograms": values, "seen": seen}


def feed_sessions(
    sessions: SessionSet, size: int, statistics: dict[str, Any], whole: bool = False
) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]:
    """Yield sessions with a receiver at a known place, ``size`` at once, and the inputs of ``NetworkGraph``."""
    placed = np.isfinite(sessions.receiver_latitude) & np.isfinite(sessions.receiver_longitude)
    rows = np.flatnonzero(count_marked(sessions, placed) > 0)
    if len(rows) and (widest := int(sessions.num_receivers[rows].max())) > MAX_RECEIVERS:
        name = sessions.session_id[rows[sessions.num_receivers[rows].argmax()]]
        raise CannotLocate(f"session {name}: {widest} receivers: expected at most {MAX_RECEIVERS}")
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        chosen = sessions.take(part)
        table = assemble_table(chosen)
        arrays = read_more(chosen, table, statistics, whole)
        yield part, {"origin": table.origin_deg, "receivers": table.receivers, **arrays}


def collect_positions(
    sessions: SessionSet, examples: NDArray[np.int64], outputs: dict[str, NDArray[Any]]
) -> Predictions:
    """Return one prediction per session; those not among ``examples`` are refused."""
    positions, covariance = np.full((len(sessions), 2), np.nan), np.full((len(sessions), 3), np.nan)
    if len(examples):
        positions[examples], covariance[examples] = outputs["positions"], outputs["covariance"]
    refused = ~(np.isfinite(positions).all(1) & np.isfinite(covariance).all(1))
    positions[refused], covariance[refused] = np.nan, np.nan
    return Predictions(positions[:, 0], positions[:, 1], covariance, "network", refused)


def collect_signals(
    sessions: SessionSet, examples: NDArray[np.int64], outputs: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the signal outputs of ``examples`` (E,) as rows of ``sessions``, NaN for the others."""
    found = {}
    for name in OUTPUTS:
        width = outputs[name].shape[1] if name in outputs else 1
        found[name] = np.full((len(sessions), width), np.nan, dtype=np.float32)
        if len(examples):
            found[name][examples] = outputs[name]
    return found


def count_marked(sessions: SessionSet, marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many of each session's receivers (S,) are marked (M,)."""
    total: NDArray[np.int64] = np.concatenate([[0], np.cumsum(marked)])
    return (total[sessions.offsets[1:]] - total[sessions.offsets[:-1]]).astype(np.int64)
