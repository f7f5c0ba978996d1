"""Sessions of any number of receivers as rectangular arrays, one local frame each: what batched estimators work on.

Legend of shapes: S sessions, R the most receivers of any of them; slots without a receiver are masked.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import GROUND_WAVE_MAX_HZ, FloatArray, LocalFrame, compute_centre

MIN_TIMING_SIGMA_S = 1e-9
"""Smallest timing sigma that is believed, 0.3 m: below it a row claims more than any receiver network here can."""

SAME_POINT_M = 1.0
"""Receivers closer than this stand at one point."""


@dataclass(frozen=True)
class PaddedSessions:
    """A ``SessionSet`` with one row a session.

    Attributes:
        frame: local frames (S, 1), centred on the mean position of each session's receivers.
        present: bool (S, R), there is a receiver at a known place.
        latitude, longitude, altitude_m: float64 (S, R); the frame's centre where there is no receiver.
        east_m, north_m: float64 (S, R), in ``frame``; 0 where there is no receiver.
        arrival_m: float64 (S, R), arrival times in m, less the session's median; 0 where not ``timed``.
        sigma_m: float64 (S, R), statistical and systematic sigma of ``arrival_m`` in quadrature; inf where not timed.
        timed: bool (S, R), the receiver has an arrival time and a clock.
        level_db: float64 (S, R); 0 where not ``heard``.
        heard: bool (S, R), the receiver has a finite level.
        follows_ground: bool (S, R), the wave is long enough to follow the ground.
        station: str (S, R), identity of the receiver; empty where there is none.
        blocked: bool (S, R), simulation's truth; False where unknown.
        bearing_rad: float64 (S, R), from true north over east; 0 where there is no bearing.
        bearing_sigma_rad: float64 (S, R); inf where there is no bearing.
    """

    frame: LocalFrame
    present: NDArray[np.bool_]
    latitude: FloatArray
    longitude: FloatArray
    altitude_m: FloatArray
    east_m: FloatArray
    north_m: FloatArray
    arrival_m: FloatArray
    sigma_m: FloatArray
    timed: NDArray[np.bool_]
    level_db: FloatArray
    heard: NDArray[np.bool_]
    follows_ground: NDArray[np.bool_]
    station: NDArray[np.str_]
    blocked: NDArray[np.bool_]
    bearing_rad: FloatArray
    bearing_sigma_rad: FloatArray

    def __len__(self) -> int:
        return len(self.present)

    @property
    def has_bearing(self) -> NDArray[np.bool_]:
        """Which receivers have a bearing, bool (S, R)."""
        return np.isfinite(self.bearing_sigma_rad)

    @property
    def observed(self) -> NDArray[np.bool_]:
        """Which receivers have an arrival or a bearing, bool (S, R)."""
        return self.timed | self.has_bearing

    @property
    def num_rows(self) -> NDArray[np.int64]:
        """How many numbers tell of each session's position, (S,): arrivals but for one, which tells when; bearings."""
        num: NDArray[np.int64] = np.maximum(self.timed.sum(axis=1) - 1, 0) + self.has_bearing.sum(axis=1)
        return num


def take_padded(padded: PaddedSessions, sessions: NDArray[np.int64]) -> PaddedSessions:
    """Return the given sessions, in that order."""
    frame = LocalFrame(padded.frame.latitude[sessions], padded.frame.longitude[sessions])
    columns = {name: values[sessions] for name, values in vars(padded).items() if name != "frame"}
    return PaddedSessions(frame=frame, **columns)


def compute_arrival_sigma_s(sessions: SessionSet) -> FloatArray:
    """Return the whole one-sigma error of every arrival in s, float64 (M,); inf where there is no usable arrival.

    Statistical and systematic parts add in quadrature: a sigma from correlation alone is 10 to 30 times over-confident
    on receivers whose receive-chain delay is unknown.

    Examples:
        30 ns from correlation and 40 ns of the clock:

        >>> from dataclasses import replace
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> sessions = simulate_observations(SimulationSpec(), np.arange(1))
        >>> sessions = replace(sessions, arrival_sigma_s=np.full(7, 30e-9), timing_sigma_s=np.full(7, 40e-9))
        >>> (compute_arrival_sigma_s(sessions) * 1e9).round(6).tolist()
        [50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0]
    """
    statistical, systematic = sessions.arrival_sigma_s, sessions.timing_sigma_s
    usable = (
        np.isfinite(sessions.arrival_s)
        & np.isfinite(statistical)
        & np.isfinite(systematic)
        & (statistical >= 0)
        & (systematic >= 0)
    )
    sigma = np.hypot(np.where(usable, statistical, 0.0), np.where(usable, systematic, 0.0))
    return np.where(usable, np.maximum(sigma, MIN_TIMING_SIGMA_S), np.inf)


