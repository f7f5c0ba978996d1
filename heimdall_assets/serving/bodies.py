"""Bodies of requests: a session as JSON, each field with what can be believed; the OpenAPI document is made from them.

Belongs here: fields, their kinds and bounds. Does not belong here: what contradicts what (``inference.receivers``
checks that), reading bytes (``serving.parsing``).
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from heimdall_assets.inference.receivers import NUMBERS

MAX_RECEIVERS = 64
MAX_NAME = 100
MAX_NS = 2**62


def _bounded(name: str) -> Any:
    low, high = NUMBERS[name]
    return Field(ge=low, le=high, allow_inf_nan=False)


Latitude = Annotated[float, _bounded("latitude")]
Longitude = Annotated[float, _bounded("longitude")]
Altitude = Annotated[float, _bounded("altitude_m")]
Frequency = Annotated[float, _bounded("frequency_hz")]
Level = Annotated[float, _bounded("level_db")]
CarrierOffset = Annotated[float, _bounded("carrier_offset_hz")]
ArrivalSigma = Annotated[float, _bounded("arrival_sigma_s")]
Bearing = Annotated[float, _bounded("bearing_deg")]
BearingSigma = Annotated[float, _bounded("bearing_sigma_deg")]
UnixTime = Annotated[int, Field(gt=-MAX_NS, lt=MAX_NS)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AskedRecording(_Body):
    """A file of IQ samples, sent as a part of its own, and what it does not say itself."""

    part: Name = Field(description="name of the part (of multipart/form-data) that holds the file")
    format: Name | None = Field(None, description="how it is written; default: its first bytes or its ending tell")
    sample_rate_hz: Annotated[float, Field(gt=0.0, le=1e9, allow_inf_nan=False)] | None = None
    start_unix_ns: UnixTime | None = Field(None, description="time of the first sample, ns since 1970-01-01 UTC")
    start_sigma_s: Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)] | None = None
    full_scale: Annotated[float, Field(gt=0.0, le=1e12, allow_inf_nan=False)] | None = None
    channel: Annotated[int, Field(ge=1, le=1000)] | None = None


class AskedReceiver(_Body):
    """One receiver of the session: where it stands, and what it heard of the one transmission."""

    name: Name
    latitude: Latitude = Field(description="degrees of WGS-84")
    longitude: Longitude = Field(description="degrees of WGS-84")
    frequency_hz: Frequency = Field(description="that it listened to; of a recording, its centre")
    altitude_m: Altitude = Field(0.0, description="above sea level")
    level_db: Level | None = Field(None, description="received level on the receiver's own scale")
    snr_db: Level | None = None
    carrier_offset_hz: CarrierOffset | None = None
    clock_class: str | None = Field(
        None, description="how its times were taken; default: as the recording's format says"
    )
    arrival_unix_ns: UnixTime | None = Field(None, description="ns since 1970-01-01 UTC, as somebody computed")
    arrival_sigma_s: ArrivalSigma | None = Field(None, description="one sigma, without the clock class's")
    bearing_deg: Bearing | None = Field(None, description="to the source, from true north over east")
    bearing_sigma_deg: BearingSigma | None = None
    recording: AskedRecording | None = None


class AskedSession(_Body):
    """What receivers measured of one transmission."""

    receivers: Annotated[list[AskedReceiver], Field(min_length=1, max_length=MAX_RECEIVERS)]
