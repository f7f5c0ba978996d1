"""Positions from levels by the log-distance law, its likelihood summed on a grid.

The likelihood of levels has ridges and several tops, so it is summed on a grid, then on a finer one over what the first
one left: its peak is the estimate, its second moment around the peak the covariance. No optimiser gets lost in it.

Legend of shapes: S sessions, R receiver slots, G grid points.
"""

from dataclasses import replace

import numpy as np

from heimdall_assets.locating.area import compute_area
from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m, pad_sessions
from heimdall_assets.locating.ellipses import compute_mahalanobis_square, learn_scale
from heimdall_assets.locating.path_loss import MIN_HEARD, LevelModel, Levels, fit_level_model
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame

GRID_SIDE = 41
GRID_REACH = 3.0
"""Half side of a grid, in sigmas of what it covers."""

NUM_REFINEMENTS = 2
CHUNK_SESSIONS = 256

MAX_CALIBRATION_SESSIONS = 500
"""More would tell the 90 % quantile better than one reference resembles the next."""


def locate_by_levels(
    sessions: SessionSet, reference: SessionSet | None = None, model: LevelModel | None = None
) -> Predictions:
    """Return the most probable positions given the levels: log-distance law, Gaussian shadowing and power.

    Args:
        sessions: S sessions.
        reference: sessions with known sources: area, exponent, power and station offsets are fitted on them, and the
            covariance is scaled until it is as large as the errors there. None: default path loss, unknown power.
        model: a fitted model; None: fit it on ``reference``.

    Returns:
        Positions with covariance; sessions with fewer than ``MIN_HEARD`` finite levels, or with all receivers that
        heard it at one point, are refused.

    Examples:
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> found = locate_by_levels(simulate_observations(SimulationSpec(), np.arange(5)))
        >>> found.method, found.latitude.shape, found.covariance_m2.shape
        ('log_distance', (5,), (5, 3))
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
        refused=np.concatenate([part.refused for part in parts]),
    )


def calibrate_level_model(model: LevelModel, reference: SessionSet) -> LevelModel:
    """Return ``model`` with the scale that makes its covariances as large as its errors on ``reference``.

    ``MAX_CALIBRATION_SESSIONS`` sessions spread evenly over the reference decide; the scale never falls below 1.
    """
    known = np.flatnonzero(np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude))
    chosen = (
        known[np.unique(np.linspace(0, len(known) - 1, MAX_CALIBRATION_SESSIONS).astype(np.int64))]
        if len(known)
        else known
    )
    sessions = reference.take(chosen)
    found = locate_by_levels(sessions, reference, model)
    return replace(model, scale=learn_scale(compute_mahalanobis_square(sessions, found)))


def _locate(padded: PaddedSessions, reference: SessionSet | None, model: LevelModel) -> Predictions:
    area = compute_area(padded, reference)
    frame = LocalFrame(area.latitude[:, None], area.longitude[:, None])
    east, north, _ = frame.to_local(padded.latitude, padded.longitude)
    heard, levels = padded.heard, model.read_levels(padded)
    centre, covariance = np.zeros((len(padded), 2)), _to_matrix(area.covariance_m2)
    prior = _invert(covariance)
    for _ in range(1 + NUM_REFINEMENTS):
        centre, covariance = _sum_grid(centre, covariance, prior, east, north, levels)
    covariance = covariance * model.scale
    refused = (heard.sum(axis=1) < MIN_HEARD) | (compute_extent_m(east, north, heard)[:, 0] <= SAME_POINT_M)
    latitude, longitude, _ = frame.to_geodetic(centre[:, :1], centre[:, 1:])
    columns = np.stack([covariance[:, 0, 0], covariance[:, 1, 1], covariance[:, 0, 1]], axis=1)
    return Predictions(
        latitude=np.where(refused, np.nan, latitude[:, 0]),
        longitude=np.where(refused, np.nan, longitude[:, 0]),
        covariance_m2=np.where(refused[:, None], np.nan, columns),
        method="log_distance",
        refused=refused,
    )


def _sum_grid(
    centre: FloatArray,
    covariance: FloatArray,
    prior: FloatArray,
    east: FloatArray,
    north: FloatArray,
    levels: Levels,
) -> tuple[FloatArray, FloatArray]:
    """Return the posterior's peak (S, 2) and second moment around it (S, 2, 2), on a grid over the given Gaussian.

    The variance of one cell is added, so that a peak within a single cell keeps a width.
    """
    root = np.linalg.cholesky(covariance)
    axis = np.linspace(-GRID_REACH, GRID_REACH, GRID_SIDE)
    unit = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    points = centre[:, None] + np.einsum("sij,gj->sgi", root, unit)
    square = np.square(points[..., 0, None] - east[:, None]) + np.square(points[..., 1, None] - north[:, None])
    cost = levels.compute_cost(square)
    cost += np.einsum("sgi,sij,sgj->sg", points, prior, points)
    weight = np.exp(-0.5 * (cost - cost.min(axis=1, keepdims=True)))
    weight /= weight.sum(axis=1, keepdims=True)
    peak = np.take_along_axis(points, cost.argmin(axis=1)[:, None, None], axis=1)[:, 0]
    away = points - peak[:, None]
    cell = (2.0 * GRID_REACH / (GRID_SIDE - 1)) ** 2 / 12.0
    return peak, np.einsum("sg,sgi,sgj->sij", weight, away, away) + cell * covariance


def _to_matrix(columns: FloatArray) -> FloatArray:
    """Return (S, 3) variance east, variance north, covariance as (S, 2, 2)."""
    see, snn, sen = columns.T
    return np.stack([np.stack([see, sen], -1), np.stack([sen, snn], -1)], -2)


def _invert(matrix: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
