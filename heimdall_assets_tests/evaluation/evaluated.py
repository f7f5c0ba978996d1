"""Session sets and predictions with known errors, for the tests of judging."""

import numpy as np
from pyproj import Geod

from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets_tests.variation import make_rng

STATIONS = np.array(
    [[45.02, 7.29], [45.234, 7.857], [45.044, 7.672], [44.561, 8.956], [44.395, 8.956], [45.478, 9.123]]
)
GEOD = Geod(ellps="WGS84")


def make_sessions(num_sessions, seed=0, num_receivers=6, error_margin_m=0.0, **columns):
    """Return sessions with sources around the stations and no noise anywhere."""
    generator = make_rng(seed)
    num_rows = num_sessions * num_receivers
    stations = np.tile(STATIONS[:num_receivers], (num_sessions, 1))
    fixed = {
        "session_id": np.array([f"s{index:05d}" for index in range(num_sessions)], dtype="<U8"),
        "offsets": np.arange(num_sessions + 1, dtype=np.int64) * num_receivers,
        "receiver_latitude": stations[:, 0],
        "receiver_longitude": stations[:, 1],
        "receiver_altitude_m": np.zeros(num_rows),
        "station_id": np.tile([f"station{index}" for index in range(num_receivers)], num_sessions),
        "frequency_hz": np.full(num_rows, 145.5e6),
        "level_db": np.full(num_rows, -90.0),
        "snr_db": np.full(num_rows, 15.0),
        "carrier_offset_hz": np.zeros(num_rows),
        "timing_sigma_s": np.full(num_rows, 76e-9),
        "arrival_s": np.zeros(num_rows),
        "arrival_sigma_s": np.full(num_rows, 100e-9),
        "coherence": np.full(num_rows, 0.9),
        "feature_row": np.full(num_rows, -1, dtype=np.int64),
        "source_latitude": generator.uniform(44.5, 45.4, num_sessions),
        "source_longitude": generator.uniform(7.4, 9.0, num_sessions),
        "error_margin_m": np.full(num_sessions, float(error_margin_m)),
        "strata": {},
    }
    return SessionSet(**{**fixed, **columns})


def place_answers(sessions, east_m, north_m, covariance_m2, method="model", refused=None):
    """Return predictions whose geodesic offset from the truth, seen from the truth, is (east, north)."""
    longitude, latitude, _ = GEOD.fwd(
        sessions.source_longitude,
        sessions.source_latitude,
        np.degrees(np.arctan2(east_m, north_m)),
        np.hypot(east_m, north_m),
    )
    return Predictions(np.asarray(latitude), np.asarray(longitude), covariance_m2, method, refused)


def draw_predictions(sessions, covariance_m2, seed=1, stated_scale=1.0, label_m=0.0, method="model"):
    """Return predictions with Gaussian errors of ``covariance_m2`` (S, 3) and the label's, that state a multiple."""
    generator = make_rng(seed)
    num_sessions = len(sessions)
    matrix = np.stack([covariance_m2[:, [0, 2]], covariance_m2[:, [2, 1]]], axis=1)
    error = np.einsum("nij,nj->ni", np.linalg.cholesky(matrix), generator.standard_normal((num_sessions, 2)))
    error += label_m * generator.standard_normal((num_sessions, 2))
    return place_answers(sessions, error[:, 0], error[:, 1], covariance_m2 * stated_scale, method)


def spread_covariances(num_sessions, seed=2, sigma_m=100.0):
    """Return random covariances (S, 3) with axes between half and four times ``sigma_m``."""
    generator = make_rng(seed)
    major, minor = sigma_m * generator.uniform(0.5, 4.0, (2, num_sessions))
    angle = generator.uniform(0, np.pi, num_sessions)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack(
        [
            (major * cos) ** 2 + (minor * sin) ** 2,
            (major * sin) ** 2 + (minor * cos) ** 2,
            (major**2 - minor**2) * cos * sin,
        ],
        axis=1,
    )
