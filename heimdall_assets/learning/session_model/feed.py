"""Sessions into the session model's graph and its outputs back to sessions.

Belongs here: inputs as arrays and tensors, batches, the run over many sessions, rows of what came back. Does not belong
here: tables (``session_model.table``), the traced module (``session_model.graph``), what is learned
(``session_model.task``).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heimdall_assets.errors import CannotLocate
from heimdall_assets.learning.receiver_model.frame import read_features
from heimdall_assets.learning.session_model.graph import NetworkGraph, name_inputs, place_origin
from heimdall_assets.learning.session_model.pair_columns import make_pair_columns
from heimdall_assets.learning.session_model.signal_heads import OUTPUTS
from heimdall_assets.learning.session_model.table import MAX_RECEIVERS, ReceiverTable, assemble_table
from heimdall_assets.learning.session_model.tracks import collect_tracks
from heimdall_assets.session_set import Predictions, SessionSet

PREDICT_BATCH = 256


def name_outputs(statistics: dict[str, Any]) -> list[str]:
    """Return the names of the graph's outputs where it has all its inputs, in its order."""
    signals = list(OUTPUTS) if statistics.get("signal_tasks") else []
    return ["positions", "uncertainties", "covariance", *signals]


def make_inputs(sessions: SessionSet, table: ReceiverTable, statistics: dict[str, Any]) -> dict[str, Tensor]:
    """Return what the network's ``forward`` takes; spectrograms and pairs only where there are some."""
    centre = (statistics["level_prior"] or {}).get("centre_deg", [0.0, 0.0])
    origin = torch.from_numpy(table.origin_deg)
    inputs = {
        "receivers": torch.from_numpy(table.receivers),
        "offset": place_origin(origin, torch.tensor(centre, dtype=torch.float64)),
    }
    arrays = _read_more(sessions, table, statistics, whole=False)
    inputs |= {name: torch.from_numpy(values) for name, values in arrays.items()}
    if "spectrograms" in inputs:
        graph = NetworkGraph(nn.Identity(), statistics, {})
        inputs["spectrograms"] = (inputs["spectrograms"] - graph.mean_db) / graph.std_db
    return inputs


def _read_more(
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
        arrays = _read_more(chosen, table, statistics, whole)
        yield part, {"origin": table.origin_deg, "receivers": table.receivers, **arrays}


def run_network(
    network: nn.Module,
    sessions: SessionSet,
    statistics: dict[str, Any],
    calibration: dict[str, Any],
    whole: bool = False,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Return the sessions that could be fed (E,), and the graph's outputs over them; ``whole``: signals too."""
    graph = NetworkGraph(network, statistics, calibration).eval()
    device = next(network.parameters()).device
    graph.to(device)
    was_training, parts, rows = network.training, [], [np.empty(0, dtype=np.int64)]
    network.eval()
    with torch.no_grad():
        for examples, arrays in feed_sessions(sessions, PREDICT_BATCH, statistics, whole):
            given = {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}
            outputs = graph(*(given.get(name) for name in name_inputs(statistics)))
            parts.append([value.cpu().numpy() for value in outputs])
            rows.append(examples)
    network.train(was_training)
    names = name_outputs(statistics) if whole else name_outputs({})
    joined = {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)} if parts else {}
    return np.concatenate(rows), joined


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
