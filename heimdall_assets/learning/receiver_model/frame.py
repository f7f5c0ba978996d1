"""Between receivers' spectrograms and normalised numbers: the frame and the scales of the one-receiver model.

Belongs here: pure functions over a ``SessionSet`` and the ``statistics`` of ``SingleReceiverTask``. Does not belong
here: torch. Axes are north, east. E examples (rows of the receiver columns), S sessions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.counts import say_count
from heimdall_assets.errors import CannotLocate, InvalidInput
from heimdall_assets.learning.receiver_model.degrees import compute_centre, compute_metres_per_degree, wrap_longitude
from heimdall_assets.session_set import Predictions, SessionSet

STATISTICS_BATCH = 512

MIN_SPREAD_M = 1.0
"""Training sources closer together than this hold nothing that positions could be learned from."""


def list_receivers(sessions: SessionSet) -> NDArray[np.int64]:
    """Return the rows of the receiver columns that have a spectrogram, ascending."""
    return np.flatnonzero(sessions.feature_row >= 0)


def find_sessions(sessions: SessionSet, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the session that owns each of the receiver ``rows``."""
    return np.searchsorted(sessions.offsets, rows, side="right") - 1


def compute_source_frame(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> dict[str, Any]:
    """Return the frame that training sources span: ``centre_deg`` (latitude, longitude), ``scale_m`` (north, east).

    Raises:
        InvalidInput: they stand so close together that there is nothing to learn positions from.
    """
    centre = compute_centre(latitude, longitude)
    metres_north, metres_east = compute_metres_per_degree(np.float64(centre[0]))
    north = (latitude - centre[0]) * metres_north
    east = wrap_longitude(longitude - centre[1]) * metres_east
    scale_m = [float(np.sqrt(np.mean(north**2))), float(np.sqrt(np.mean(east**2)))]
    if min(scale_m) < MIN_SPREAD_M:
        raise InvalidInput(
            f"training split: sources spread {scale_m[0]:.3g} m north and {scale_m[1]:.3g} m east: "
            f"expected at least {MIN_SPREAD_M:g} m each to learn positions from"
        )
    return {"centre_deg": list(centre), "scale_m": scale_m}


def to_normalised(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], statistics: dict[str, Any]
) -> NDArray[np.float64]:
    """Return positions (N, 2) north, east around the training centre in units of the training spread."""
    north_deg = latitude - statistics["centre_deg"][0]
    east_deg = wrap_longitude(longitude - statistics["centre_deg"][1])
    return np.stack([north_deg, east_deg], axis=1) / compute_scale_deg(statistics)


def compute_scale_deg(statistics: dict[str, Any]) -> NDArray[np.float64]:
    """Return degrees per normalised unit (2,): latitude, longitude."""
    per_degree = compute_metres_per_degree(np.float64(statistics["centre_deg"][0]))
    scale_deg: NDArray[np.float64] = np.array(statistics["scale_m"]) / np.array(per_degree)
    return scale_deg


def compute_sigma_scale(latitude: NDArray[np.float64], statistics: dict[str, Any]) -> NDArray[np.float64]:
    """Return metres per normalised unit (N, 2) at ``latitude``: a degree of longitude is shorter further north."""
    scale_m: NDArray[np.float64] = compute_scale_deg(statistics) * np.stack(compute_metres_per_degree(latitude), axis=1)
    return scale_m


