"""Small networks and sessions that the tests of this room share."""

from typing import Any

import numpy as np

from heimdall_assets.locating.ellipses import compute_mahalanobis_square
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import LocalFrame, compute_distance_m, compute_range_m
from heimdall_assets_tests.variation import make_rng

CENTRE = (45.0, 8.0)
SQUARE = np.array([[-30e3, -30e3], [30e3, -30e3], [30e3, 30e3], [-30e3, 30e3]])
HEXAGON = 40e3 * np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)], axis=1)


def make_sessions(
    receivers_en: np.ndarray,
    sources_en: np.ndarray,
    sigma_s: float = 100e-9,
    timing_sigma_s: float = 0.0,
    seed: int = 0,
    centre: tuple[float, float] = CENTRE,
    frequency_hz: float = 145.5e6,
    exponent: float = 3.0,
    shadowing_db: float = 0.0,
    **columns: Any,
) -> SessionSet:
    """Return a session for each source (S, 2), all heard by the same receivers (R, 2), in metres around ``centre``."""
    rng = make_rng(seed)
    frame = LocalFrame(*centre)
    num_sessions, num_receivers = len(sources_en), len(receivers_en)
    latitude, longitude, _ = frame.to_geodetic(*np.asarray(receivers_en, dtype=float).T)
    source_latitude, source_longitude, _ = frame.to_geodetic(*np.asarray(sources_en, dtype=float).T)
    distance = compute_range_m(
        source_latitude[:, None], source_longitude[:, None], 0.0, latitude, longitude, 0.0, frequency_hz
    )
    shape = (num_sessions, num_receivers)
    arrival = distance / SIGNAL_SPEED_M_S + np.hypot(sigma_s, timing_sigma_s) * rng.standard_normal(shape)
    level = -30.0 - 10.0 * exponent * np.log10(np.maximum(distance, 1.0)) + shadowing_db * rng.standard_normal(shape)
    total = num_sessions * num_receivers
    values: dict[str, Any] = {
        "session_id": np.array([f"session-{i}" for i in range(num_sessions)], dtype=np.str_),
        "offsets": np.arange(num_sessions + 1, dtype=np.int64) * num_receivers,
        "receiver_latitude": np.tile(latitude, num_sessions),
        "receiver_longitude": np.tile(longitude, num_sessions),
        "receiver_altitude_m": np.zeros(total),
        "station_id": np.tile(np.array([f"station-{i}" for i in range(num_receivers)], dtype=np.str_), num_sessions),
        "frequency_hz": np.full(total, frequency_hz),
        "level_db": level.ravel(),
        "snr_db": np.full(total, 20.0),
        "carrier_offset_hz": np.zeros(total),
        "timing_sigma_s": np.full(total, timing_sigma_s),
        "arrival_s": arrival.ravel(),
        "arrival_sigma_s": np.full(total, sigma_s),
        "coherence": np.full(total, np.nan),
        "feature_row": np.full(total, -1, dtype=np.int64),
        "source_latitude": source_latitude,
        "source_longitude": source_longitude,
        "error_margin_m": np.zeros(num_sessions),
    }
    return SessionSet(**(values | columns))


def compute_errors_m(sessions: SessionSet, predictions: Predictions) -> np.ndarray:
    return compute_distance_m(
        sessions.source_latitude, sessions.source_longitude, predictions.latitude, predictions.longitude
    )


def compute_coverage(sessions: SessionSet, predictions: Predictions, probability: float = 0.90) -> float:
    square = compute_mahalanobis_square(sessions, predictions)
    return float(np.mean(square[np.isfinite(square)] < -2.0 * np.log(1.0 - probability)))
