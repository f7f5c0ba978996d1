"""What a released model says was sent and when, beside what classical detection says, as JSON values.

Belongs here: one session's signal outputs in words and seconds. Does not belong here: positions
(``locating.estimates``), the outputs themselves (``session_model.signal_heads``, ``evaluation.classical_signals``).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.evaluation.classical_signals import detect_signals
from heimdall_assets.evaluation.signal_labels import SIGNAL_TYPES
from heimdall_assets.session_set import SessionSet


def tell_signals(said: Mapping[str, NDArray[Any]] | None, session: SessionSet) -> dict[str, Any] | None:
    """Return what the model (``model``) and classical detection (``classical``) say of the only session.

    Each is None where nothing was demodulated, else has ``type``, ``probability`` (of that type; None: it was decided),
    ``onset`` and ``end`` as shares of the recording, ``onset_s`` and ``end_s`` (None: its length is not known),
    ``snr_db``; None in the place of what the model was not trained on. None in all: a model of positions alone.

    Args:
        said: what the model answered, ``tracks.OUTPUTS``; None: nothing.
        session: of which.
    """
    if said is None:
        return None
    duration_s = float(session.strata["duration_s"][0]) if "duration_s" in session.strata else np.nan
    classical = _describe(detect_signals(session), duration_s)
    if classical is not None:
        classical["probability"] = None
    return {"model": _describe(said, duration_s), "classical": classical}


def _describe(said: Mapping[str, NDArray[Any]], duration_s: float) -> dict[str, Any] | None:
    kind, edges = said["signal_type"][0], said["signal_edges"][0]
    if not any(np.isfinite(values[0]).any() for values in said.values()):
        return None
    best = int(np.argmax(kind)) if np.isfinite(kind).all() else None
    seconds = [_number(edge * duration_s) for edge in edges]
    return {
        "type": None if best is None else SIGNAL_TYPES[best].value,
        "probability": None if best is None else float(kind[best]),
        "onset": _number(edges[0]),
        "end": _number(edges[1]),
        "onset_s": seconds[0],
        "end_s": seconds[1],
        "snr_db": _number(said["signal_snr_db"][0, 0]),
    }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
