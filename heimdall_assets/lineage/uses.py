"""Uses: which released models a session, measurement, source or stored object went into."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from heimdall_assets.errors import InvalidInput
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES, SPLIT_KINDS

FindRows = Callable[[str, Sequence[str], Mapping[str, Collection[str]]], list[dict[str, Any]]]
"""Digest of a table, columns, and column -> values that are looked for -> the rows that have one, verified."""

_TOLD = ("session_id", "session_name", "campaign", "approved_by", "approved_at", "approval_reason")
"""Of a session."""


def find_uses(
    provenances: Iterable[Mapping[str, Any]],
    find_rows: FindRows,
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
        provenances: of the releases.
        find_rows: looks into their tables.
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
    ((what, value),) = wanted.items()
    uses = []
    for provenance in provenances:
        sessions, measurements = _find_data(provenance, find_rows, what, value)
        nodes = [f"{node['kind']} {node['digest']}" for node in provenance["nodes"] if value in _list_held(node)]
        if sessions or measurements or nodes:
            version = provenance["model"]["version"]
            uses.append({"version": version, "sessions": sessions, "measurements": measurements, "nodes": nodes})
    return uses


def list_digests(provenance: Mapping[str, Any], recordings: Iterable[str]) -> set[str]:
    """Return the digest of every object that a release hangs on: manifests, what they hold, shards, recordings."""
    return {*recordings, *(digest for node in provenance["nodes"] for digest in _list_held(node))}


def _find_data(
    provenance: Mapping[str, Any], find_rows: FindRows, what: str, value: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return sessions, and ids of measurements, of one release that have to do with what is asked for."""
    tables = {
        node["kind"]: node["artifacts"]["table"]["digest"]
        for node in provenance["nodes"]
        if "table" in node["artifacts"]
    }
    matches: dict[str, Collection[str]] = {f"{what}_id": [value], f"{what}_name": [value]}
    if what == "measurement":
        matches = {"measurement_id": [value]}
    elif what == "digest":
        held = find_rows(tables[IQ_FILES], ["measurement_id"], {"digest": [value]}) if IQ_FILES in tables else []
        matches = {"measurement_id": [row["measurement_id"] for row in held]}
    if not any(matches.values()):
        return [], []
    rows = find_rows(tables[APPROVED_MEASUREMENTS], [*_TOLD, "measurement_id"], matches)
    sessions = {row["session_id"]: {name: _to_json(row[name]) for name in _TOLD} for row in rows}
    served = {
        row["session_id"]: row["split"]
        for kind in SPLIT_KINDS.values()
        if kind in tables and sessions
        for row in find_rows(tables[kind], ["session_id", "split"], {"session_id": list(sessions)})
    }
    told = [{**session, "split": served.get(name)} for name, session in sessions.items()]
    return told, [str(row["measurement_id"]) for row in rows]


def _to_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _list_held(node: Mapping[str, Any]) -> set[str]:
    held = {artifact["digest"] for artifact in node["artifacts"].values()}
    return {node["digest"], *held, *node["summary"].get("shards", [])}
