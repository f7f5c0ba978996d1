"""Checked columns of a table of levels to rows of the database: a session a transmission, a measurement a level.

Belongs here: identities, names and attributes of such sessions. Does not belong here: the table's format
(``tables.levels``).
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from heimdall_assets.domain import ImportBatch, Measurement, Origin, Position, Session, Source, Station, check_name
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.identities import compute_id, make_source, make_station

if TYPE_CHECKING:
    from heimdall_assets.tables.level_table import LevelTable

DEFAULT_ERROR_MARGIN_M = 5.0
"""Open-sky error of a handheld GNSS receiver: 4.9 m for a smartphone. Source: gps.gov, GPS accuracy."""

DEFAULT_SOURCE_TYPE = "handheld"


def build_level_batch(
    table: "LevelTable",
    *,
    campaign: str,
    error_margin_m: float,
    source_type: str,
    clock_class: ClockClass = ClockClass.NONE,
) -> ImportBatch:
    """Return stations, sources, pending sessions and measurements of ``table``.

    The error of a clock class adds to the sigma that the table states of its arrivals; ``none`` adds nothing.

    A session is told from others by campaign, time, position and, where the table has names, its own and its source's:
    the same transmission in another cut of the table is the same session. Its attributes keep the publisher's columns.

    Raises:
        InvalidIdentifier: ``campaign`` is no name, or too long a one; or a name in the table is none.
        InvalidSetting: the margin is out of range.
    """
    check_name(campaign, "campaign")
    stations = [
        make_station(name, position, clock_class)
        for name, position in zip(table.receivers, table.positions, strict=True)
    ]
    sources = _build_sources(table, error_margin_m, source_type)
    sessions = _build_sessions(table, campaign, sources)
    return ImportBatch(
        stations=stations,
        sources=list({source.id: source for source in sources}.values()),
        sessions=sessions,
        measurements=_build_measurements(table, sessions, stations),
    )


def _build_sources(table: "LevelTable", error_margin_m: float, source_type: str) -> list[Source]:
    places = zip(table.source_latitude.tolist(), table.source_longitude.tolist(), strict=True)
    return [
        make_source("unknown", Position(latitude=0.0, longitude=0.0)).model_copy(update={"is_validated": False})
        if np.isnan(latitude)
        else make_source(
            f"{source_type} {latitude:.7f} {longitude:.7f}" if table.source is None else table.source[index],
            Position(latitude=latitude, longitude=longitude),
            error_margin_m,
            frequency_hz=float(table.frequency_hz[index]),
            source_type=source_type,
        )
        for index, (latitude, longitude) in enumerate(places)
    ]


def _build_sessions(table: "LevelTable", campaign: str, sources: list[Source]) -> list[Session]:
    times = _list_times(table.timestamp)
    used: dict[str, int] = {}
    sessions = []
    for index, (time, source) in enumerate(zip(times, sources, strict=True)):
        attributes: dict[str, Any] = {column: values[index] for column, values in table.attributes.items()}
        if attributes.get("heard_without_position") is None:
            attributes.pop("heard_without_position", None)
        named = [] if table.session is None else [f"session {table.session[index]}"]
        named += [] if table.source is None else [f"source {table.source[index]}"]
        sessions.append(
            Session(
                id=compute_id(
                    "session", campaign, time.isoformat(), source.position.latitude, source.position.longitude, *named
                ),
                name=(
                    _name_session(campaign, time, used)
                    if table.session is None
                    else check_name(table.session[index], "session")
                ),
                source_id=source.id,
                campaign=campaign,
                origin=Origin.MEASURED,
                start=time,
                attributes=attributes,
            )
        )
    return sessions


def _list_times(timestamp: np.ndarray[Any, Any]) -> list[datetime]:
    return [time.replace(tzinfo=UTC) for time in timestamp.astype(object).tolist()]


def _name_session(campaign: str, time: datetime, used: dict[str, int]) -> str:
    """Return ``CAMPAIGN-20221123T132440``, with ``-2`` and so on where one second saw several transmissions."""
    name = f"{campaign}-{time:%Y%m%dT%H%M%S}" + (f".{time:%f}" if time.microsecond else "")
    used[name] = used.get(name, 0) + 1
    return check_name(name if used[name] == 1 else f"{name}-{used[name]}", "session")


def _build_measurements(table: "LevelTable", sessions: list[Session], stations: list[Station]) -> list[Measurement]:
    times = _list_times(table.heard_timestamp)
    level_db, snr_db = _list_known(table.level_db), _list_known(table.snr_db)
    observed = _list_observed(table)
    latitude, longitude = table.receiver_latitude.tolist(), table.receiver_longitude.tolist()
    measurements = []
    for index, (row, column) in enumerate(zip(table.heard_row.tolist(), table.heard_receiver.tolist(), strict=True)):
        session, station = sessions[row], stations[column]
        position = None
        if table.positions[column] is None:
            position = Position(latitude=latitude[index], longitude=longitude[index])
        measurements.append(
            Measurement(
                id=compute_id("measurement", session.id, station.id),
                session_id=session.id,
                station_id=station.id,
                timestamp=times[index],
                frequency_hz=float(table.frequency_hz[row]),
                signal_strength_db=level_db[index],
                snr_db=snr_db[index],
                receiver_position=position,
                attributes=table.heard_attributes[index],
                **observed[index],
            )
        )
    return measurements


def _list_known(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def _list_observed(table: "LevelTable") -> list[dict[str, Any]]:
    """Return arrival and bearing of each measurement with their sigmas; nothing of those that have none."""
    observed = table.observed
    if observed is None:
        return [{} for _ in table.heard_attributes]
    names = ("arrival_unix_ns", "arrival_sigma_s", "bearing_deg", "bearing_sigma_deg")
    columns = [
        [int(value) if value else None for value in observed.arrival_unix_ns.tolist()],
        *(_list_known(getattr(observed, name)) for name in names[1:]),
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
