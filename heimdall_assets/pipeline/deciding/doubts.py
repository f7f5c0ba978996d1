"""Doubts: what makes a session doubtful before anybody approved it, a line each.

Belongs here: what import remarked and what reading its rows refuses, said of a session whatever its approval. Does not
belong here: remarks on an estimate (``prediction.plausibility``), what is refused at import (``truth``).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.domain import SessionStatus
from heimdall_assets.pipeline.truth import find_implausible
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.waivers import read_waiver

FEW_RECEIVERS = 3
"""Fewer arrivals leave a position open."""
CONTRADICTED = "truth_contradicted"
_FLAGS = {
    "num_samples_left_out": "samples before or after a gap or a change of frequency are left out",
    "num_bytes_left_out": "bytes of a last block, whose recorder was stopped, are left out",
    "num_stale_blocks_left_out": "blocks without a fresh time stamp are left out",
    "analytic_signal": "real samples, read as their analytic signal",
}
"""Attribute of a measurement that import took from its file -> what it says."""


def find_doubts(store: MeasurementStore, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return session id -> what is doubtful of it; none: nothing that its rows tell.

    Args:
        store: the database.
        rows: of sessions, each with ``source`` and ``heard`` (``session_list.SessionPage``).
    """
    found = {str(row["id"]): _list_told(row) for row in rows}
    if not rows:
        return found
    read = store.read_sessions(list(found))
    for session, why in find_implausible(read.rows).items():
        found[session].append(f"the place cannot be: {why}")
    reasons: dict[tuple[str, str], int] = defaultdict(int)
    for row in read.left_out.itertuples():
        reasons[str(row.session_id), str(row.reason)] += 1
    for (session, reason), count in sorted(reasons.items()):
        if session in found:
            found[session].append(f"{say_count(count, 'measurement')} cannot be used: {reason}")
    return found


def _list_told(row: Mapping[str, Any]) -> list[str]:
    source, heard = row["source"], row["heard"]
    attributes = row.get("attributes")
    told = attributes if isinstance(attributes, Mapping) else {}
    lines = []
    if told.get(CONTRADICTED):
        lines.append(f"who heard it contradicts its place: {told[CONTRADICTED]}")
    waiver = read_waiver(told)
    if waiver is not None:
        lines.append(f"imported all the same, because: {waiver}")
    if row["status"] != str(SessionStatus.COMPLETED):
        lines.append(f"the recording is {row['status']}, not {SessionStatus.COMPLETED}")
    if source is None:
        lines.append("no transmitter is known")
    elif not source["is_validated"]:
        lines.append("nobody has validated the place of its transmitter")
    stations = {one["websdr_station_id"] for one in heard}
    if len(stations) < FEW_RECEIVERS:
        lines.append(f"heard by {say_count(len(stations), 'receiver')} only")
    frequencies = {one["frequency_hz"] for one in heard}
    if len(frequencies) > 1:
        low, high = min(frequencies), max(frequencies)
        lines.append(f"frequencies differ: {low / 1e6:.6g} to {high / 1e6:.6g} MHz")
    return lines + _list_flags(heard)


def _list_flags(heard: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what import remarked of recordings, and how many it is true of."""
    told = [one["attributes"] for one in heard if isinstance(one.get("attributes"), Mapping)]
    counts = {what: sum(bool(one.get(name)) for one in told) for name, what in _FLAGS.items()}
    return [f"{say_count(count, 'recording')}: {what}" for what, count in counts.items() if count]
