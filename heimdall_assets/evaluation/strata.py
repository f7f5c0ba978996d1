"""Strata: the groups by which a method is judged, because one median hides where it fails.

Belongs here: which group a session belongs to. Does not belong here: the numbers of a group (``metrics``).
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.bounds import compute_gdop
from heimdall_assets.session_set import SessionSet

MAX_LABELS = 24
"""A stratum with more distinct values names sessions, it does not group them."""

_SNR_EDGES_DB = [0.0, 10.0, 20.0, 30.0]
_SNR_LABELS = ["below 0 dB", "0 to 10 dB", "10 to 20 dB", "20 to 30 dB", "30 dB and above"]
_GDOP_EDGES = [2.0, 5.0, 10.0, 20.0]
_GDOP_LABELS = ["below 2", "2 to 5", "5 to 10", "10 to 20", "20 and above"]
_COUNT_EDGES = [2, 3, 4, 5, 6, 7, 8, 16]
_COUNT_LABELS = ["1", "2", "3", "4", "5", "6", "7", "8 to 15", "16 and more"]

_IDENTITIES = frozenset({"site", "index", "source_id", "session_id", "session_name"})
_MEASURES = frozenset({"span_start_s", "span_end_s", "true_snr_db"})
"""Strata that labels are made of: their few round values, such as 0 s, group nothing."""

_READING_ORDER = {label: index for index, label in enumerate([*_SNR_LABELS, *_GDOP_LABELS, *_COUNT_LABELS])}


def list_groups(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels, bins in the order of what they bin, names alphabetically.

    Examples:
        >>> list_groups(["10 to 20 dB", "below 0 dB", "0 to 10 dB", "below 0 dB"])
        ['below 0 dB', '0 to 10 dB', '10 to 20 dB']
    """
    return sorted(set(map(str, labels)), key=lambda label: (_READING_ORDER.get(label, len(_READING_ORDER)), label))


def assign_strata(sessions: SessionSet, train_sites: Collection[str] | None = None) -> dict[str, NDArray[np.str_]]:
    """Return group labels, name of the stratum -> str (S,): geometry and signal, then what ``sessions.strata`` holds.

    Args:
        sessions: with truth where known; SNR, GDOP and region are "unknown" where they cannot be said.
        train_sites: values of ``strata["site"]`` that the model was trained on; None: seen / unseen is not judged.
    """
    strata = {
        "num_receivers": _bin(sessions.num_receivers.astype(np.float64), _COUNT_EDGES, _COUNT_LABELS, "none"),
        "snr": _bin(_compute_mean_snr(sessions), _SNR_EDGES_DB, _SNR_LABELS, "unknown"),
        "gdop": _bin(compute_gdop(sessions), _GDOP_EDGES, _GDOP_LABELS, "undefined"),
        "region": _assign_quadrants(sessions),
    }
    strata["num_receivers"][sessions.num_receivers == 0] = "none"
    if sessions.blocked is not None:
        num_blocked = _sum_per_session(sessions, sessions.blocked.astype(np.float64))
        strata["line_of_sight"] = np.where(num_blocked > 0, "some receivers blocked", "all receivers in sight")
    if train_sites is not None and "site" in sessions.strata:
        seen = np.isin(sessions.strata["site"].astype(str), sorted(map(str, train_sites)))
        strata["site"] = np.where(seen, "seen in training", "unseen")
    for name, values in sessions.strata.items():
        labels = _label(np.asarray(values))
        if name not in strata and name not in _IDENTITIES | _MEASURES and labels is not None:
            strata[name] = labels
    return strata


def _label(values: NDArray[Any]) -> NDArray[np.str_] | None:
    """Return values as labels where they group the sessions; None: they measure or name each session."""
    if values.dtype.kind == "f" and not np.array_equal(
        values[np.isfinite(values)] % 1, 0.0 * values[np.isfinite(values)]
    ):
        return None
    labels = values.astype(str)
    num_labels = len(np.unique(labels))
    return labels if num_labels == 1 or num_labels <= min(MAX_LABELS, len(labels) / 2) else None


def _compute_mean_snr(sessions: SessionSet) -> NDArray[np.float64]:
    known = np.isfinite(sessions.snr_db)
    total = _sum_per_session(sessions, np.where(known, sessions.snr_db, 0.0))
    count = _sum_per_session(sessions, known.astype(np.float64))
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def _assign_quadrants(sessions: SessionSet) -> NDArray[np.str_]:
    """Return where each source lies as seen from the middle of the receivers."""
    places = np.unique(np.stack([sessions.receiver_latitude, sessions.receiver_longitude], axis=1), axis=0)
    if len(places) == 0:
        return np.full(len(sessions), "unknown")
    middle = 0.5 * (places.min(axis=0) + places.max(axis=0))
    vertical = np.where(sessions.source_latitude >= middle[0], "north", "south")
    horizontal = np.where(sessions.source_longitude >= middle[1], "east", "west")
    known = np.isfinite(sessions.source_latitude) & np.isfinite(sessions.source_longitude)
    return np.where(known, np.char.add(np.char.add(vertical, "-"), horizontal), "unknown")


def _sum_per_session(sessions: SessionSet, values: NDArray[np.float64]) -> NDArray[np.float64]:
    owner = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    return np.bincount(owner, weights=values, minlength=len(sessions)).astype(np.float64)


def _bin(values: NDArray[np.float64], edges: Sequence[float], labels: list[str], unknown: str) -> NDArray[np.str_]:
    """Return the label of the bin of each value; edges belong to the bin above."""
    known = np.isfinite(values)
    index = np.digitize(np.where(known, values, 0.0), edges)
    width = max(map(len, [*labels, unknown]))
    return np.where(known, np.asarray(labels)[index], unknown).astype(f"<U{width}")
