"""Spectrograms into the one-receiver model's graph and its outputs back to sessions, without torch.

Belongs here: batches of receivers, fusion of what came back, what an exported file says so that both can be done from
it. Does not belong here: the traced module (``receiver_model.task``), frames and fusion themselves
(``receiver_model.frame``).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import CorruptObject
from heimdall_assets.learning.receiver_model.frame import (
    compute_sigma_scale,
    join_receivers,
    list_receivers,
    read_features,
    to_normalised,
)
from heimdall_assets.session_set import Predictions, SessionSet

FRAME_FACT = "frame"
"""Fact of the graph: what its outputs are joined with, as ``describe_frame`` says."""

OUTPUTS = ("positions", "uncertainties")


def feed_receivers(
    sessions: SessionSet, size: int, statistics: dict[str, Any]
) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]:
    """Yield receivers with a spectrogram, ``size`` at once, and the graph's inputs."""
    rows = list_receivers(sessions)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield part, {"features": read_features(sessions, sessions.feature_row[part], statistics)}


def collect_sessions(
    sessions: SessionSet,
    rows: NDArray[np.int64],
    outputs: dict[str, NDArray[Any]],
    statistics: dict[str, Any],
    calibration: dict[str, Any],
) -> Predictions:
    """Return one prediction per session from the graph's outputs over receivers ``rows``."""
    position = to_normalised(outputs["positions"][:, 0], outputs["positions"][:, 1], statistics)
    scale = compute_sigma_scale(outputs["positions"][:, 0].astype(np.float64), statistics)
    variance = (outputs["uncertainties"] / scale) ** 2
    return join_receivers(sessions, rows, position, variance, statistics, calibration)


def describe_frame(statistics: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    """Return as JSON what joins a session's receivers: training centre, its spread, the scale of fused variances."""
    return json.dumps(
        {
            "centre_deg": list(statistics["centre_deg"]),
            "scale_m": list(statistics["scale_m"]),
            "session_variance_scale": calibration.get("session_variance_scale", 1.0),
        },
        sort_keys=True,
    )


def read_frame(facts: Mapping[str, str], shapes: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return of statistics and calibration what feeding and joining need, as an exported graph tells it.

    Args:
        facts: ``metadata_props`` of the file.
        shapes: input name -> its axes, a number where it is fixed.

    Raises:
        CorruptObject: the file does not say it; files that were exported before it was asked for do not.
    """
    try:
        frame = json.loads(facts[FRAME_FACT])
        centre, scale = ([float(value) for value in frame[name]] for name in ("centre_deg", "scale_m"))
        joined = float(frame["session_variance_scale"])
        shape = [int(side) for side in shapes["features"][1:]]
    except KeyError as error:
        raise CorruptObject(
            f"single_receiver model: its file does not say {error.args[0]}, expected one that does; export it again"
        ) from None
    except (TypeError, ValueError) as error:
        raise CorruptObject(f"single_receiver model: found a frame that is none ({error}); export it again") from None
    return {"centre_deg": centre, "scale_m": scale, "feature_shape": shape}, {"session_variance_scale": joined}