def pad_sessions(sessions: SessionSet) -> PaddedSessions:
    """Return ``sessions`` as rectangular arrays, the receivers of each in one order, whatever order they come in."""
    num_sessions, counts = len(sessions), sessions.num_receivers
    width = max(int(counts.max(initial=0)), 1)
    row = np.repeat(np.arange(num_sessions), counts)
    column = np.arange(len(row)) - np.repeat(sessions.offsets[:-1] - sessions.offsets[0], counts)
    start = int(sessions.offsets[0])
    take = start + order_receivers(sessions)

    def pad(values: NDArray[Any], fill: float | bool | str) -> NDArray[Any]:
        out = np.full((num_sessions, width), fill, dtype=values.dtype)
        out[row, column] = values[take]
        return out

    centre_latitude, centre_longitude = compute_centre(
        sessions.receiver_latitude[take], sessions.receiver_longitude[take], row, num_sessions
    )
    frame = LocalFrame(np.nan_to_num(centre_latitude)[:, None], np.nan_to_num(centre_longitude)[:, None])
    latitude, longitude = pad(sessions.receiver_latitude, np.nan), pad(sessions.receiver_longitude, np.nan)
    present = np.isfinite(latitude) & np.isfinite(longitude)
    latitude = np.where(present, latitude, frame.latitude)
    longitude = np.where(present, longitude, frame.longitude)
    altitude = np.nan_to_num(pad(sessions.receiver_altitude_m, 0.0), nan=0.0, posinf=0.0, neginf=0.0)
    east, north, _ = frame.to_local(latitude, longitude)
    sigma_s = np.where(present, pad(compute_arrival_sigma_s(sessions), np.inf), np.inf)
    timed = np.isfinite(sigma_s)
    arrival_s = np.where(timed, pad(sessions.arrival_s, np.nan), np.nan)
    level = pad(sessions.level_db, np.nan)
    heard = present & np.isfinite(level)
    blocked = np.zeros(len(sessions.station_id), dtype=bool) if sessions.blocked is None else sessions.blocked
    bearing, bearing_sigma = np.zeros_like(level), np.full_like(level, np.inf)
    if sessions.bearing_deg is not None and sessions.bearing_sigma_deg is not None:
        bearing_deg, sigma_deg = pad(sessions.bearing_deg, np.nan), pad(sessions.bearing_sigma_deg, np.nan)
        known = present & np.isfinite(bearing_deg) & np.isfinite(sigma_deg) & (sigma_deg > 0)
        bearing = np.where(known, np.radians(bearing_deg), 0.0)
        bearing_sigma = np.where(known, np.radians(sigma_deg), np.inf)
    return PaddedSessions(
        frame=frame,
        present=present,
        latitude=latitude,
        longitude=longitude,
        altitude_m=altitude,
        east_m=np.where(present, east, 0.0),
        north_m=np.where(present, north, 0.0),
        arrival_m=np.where(timed, arrival_s - _compute_masked_median(arrival_s, timed), 0.0) * SIGNAL_SPEED_M_S,
        sigma_m=sigma_s * SIGNAL_SPEED_M_S,
        timed=timed,
        level_db=np.where(heard, level, 0.0),
        heard=heard,
        follows_ground=pad(sessions.frequency_hz, np.nan) < GROUND_WAVE_MAX_HZ,
        station=pad(sessions.station_id, ""),
        blocked=pad(blocked, False),
        bearing_rad=bearing,
        bearing_sigma_rad=bearing_sigma,
    )


def order_receivers(sessions: SessionSet) -> NDArray[np.int64]:
    """Return rows (M,), counted from the first session's, session by session, the receivers of each in one order.

    By place, then by what was measured there, NaN last. Sums in another order are other sums, and a search among minima
    makes large differences of small ones: so receivers that are permuted must be summed as before. Only receivers that
    are equal in all of it keep the order they came in.
    """
    take = slice(int(sessions.offsets[0]), int(sessions.offsets[-1]))
    row = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    names = (
        "receiver_latitude", "receiver_longitude", "receiver_altitude_m", "frequency_hz", "station_id", "arrival_s",
        "arrival_sigma_s", "timing_sigma_s", "level_db", "snr_db",
    )  # fmt: skip
    keys = [row, *(getattr(sessions, name)[take] for name in names)]
    more = (sessions.bearing_deg, sessions.bearing_sigma_deg, sessions.blocked)
    keys += [values[take] for values in more if values is not None]
    return np.lexsort(keys[::-1])


def _compute_masked_median(values: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    """Return the lower median of each row's masked values, (S, 1); 0 for a row without any."""
    ordered = np.sort(np.where(mask, values, np.inf), axis=1)
    middle = np.maximum(mask.sum(axis=1) - 1, 0) // 2
    median = np.take_along_axis(ordered, middle[:, None], axis=1)
    return np.where(np.isfinite(median), median, 0.0)


def compute_extent_m(east_m: FloatArray, north_m: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    """Return root mean square lengths of each row's masked points along their main and cross axis, float64 (S, 2).

    Both below ``SAME_POINT_M``: the points are one; the second alone: they stand on one line.

    Examples:
        Four corners of a square of 2 km, then four points on a line from west to east; a fifth is masked:

        >>> east_m = np.array([[-1e3, 1e3, -1e3, 1e3, 9e9], [-3e3, -1e3, 1e3, 3e3, 9e9]])
        >>> north_m = np.array([[-1e3, -1e3, 1e3, 1e3, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
        >>> mask = np.array([[True, True, True, True, False]] * 2)
        >>> compute_extent_m(east_m, north_m, mask).round().tolist()
        [[1000.0, 1000.0], [2236.0, 0.0]]
    """
    count = np.maximum(mask.sum(axis=1), 1)

    def mean(values: FloatArray) -> FloatArray:
        found: FloatArray = np.where(mask, values, 0.0).sum(axis=1) / count
        return found

    de, dn = east_m - mean(east_m)[:, None], north_m - mean(north_m)[:, None]
    see, snn, sen = mean(de * de), mean(dn * dn), mean(de * dn)
    half, middle = np.hypot(0.5 * (see - snn), sen), 0.5 * (see + snn)
    axes_m: FloatArray = np.sqrt(np.stack([middle + half, np.maximum(middle - half, 0.0)], axis=1))
    return axes_m
