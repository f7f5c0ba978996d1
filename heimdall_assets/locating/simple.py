"""Estimators that need no model of the wave: the area's centre, the strongest receiver, a weighted centroid."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.area import compute_area, compute_own_area, find_elsewhere
from heimdall_assets.locating.arrays import PaddedSessions, pad_sessions
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import FloatArray, LocalFrame

CENTROID_EXPONENT = 3.0
"""A receiver weighs as the inverse of the distance its level suggests: 10^(level / 10 n), n the path-loss exponent."""

MIN_REFERENCE = 20
"""Sessions with a known source that an error covariance is learned from."""


def locate_prior_centre(sessions: SessionSet, reference: SessionSet | None = None) -> Predictions:
    """Return the middle of the area where sources may be, with that area as covariance; no session is refused."""
    padded = pad_sessions(sessions)
    area = compute_area(padded, reference)
    empty: NDArray[np.bool_] = (padded.present.sum(axis=1) == 0) & (reference is None)
    return Predictions(
        latitude=np.where(empty, np.nan, area.latitude),
        longitude=np.where(empty, np.nan, area.longitude),
        covariance_m2=np.where(empty[:, None], np.nan, area.covariance_m2),
        method="prior_centre",
        refused=empty,
    )


def locate_strongest_receiver(sessions: SessionSet, reference: SessionSet | None = None) -> Predictions:
    """Return the place of the receiver with the highest level.

    The covariance is that of the errors on ``reference``; without one, or for another network, that of the receivers'
    surroundings. Sessions without a finite level are refused.

    Examples:
        >>> from heimdall_assets.simulation.observations import simulate_observations
        >>> from heimdall_assets.specs import SimulationSpec
        >>> sessions = simulate_observations(SimulationSpec(), np.arange(1))
        >>> answer = locate_strongest_receiver(sessions)
        >>> bool(answer.latitude[0] == sessions.receiver_latitude[sessions.level_db.argmax()])
        True
    """
    return _locate("strongest_receiver", _find_strongest, sessions, reference)


def locate_weighted_centroid(sessions: SessionSet, reference: SessionSet | None = None) -> Predictions:
    """Return the receivers' mean place, weighted by the inverse of the distance that each level suggests.

    Covariance and refusals as for the strongest receiver.
    """
    return _locate("weighted_centroid", _compute_centroid, sessions, reference)


Locator = Callable[[PaddedSessions], tuple[FloatArray, FloatArray]]


def _locate(method: str, locate: Locator, sessions: SessionSet, reference: SessionSet | None) -> Predictions:
    padded = pad_sessions(sessions)
    east, north = locate(padded)
    refused: NDArray[np.bool_] = padded.heard.sum(axis=1) == 0
    latitude, longitude, _ = padded.frame.to_geodetic(east[:, None], north[:, None])
    covariance = compute_own_area(padded).covariance_m2
    learned = None if reference is None else _learn_covariance(locate, reference)
    if reference is not None and learned is not None:
        covariance = np.where(find_elsewhere(padded, reference)[:, None], covariance, learned)
    return Predictions(
        latitude=np.where(refused, np.nan, latitude[:, 0]),
        longitude=np.where(refused, np.nan, longitude[:, 0]),
        covariance_m2=np.where(refused[:, None], np.nan, covariance),
        method=method,
        refused=refused,
    )


def _learn_covariance(locate: Locator, reference: SessionSet) -> FloatArray | None:
    """Return the second moments (3,) of the errors on sessions with known sources; None where there are too few."""
    padded = pad_sessions(reference)
    usable = padded.heard.any(axis=1) & np.isfinite(reference.source_latitude) & np.isfinite(reference.source_longitude)
    if usable.sum() < MIN_REFERENCE:
        return None
    east, north = locate(padded)
    latitude, longitude, _ = padded.frame.to_geodetic(east[:, None], north[:, None])
    frame = LocalFrame(latitude[:, 0], longitude[:, 0])
    de, dn, _ = frame.to_local(reference.source_latitude, reference.source_longitude)
    de, dn = de[usable], dn[usable]
    return np.array([np.mean(de * de) + 1.0, np.mean(dn * dn) + 1.0, np.mean(de * dn)])


def _find_strongest(padded: PaddedSessions) -> tuple[FloatArray, FloatArray]:
    """Return east and north (S,) of the loudest receiver; equally loud ones share."""
    level = np.where(padded.heard, padded.level_db, -np.inf)
    loudest = padded.heard & (level == level.max(axis=1, keepdims=True))
    return _average(padded, loudest.astype(np.float64))


def _compute_centroid(padded: PaddedSessions) -> tuple[FloatArray, FloatArray]:
    level = np.where(padded.heard, padded.level_db, -np.inf)
    top = np.where(padded.heard.any(axis=1), level.max(axis=1), 0.0)
    with np.errstate(over="ignore"):
        weight = np.where(padded.heard, 10.0 ** ((level - top[:, None]) / (10.0 * CENTROID_EXPONENT)), 0.0)
    return _average(padded, weight)


def _average(padded: PaddedSessions, weight: NDArray[np.float64]) -> tuple[FloatArray, FloatArray]:
    total = np.where(weight.any(axis=1), weight.sum(axis=1), 1.0)
    return (weight * padded.east_m).sum(axis=1) / total, (weight * padded.north_m).sum(axis=1) / total
