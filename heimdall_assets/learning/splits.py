"""Which session trains, validates and tests: a keyed hash of its transmitting site decides, alone and for ever.

Belongs here: sites, and the one decision that makes the three splits. Does not belong here: reading sessions.
A group's split follows from the salt and the group's own name, so sessions that come or go move nobody else. With
``stratify_by`` it follows from the group's rank among those of its region: a site that comes or goes moves at most one
other over each border between two splits, or two folds, of its own region, and nobody of another.
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
from heimdall_assets.signals.geodesy import compute_sites, locate_sites
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
    rest the hash of the site takes ``val_fraction`` for validation. With ``spec.num_folds`` a second hash deals the
    rest into folds, of which ``spec.fold`` validates: over the folds each site that is no test validates once.

    Args:
        approved: snapshot with ``domain.APPROVED_COLUMNS``.
        spec: salt, fractions or folds, size of a site, stratification.

    Raises:
        InvalidInput: a session with two source positions, or a split without a session.
        InvalidSetting: ``spec.column`` is missing from a session, or is neither 0 nor 1.
    """
    sessions = _list_sessions(approved)
    latitude, longitude = sessions["source_latitude"].to_numpy(), sessions["source_longitude"].to_numpy()
    sites = compute_sites(latitude, longitude, spec.site_size_m)
    groups = sites if spec.group_by == "site" else sessions["session_id"].to_numpy().astype(np.str_)
    regions = None
    if spec.stratify_by == "region":
        if spec.group_by == "site":  # the middle of its tile: a site is of one region, whoever of it comes or goes
            latitude, longitude = locate_sites(sites.tolist(), spec.site_size_m)
        regions = compute_sites(latitude, longitude, spec.region_size_m)
    if spec.column is None:
        place = _place_groups(groups, regions, spec.salt)
        is_test, first_val = place < spec.test_fraction, spec.test_fraction
    else:
        is_test, first_val = _read_flags(sessions, spec.column), 0.0
        place = np.ones(len(sessions))
        place[~is_test] = _place_groups(groups[~is_test], None if regions is None else regions[~is_test], spec.salt)
    is_val = ~is_test & (place < first_val + spec.val_fraction)
    if spec.num_folds is not None:
        rest = ~is_test
        within = None if regions is None else regions[rest]
        dealt = _place_groups(groups[rest], within, f"{spec.salt} fold")
        is_val[rest] = np.minimum(np.floor(dealt * spec.num_folds), spec.num_folds - 1) == spec.fold
    split = np.where(is_test, "test", np.where(is_val, "val", "train"))
    _check_whole(split, sites, spec)
    return pd.DataFrame({"session_id": sessions["session_id"].astype("string"), "site": sites, "split": split}).astype(
        "string"
    )


def _place_groups(groups: NDArray[np.str_], regions: NDArray[np.str_] | None, salt: str) -> NDArray[np.float64]:
    """Return the place of each session's group in [0, 1): its hash; within regions its rank by that, evenly spaced.

    Where the first of a region's n groups stands in [0, 1 / n), the region's own hash says: of any share t of [0, 1) it
    so holds n t groups, rounded down or up, and right on average over small regions.

    Args:
        groups: of each session.
        regions: of each session, one for all of a group; None: no regions.
        salt: key of the hashes.
    """
    names, found, owner = np.unique(groups, return_index=True, return_inverse=True)
    place = np.array([compute_hash_fraction(salt, str(name)) for name in names])
    if regions is None:
        return place[owner]
    region_of = regions[found]
    for region in np.unique(region_of):
        members = np.flatnonzero(region_of == region)
        rank = np.argsort(np.argsort(place[members], kind="stable"))
        place[members] = (rank + compute_hash_fraction(salt, f"region {region}")) / len(members)
    return place[owner]


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


def _check_whole(split: NDArray[np.str_], sites: NDArray[np.str_], spec: SplitSpec) -> None:
    counts = {name: int((split == name).sum()) for name in SPLIT_KINDS}
    if min(counts.values()) == 0:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        of_fold = "" if spec.num_folds is None else f"fold {spec.fold} of {spec.num_folds}, "
        given = f"{say_count(len(split), 'session')} at {say_count(len(set(sites)), 'site')}"
        raise InvalidInput(
            f"splits: {of_fold}{given} gave {found}: "
            "expected at least 1 each; "
            f"approve sessions at more sites, or change the {'fractions' if not of_fold else 'num_folds'}, "
            "site_size_m or salt of SplitSpec"
        )
