"""Positions from levels by the log-distance law, its likelihood summed on a grid.

The likelihood of levels has ridges and several tops, so it is summed on a grid, then on a finer one around what the
first one left; mean and covariance of that are the estimate. No optimiser gets lost in it.

Legend of shapes: S sessions, R receiver slots, G grid points.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from heimdall_assets.domain import Predictions, SessionSet
from heimdall_assets.locating.area import compute_area
from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m, pad_sessions
from heimdall_assets.locating.bounds import PathLoss
from heimdall_assets.locating.ellipses import compute_mahalanobis_square, learn_scale
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame, compute_distance_m

MIN_DISTANCE_M = 10.0
"""Distances below it count as this: no path-loss law holds within the antennas' surroundings."""

MIN_HEARD = 3
"""Levels that a position needs: two unknowns and the transmitted power."""

GRID_SIDE = 41
GRID_REACH = 3.0
"""Half side of a grid, in sigmas of what it covers."""

NUM_REFINEMENTS = 2
CHUNK_SESSIONS = 256

EXPONENT_RANGE = (1.5, 6.0)
"""Path-loss exponents between a waveguide and dense indoor (ITU-R P.1238-11, table 2)."""

UNKNOWN_POWER_DB = 100.0
"""Sigma of the transmitted power when nothing is known about it: from microwatts to megawatts."""

MIN_STATION_LEVELS = 20
"""Levels that a station's offset is fitted from; fewer say more about where the sources stood than about it."""


@dataclass(frozen=True)
class LevelModel:
    """Everything levels are read with.

    Attributes:
        path_loss: exponent and shadowing.
        power_db: mean level at 1 m, in the receivers' dB scale.
        power_sigma_db: how much it differs between sources.
        offset_db: station -> its gain relative to the others, for stations heard often enough.
        scale: what the covariance is multiplied by, because the shadowing of neighbouring receivers is alike.
    """

    path_loss: PathLoss = field(default_factory=PathLoss)
    power_db: float = 0.0
    power_sigma_db: float = UNKNOWN_POWER_DB
    offset_db: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0

    def correct(self, padded: PaddedSessions) -> FloatArray:
        """Return levels without station offsets and mean power, float64 (S, R)."""
        names, inverse = np.unique(padded.station, return_inverse=True)
        offsets = np.array([self.offset_db.get(str(name), 0.0) for name in names])
        return padded.level_db - offsets[inverse.reshape(padded.station.shape)] - self.power_db


def fit_level_model(reference: SessionSet) -> LevelModel:
    """Return exponent, shadowing, power and station offsets fitted on sessions with known sources.

    Least squares over all levels, one constant a station and one a session, the latter then summed up as mean and
    sigma of the power. Falls back to the defaults where fewer than ``MIN_STATION_LEVELS`` levels have a known source.
    """
    known = np.flatnonzero(np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude))
    sessions = reference.take(known)
    row = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    heard = (
        np.isfinite(sessions.level_db)
        & np.isfinite(sessions.receiver_latitude)
        & np.isfinite(sessions.receiver_longitude)
    )
    if heard.sum() < MIN_STATION_LEVELS:
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
        power_sigma_db=max(float(np.sqrt(between)), 0.5),
        offset_db={str(name): float(offset[i]) for i, name in enumerate(names) if often[i]},
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
    use = np.flatnonzero(often[station])
    columns = np.cumsum(often)[station[use]]
    count = len(level)
    design = csr_array(
        (
            np.concatenate([decades, np.ones(len(use))]),
            (np.concatenate([np.arange(count), use]), np.concatenate([np.zeros(count, dtype=np.int64), columns])),
        ),
        shape=(count, 1 + int(often.sum())),
    )
    share = csr_array((np.ones(count), (row, np.arange(count))), shape=(num_sessions, count))
    per_session = np.maximum(np.bincount(row, minlength=num_sessions), 1)
    sums, level_sums = (share @ design).toarray(), share @ level
    normal = (design.T @ design).toarray() - sums.T @ (sums / per_session[:, None])
    right = design.T @ level - sums.T @ (level_sums / per_session)
    solution = np.linalg.lstsq(normal, right, rcond=1e-9)[0]
    offset = np.zeros(len(often))
    offset[often] = solution[1:] - (solution[1:].mean() if often.any() else 0.0)
    return float(np.clip(solution[0], *EXPONENT_RANGE)), offset


