"""Uses: which released models a session, measurement, source or stored object went into."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import InvalidInput
from heimdall_assets.lineage.recorded import RecordedData, list_rows

if TYPE_CHECKING:
    import pandas as pd

_TOLD = ("session_id", "session_name", "campaign", "split", "approved_by", "approved_at", "approval_reason")
"""Of a session."""

COLUMNS = (*_TOLD, "source_name", "station_name")
"""Of the snapshot, besides its keys, what is asked."""


def find_uses(
    releases: Iterable[tuple[Mapping[str, Any], RecordedData]],
    *,
    session: str | None = None,
    measurement: str | None = None,
    source: str | None = None,
    station: str | None = None,
    digest: str | None = None,
) -> list[dict[str, Any]]:
    """Return one entry for each release that used the thing asked for, in the order given; empty: none did.

    Exactly one thing is asked for: a session, source or station by id or name, a measurement by id, an object by its
    digest (a recording, a table, weights: whatever the provenance lists).

    Args:
        releases: provenance and data of each, with at least ``COLUMNS``.
        session, measurement, source, station, digest: what is asked for.

    Returns:
        JSON values: ``version``; ``sessions``: each with ``session_id``, ``session_name``, ``split``, ``approved_by``,
        ``approved_at``, ``approval_reason``; ``measurements``: ids; ``nodes``: manifests that hold the digest.

    Raises:
        InvalidInput: none or several things are asked for.
    """
    asked = {"session": session, "measurement": measurement, "source": source, "station": station, "digest": digest}
    wanted = {name: value for name, value in asked.items() if value is not None}
    if len(wanted) != 1:
        raise InvalidInput(f"where used: found {sorted(wanted) or 'nothing'} asked for, expected one of {list(asked)}")
    uses = []
    for provenance, data in releases:
        ((what, value),) = wanted.items()
        sessions, measurements = _find_rows(data, what, value)
        nodes = [f"{node['kind']} {node['digest']}" for node in provenance["nodes"] if value in _list_held(node)]
        if sessions or measurements or nodes:
            version = provenance["model"]["version"]
            uses.append({"version": version, "sessions": sessions, "measurements": measurements, "nodes": nodes})
    return uses


def list_digests(provenance: Mapping[str, Any], recordings: Iterable[str]) -> set[str]:
    """Return the digest of every object that a release hangs on: manifests, what they hold, shards, recordings."""
    return {*recordings, *(digest for node in provenance["nodes"] for digest in _list_held(node))}


def _find_rows(data: RecordedData, what: str, value: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return sessions, and ids of measurements, of one release that have to do with what is asked for."""
    heard, sessions = data.measurements, data.sessions
    if what == "session":
        chosen = heard["session_id"].isin(sessions.loc[_is_called(sessions, "session", value), "session_id"])
    elif what == "source":
        named = data.sources.loc[_is_called(data.sources, "source", value), "source_id"]
        chosen = heard["session_id"].isin(sessions.loc[sessions["source_id"].isin(named), "session_id"])
    elif what == "station":
        chosen = heard["station_id"].isin(data.stations.loc[_is_called(data.stations, "station", value), "station_id"])
    else:
        chosen = (heard["iq_digest" if what == "digest" else "measurement_id"] == value).fillna(False).astype(bool)
    found = heard[chosen]
    rows = sessions[sessions["session_id"].isin(found["session_id"])]
    told = list(list_rows(rows[[name for name in _TOLD if name in rows]]))
    return told, [str(name) for name in found["measurement_id"]]


def _is_called(table: "pd.DataFrame", what: str, value: str) -> "pd.Series":
    return ((table[f"{what}_id"] == value) | (table[f"{what}_name"] == value)).fillna(False).astype(bool)


def _list_held(node: Mapping[str, Any]) -> set[str]:
    held = {artifact["digest"] for artifact in node["artifacts"].values()}
    return {node["digest"], *held, *node["summary"].get("shards", [])}
