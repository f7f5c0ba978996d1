"""Ids that follow from what a thing is, so that the same import twice gives the same rows.

Belongs here: ids of stations, sources, sessions and measurements as UUID version 5 (RFC 9562). Does not belong here:
where the things come from (``intake.files``).
"""

import json
import re
import uuid

from pydantic import ValidationError

from heimdall_assets.domain import Position, Source, Station, check_name
from heimdall_assets.errors import InvalidIdentifier, InvalidSetting
from heimdall_assets.physical import ClockClass

_NAMESPACE = uuid.UUID("6f1d6f2e-58a0-5a39-9e0f-0d7c2f6f4c11")


def compute_id(kind: str, *identity: str | float | None) -> str:
    """Return the id of the ``kind`` (station, source, session, measurement) that ``identity`` tells from all others."""
    # As Python writes it, not by RFC 8785: nobody else computes ids, and an import must find what an older one added.
    text = json.dumps([kind, *identity], separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return str(uuid.uuid5(_NAMESPACE, text))


RECEIVER_MARGIN_M = 100.0
"""By how much a file's own position and a stated one may differ unless said otherwise: a city's block."""

_MODEL_NAME = re.compile(r"latest|champion|challenger|v\d+\.\d+\.\d+")


def check_session_name(name: str, campaign: str) -> None:
    """Check that ``name`` and ``campaign`` can name a session and its campaign.

    Raises:
        InvalidIdentifier: one is no name, or the session would be called as models are.
    """
    check_name(name, "session")
    check_name(campaign, "campaign")
    if _MODEL_NAME.fullmatch(name):
        raise InvalidIdentifier(
            f"session name {name!r}: expected another one: latest, champion, challenger and v1.2.3 name models"
        )


def make_station(name: str, position: Position | None, clock_class: ClockClass) -> Station:
    """Return the station of that name at that place; another place or clock makes it another station.

    Raises:
        InvalidIdentifier: ``name`` is no name.
    """
    check_name(name, "station")
    place = [] if position is None else [position.latitude, position.longitude, position.altitude_m]
    return Station(
        id=compute_id("station", name, str(clock_class), *place), name=name, position=position, clock_class=clock_class
    )


def make_source(
    name: str,
    position: Position,
    error_margin_m: float = 0.0,
    *,
    frequency_hz: float | None = None,
    source_type: str = "unknown",
) -> Source:
    """Return the transmitter of that name at that place.

    Raises:
        InvalidIdentifier: ``name`` is no name.
        InvalidSetting: a number is out of range.
    """
    check_name(name, "source")
    try:
        source = Source(
            id="",
            name=name,
            position=position,
            frequency_hz=frequency_hz,
            source_type=source_type,
            error_margin_m=error_margin_m,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSetting(f"source {name}, {field}: found {first['input']!r:.60}, {first['msg']}") from None
    # from the checked fields, in which 10 is 10.0
    place = (position.latitude, position.longitude, position.altitude_m)
    identity = compute_id("source", name, *place, source.error_margin_m, source.frequency_hz, source_type)
    return source.model_copy(update={"id": identity})
