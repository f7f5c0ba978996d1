"""Many sessions as flat columns: what assembly and simulation hand to estimators, models and evaluation.

Belongs here: the columns, and taking some of the sessions. Does not belong here: anything that computes.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PairSet:
    """Pairs of receivers as flat columns: S sessions, P pairs in all; session s owns pairs offsets[s]:offsets[s+1].

    Attributes:
        offsets: int64 (S + 1,), first 0, last P, never falling.
        first, second: int64 (P,), place of the receiver within its session, from 0; first < second.
        coherence: float64 (P,), 0 to 1, weighted by the signal's spectrum.
        curvature: float64 (P,), of the normalised correlation at its peak without the carrier's part, 1/s^2.
        lag_step_s: float64 (P,), distance of two lags.
        correlation: complex64 (P, num_lags), of the first with the conjugate of the second; num_lags is odd, lags rise,
            and the middle one is the pair's own delay, arrival of the first less that of the second. |middle| =
            coherence; its phase is the carriers' and says nothing.
    """

    offsets: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    coherence: NDArray[np.float64]
    curvature: NDArray[np.float64]
    lag_step_s: NDArray[np.float64]
    correlation: NDArray[np.complex64]

    @property
    def num_pairs(self) -> NDArray[np.int64]:
        """Pairs of each session, int64 (S,)."""
        return np.diff(self.offsets)

    def take(self, sessions: NDArray[np.int64]) -> "PairSet":
        """Return the pairs of the given sessions, in that order."""
        offsets, rows = _follow(self.offsets, sessions)
        columns = {item.name: getattr(self, item.name)[rows] for item in fields(self) if item.name != "offsets"}
        return PairSet(offsets=offsets, **columns)


@dataclass(frozen=True)
class SessionSet:
    """Many sessions as flat columns: S sessions, M receivers in all; session s owns receivers offsets[s]:offsets[s+1].

    What simulation and the assembled snapshot hand to estimators, models and evaluation. Missing values are NaN.

    Attributes:
        session_id: str (S,).
        offsets: int64 (S + 1,), first 0, last M, never falling.
        receiver_latitude, receiver_longitude, receiver_altitude_m: float64 (M,), degrees, degrees, m.
        station_id: str (M,), identity of the receiver, for reports and for splits by receiver only.
        frequency_hz: float64 (M,).
        level_db: float64 (M,), received level, receiver's own dB scale; NaN: none.
        snr_db: float64 (M,); NaN: unknown.
        carrier_offset_hz: float64 (M,); NaN: unknown.
        timing_sigma_s: float64 (M,), one-sigma error of clock, receive chain and recorded start; inf: untimed.
        arrival_s: float64 (M,), arrival time relative to the session's own arbitrary zero; NaN: no delay.
        arrival_sigma_s: float64 (M,), statistical error of arrival_s alone, without timing_sigma_s; NaN: no delay.
        coherence: float64 (M,), mean coherence of the receiver's pairs in [0, 1]; NaN: unknown.
        feature_row: int64 (M,), row in ``features``; -1: no spectrogram.
        features: float32 or float16 (F, 3, num_mels, num_frames), dB of full scale, maybe memory-mapped; None: none.
        track_row: int64 (M,), row in ``tracks``; -1: not demodulated; None: none is.
        tracks: float16 (F, signal_track.NUM_ROWS, NUM_STEPS), demodulated channels over time; None: none.
        source_latitude, source_longitude: float64 (S,), truth in degrees; NaN: unknown.
        error_margin_m: float64 (S,), one-sigma error of the truth.
        strata: name -> (S,) array, what evaluation groups by (signal_type, site, season, campaign, origin, ...).
        blocked: bool (M,) or None, simulation's truth: the receiver has no line of sight. Never an input of a model.
        pairs: the sessions' pairs of receivers; None: none known.
        bearing_deg: float64 (M,), azimuth of the geodesic from receiver to source, from true north over east; NaN: no
            bearing; None: no session has one.
        bearing_sigma_deg: float64 (M,), its one-sigma error; NaN and None likewise.
    """

    session_id: NDArray[np.str_]
    offsets: NDArray[np.int64]
    receiver_latitude: NDArray[np.float64]
    receiver_longitude: NDArray[np.float64]
    receiver_altitude_m: NDArray[np.float64]
    station_id: NDArray[np.str_]
    frequency_hz: NDArray[np.float64]
    level_db: NDArray[np.float64]
    snr_db: NDArray[np.float64]
    carrier_offset_hz: NDArray[np.float64]
    timing_sigma_s: NDArray[np.float64]
    arrival_s: NDArray[np.float64]
    arrival_sigma_s: NDArray[np.float64]
    coherence: NDArray[np.float64]
    feature_row: NDArray[np.int64]
    source_latitude: NDArray[np.float64]
    source_longitude: NDArray[np.float64]
    error_margin_m: NDArray[np.float64]
    features: NDArray[Any] | None = None
    track_row: NDArray[np.int64] | None = None
    tracks: NDArray[Any] | None = None
    strata: dict[str, NDArray[Any]] = field(default_factory=dict)
    blocked: NDArray[np.bool_] | None = None
    pairs: PairSet | None = None
    bearing_deg: NDArray[np.float64] | None = None
    bearing_sigma_deg: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.session_id)

    @property
    def num_receivers(self) -> NDArray[np.int64]:
        """Receivers of each session, int64 (S,)."""
        return np.diff(self.offsets)

    @property
    def tracked(self) -> NDArray[np.bool_]:
        """Which receivers have a signal track, bool (M,)."""
        return np.zeros(len(self.station_id), np.bool_) if self.track_row is None else self.track_row >= 0

    def receivers(self, session: int) -> slice:
        """Return where the receivers of ``session`` stand in the (M,) columns."""
        return slice(int(self.offsets[session]), int(self.offsets[session + 1]))

    def take(self, sessions: NDArray[np.int64]) -> "SessionSet":
        """Return the given sessions, in that order; ``features`` and ``tracks`` are shared, not copied."""
        offsets, rows = _follow(self.offsets, sessions)
        sessions = np.asarray(sessions, dtype=np.int64)
        per_session = {"session_id", "source_latitude", "source_longitude", "error_margin_m"}
        columns: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in per_session:
                columns[item.name] = value[sessions]
            elif isinstance(value, np.ndarray) and item.name not in {"offsets", "features", "tracks"}:
                columns[item.name] = value[rows]
        strata = {name: values[sessions] for name, values in self.strata.items()}
        pairs = None if self.pairs is None else self.pairs.take(sessions)
        return replace(self, **columns, offsets=offsets, strata=strata, pairs=pairs)


def _follow(offsets: NDArray[np.int64], sessions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the offsets of the given sessions on their own, and where their rows stood."""
    sessions = np.asarray(sessions, dtype=np.int64)
    counts = np.diff(offsets)[sessions]
    taken = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return taken, np.repeat(offsets[sessions] - taken[:-1], counts) + np.arange(taken[-1])


@dataclass(frozen=True)
class Predictions:
    """Positions of S sessions with full covariance, row by row with the ``SessionSet`` they were made from.

    Attributes:
        latitude, longitude: float64 (S,), degrees.
        covariance_m2: float64 (S, 3), local variance east, variance north, covariance east-north, in m^2.
        method: what made them.
        refused: S booleans; True: no honest position follows (its numbers are NaN), or None for none refused.
        branches: the places between which data leave open some of the sessions; None: not looked for.
        without_area_deg: float64 (S, 2), latitude and longitude where arrivals put a source without any area; NaN where
            they leave the distance open; None: not looked for.
    """

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    covariance_m2: NDArray[np.float64]
    method: str
    refused: NDArray[np.bool_] | None = None
    branches: "Branches | None" = None
    without_area_deg: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Branches:
    """Places that explain a session alike, B of them, two or more of each session that has any.

    Attributes:
        session: int64 (B,), row of the session.
        latitude, longitude: float64 (B,), degrees.
        covariance_m2: float64 (B, 3), of that place alone.
        weight: float64 (B,), its probability; those of a session sum to 1, but for what is too improbable to name.
    """

    session: NDArray[np.int64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    covariance_m2: NDArray[np.float64]
    weight: NDArray[np.float64]
