"""Which session trains, validates and tests: a keyed hash of its transmitting site decides, alone and for ever.

Belongs here: sites, and the one decision that makes the three splits. Does not belong here: reading sessions.
A group's split follows from the salt and the group's own name, so sessions that come or go move nobody else.
"""

import hashlib
import hmac
import json
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.kinds import SPLIT_KINDS
from heimdall_assets.signals.geodesy import compute_sites
from heimdall_assets.specs import SplitSpec


def compute_hash_fraction(salt: str, group: str) -> float:
    """Return the place of ``group`` in [0, 1), uniform over groups and unpredictable without ``salt``.

    Source: HMAC-SHA256 (RFC 2104); its first 53 bits are what a float64 holds exactly.
    """
    digest = hmac.new(salt.encode(), group.encode(), hashlib.sha256).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def assign_splits(approved: pd.DataFrame, spec: SplitSpec) -> pd.DataFrame:
    """Return one row per session, sorted by it: ``session_id``, ``site`` and ``split`` (train, val or test).

    With ``spec.column`` the publisher's flag decides what is test, even where that puts one site on both sides; of the
    rest the hash of the site takes ``val_fraction`` for validation.

    Args:
        approved: snapshot with ``domain.APPROVED_COLUMNS``.
        spec: salt, fractions, size of a site.

    Raises:
        InvalidInput: a session with two source positions, or a split without a session.
        InvalidSetting: ``spec.column`` is missing from a session, or is neither 0 nor 1.
    """
    sessions = _list_sessions(approved)
    sites = compute_sites(
        sessions["source_latitude"].to_numpy(), sessions["source_longitude"].to_numpy(), spec.site_size_m
    )
    groups = sites if spec.group_by == "site" else sessions["session_id"].to_numpy()
    places = {group: compute_hash_fraction(spec.salt, str(group)) for group in set(groups)}
    place = np.array([places[group] for group in groups])
    if spec.column is None:
        is_test = place < spec.test_fraction
        is_val = ~is_test & (place < spec.test_fraction + spec.val_fraction)
    else:
        is_test = _read_flags(sessions, spec.column)
        is_val = ~is_test & (place < spec.val_fraction)
    split = np.where(is_test, "test", np.where(is_val, "val", "train"))
    _check_whole(split, sites)
    return pd.DataFrame({"session_id": sessions["session_id"].astype("string"), "site": sites, "split": split}).astype(
        "string"
    )


def _list_sessions(approved: pd.DataFrame) -> pd.DataFrame:
    columns = ["session_id", "source_latitude", "source_longitude", "session_attributes"]
    sessions = approved[columns].drop_duplicates().sort_values("session_id", ignore_index=True)
    doubles = sessions["session_id"].duplicated()
    if doubles.any():
        name = sessions["session_id"][doubles].iloc[0]
        raise InvalidInput(
            f"session {name}: its measurements name several source positions or attributes: expected one of each"
        )
    return sessions


def _read_flags(sessions: pd.DataFrame, column: str) -> NDArray[np.bool_]:
    flags = np.zeros(len(sessions), dtype=bool)
    for row, (session_id, text) in enumerate(zip(sessions["session_id"], sessions["session_attributes"], strict=True)):
        attributes: dict[str, Any] = json.loads(text) if isinstance(text, str) else {}
        if column not in attributes:
            raise InvalidSetting(
                f"split column {column!r}: session {session_id} has no such attribute; it has "
                f"{', '.join(sorted(attributes)) or 'none'}"
            )
        value = attributes[column]
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise InvalidSetting(f"split column {column!r}: session {session_id} holds {value!r:.60}: expected 0 or 1")
        flags[row] = value == 1
    return flags


def _check_whole(split: NDArray[np.str_], sites: NDArray[np.str_]) -> None:
    counts = {name: int((split == name).sum()) for name in SPLIT_KINDS}
    if min(counts.values()) == 0:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InvalidInput(
            f"splits: {say_count(len(split), 'session')} at {say_count(len(set(sites)), 'site')} gave {found}: "
            "expected at least 1 each; "
            "approve sessions at more sites, or change the fractions, site_size_m or salt of SplitSpec"
        )
