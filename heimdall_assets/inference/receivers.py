"""What receivers of one session measured, as whoever holds it says it, and as the columns that models take.

Belongs here: checks of what is handed in, one session from its receivers. Does not belong here: what recordings say
(``inference.observing``), tables of many sessions (``learning.assembly``), formulas that both share
(``physical``).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput
from heimdall_assets.physical import ClockClass, Recording, compute_timing_sigma_s, count_from_earliest_s
from heimdall_assets.session_set import PairSet, SessionSet

if TYPE_CHECKING:
    from heimdall_assets.specs import TimingSpec

SESSION = "asked"
"""What the session is called that somebody asks about."""

NUMBERS = {
    "latitude": (-90.0, 90.0),
    "longitude": (-180.0, 180.0),
    "altitude_m": (-500.0, 100_000.0),
    "frequency_hz": (1e-3, 300e9),
    "level_db": (-1e3, 1e3),
    "snr_db": (-1e3, 1e3),
    "carrier_offset_hz": (-300e9, 300e9),
    "arrival_sigma_s": (1e-9, 1.0),
    "bearing_deg": (0.0, 360.0),
    "bearing_sigma_deg": (1e-9, 180.0),
}
"""Number -> what can be believed; as rows of the database (``domain``), which this room does not load."""

TOGETHER = (("arrival_unix_ns", "arrival_sigma_s"), ("bearing_deg", "bearing_sigma_deg"))


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """One receiver of a session: where it stands, and what it heard of the one transmission.

    Attributes:
        name: identity of the receiver; receivers of a session are taken in the order of their names.
        latitude, longitude: degrees of WGS-84.
        frequency_hz: that it listened to.
        altitude_m: above sea level.
        level_db: received level on the receiver's own scale; None: none.
        snr_db: None: unknown.
        carrier_offset_hz: None: unknown.
        clock_class: how its times were taken, one of ``physical.ClockClass``.
        arrival_unix_ns: when the transmission arrived, ns since 1970-01-01 UTC, as somebody computed; None: no time.
        arrival_sigma_s: its one-sigma error, without the clock class's.
        bearing_deg: to the source, from true north over east; None: none.
        bearing_sigma_deg: its one-sigma error.
        recording: IQ samples; None: none.

    Raises:
        InvalidInput: a number cannot be believed, or two attributes contradict each other.
    """

    name: str
    latitude: float
    longitude: float
    frequency_hz: float
    altitude_m: float = 0.0
    level_db: float | None = None
    snr_db: float | None = None
    carrier_offset_hz: float | None = None
    clock_class: str = ClockClass.NONE.value
    arrival_unix_ns: int | None = None
    arrival_sigma_s: float | None = None
    bearing_deg: float | None = None
    bearing_sigma_deg: float | None = None
    recording: Recording | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidInput(f"receiver name {self.name!r:.60}: expected some letters")
        for number, (low, high) in NUMBERS.items():
            self._check_number(number, low, high)
        if self.clock_class not in list(ClockClass):
            raise InvalidInput(
                f"receiver {self.name}: clock_class {self.clock_class!r:.40}, expected one of {', '.join(ClockClass)}"
            )
        self._check_arrival()

    def _check_number(self, number: str, low: float, high: float) -> None:
        value = getattr(self, number)
        if value is None and number not in ("latitude", "longitude", "frequency_hz", "altitude_m"):
            return
        is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise InvalidInput(
                f"receiver {self.name}: {number} {value!r:.40}, expected a number from {low:g} to {high:g}"
            )

    def _check_arrival(self) -> None:
        for one, other in TOGETHER:
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise InvalidInput(f"receiver {self.name}: found one of {one} and {other}, expected both or neither")
        when = self.arrival_unix_ns
        if when is None:
            return
        if not isinstance(when, (int, np.integer)) or isinstance(when, bool) or not abs(when) < 2**62:
            raise InvalidInput(f"receiver {self.name}: arrival_unix_ns {when!r:.40}, expected whole ns since 1970")
        if self.recording is not None:
            raise InvalidInput(
                f"receiver {self.name}: found a recording and a ready-made arrival, expected one of them"
            )


@dataclass(frozen=True)
class Observed:
    """What recordings of a session say of its M receivers; a receiver without a recording has NaN and -1.

    Attributes:
        arrival_s, arrival_sigma_s, start_sigma_s, coherence: float64 (M,).
        feature_row, track_row: int64 (M,), rows of ``features`` and ``tracks``.
        features, tracks: as in ``SessionSet``.
        pairs: of the session; None: none.
        duration_s: of the first recording.
    """

    arrival_s: NDArray[np.float64]
    arrival_sigma_s: NDArray[np.float64]
    start_sigma_s: NDArray[np.float64]
    coherence: NDArray[np.float64]
    feature_row: NDArray[np.int64]
    track_row: NDArray[np.int64]
    features: NDArray[Any] | None = None
    tracks: NDArray[Any] | None = None
    pairs: PairSet | None = None
    duration_s: float = math.nan


def observe_nothing(num: int) -> Observed:
    """Return what no recording says of ``num`` receivers."""
    unknown, none = np.full(num, np.nan), np.full(num, -1, dtype=np.int64)
    return Observed(unknown, unknown, unknown, unknown, none, none)


def sort_receivers(receivers: Sequence[Receiver]) -> list[Receiver]:
    """Return the receivers of one session by name.

    Raises:
        InvalidInput: there is none, one is named twice, or arrivals are partly ready-made and partly to be found.
    """
    if not receivers:
        raise InvalidInput("session: found 0 receivers, expected at least 1")
    name, count = Counter(receiver.name for receiver in receivers).most_common(1)[0]
    if count > 1:
        raise InvalidInput(f"receiver {name}: stands {count} times in the session, expected once")
    return sorted(receivers, key=lambda receiver: receiver.name)


def make_session(receivers: Sequence[Receiver], observed: Observed, timing: "TimingSpec") -> SessionSet:
    """Return receivers, as ``sort_receivers`` gave them, as the one session of a set; its source is unknown.

    Raises:
        InvalidInput: an arrival is ready-made where others were found in recordings: they count from another zero.
    """
    ready = np.array([receiver.arrival_unix_ns is not None for receiver in receivers])
    arrival_s, sigma_s = observed.arrival_s.copy(), observed.arrival_sigma_s.copy()
    if ready.any():
        if np.isfinite(arrival_s).any():
            raise InvalidInput(
                f"receiver {receivers[int(ready.argmax())].name}: found a ready-made arrival in a session that has "
                "arrivals from recordings: they count from another zero, expected the one or the other"
            )
        unix_ns = np.array([receiver.arrival_unix_ns for receiver in receivers if receiver.arrival_unix_ns is not None])
        arrival_s[ready] = count_from_earliest_s(unix_ns.astype(np.int64), int(unix_ns.min()))
        sigma_s[ready] = _column(receivers, "arrival_sigma_s")[ready]
    bearing = _column(receivers, "bearing_deg")
    has_bearing = bool(np.isfinite(bearing).any())
    unknown = np.full(1, np.nan)
    return SessionSet(
        session_id=np.array([SESSION]),
        offsets=np.array([0, len(receivers)], dtype=np.int64),
        receiver_latitude=_column(receivers, "latitude"),
        receiver_longitude=_column(receivers, "longitude"),
        receiver_altitude_m=_column(receivers, "altitude_m"),
        station_id=np.array([receiver.name for receiver in receivers]),
        frequency_hz=_column(receivers, "frequency_hz"),
        level_db=_column(receivers, "level_db"),
        snr_db=_column(receivers, "snr_db"),
        carrier_offset_hz=_column(receivers, "carrier_offset_hz"),
        timing_sigma_s=compute_timing_sigma_s(
            [str(receiver.clock_class) for receiver in receivers], ready, observed.start_sigma_s, timing
        ),
        arrival_s=arrival_s,
        arrival_sigma_s=sigma_s,
        coherence=observed.coherence,
        feature_row=observed.feature_row,
        source_latitude=unknown,
        source_longitude=unknown,
        error_margin_m=np.zeros(1),
        features=observed.features,
        track_row=None if observed.tracks is None else observed.track_row,
        tracks=observed.tracks,
        strata={"duration_s": np.array([observed.duration_s])},
        pairs=observed.pairs,
        bearing_deg=bearing if has_bearing else None,
        bearing_sigma_deg=_column(receivers, "bearing_sigma_deg") if has_bearing else None,
    )


def _column(receivers: Sequence[Receiver], name: str) -> NDArray[np.float64]:
    values = [getattr(receiver, name) for receiver in receivers]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
