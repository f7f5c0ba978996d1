"""What is answered, as JSON: a position, a refusal, the state of the service; the OpenAPI document is made from them.

Belongs here: fields and what they mean. Does not belong here: computing them (``inference``, ``serving.service``).
"""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Answered(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Ellipse(_Answered):
    """The ellipse that holds the transmitter with a probability of 90 %."""

    semi_major_m: float
    semi_minor_m: float
    azimuth_deg: float


class AlternativePlace(_Answered):
    """One of several places that explain the session alike."""

    latitude: float
    longitude: float
    weight: float
    ellipse_90: Ellipse


class Area(_Answered):
    """Where arrivals alone put the source, and how far a model or the area moved that."""

    latitude: float | None
    longitude: float | None
    moved_m: float | None
    moved_sigmas: float | None


class Located(_Answered):
    """Where a released model puts the transmitter, as ``heimdall predict --json`` says it, and what chose the model."""

    version: str
    chosen_by: str
    latitude: float
    longitude: float
    method: str
    ellipse_90: Ellipse
    sigma_east_m: float
    sigma_north_m: float
    error_m: float | None
    inside_90: bool | None
    alternatives: list[AlternativePlace]
    area: Area | None
    signal: dict[str, Any] | None
    remarks: list[str]
    refused: list[str]


class Refused(_Answered):
    """Why there is no answer, in one line: the thing, what was found, what was expected."""

    error: str
    version: str | None = None
    chosen_by: str | None = None


class Models(_Answered):
    """Which released models answer whom now."""

    champion: str | None
    canary: dict[str, Any] | None
    num_flags: int
    shadow: str | None
    without_effect: list[str]
    open: list[str]


class State(_Answered):
    """One line about the service."""

    state: str


class Spread(_Answered):
    """Median, 95th percentile and largest of a number of values; None: there are none."""

    p50: float | None
    p95: float | None
    largest: float | None


class ShadowPair(_Answered):
    """What a shadow said beside the model that answered."""

    answered_by: str
    shadow: str
    num_compared: int
    num_only_shadow_refused: int
    num_only_answer_refused: int
    num_both_refused: int
    num_failed: int
    distance_m: Spread
    distance_sigmas: Spread


class Shadows(_Answered):
    """Comparisons since the service started."""

    num_waiting: int
    num_dropped: int
    pairs: list[ShadowPair]
