"""Browsing: the sessions of a release as its frozen tables have them, found by words and taken page by page.

Belongs here: reading few columns of few rows, quickly also where there are a hundred thousand sessions. Does not belong
here: layout (``lineage.pages``), reading all of them (``audit``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES, SPLIT_KINDS
from heimdall_assets.lineage.edges import TABLE
from heimdall_assets.stores.database.decisions import find_signers
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.columns import FirstRows, find_columns, read_first_rows, read_values
from heimdall_assets.stores.objects.interface import ObjectStore

COLUMNS = (
    "session_name", "campaign", "origin", "session_start", "source_id", "source_name", "source_latitude",
    "source_longitude", "approval_event_id", "approved_by", "approved_at", "approval_reason",
)  # fmt: skip
SEARCHED = ("session_name", "session_id", "source_name", "source_id", "campaign", "approved_by")
STATION = ("station_name", "clock_class", "receiver_latitude", "receiver_longitude")
MEASURED = (
    "session_id", "measurement_id", "station_name", "timestamp", "frequency_hz", "signal_strength_db",
    "iq_data_location",
)  # fmt: skip
TIMES = ("session_start", "approved_at", "timestamp")
KEPT = 4
"""Releases whose lists stay in memory, some tens of MB each at a hundred thousand sessions."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Digests = tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class SessionList:
    """Every session of a release, in the order of its snapshot.

    Attributes:
        rows: a row each; ``count`` is by how many stations it was heard.
        splits: session id -> what it serves; one that is not there serves nothing.
    """

    rows: FirstRows
    splits: Mapping[str, str]

    def find(self, words: str) -> Sequence[int]:
        """Return the places of the sessions whose name, id, source, campaign or approver holds ``words``; all: none."""
        found = self.rows.find(SEARCHED, words) if words else np.arange(self.rows.num_rows)
        places: list[int] = found.tolist()
        return places

    def find_id(self, session_id: str) -> list[int]:
        """Return the place of the session with this id; empty: there is none."""
        return [place for place, one in enumerate(self.rows.list_values("session_id")) if one == session_id]

    def take(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Return the sessions at some places, with ``split``; times as ISO 8601 text."""
        rows = [_show_times(row) for row in self.rows.take(places)]
        return [{**row, "split": self.splits.get(str(row["session_id"]))} for row in rows]


def read_session_list(stores: Stores, provenance: Mapping[str, Any]) -> SessionList:
    """Return the sessions of a release; asked again, from memory: what lies under a digest does not change.

    Raises:
        HeimdallError: a table is damaged or gone.
    """
    tables = _find_tables(provenance)
    kinds = (APPROVED_MEASUREMENTS, *SPLIT_KINDS.values())
    wanted = tuple((kind, tables[kind]) for kind in kinds if kind in tables)
    for _, digest in wanted:
        if not stores.objects.exists(digest):  # it may have been taken away since
            stores.objects.read_bytes(digest)
    return _Reader(stores.objects, wanted).read()


def read_stations(stores: Stores, provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each station of a release as it first stands; ``count`` is its measurements.

    Raises:
        HeimdallError: the table is damaged or gone.
    """
    data = stores.objects.read_bytes(_find_tables(provenance)[APPROVED_MEASUREMENTS])
    stations = read_first_rows(data, "station_id", STATION)
    return stations.take(range(stations.num_rows))


def read_measurements(stores: Stores, provenance: Mapping[str, Any], session_id: str) -> list[dict[str, Any]]:
    """Return the measurements of one session as a release has them, each with the ``digest`` of its recording or None.

    Raises:
        HeimdallError: a table is damaged or gone.
    """
    tables = _find_tables(provenance)
    read = stores.objects.read_bytes
    rows = find_columns(read(tables[APPROVED_MEASUREMENTS]), MEASURED, "session_id", session_id)
    pinned = {}
    if IQ_FILES in tables:
        found = find_columns(read(tables[IQ_FILES]), ("measurement_id", "digest"), "session_id", session_id)
        pinned = {row["measurement_id"]: row["digest"] for row in found}
    return [{**_show_times(row), "digest": pinned.get(row["measurement_id"])} for row in rows]


def list_approvals(stores: Stores, sessions: SessionList) -> list[dict[str, Any]]:
    """Return ``by``, ``reason``, ``count``, ``first``, ``last``, ``signed`` of the approvals that say the same."""
    names = ("approved_by", "approval_reason", "approved_at", "approval_event_id")
    columns = [sessions.rows.list_values(name) for name in names]
    signers = find_signers(stores.measurements.database, {number for number in columns[3] if number is not None})
    groups: dict[tuple[Any, Any], list[tuple[Any, Any]]] = {}
    for by, reason, time, number in zip(*columns, strict=True):
        groups.setdefault((by, reason), []).append((time, number))
    return [
        {
            "by": by,
            "reason": reason,
            "count": len(told),
            "first": _show_time(min((time for time, _ in told if time is not None), default=None)),
            "last": _show_time(max((time for time, _ in told if time is not None), default=None)),
            "signed": sum(number in signers for _, number in told),
        }
        for (by, reason), told in groups.items()
    ]


def list_places(sessions: SessionList) -> list[tuple[float, float, str | None]]:
    """Return where sources transmitted, each place once, with what the first session from there serves."""
    names = ("source_latitude", "source_longitude", "session_id")
    found: dict[tuple[float, float], str | None] = {}
    for latitude, longitude, name in zip(*(sessions.rows.list_values(name) for name in names), strict=True):
        if latitude is not None and longitude is not None:
            found.setdefault((latitude, longitude), sessions.splits.get(name))
    return [(latitude, longitude, split) for (latitude, longitude), split in found.items()]


def compare_sessions(old: SessionList, new: SessionList) -> dict[str, list[str]]:
    """Return what happened -> ids of the sessions that it happened to, from one release to another."""
    then, now = (dict(zip(side.rows.list_values("session_id"), side.rows.list_values("approval_event_id"), strict=True))
                 for side in (old, new))  # fmt: skip
    both = [name for name in now if name in then]
    moves: dict[str, list[str]] = {}
    for name in both:
        before, after = old.splits.get(name) or "unused", new.splits.get(name) or "unused"
        if before != after:
            moves.setdefault(f"{before} to {after}", []).append(name)
    return {
        "added": [name for name in now if name not in then],
        "removed": [name for name in then if name not in now],
        "approved anew": [name for name in both if then[name] != now[name]],
        **dict(sorted(moves.items())),
    }


@dataclass(frozen=True)
class _Reader:
    """Reads a list; two that read the same tables are one key of the memory."""

    objects: ObjectStore
    wanted: Digests

    def read(self) -> SessionList:
        return _read_kept(self)

    def __hash__(self) -> int:
        return hash(self.wanted)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reader) and other.wanted == self.wanted


@lru_cache(maxsize=KEPT)
def _read_kept(reader: _Reader) -> SessionList:
    tables = dict(reader.wanted)
    data = reader.objects.read_bytes(tables[APPROVED_MEASUREMENTS])
    splits: dict[str, str] = {}
    for split, kind in SPLIT_KINDS.items():
        if kind in tables:
            listed = read_values(reader.objects.read_bytes(tables[kind]), ("session_id",))["session_id"]
            splits |= dict.fromkeys(listed, split)
    return SessionList(read_first_rows(data, "session_id", COLUMNS), splits)


def _find_tables(provenance: Mapping[str, Any]) -> dict[str, str]:
    return {
        node["kind"]: node["artifacts"][TABLE]["digest"] for node in provenance["nodes"] if TABLE in node["artifacts"]
    }


def _show_times(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _show_time(value) if name in TIMES else value for name, value in row.items()}


def _show_time(microseconds: int | None) -> str | None:
    """Return a time as ISO 8601 text in UTC."""
    return None if microseconds is None else (_EPOCH + timedelta(microseconds=microseconds)).isoformat()
