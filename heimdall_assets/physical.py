"""What recordings and answers are, and the constants between them: words that need no schema.

Belongs here: physical constants with their source, samples in memory, how and how well they were timed, an answer with
its doubt.
Does not belong here: rows of the database and what may stand in them (``domain``), a number somebody may choose
(``specs``). It imports nothing but arrays, so that whoever only locates loads nothing else.
Latitude comes before longitude, angles are degrees of WGS-84, units stand in the names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SPEED_OF_LIGHT_M_S = 299_792_458.0
"""Exact, by definition of the metre (BIPM, SI Brochure 9th edition, section 2.2)."""

AIR_REFRACTIVITY = 315e-6
"""Refractivity of air at sea level, mean of the world (ITU-R P.453-14, section 2.1)."""

SIGNAL_SPEED_M_S = SPEED_OF_LIGHT_M_S / (1.0 + AIR_REFRACTIVITY)
"""Speed of a radio wave near the ground: the one speed every delay here is turned into metres with."""

CHANNEL_HZ = 12_500.0
"""Noise bandwidth of the channel that every SNR here refers to (narrow-band FM raster, ETSI EN 300 086)."""

NANOSECOND_SIGMA_S = 1e-9 / 12**0.5
"""One sigma of a time that is written in whole nanoseconds; the clock behind it is another matter (``ClockClass``)."""

LARGEST_OF_16_BIT = 32767.0 / 32768.0
"""Largest value of a 16-bit converter in units of full scale."""


class ClockClass(StrEnum):
    """How a receiver's samples are timed. Sigmas of each class are choices and stand in ``specs.TimingSpec``."""

    GNSS_CALIBRATED = "gnss_calibrated"  # GNSS-disciplined, receive-chain delay calibrated: tens of ns
    GNSS = "gnss"  # GNSS-stamped, receive-chain group delay unknown: 1 to 30 us systematic
    NTP = "ntp"  # network time: milliseconds
    REFERENCE = "reference"  # set by a transmitter of known place, which all receivers of the session recorded
    NONE = "none"  # free-running: no delay information


def read_clock_sigma_s(timing: object, clock_class: str) -> float:
    """Return the sigma that settings (``specs.TimingSpec``) give a clock class, s; infinity: it runs free."""
    return float(getattr(timing, f"{clock_class}_s", math.inf))


def compute_timing_sigma_s(
    clock_classes: Sequence[str],
    is_ready_made: NDArray[np.bool_],
    start_sigma_s: NDArray[np.float64],
    timing: object,
) -> NDArray[np.float64]:
    """Return the one-sigma error of each receiver's clock, (M,): its class, and how well its recording knows the start.

    A start that is written to the millisecond is known no better than that, however good the clock behind it. A
    ready-made arrival of no clock class has all of its error in its own sigma.

    Args:
        clock_classes: of each receiver, M of them.
        is_ready_made: bool (M,), which have an arrival that somebody else computed.
        start_sigma_s: float64 (M,); NaN: no recording, or its start is exact.
        timing: settings (``specs.TimingSpec``), sigma of each class.
    """
    clock_s = np.array([read_clock_sigma_s(timing, name) for name in clock_classes], dtype=np.float64)
    is_free = np.array([name == "none" for name in clock_classes], dtype=np.bool_)
    clock_s[is_ready_made & is_free] = 0.0
    sigma_s: NDArray[np.float64] = np.hypot(clock_s, np.nan_to_num(start_sigma_s, nan=0.0))
    return sigma_s


