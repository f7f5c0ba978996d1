"""Truth against who heard it: what cannot be is refused at import, and left out of what is learned from, with a reason.

Belongs here: sessions of an import and rows of the database to ``locating.reach`` and ``locating.truth_by_levels``, and
what a waiver does. Does not belong here: what is physically possible, where a waiver rests
(``stores.database.waivers``).
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from heimdall_assets.domain import ImportBatch, Position
from heimdall_assets.errors import Refused
from heimdall_assets.locating.reach import Heard, find_contradictions
from heimdall_assets.locating.truth_by_levels import (
    LevelsHeard,
    Preference,
    compare_with_others,
    find_turned,
)
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.measurements import ApprovedSnapshot, MeasurementStore
from heimdall_assets.stores.database.waivers import WAIVED, find_waiver

if TYPE_CHECKING:
    import pandas as pd

REASON = "truth: "
"""How a reason begins for which a measurement is left out."""


def check_truth(batch: ImportBatch, waiver: str | None = None) -> ImportBatch:
    """Return ``batch`` where its receivers can have heard its sources, or where ``waiver`` says why it is so.

    A session that is contradicted keeps the waiver and what it waives among its attributes (``truth_waived``,
    ``truth_contradicted``); the decision that approves it takes the waiver into the ledger.

    Raises:
        Refused: a source cannot be where it is said to be, and nobody says why it is.
    """
    found = find_contradictions(_list_heard(batch)) or _find_turned(batch)
    if not found:
        return batch
    if waiver is None or not waiver.strip():
        first = next(session for session in batch.sessions if session.id in found)
        others = f" ({len(found)} of {len(batch.sessions)} sessions are so)" if len(batch.sessions) > 1 else ""
        raise Refused(
            f"session {first.name}: {found[first.id]}{others}; expected another place, or why it is so "
            "(--waive-truth REASON)"
        )
    marked = [
        session
        if session.id not in found
        else session.model_copy(
            update={
                "attributes": session.attributes | {WAIVED: waiver.strip(), "truth_contradicted": found[session.id]}
            }
        )
        for session in batch.sessions
    ]
    return replace(batch, sessions=marked)


def read_trusted(measurements: MeasurementStore, dataset: DatasetSpec) -> ApprovedSnapshot:
    """Return what may be learned from and judged with: approved rows whose receivers can have heard their source.

    Databases of the field, and sessions that were approved before anybody looked, were never checked at import.
    """
    import pandas as pd

    snapshot = measurements.read_approved(dataset)
    found = find_implausible(snapshot.rows)
    if not found:
        return snapshot
    bad = snapshot.rows["session_id"].isin(list(found))
    gone = snapshot.rows.loc[bad, ["measurement_id", "session_id"]]
    gone = gone.assign(reason=[REASON + found[str(session)] for session in gone["session_id"]]).astype("string")
    left_out = pd.concat([snapshot.left_out, gone], ignore_index=True)
    left_out = left_out.sort_values(["session_id", "measurement_id", "reason"], ignore_index=True)
    return replace(snapshot, rows=snapshot.rows[~bad].reset_index(drop=True), left_out=left_out)


def find_implausible(rows: "pd.DataFrame") -> dict[str, str]:
    """Return session id -> why its source cannot be where its rows say; not those whose approval waives it.

    Args:
        rows: ``domain.APPROVED_COLUMNS``.
    """
    places = [
        np.stack([rows[f"{who}_{part}"].to_numpy(np.float64) for part in ("latitude", "longitude", "altitude_m")], 1)
        for who in ("receiver", "source")
    ]
    heard = Heard(
        session=rows["session_id"].to_numpy(object),
        station=rows["station_name"].to_numpy(object),
        frequency_hz=rows["frequency_hz"].to_numpy(np.float64),
        receiver=places[0],
        source=places[1],
    )
    found = find_contradictions(heard)
    waived = list_waived(rows) if found else {}
    return {session: why for session, why in found.items() if session not in waived}


def list_waived(rows: "pd.DataFrame") -> dict[str, str]:
    """Return session id -> why its truth is waived, as the ledger says, of all that are.

    Args:
        rows: ``domain.APPROVED_COLUMNS``.
    """
    reasons = rows.drop_duplicates("session_id").set_index("session_id")["approval_reason"].dropna()
    waivers = {str(session): find_waiver(reason) for session, reason in reasons.items()}
    return {session: waiver for session, waiver in waivers.items() if waiver is not None}


def describe_turned(levels: LevelsHeard) -> str | None:
    """Return with which coordinates turned levels fit better than with the stated ones; None: with none."""
    found = find_turned(levels)
    if found is None:
        return None
    return (
        f"levels fit better with {found.what} at {found.preference.share:.0%} of {found.preference.num_sites} sites: "
        f"the loudest receiver is {found.stated_m / 1000.0:,.3g} km away (median), and would be "
        f"{found.mended_m / 1000.0:,.3g} km"
    )


def compare_levels(rows: "pd.DataFrame") -> tuple[Preference, str | None]:
    """Return how often levels fit their own session's place better than another's, and which were rather turned.

    Args:
        rows: ``domain.APPROVED_COLUMNS``.
    """
    levels = LevelsHeard(
        session=rows["session_id"].to_numpy(object),
        frequency_hz=rows["frequency_hz"].to_numpy(np.float64),
        level_db=rows["signal_strength_db"].to_numpy(np.float64, na_value=np.nan),
        receiver=rows[["receiver_latitude", "receiver_longitude"]].to_numpy(np.float64, na_value=np.nan),
        source=rows[["source_latitude", "source_longitude"]].to_numpy(np.float64),
    )
    return compare_with_others(levels), describe_turned(levels)


def _find_turned(batch: ImportBatch) -> dict[str, str]:
    """Return session id -> what contradicts them, of all sessions, where levels tell that coordinates were turned."""
    heard = _list_heard(batch)
    levels = [row.signal_strength_db for row in batch.measurements]
    why = describe_turned(
        LevelsHeard(
            session=heard.session,
            frequency_hz=heard.frequency_hz,
            level_db=np.array([np.nan if level is None else level for level in levels], dtype=np.float64),
            receiver=heard.receiver[:, :2],
            source=heard.source[:, :2],
        )
    )
    return {} if why is None else dict.fromkeys((session.id for session in batch.sessions), why)


def _list_heard(batch: ImportBatch) -> Heard:
    stations = {station.id: station for station in batch.stations}
    sources = {source.id: source for source in batch.sources}
    source_of = {session.id: sources[session.source_id].position for session in batch.sessions}
    rows = batch.measurements
    receivers = [row.receiver_position or stations[row.station_id].position for row in rows]
    return Heard(
        session=np.array([row.session_id for row in rows], dtype=object),
        station=np.array([stations[row.station_id].name for row in rows], dtype=object),
        frequency_hz=np.array([row.frequency_hz for row in rows], dtype=np.float64),
        receiver=np.array([_write_place(place) for place in receivers], dtype=np.float64).reshape(-1, 3),
        source=np.array([_write_place(source_of[row.session_id]) for row in rows], dtype=np.float64).reshape(-1, 3),
    )


def _write_place(place: Position | None) -> tuple[float, float, float]:
    return (np.nan, np.nan, np.nan) if place is None else (place.latitude, place.longitude, place.altitude_m)
