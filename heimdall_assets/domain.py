"""Facts of the field: what stations, sources, sessions, measurements and decisions are.

Belongs here: nouns shared by every floor. The attributes of ``NOUNS`` are the
table of fields (``fields``): another column is another attribute there, and a migration.
Does not belong here: samples, answers and constants (``physical``), a number somebody may choose (``specs``), anything
that computes or stores.
Latitude comes before longitude, angles are degrees of WGS-84, units stand in the names.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from heimdall_assets.errors import InvalidIdentifier
from heimdall_assets.fields import Bounds, Stored, read_fields, walk_fields
from heimdall_assets.physical import ClockClass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+:-]{0,127}")


def check_name(name: str, what: str) -> str:
    """Return ``name`` unchanged if it can name a ``what``: letters, digits, blank and ``. _ + : -``, 1 to 128 of them.

    Raises:
        InvalidIdentifier: it is empty, too long, holds another character, or ``..``. Names become parts of object
            names and addresses, so a name is never a path.

    Examples:
        >>> check_name("Torino_2 m", "station")
        'Torino_2 m'
        >>> check_name("../secrets", "station")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        heimdall_assets.errors.InvalidIdentifier: station name '../secrets': expected 1 to 128 letters, ...
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise InvalidIdentifier(
            f"{what} name {name!r:.140}: expected 1 to 128 letters, digits, blanks or . _ + : - without '..', "
            "starting with a letter or digit"
        )
    return name


class Origin(StrEnum):
    """Where a session comes from. Simulated sessions stay labelled so for ever."""

    MEASURED = "measured"
    SIMULATED = "simulated"


class ApprovalStatus(StrEnum):
    """What people decided about a session, last decision."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


class Role(StrEnum):
    """What a user of the page may do; each may what those before it may."""

    AUDITOR = "auditor"
    OPERATOR = "operator"
    APPROVER = "approver"


class SessionStatus(StrEnum):
    """How far the recording of a session got."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class Word(BaseModel):
    """Base of the nouns: immutable, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Latitude = Annotated[float, Bounds(-90.0, 90.0)]
Longitude = Annotated[float, Bounds(-180.0, 180.0)]
Altitude = Annotated[float, Bounds(-500.0, 100_000.0)]
Frequency = Annotated[float, Bounds(0.0, 300e9, above=True)]
FrequencyOffset = Annotated[float, Bounds(-300e9, 300e9)]
SampleRate = Annotated[float, Bounds(0.0, 1e9, above=True)]
Duration = Annotated[float, Bounds(0.0, 1e9, above=True)]
Decibels = Annotated[float, Bounds(-1e3, 1e3)]
FullScale = Annotated[float, Bounds(0.0, 1e12, above=True)]
ArrivalSigma = Annotated[float, Bounds(1e-9, 1.0)]  # no estimator believes less (``locating.arrays``)
Bearing = Annotated[float, Bounds(0.0, 360.0)]
BearingSigma = Annotated[float, Bounds(0.0, 180.0, above=True)]
Id = Annotated[str, StringConstraints(max_length=128)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+:-]{0,127}$", max_length=128)]


class Position(Word):
    """A point on or above the WGS-84 ellipsoid; one that states no height lies at sea level."""

    latitude: Latitude
    longitude: Longitude
    altitude_m: Annotated[Altitude, Stored("altitude_asl", note="above sea level")] = 0.0


class Station(Word):
    """A receiver. A moving one has no fixed ``position``: each of its measurements carries one."""

    id: Annotated[Id, Stored(read_as="known_station_id")]
    name: Annotated[Name, Stored(snapshot="station_name")]
    clock_class: Annotated[ClockClass, Stored(snapshot=True, stand_in="none")] = ClockClass.NONE
    position: Annotated[Position | None, Stored(snapshot="receiver_", read_as="station_")] = None
    url: str | None = None
    frequency_min_hz: Frequency | None = None
    frequency_max_hz: Frequency | None = None
    is_active: bool = True


class Source(Word):
    """A known transmitter; ``error_margin_m`` is the one-sigma doubt about its position, in metres."""

    id: Annotated[Id, Stored(snapshot="source_id")]
    name: Annotated[Name, Stored(snapshot="source_name")]
    is_validated: Annotated[bool, Stored(read_as="source_is_validated")] = True
    position: Annotated[Position, Stored(snapshot="source_")]
    frequency_hz: Frequency | None = None
    power_dbm: Decibels | None = None
    source_type: Annotated[str, StringConstraints(max_length=64)] = "unknown"
    error_margin_m: Annotated[
        float, Bounds(0.0, 1e6), Stored("error_margin_meters", snapshot="source_error_margin_m", note="one sigma")
    ] = 0.0


class Session(Word):
    """One transmission of one source, heard by any number of stations at the same time."""

    id: Id
    name: Annotated[Name, Stored("session_name", snapshot="session_name")]
    # A database without campaign, origin or attributes was written by the field, which only measures.
    campaign: Annotated[Name, Stored(snapshot=True, stand_in="field")]
    origin: Annotated[Origin, Stored(snapshot=True, stand_in="measured")]
    start: Annotated[datetime, Stored("session_start", snapshot="session_start")]
    end: Annotated[datetime | None, Stored("session_end")] = None
    status: Annotated[SessionStatus, Stored(read_as="session_status")] = SessionStatus.COMPLETED
    approval_status: ApprovalStatus = ApprovalStatus.PENDING
    attributes: Annotated[
        dict[str, Any], Stored(snapshot="session_attributes", stand_in="{}", note="canonical JSON")
    ] = Field(default_factory=dict)
    """Publisher's columns (split flags, season) and, for simulated sessions, every nuisance parameter as truth."""
    source_id: Annotated[Id, Stored("known_source_id", refers_to="known_sources")]