def count_from_earliest_s(unix_ns: NDArray[np.int64], earliest_ns: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Return times in s from the earliest of their session.

    Nanoseconds since 1970 are subtracted as integers: float64 knows 238 ns of them.
    """
    since: NDArray[np.float64] = (unix_ns - earliest_ns).astype(np.float64) * 1e-9
    return since


class SignalType(StrEnum):
    """What was transmitted."""

    VOICE = "voice"
    TONE = "tone"
    DTMF = "dtmf"
    UNKNOWN = "unknown"


class Place(Protocol):
    """Where something stands: whatever has these three, as ``domain.Position`` has."""

    @property
    def latitude(self) -> float: ...

    @property
    def longitude(self) -> float: ...

    @property
    def altitude_m(self) -> float: ...


@dataclass(frozen=True)
class Recording:
    """Samples of one receiver, as decoded.

    Attributes:
        samples: complex64 (N,), full scale 1.0.
        sample_rate_hz: the true rate where it could be measured, else the stated one.
        start_unix_ns: receiver's time of sample 0 in ns since 1970-01-01 UTC; None: the file cannot say.
        timing_sigma_s: one-sigma error of the time axis as the file tells it, without the clock's; None: untimed.
        centre_frequency_hz: radio frequency of 0 Hz baseband; None: the file does not say.
        position: where the receiver stood, as the file says; None: it does not.
        largest_component: the largest |I| or |Q| that its coding reaches either way: at or beyond it a sample is
            clipped.
        attributes: what else the file says or lacks, JSON values.
    """

    samples: NDArray[np.complex64]
    sample_rate_hz: float
    start_unix_ns: int | None = None
    timing_sigma_s: float | None = None
    centre_frequency_hz: float | None = None
    position: Place | None = None
    largest_component: float = LARGEST_OF_16_BIT
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True)
class Ellipse:
    """A confidence ellipse: half axes in metres, azimuth of the major axis in degrees from north over east."""

    probability: float
    semi_major_m: float
    semi_minor_m: float
    azimuth_deg: float


@dataclass(frozen=True)
class Estimate:
    """A position with its 2x2 covariance in local east / north metres squared.

    ``alternatives`` are the places that explain the data alike, this one among them, most probable first; ``area`` is
    what the area did to the position. Empty and None where nothing of the kind was looked for.
    """

    latitude: float
    longitude: float
    variance_east_m2: float
    variance_north_m2: float
    covariance_en_m2: float
    method: str
    alternatives: "tuple[Alternative, ...]" = ()
    area: "AreaWeight | None" = None

    def ellipse(self, probability: float = 0.90) -> Ellipse:
        """Return the ellipse that a Gaussian of this covariance fills with ``probability``.

        Source: chi-square with 2 degrees of freedom has quantile -2 ln(1 - p).

        Examples:
            Sigma 300 m east and 400 m north; the axes of the 90 % ellipse are sqrt(-2 ln 0.1) = 2.146 times as long:

            >>> ellipse = Estimate(45.0, 7.0, 300.0**2, 400.0**2, 0.0, method="guess").ellipse(0.90)
            >>> round(ellipse.semi_major_m, 1), round(ellipse.semi_minor_m, 1), round(ellipse.azimuth_deg)
            (858.4, 643.8, 0)
        """
        scale = -2.0 * math.log1p(-probability)
        mean = 0.5 * (self.variance_east_m2 + self.variance_north_m2)
        half = math.hypot(0.5 * (self.variance_east_m2 - self.variance_north_m2), self.covariance_en_m2)
        azimuth = 0.5 * math.atan2(2.0 * self.covariance_en_m2, self.variance_north_m2 - self.variance_east_m2)
        return Ellipse(
            probability=probability,
            semi_major_m=math.sqrt(scale * (mean + half)),
            semi_minor_m=math.sqrt(scale * max(mean - half, 0.0)),
            azimuth_deg=math.degrees(azimuth) % 180.0,
        )


@dataclass(frozen=True)
class Alternative:
    """One of several places that explain a session alike, and its probability."""

    estimate: Estimate
    weight: float


@dataclass(frozen=True)
class AreaWeight:
    """Where arrivals put a source without the area, and how far that moved it, in m and in sigmas of the estimate.

    None throughout: arrivals alone leave the distance open.
    """

    latitude: float | None
    longitude: float | None
    moved_m: float | None
    moved_sigmas: float | None