def list_truth(
    sessions: SessionSet, owners: NDArray[np.int64], statistics: dict[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return true position and its variance (N, 2) of the given sessions, normalised."""
    target = to_normalised(sessions.source_latitude[owners], sessions.source_longitude[owners], statistics)
    return target, (sessions.error_margin_m[owners, None] / np.array(statistics["scale_m"])) ** 2


def read_features(sessions: SessionSet, rows: NDArray[np.int64], statistics: dict[str, Any]) -> NDArray[np.float32]:
    """Return the spectrograms of the given feature ``rows``, float32 (E, 3, mels, frames) in dB.

    Raises:
        CannotLocate: the session set carries no features.
        InvalidInput: their shape is not the one the model was trained on.
    """
    if sessions.features is None:
        raise CannotLocate("sessions name spectrograms but carry none: expected SessionSet.features")
    if list(sessions.features.shape[1:]) != statistics["feature_shape"]:
        raise InvalidInput(
            f"features: shape {list(sessions.features.shape[1:])}: expected {statistics['feature_shape']}, "
            "as the model was trained on"
        )
    return np.asarray(sessions.features[rows], dtype=np.float32)


def standardise(features: NDArray[np.float32], statistics: dict[str, Any]) -> NDArray[np.float32]:
    """Return ``features`` less the training split's mean, in units of its standard deviation, per channel."""
    mean = np.array(statistics["feature_mean_db"], dtype=np.float32).reshape(3, 1, 1)
    std = np.array(statistics["feature_std_db"], dtype=np.float32).reshape(3, 1, 1)
    standardised = features - mean
    standardised /= std
    return standardised


def compute_channel_statistics(
    sessions: SessionSet, rows: NDArray[np.int64]
) -> tuple[list[float], list[float], tuple[int, ...]]:
    """Return mean and std of each channel in dB over the feature ``rows``, and the shape of one feature.

    Sums run in float64 batch by batch, so memory stays flat over a memory map.

    Raises:
        InvalidInput: a value is not finite, a channel does not vary, or a side is shorter than 32.
    """
    if sessions.features is None:
        raise CannotLocate("sessions name spectrograms but carry none: expected SessionSet.features")
    shape = sessions.features.shape[1:]
    if len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < 32:
        raise InvalidInput(f"features: shape {shape}: expected (3, mels, frames) with at least 32 mels and frames")
    total, squares, rows = np.zeros(3), np.zeros(3), np.sort(rows)
    offset = np.asarray(sessions.features[rows[0]], dtype=np.float64).mean(axis=(1, 2))
    for start in range(0, len(rows), STATISTICS_BATCH):
        part = np.asarray(sessions.features[rows[start : start + STATISTICS_BATCH]], dtype=np.float64)
        part = part - offset.reshape(3, 1, 1)
        total += part.sum(axis=(0, 2, 3))
        squares += (part**2).sum(axis=(0, 2, 3))
    count = len(rows) * shape[1] * shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise InvalidInput(
            f"features of {say_count(len(rows), 'training receiver')}: found values that are not finite dB"
        )
    if std.min() <= 0.0:
        raise InvalidInput(
            f"features of {say_count(len(rows), 'training receiver')}: std {std.tolist()} dB: expected above 0"
        )
    return (mean + offset).tolist(), std.tolist(), tuple(int(side) for side in shape)


def fit_variance_scale(
    squared_error: NDArray[np.float64], variance: NDArray[np.float64], margin: NDArray[np.float64]
) -> float:
    """Return the factor of ``variance`` that makes the mean of error^2 / (factor variance + margin) one.

    All arguments are (N, 2) or broadcast to it. The mean falls as the factor grows, so bisection in its logarithm finds
    it; a factor beyond 1e-4 to 1e4 is cut there, where a model is broken rather than badly scaled.
    """
    low, high = -4.0, 4.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        excess = np.mean(squared_error / (10.0**middle * variance + margin)) - 1.0
        low, high = (middle, high) if excess > 0 else (low, middle)
    return float(10.0 ** (0.5 * (low + high)))


@dataclass(frozen=True)
class Fused:
    """Position and variance (N, 2), covariance (N,) of north and east, normalised; NaN where nothing is known."""

    position: NDArray[np.float64]
    variance: NDArray[np.float64]
    covariance: NDArray[np.float64]


def fuse_receivers(
    position: NDArray[np.float64], variance: NDArray[np.float64], owners: NDArray[np.int64], num_sessions: int
) -> Fused:
    """Return one Gaussian per session from its receivers' Gaussians, without pretending that they are independent.

    Receivers of one session share the model's own errors, so R of them are not R times the information. Each axis takes
    the precision-weighted mean; its variance is that of the mixture with the same weights: the harmonic mean of the
    receivers' variances, which is what covariance intersection with equal weights gives and holds for any correlation,
    plus the weighted spread of their positions.

    Args:
        position, variance: (E, 2), one row per receiver.
        owners: int64 (E,), session of each.
        num_sessions: S.

    Source: Julier and Uhlmann, A non-divergent estimation algorithm in the presence of unknown correlations, 1997.
    """
    weight = 1.0 / variance
    total = np.zeros((num_sessions, 2))
    np.add.at(total, owners, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = weight / total[owners]
        mean = _sum_by_session(weight * position, owners, total)
        offset = position - mean[owners]
        fused = _sum_by_session(weight * (variance + offset**2), owners, total)
        cross = _sum_by_session(
            np.sqrt(weight.prod(axis=1, keepdims=True)) * offset.prod(axis=1, keepdims=True), owners, total
        )
    return Fused(mean, fused, cross[:, 0])


def _sum_by_session(
    values: NDArray[np.float64], owners: NDArray[np.int64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    sums = np.where(total[:, : values.shape[1]] > 0, 0.0, np.nan)
    np.add.at(sums, owners, values)
    return sums


def join_receivers(
    sessions: SessionSet,
    rows: NDArray[np.int64],
    position: NDArray[np.float64],
    variance: NDArray[np.float64],
    statistics: dict[str, Any],
    calibration: dict[str, Any],
) -> Predictions:
    """Return one prediction per session from the calibrated Gaussians of its receivers ``rows``."""
    fused = fuse_receivers(position, variance, find_sessions(sessions, rows), len(sessions))
    scale = calibration.get("session_variance_scale", 1.0)
    return to_predictions(
        Fused(fused.position, fused.variance * scale, fused.covariance * scale), statistics, "single_receiver"
    )


def to_predictions(fused: Fused, statistics: dict[str, Any], method: str) -> Predictions:
    """Return normalised Gaussians in degrees and m^2; what is unknown, not finite or beyond a pole is refused."""
    degrees = np.array(statistics["centre_deg"]) + fused.position * compute_scale_deg(statistics)
    refused = ~(np.isfinite(degrees).all(axis=1) & np.isfinite(fused.variance).all(axis=1))
    refused |= ~(np.abs(degrees[:, 0]) < 90.0)
    degrees[refused] = np.nan
    scale = compute_sigma_scale(degrees[:, 0], statistics)
    variance = fused.variance * scale**2
    covariance = np.stack([variance[:, 1], variance[:, 0], fused.covariance * scale.prod(axis=1)], axis=1)
    covariance[refused] = np.nan
    return Predictions(
        latitude=degrees[:, 0],
        longitude=wrap_longitude(degrees[:, 1]),
        covariance_m2=covariance,
        method=method,
        refused=refused,
    )
