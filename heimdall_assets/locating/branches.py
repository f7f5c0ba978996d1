"""Several places that explain one session: how probable each is, and one answer that does not hide the others.

Belongs here: what lies between minima. Does not belong here: any minimum of its own (``minima``).

Legend of shapes: P minima, S sessions, K modes.
"""

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.arrays import SAME_POINT_M, PaddedSessions, compute_extent_m
from heimdall_assets.locating.bounds import invert_information
from heimdall_assets.locating.least_squares import MIN_ROWS
from heimdall_assets.locating.minima import Minima
from heimdall_assets.locating.posterior import QUANTILE_90
from heimdall_assets.session_set import Branches, Predictions
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame

MIN_WEIGHT = 0.01
"""Probability that a second place must have to be told of."""

REACHED_WEIGHT = 0.10
"""Probability of a second place above which the ellipse about the first one reaches it."""

COVERED_SHARE = 0.8
"""Share of an ellipse's edge that lies within another one, above which it says nothing more than that."""


def weigh_modes(modes: FloatArray, cost: FloatArray, information: FloatArray) -> FloatArray:
    """Return the probability of each mode, (S, K), a mode found from several starts counted once.

    Source: Laplace's approximation, exp(-cost / 2) / sqrt(det information).
    """
    determinant = information[..., 0, 0] * information[..., 1, 1] - np.square(information[..., 0, 1])
    log_weight = -0.5 * cost - 0.5 * np.log(np.maximum(determinant, np.finfo(np.float64).tiny))
    away = modes[:, :, None, :2] - modes[:, None, :, :2]
    square = np.einsum("sabi,saij,sabj->sab", away, information, away)
    same = (square < 1.0) | (np.square(away).sum(axis=-1) < SAME_POINT_M**2)
    same |= same.transpose(0, 2, 1)
    better = (cost[:, None, :] < cost[:, :, None]) | (
        (cost[:, None, :] == cost[:, :, None]) & np.tri(cost.shape[1], k=-1, dtype=bool)
    )
    log_weight = np.where((same & better).any(axis=2), -np.inf, log_weight)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    share: FloatArray = weight / weight.sum(axis=1, keepdims=True)
    return share


def join_places(
    padded: PaddedSessions,
    session: NDArray[np.int64],
    is_best: NDArray[np.bool_],
    places: Minima,
    log_weight: FloatArray,
) -> Predictions:
    """Return each session's best place, its covariance reaching to the others and over them, and all of these.

    Every place of ``REACHED_WEIGHT`` is reached. One whose ellipse is within that of the best is none of its own.
    """
    num = len(padded)
    best = np.flatnonzero(is_best)
    latitude, longitude = places.latitude[best], places.longitude[best]
    east, north, _ = LocalFrame(latitude[session], longitude[session]).to_local(places.latitude, places.longitude)
    away = np.stack([east, north], axis=1)
    main = places.covariance[best]
    log_weight = np.where(is_best | ~_find_covered(away, places.covariance, main[session]), log_weight, -np.inf)
    top = np.full(num, -np.inf)
    np.maximum.at(top, session, log_weight)
    weight = np.exp(log_weight - np.where(np.isfinite(top), top, 0.0)[session])
    weight /= np.maximum(np.bincount(session, weight, num), np.finfo(np.float64).tiny)[session]
    reach = np.where(weight > REACHED_WEIGHT, np.maximum(weight, 1.2 / QUANTILE_90), weight)
    moments = reach[:, None, None] * away[:, :, None] * away[:, None, :]
    moments += np.where(is_best, 0.0, np.minimum(weight / REACHED_WEIGHT, 1.0))[:, None, None] * places.covariance
    covariance = main.copy()
    np.add.at(covariance, session, moments)
    refused = (padded.num_rows < MIN_ROWS) | (
        compute_extent_m(padded.east_m, padded.north_m, padded.observed)[:, 0] <= SAME_POINT_M
    )
    columns = _to_columns(covariance)
    refused |= ~np.isfinite(columns).all(axis=1)
    several = np.bincount(session, weight > MIN_WEIGHT, num) > 1
    named = np.flatnonzero((weight > MIN_WEIGHT) & several[session] & ~refused[session])
    return Predictions(
        latitude=np.where(refused, np.nan, latitude),
        longitude=np.where(refused, np.nan, longitude),
        covariance_m2=np.where(refused[:, None], np.nan, columns),
        method="",
        refused=refused,
        branches=Branches(
            session=session[named],
            latitude=places.latitude[named],
            longitude=places.longitude[named],
            covariance_m2=_to_columns(places.covariance[named]),
            weight=weight[named],
        ),
        without_area_deg=np.where(refused[:, None], np.nan, places.alone_deg[best]),
    )


def _find_covered(away: FloatArray, covariance: FloatArray, main: FloatArray) -> NDArray[np.bool_]:
    """Return which 90 % ellipses (P,), ``away`` (P, 2) from the middle of others, lie within these but for a part."""
    angle = np.arange(24) * (np.pi / 12)
    circle = np.sqrt(QUANTILE_90) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    values, vectors = np.linalg.eigh(covariance)
    edge = away[:, None] + np.einsum("pij,pj,nj->pni", vectors, np.sqrt(np.maximum(values, 0.0)), circle)
    square = np.einsum("pni,pij,pnj->pn", edge, invert_information(main), edge)
    covered: NDArray[np.bool_] = (square < QUANTILE_90).mean(axis=1) > COVERED_SHARE
    return covered


def _to_columns(covariance: FloatArray) -> FloatArray:
    """Return covariances (P, 2, 2) as variance east, variance north, covariance (P, 3)."""
    return np.stack([covariance[:, 0, 0], covariance[:, 1, 1], covariance[:, 0, 1]], axis=1)
