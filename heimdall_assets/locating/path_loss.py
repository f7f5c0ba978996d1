"""How levels fall with distance: exponent, shadowing, power and what each station adds, stated or fitted.

Legend of shapes: S sessions, R receiver slots.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.arrays import PaddedSessions, order_receivers
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import FloatArray, compute_distance_m

MIN_DISTANCE_M = 10.0
"""Distances below it count as this: no path-loss law holds within the antennas' surroundings."""

MIN_HEARD = 3
"""Levels that a position needs: two unknowns and the transmitted power."""

EXPONENT_RANGE = (1.5, 6.0)
"""Path-loss exponents between a waveguide and dense indoor (ITU-R P.1238-11, table 2)."""

UNKNOWN_POWER_DB = 100.0
"""Sigma of the transmitted power when nothing is known about it: from microwatts to megawatts."""

MIN_STATION_LEVELS = 20
"""Levels that a station's offset is fitted from; fewer say more about where the sources stood than about it."""

UNKNOWN_GAIN_DB = 10.0
"""Sigma of the gain of a receiver that nobody calibrated: the spread among 33 real ones on one campus."""

MIN_POWER_SIGMA_DB = 6.0
"""The next source may stand in a house or a car, whatever those of the reference did (entry loss, ITU-R P.2109)."""


@dataclass(frozen=True)
class PathLoss:
    """Level against distance: level = constant - 10 exponent log10(distance) + shadowing.

    Attributes:
        exponent: unitless.
        shadowing_db: one-sigma scatter of one level.
    """

    exponent: float = 3.0
    shadowing_db: float = 6.6


@dataclass(frozen=True)
class LevelModel:
    """Everything levels are read with.

    Attributes:
        path_loss: exponent and shadowing.
        power_db: mean level at 1 m, in the scale of the stations that have an offset.
        power_sigma_db: how much it differs between sources.
        offset_db: station -> its gain relative to the others, for stations heard often enough.
        offset_sigma_db: sigma of the gain of any other station.
        scale: what the covariance is multiplied by, because the shadowing of neighbouring receivers is alike.
    """

    path_loss: PathLoss = field(default_factory=PathLoss)
    power_db: float = 0.0
    power_sigma_db: float = UNKNOWN_POWER_DB
    offset_db: dict[str, float] = field(default_factory=dict)
    offset_sigma_db: float = UNKNOWN_GAIN_DB
    scale: float = 1.0

    def read_levels(self, padded: PaddedSessions) -> "Levels":
        """Return the sessions' levels without what stations and power add, each with its variance.

        A session that shares no station with those that were fitted is of another network: its power is unknown.
        """
        names, inverse = np.unique(padded.station, return_inverse=True)
        inverse = inverse.reshape(padded.station.shape)
        offset = np.array([self.offset_db.get(str(name), 0.0) for name in names], dtype=np.float64)[inverse]
        fitted = np.array([str(name) in self.offset_db for name in names], dtype=np.bool_)[inverse]
        variance = self.path_loss.shadowing_db**2 + np.where(fitted, 0.0, self.offset_sigma_db**2)
        related = (fitted & padded.heard).max(axis=1)
        return Levels(
            exponent=self.path_loss.exponent,
            level_db=padded.level_db - offset - self.power_db,
            weight=np.where(padded.heard, 1.0 / variance, 0.0),
            power_variance=np.square(np.where(related, self.power_sigma_db, UNKNOWN_POWER_DB)),
        )


@dataclass(frozen=True)
class Levels:
    """Levels that differ from the path-loss law only by shadowing and the source's power.

    Attributes:
        exponent: of the law.
        level_db: float64 (S, R).
        weight: float64 (S, R), inverse variance in 1/dB^2; 0: no level.
        power_variance: float64 (S,), of the source's power in dB^2.
    """

    exponent: float
    level_db: FloatArray
    weight: FloatArray
    power_variance: FloatArray

    def compute_cost(self, square_m2: FloatArray) -> FloatArray:
        """Return twice the negative log likelihood (S, K) of places at squared distances (S, K, R), power summed out.

        Source: Gaussian with covariance D + p^2 1 1', inverted by Sherman and Morrison (Ann. Math. Stat. 21 (1950)).
        """
        residual = np.log10(np.maximum(square_m2, MIN_DISTANCE_M**2))
        residual *= 5.0 * self.exponent
        residual += self.level_db[:, None]
        weighted = np.einsum("skr,sr->sk", residual, self.weight)
        square = np.einsum("skr,skr,sr->sk", residual, residual, self.weight)
        shrink = self.power_variance / (1.0 + self.power_variance * self.weight.sum(axis=1))
        misfit: FloatArray = square - np.square(weighted) * shrink[:, None]
        return misfit


