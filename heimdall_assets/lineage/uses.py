"""Uses: which released models a session, measurement, source or stored object went into."""

from collections.abc import Iterable, Mapping
from typing import Any

from heimdall_assets.errors import InvalidInput
from heimdall_assets.lineage.frozen import iterate_rows


def find_uses(
    provenances: Iterable[Mapping[str, Any]],
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
    for provenance in provenances:
        sessions, measurements, nodes = _find_in(provenance, **asked)
        if sessions or measurements or nodes:
            uses.append(
                {
                    "version": provenance["model"]["version"],
                    "sessions": [_describe(row) for row in sessions],
                    "measurements": [row["measurement_id"] for row in measurements],
                    "nodes": nodes,
                }
            )
    return uses


def list_digests(provenance: Mapping[str, Any]) -> set[str]:
    """Return the digest of every object that a release hangs on: manifests, what they hold, shards, recordings."""
    found = {node["digest"] for node in provenance["nodes"]}
    for node in provenance["nodes"]:
        found.update(artifact["digest"] for artifact in node["artifacts"].values())
        found.update(node["summary"].get("shards", []))
    found.update(row["iq_digest"] for row in iterate_rows(provenance["measurements"]) if row["iq_digest"])
    return found


def index_digests(provenances: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return digest -> versions of the releases that hang on it, in the order given."""
    index: dict[str, list[str]] = {}
    for provenance in provenances:
        for digest in list_digests(provenance):
            index.setdefault(digest, []).append(provenance["model"]["version"])
    return index


def _find_in(
    provenance: Mapping[str, Any],
    session: str | None,
    measurement: str | None,
    source: str | None,
    station: str | None,
    digest: str | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Return sessions, measurements and manifests of one release that have to do with what is asked for."""
    sources = {
        row["source_id"]
        for row in iterate_rows(provenance["sources"])
        if source in (row["source_id"], row["source_name"])
    }
    stations = {
        row["station_id"]
        for row in iterate_rows(provenance["stations"])
        if station in (row["station_id"], row["station_name"])
    }
    chosen = {
        row["session_id"]
        for row in iterate_rows(provenance["sessions"])
        if session in (row["session_id"], row["session_name"]) or row["source_id"] in sources
    }
    measurements = [
        row
        for row in iterate_rows(provenance["measurements"])
        if row["session_id"] in chosen
        or row["measurement_id"] == measurement
        or row["station_id"] in stations
        or (digest is not None and row["iq_digest"] == digest)
    ]
    chosen |= {row["session_id"] for row in measurements}
    sessions = [row for row in iterate_rows(provenance["sessions"]) if row["session_id"] in chosen]
    nodes = [f"{node['kind']} {node['digest']}" for node in provenance["nodes"] if digest in _list_node_digests(node)]
    return sessions, measurements, nodes


def _list_node_digests(node: Mapping[str, Any]) -> set[str]:
    held = {artifact["digest"] for artifact in node["artifacts"].values()}
    return {node["digest"], *held, *node["summary"].get("shards", [])}


def _describe(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("session_id", "session_name", "campaign", "split", "approved_by", "approved_at", "approval_reason")
    return {name: row[name] for name in names}