class Measurement(Word):
    """What one station heard of one session: a level, an IQ recording or a ready-made arrival time, a bearing.

    ``iq_data_location`` is ``sha256:<hex>`` for what our importers stored, a relative object name such as
    ``sessions/{session}/websdr_{station}.npy``, or that name in full, ``s3://BUCKET/NAME``.
    ``iq_start_unix_ns`` is the receiver's own time of the first sample. With ``iq_first_sample`` the measurement is
    that part of the object alone, ``iq_samples_count`` long, and its start, its rate and ``frequency_offset_hz``, by
    which the receiver was mistuned, are what was found out about it: they count before what the object says of itself.
    """

    id: Annotated[Id, Stored(snapshot="measurement_id")]
    session_id: Annotated[Id, Stored("recording_session_id", snapshot=True, refers_to="recording_sessions")]
    station_id: Annotated[Id, Stored("websdr_station_id", snapshot=True, refers_to="websdr_stations")]
    timestamp: Annotated[datetime, Stored(snapshot=True)]
    frequency_hz: Annotated[Frequency, Stored(snapshot=True)]
    signal_strength_db: Annotated[Decibels | None, Stored(snapshot=True, note="missing: no level")] = None
    snr_db: Annotated[Decibels | None, Stored(snapshot=True)] = None
    frequency_offset_hz: Annotated[FrequencyOffset | None, Stored(snapshot=True)] = None
    iq_data_location: Annotated[str | None, Stored(snapshot=True, note="missing: no IQ")] = None
    iq_data_format: Annotated[
        Annotated[str, StringConstraints(max_length=32)] | None, Stored(snapshot=True, note="one of formats.FORMATS")
    ] = None
    iq_sample_rate_hz: Annotated[SampleRate | None, Stored("iq_sample_rate", snapshot=True)] = None
    iq_samples_count: Annotated[Annotated[int, Bounds(1, 1e10)] | None, Stored(snapshot=True)] = None
    iq_start_unix_ns: Annotated[int | None, Stored(snapshot=True)] = None
    iq_start_sigma_s: Annotated[
        Duration | None, Stored(snapshot=True, since="0002", note="one sigma; missing: stated to the nanosecond")
    ] = None
    iq_full_scale: Annotated[
        FullScale | None, Stored(snapshot=True, since="0002", note="of floating samples; missing: 1.0")
    ] = None
    iq_channel: Annotated[
        Annotated[int, Bounds(1, 1024)] | None,
        Stored(snapshot=True, since="0002", note="from 1; missing: the only one"),
    ] = None
    iq_first_sample: Annotated[
        Annotated[int, Bounds(0, 1e10)] | None,
        Stored(snapshot=True, since="0003", note="from 0, of the part that start and rate are of; missing: all"),
    ] = None
    duration_s: Annotated[Duration | None, Stored("duration_seconds", snapshot=True)] = None
    arrival_unix_ns: Annotated[
        int | None, Stored(snapshot=True, since="0004", note="ready-made; missing: from IQ, or none")
    ] = None
    arrival_sigma_s: Annotated[
        ArrivalSigma | None, Stored(snapshot=True, since="0004", note="one sigma, without the clock class's")
    ] = None
    bearing_deg: Annotated[
        Bearing | None, Stored(snapshot=True, since="0004", note="to the source, from true north over east")
    ] = None
    bearing_sigma_deg: Annotated[BearingSigma | None, Stored(snapshot=True, since="0004", note="one sigma")] = None
    receiver_position: Annotated[Position | None, Stored("receiver_", read_as="own_")] = None
    attributes: Annotated[
        dict[str, Any], Stored(snapshot="measurement_attributes", stand_in="{}", note="canonical JSON")
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_observed(self) -> "Measurement":
        for value, sigma, what in (
            (self.arrival_unix_ns, self.arrival_sigma_s, "arrival_unix_ns with arrival_sigma_s"),
            (self.bearing_deg, self.bearing_sigma_deg, "bearing_deg with bearing_sigma_deg"),
        ):
            if (value is None) != (sigma is None):
                raise ValueError(f"found {value} with {sigma}, expected {what}, or neither")
        if self.arrival_unix_ns is not None and self.iq_data_location is not None:
            raise ValueError("found an IQ recording and a ready-made arrival, expected one of them")
        return self


class Approval(Word):
    """The decision that approved a session, as the ledger tells it; a database of the field keeps none."""

    by: Annotated[str | None, Stored("decided_by", snapshot="approved_by")] = None
    at: Annotated[datetime | None, Stored("decided_at", snapshot="approved_at")] = None
    reason: Annotated[str | None, Stored(snapshot="approval_reason")] = None
    event_id: Annotated[int | None, Stored("id", snapshot="approval_event_id")] = None
    decision: Annotated[ApprovalStatus | None, Stored(read_as="decision")] = None


NOUNS: dict[str, type[Word]] = {
    "websdr_stations": Station,
    "known_sources": Source,
    "recording_sessions": Session,
    "measurements": Measurement,
    "approval_events": Approval,
}
"""Table of the database -> what one row of it is."""

FIELDS = {table: read_fields(table, noun) for table, noun in NOUNS.items()}
"""The table of fields: table of the database -> its columns."""

SNAPSHOT = tuple(field for field in (*walk_fields(FIELDS, "measurements"), *FIELDS["approval_events"]) if field.read_as)
"""What is read of a measurement and of all that it hangs on: each judged, and kept where it has a name for that."""

APPROVED_COLUMNS = {field.snapshot: field.dtype for field in SNAPSHOT if field.snapshot}
"""Columns and pandas dtypes of the flattened snapshot of approved, trainable measurements; one row a measurement.

A receiver is where the measurement itself says, where it moves, else where its station stands.
"""


@dataclass(frozen=True)
class ImportBatch:
    """What one import adds to the database, in one transaction."""

    stations: list[Station] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