def fit_level_model(reference: SessionSet) -> LevelModel:
    """Return exponent, shadowing, power and station offsets fitted on sessions with known sources.

    Least squares over all levels, one constant a station and one a session, the latter then summed up as mean and
    sigma of the power. Falls back to the defaults where fewer than ``MIN_STATION_LEVELS`` levels have a known source.

    Examples:
        Levels without shadowing that fall by 25 dB a decade have an exponent of 2.5:

        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> spec = SimulationSpec(path_loss_exponent=2.5, shadowing_db=0.0)
        >>> round(fit_level_model(simulate_observations(spec, np.arange(100))).path_loss.exponent, 1)
        2.5
    """
    known = np.flatnonzero(np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude))
    sessions = reference.take(known)
    row = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    heard = order_receivers(sessions)
    heard = heard[
        np.isfinite(sessions.level_db[heard])
        & np.isfinite(sessions.receiver_latitude[heard])
        & np.isfinite(sessions.receiver_longitude[heard])
    ]
    if len(heard) < MIN_STATION_LEVELS:
        return LevelModel()
    row, level = row[heard], sessions.level_db[heard]
    distance = compute_distance_m(
        sessions.source_latitude[row],
        sessions.source_longitude[row],
        sessions.receiver_latitude[heard],
        sessions.receiver_longitude[heard],
    )
    decades = -10.0 * np.log10(np.maximum(distance, MIN_DISTANCE_M))
    names, station = np.unique(sessions.station_id[heard], return_inverse=True)
    often = np.bincount(station) >= MIN_STATION_LEVELS
    exponent, offset = _fit_slope(level, decades, row, station, often, len(sessions))
    counts = np.bincount(row, minlength=len(sessions))
    power = np.bincount(row, level - exponent * decades - offset[station], len(sessions)) / np.maximum(counts, 1)
    residual = level - exponent * decades - power[row] - offset[station]
    freedom = max(len(level) - len(sessions) - int(often.sum()) - 1, 1)
    shadowing = float(np.sqrt(np.square(residual).sum() / freedom))
    spoken = power[counts > 0]
    between = max(float(spoken.var()) - shadowing**2 * float(np.mean(1.0 / counts[counts > 0])), 0.0)
    return LevelModel(
        path_loss=PathLoss(exponent=exponent, shadowing_db=max(shadowing, 0.5)),
        power_db=float(spoken.mean()),
        power_sigma_db=max(float(np.sqrt(between)), MIN_POWER_SIGMA_DB),
        offset_db={str(name): float(offset[i]) for i, name in enumerate(names) if often[i]},
        offset_sigma_db=float(offset[often].std()) if often.sum() > 1 else UNKNOWN_GAIN_DB,
    )


def _fit_slope(
    level: FloatArray,
    decades: FloatArray,
    row: NDArray[np.int64],
    station: NDArray[np.int64],
    often: NDArray[np.bool_],
    num_sessions: int,
) -> tuple[float, FloatArray]:
    """Return the exponent and each station's offset by least squares, each session's mean taken out.

    Offsets sum to zero: what they share is part of the power. Rarely heard stations have none.
    """
    use = often[station]
    column = np.cumsum(often)[station[use]] - 1
    num_stations = int(often.sum())
    sums = np.zeros((num_sessions, 1 + num_stations))
    sums[:, 0] = np.bincount(row, decades, num_sessions)
    np.add.at(sums, (row[use], 1 + column), 1.0)
    normal = np.diag(np.concatenate([[decades @ decades], np.bincount(column, minlength=num_stations)]))
    normal[0, 1:] = normal[1:, 0] = np.bincount(column, decades[use], num_stations)
    right = np.concatenate([[decades @ level], np.bincount(column, level[use], num_stations)])
    # Each session's mean is taken out of the columns and of the levels.
    mean = sums / np.maximum(np.bincount(row, minlength=num_sessions), 1)[:, None]
    normal -= sums.T @ mean
    right -= mean.T @ np.bincount(row, level, num_sessions)
    solution = np.linalg.lstsq(normal, right, rcond=1e-9)[0]
    offset = np.zeros(len(often))
    offset[often] = solution[1:] - (solution[1:].mean() if often.any() else 0.0)
    return float(np.clip(solution[0], *EXPONENT_RANGE)), offset
