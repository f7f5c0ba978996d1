"""The session model run in PyTorch over many sessions: what training watches and exports are compared with.

Belongs here: arrays as tensors, the network's and the graph's own run. Does not belong here: which arrays
(``session_model.feed``), the traced module (``session_model.graph``), what is learned (``session_model.task``).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heimdall_assets.learning.session_model.feed import feed_sessions, name_inputs, name_outputs, read_more
from heimdall_assets.learning.session_model.graph import NetworkGraph, place_origin
from heimdall_assets.learning.session_model.table import ReceiverTable
from heimdall_assets.session_set import SessionSet

PREDICT_BATCH = 256


def make_inputs(sessions: SessionSet, table: ReceiverTable, statistics: dict[str, Any]) -> dict[str, Tensor]:
    """Return what the network's ``forward`` takes; spectrograms and pairs only where there are some."""
    centre = (statistics["level_prior"] or {}).get("centre_deg", [0.0, 0.0])
    origin = torch.from_numpy(table.origin_deg)
    inputs = {
        "receivers": torch.from_numpy(table.receivers),
        "offset": place_origin(origin, torch.tensor(centre, dtype=torch.float64)),
    }
    arrays = read_more(sessions, table, statistics, whole=False)
    inputs |= {name: torch.from_numpy(values) for name, values in arrays.items()}
    if "spectrograms" in inputs:
        graph = NetworkGraph(nn.Identity(), statistics, {})
        inputs["spectrograms"] = (inputs["spectrograms"] - graph.mean_db) / graph.std_db
    return inputs


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
