"""Recorded data: the sessions, sources, stations and measurements behind a model, as its manifests point at them.

Belongs here: reading these tables, all or some of their columns; their rows as plain values; where two of them differ.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heimdall_assets.domain import APPROVED_COLUMNS, SNAPSHOT
from heimdall_assets.errors import CorruptObject
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES, SPLIT_KINDS
from heimdall_assets.manifests import MAX_INTEGER

ReadTable = Callable[[str], pd.DataFrame]
"""Digest of a table -> the table, its bytes verified."""

TABLES = {
    "sessions": ("session_id", "recording_sessions"),
    "sources": ("source_id", "known_sources"),
    "stations": ("station_id", "websdr_stations"),
    "measurements": ("measurement_id", "measurements"),
}
"""Table -> its key, and the table of the database that it was."""

_ELSEWHERE = {
    "sessions": {"source_id", *(field.snapshot for field in SNAPSHOT if field.table == "approval_events")},
    # Where the receiver was: of a station that moves, each measurement has it of its own.
    "measurements": {f"receiver_{part}" for part in ("latitude", "longitude", "altitude_m")},
}
"""Table -> columns that the table of fields counts to another."""

_CHECKED = {"measurement_id": "measurement_id", "status": "iq_status", "reason": "iq_reason", "digest": "iq_digest"}
"""What became of a recording: column of ``iq_files`` -> column of the measurements."""


@dataclass(frozen=True, eq=False)
class RecordedData:
    """Tables as they were when a model was made.

    Attributes:
        sessions: a row each by ``session_id``; ``split`` and ``site``, missing where it serves none; its approval.
        sources: by ``source_id``.
        stations: by ``station_id``.
        measurements: by ``measurement_id``; ``iq_status``, ``iq_reason``, ``iq_digest``, missing where it has no IQ.
        left_out: ``measurement_id``, ``session_id``, ``reason`` of what could not be used.
    """

    sessions: pd.DataFrame
    sources: pd.DataFrame
    stations: pd.DataFrame
    measurements: pd.DataFrame
    left_out: pd.DataFrame


def read_recorded(provenance: Mapping[str, Any], read_table: ReadTable) -> RecordedData:
    """Return what a model was made of.

    Args:
        provenance: of its release.
        read_table: reads an object.

    Raises:
        CorruptObject: a manifest does not name its table, or that is none, or lacks its key.
        HeimdallError: ``read_table`` found one missing or damaged.
    """
    nodes = {node["kind"]: node for node in provenance["nodes"]}

    def load(kind: str, name: str = "table") -> pd.DataFrame:
        if name not in nodes[kind]["artifacts"]:
            raise CorruptObject(f"{kind} {nodes[kind]['digest']}: found no artifact {name}, expected one")
        return read_table(nodes[kind]["artifacts"][name]["digest"])

    approved = load(APPROVED_MEASUREMENTS)
    missing = [key for key, _ in TABLES.values() if key not in approved]
    if missing:
        raise CorruptObject(f"{APPROVED_MEASUREMENTS}: found no column {', '.join(missing)}, expected the snapshot's")
    recordings = load(IQ_FILES) if IQ_FILES in nodes else None
    splits = [load(kind)[["session_id", "split", "site"]] for kind in SPLIT_KINDS.values() if kind in nodes]
    parts = {
        name: approved.drop_duplicates(key)[_pick_columns(approved, name)].reset_index(drop=True)
        for name, (key, _) in TABLES.items()
    }
    served = pd.concat(splits) if splits else pd.DataFrame({"session_id": [], "split": [], "site": []}, dtype="string")
    return RecordedData(
        sessions=parts["sessions"].merge(served, on="session_id", how="left"),
        sources=parts["sources"],
        stations=parts["stations"],
        measurements=_join_recordings(parts["measurements"], recordings),
        left_out=load(APPROVED_MEASUREMENTS, "left_out"),
    )


def list_rows(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield each row as column -> JSON value: None where it is missing, times as ISO 8601 text."""
    names = [str(name) for name in table.columns]
    for row in zip(*(table[name].tolist() for name in names), strict=True):
        yield {name: _to_json(value) for name, value in zip(names, row, strict=True)}


def compare_rows(first: pd.DataFrame, second: pd.DataFrame, columns: Collection[str]) -> pd.DataFrame:
    """Return where two tables with the same rows in the same order differ: bool, (rows, columns that both have).

    Two missing values are no difference.
    """
    shared = [name for name in columns if name in first and name in second]
    return pd.DataFrame({name: _compare_column(first[name], second[name]) for name in shared}, index=first.index)


def _compare_column(first: pd.Series, second: pd.Series) -> pd.Series:
    other = pd.Series(second.array, index=first.index)
    unequal = (first != other).fillna(True).astype(bool)
    return unequal & ~(first.isna() & other.isna())


def _pick_columns(approved: pd.DataFrame, table: str) -> list[str]:
    """Return the columns of the snapshot that belong to a table, in its order; those of a later version are heard."""
    key, origin = TABLES[table]
    own = {field.snapshot for field in SNAPSHOT if field.table == origin} | {key}
    own |= _ELSEWHERE.get(table, set())
    own -= _ELSEWHERE["measurements"] if table == "stations" else set()
    own |= {str(name) for name in approved} - set(APPROVED_COLUMNS) if table == "measurements" else set()
    return [name for name in approved if name in own]


def _join_recordings(measurements: pd.DataFrame, recordings: pd.DataFrame | None) -> pd.DataFrame:
    if recordings is None:
        recordings = pd.DataFrame({name: [] for name in _CHECKED}, dtype="string")
    checked = recordings[list(_CHECKED)].rename(columns=_CHECKED)
    return measurements.merge(checked, on="measurement_id", how="left")


def _to_json(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return str(value)  # nanoseconds since 1970: readers of JSON outside Python would round them
    if isinstance(value, bool | int | str):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else str(value)