def locate_by_levels(
    sessions: SessionSet, reference: SessionSet | None = None, model: LevelModel | None = None
) -> Predictions:
    """Return mean and covariance of the position given the levels: log-distance law, Gaussian shadowing and power.

    Args:
        sessions: S sessions.
        reference: sessions with known sources: area, exponent, power and station offsets are fitted on them, and the
            covariance is scaled until it is as large as the errors there. None: default path loss, unknown power.
        model: a fitted model; None: fit it on ``reference``.

    Returns:
        Positions with covariance; sessions with fewer than ``MIN_HEARD`` finite levels, or with all receivers that
        heard it at one point, are refused.
    """
    if model is None:
        model = LevelModel() if reference is None else calibrate_level_model(fit_level_model(reference), reference)
    parts = [
        _locate(pad_sessions(sessions.take(chosen)), reference, model)
        for chosen in np.array_split(np.arange(len(sessions)), max(len(sessions) // CHUNK_SESSIONS, 1))
    ]
    return Predictions(
        latitude=np.concatenate([part.latitude for part in parts]),
        longitude=np.concatenate([part.longitude for part in parts]),
        covariance_m2=np.concatenate([part.covariance_m2 for part in parts]),
        method="log_distance",
        refused=np.concatenate([part.refused for part in parts]),  # type: ignore[arg-type]
    )


def calibrate_level_model(model: LevelModel, reference: SessionSet) -> LevelModel:
    """Return ``model`` with the scale that makes its covariances as large as its errors on ``reference``.

    A thousand sessions spread evenly over the reference decide; the scale never falls below 1.
    """
    known = np.flatnonzero(np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude))
    chosen = known[np.unique(np.linspace(0, len(known) - 1, 1000).astype(np.int64))] if len(known) else known
    sessions = reference.take(chosen)
    found = locate_by_levels(sessions, reference, model)
    return replace(model, scale=learn_scale(compute_mahalanobis_square(sessions, found)))


def _locate(padded: PaddedSessions, reference: SessionSet | None, model: LevelModel) -> Predictions:
    area = compute_area(padded, reference)
    frame = LocalFrame(area.latitude[:, None], area.longitude[:, None])
    east, north, _ = frame.to_local(padded.latitude, padded.longitude)
    heard, level = padded.heard, model.correct(padded)
    mean, covariance = np.zeros((len(padded), 2)), _to_matrix(area.covariance_m2)
    prior = _invert(covariance)
    for _ in range(1 + NUM_REFINEMENTS):
        mean, covariance = _sum_grid(mean, covariance, prior, east, north, level, heard, model)
    covariance = covariance * model.scale
    refused = (heard.sum(axis=1) < MIN_HEARD) | (compute_extent_m(east, north, heard)[:, 0] <= SAME_POINT_M)
    latitude, longitude, _ = frame.to_geodetic(mean[:, :1], mean[:, 1:])
    columns = np.stack([covariance[:, 0, 0], covariance[:, 1, 1], covariance[:, 0, 1]], axis=1)
    return Predictions(
        latitude=np.where(refused, np.nan, latitude[:, 0]),
        longitude=np.where(refused, np.nan, longitude[:, 0]),
        covariance_m2=np.where(refused[:, None], np.nan, columns),
        method="log_distance",
        refused=refused,
    )


def _sum_grid(
    mean: FloatArray,
    covariance: FloatArray,
    prior: FloatArray,
    east: FloatArray,
    north: FloatArray,
    level: FloatArray,
    heard: NDArray[np.bool_],
    model: LevelModel,
) -> tuple[FloatArray, FloatArray]:
    """Return the posterior's mean (S, 2) and covariance (S, 2, 2), summed on a grid over the given Gaussian's reach.

    The variance of one cell is added, so that a peak within a single cell keeps a width.
    """
    root = np.linalg.cholesky(covariance)
    axis = np.linspace(-GRID_REACH, GRID_REACH, GRID_SIDE)
    unit = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    points = mean[:, None] + np.einsum("sij,gj->sgi", root, unit)
    square = np.square(points[..., 0, None] - east[:, None]) + np.square(points[..., 1, None] - north[:, None])
    predicted = (-5.0 * model.path_loss.exponent) * np.log10(np.maximum(square, MIN_DISTANCE_M**2))
    residual = np.where(heard[:, None], level[:, None] - predicted, 0.0)
    count = heard.sum(axis=1)[:, None]
    noise, power = model.path_loss.shadowing_db**2, model.power_sigma_db**2
    cost = (np.square(residual).sum(-1) - np.square(residual.sum(-1)) * power / (noise + count * power)) / noise
    cost += np.einsum("sgi,sij,sgj->sg", points, prior, points)
    weight = np.exp(-0.5 * (cost - cost.min(axis=1, keepdims=True)))
    weight /= weight.sum(axis=1, keepdims=True)
    centre = np.einsum("sg,sgi->si", weight, points)
    away = points - centre[:, None]
    cell = (2.0 * GRID_REACH / (GRID_SIDE - 1)) ** 2 / 12.0
    return centre, np.einsum("sg,sgi,sgj->sij", weight, away, away) + cell * covariance


def _to_matrix(columns: FloatArray) -> FloatArray:
    """Return (S, 3) variance east, variance north, covariance as (S, 2, 2)."""
    see, snn, sen = columns.T
    return np.stack([np.stack([see, sen], -1), np.stack([sen, snn], -1)], -2)


def _invert(matrix: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
