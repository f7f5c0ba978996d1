"""Checked columns of a table of levels to rows of the database: a session a transmission, a measurement a level.

Belongs here: identities, names and attributes of such sessions. Does not belong here: the table's format
(``formats.rss_table``).
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from heimdall_assets.domain import (
    ClockClass,
    ImportBatch,
    Measurement,
    Origin,
    Position,
    Session,
    Source,
    Station,
    check_name,
)
from heimdall_assets.pipeline.intake.identities import compute_id, make_source, make_station

if TYPE_CHECKING:
    from heimdall_assets.formats.rss_table import RssTable

DEFAULT_FREQUENCY_HZ = 462.7e6
"""FRS / GMRS channel 21, where the POWDER data set's handhelds transmitted. Source: its publisher."""

DEFAULT_ERROR_MARGIN_M = 5.0
"""Open-sky error of a handheld GNSS receiver: 4.9 m for a smartphone. Source: gps.gov, GPS accuracy."""

DEFAULT_SOURCE_TYPE = "handheld"


def build_rss_batch(
    table: "RssTable", *, campaign: str, frequency_hz: float, error_margin_m: float, source_type: str
) -> ImportBatch:
    """Return stations, sources, pending sessions and measurements of ``table``.

    A session is told from others by campaign, time and position, so the same transmission in another cut of the table
    is the same session. Its attributes keep the publisher's columns, the fixed receivers that heard nothing
    (``not_heard``) and the moving ones that heard it without a position of their own (``heard_without_position``),
    whose levels are left out.

    Raises:
        InvalidIdentifier: ``campaign`` is no name, or too long a one.
        InvalidSetting: the frequency or margin is out of range.
    """
    check_name(campaign, "campaign")
    stations = [
        make_station(name, position, ClockClass.NONE)
        for name, position in zip(table.receivers, table.positions, strict=True)
    ]
    sources = _build_sources(table, frequency_hz, error_margin_m, source_type)
    moves = np.array([position is None for position in table.positions])
    heard = np.isfinite(table.level_db)
    placed = heard & (~moves | np.isfinite(table.receiver_latitude))
    sessions = _build_sessions(table, campaign, sources, heard, placed, moves)
    return ImportBatch(
        stations=stations,
        sources=list({source.id: source for source in sources}.values()),
        sessions=sessions,
        measurements=_build_measurements(table, sessions, stations, placed, moves, frequency_hz),
    )


def _build_sources(table: "RssTable", frequency_hz: float, error_margin_m: float, source_type: str) -> list[Source]:
    return [
        make_source(
            f"{source_type} {latitude:.7f} {longitude:.7f}",
            Position(latitude=latitude, longitude=longitude),
            error_margin_m,
            frequency_hz=frequency_hz,
            source_type=source_type,
        )
        for latitude, longitude in zip(table.source_latitude.tolist(), table.source_longitude.tolist(), strict=True)
    ]


def _build_sessions(
    table: "RssTable",
    campaign: str,
    sources: list[Source],
    heard: np.ndarray[Any, Any],
    placed: np.ndarray[Any, Any],
    moves: np.ndarray[Any, Any],
) -> list[Session]:
    names = np.array(table.receivers, dtype=object)
    times = [time.replace(tzinfo=UTC) for time in table.timestamp.astype(object).tolist()]
    used: dict[str, int] = {}
    sessions = []
    for index, (time, source) in enumerate(zip(times, sources, strict=True)):
        attributes: dict[str, Any] = {column: values[index] for column, values in table.attributes.items()}
        attributes["not_heard"] = names[~heard[index] & ~moves].tolist()
        unplaced = names[heard[index] & ~placed[index]].tolist()
        if unplaced:
            attributes["heard_without_position"] = unplaced
        sessions.append(
            Session(
                id=compute_id(
                    "session", campaign, time.isoformat(), source.position.latitude, source.position.longitude
                ),
                name=_name_session(campaign, time, used),
                source_id=source.id,
                campaign=campaign,
                origin=Origin.MEASURED,
                start=time,
                attributes=attributes,
            )
        )
    return sessions


def _name_session(campaign: str, time: datetime, used: dict[str, int]) -> str:
    """Return ``CAMPAIGN-20221123T132440``, with ``-2`` and so on where one second saw several transmissions."""
    name = f"{campaign}-{time:%Y%m%dT%H%M%S}" + (f".{time:%f}" if time.microsecond else "")
    used[name] = used.get(name, 0) + 1
    return check_name(name if used[name] == 1 else f"{name}-{used[name]}", "session")


def _build_measurements(
    table: "RssTable",
    sessions: list[Session],
    stations: list[Station],
    placed: np.ndarray[Any, Any],
    moves: np.ndarray[Any, Any],
    frequency_hz: float,
) -> list[Measurement]:
    measurements = []
    level_db = table.level_db.tolist()
    latitude, longitude = table.receiver_latitude.tolist(), table.receiver_longitude.tolist()
    for row, column in zip(*(axis.tolist() for axis in np.nonzero(placed)), strict=True):
        session, station = sessions[row], stations[column]
        position = None
        if moves[column]:
            position = Position(latitude=latitude[row][column], longitude=longitude[row][column])
        measurements.append(
            Measurement(
                id=compute_id("measurement", session.id, station.id),
                session_id=session.id,
                station_id=station.id,
                timestamp=session.start,
                frequency_hz=frequency_hz,
                signal_strength_db=level_db[row][column],
                receiver_position=position,
            )
        )
    return measurements
