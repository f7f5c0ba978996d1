"""The three DCF77 recordings of 2017, from bytes to an ellipse. Truth: Mainflingen, 50.0155 N 9.0108 E."""

import numpy as np
import pytest

from heimdall_assets.domain import Position
from heimdall_assets.formats.kiwisdr import decode_kiwisdr
from heimdall_assets.locating.classical import locate_session
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.delays import compute_delays
from heimdall_assets.specs import DelaySpec, TimingSpec
from heimdall_assets_tests.locating.fields import compute_coverage, compute_errors_m

RECEIVERS = {"HB9RYZ": (47.1721, 8.42683), "F1JEK": (45.779290, 0.614638), "DF0KL": (53.665337, 7.282766)}


@pytest.fixture(scope="module")
def dcf77(shared_data) -> SessionSet:
    folder = shared_data / "kiwisdr_dcf77_2017"
    files = [next(folder.glob(f"*_{code}_iq.wav")) for code in RECEIVERS]
    recordings = [decode_kiwisdr(path.read_bytes(), path.name) for path in files]
    positions = [Position(latitude=latitude, longitude=longitude) for latitude, longitude in RECEIVERS.values()]
    delays = compute_delays(recordings, positions, DelaySpec())
    latitude, longitude = np.array(list(RECEIVERS.values())).T
    unknown = np.full(3, np.nan)
    return SessionSet(
        session_id=np.array(["dcf77"], dtype=np.str_),
        offsets=np.array([0, 3]),
        receiver_latitude=latitude,
        receiver_longitude=longitude,
        receiver_altitude_m=np.zeros(3),
        station_id=np.array(list(RECEIVERS), dtype=np.str_),
        frequency_hz=np.full(3, 77_500.0),
        level_db=unknown,
        snr_db=unknown,
        carrier_offset_hz=unknown,
        timing_sigma_s=np.full(3, TimingSpec().gnss_s),
        arrival_s=delays.arrival_s,
        arrival_sigma_s=delays.arrival_sigma_s,
        coherence=delays.coherence,
        feature_row=np.full(3, -1),
        source_latitude=np.array([50.0155]),
        source_longitude=np.array([9.0108]),
        error_margin_m=np.zeros(1),
    )


def test_dcf77_is_found_within_15_km_and_within_its_ellipse(dcf77):
    estimate = locate_session(dcf77, 0)
    covariance = [estimate.variance_east_m2, estimate.variance_north_m2, estimate.covariance_en_m2]
    found = Predictions(
        np.array([estimate.latitude]), np.array([estimate.longitude]), np.array([covariance]), estimate.method
    )
    assert estimate.method == "tdoa_robust"
    assert compute_errors_m(dcf77, found)[0] < 15e3
    assert compute_coverage(dcf77, found, 0.90) == 1.0
    assert estimate.ellipse().semi_major_m < 60e3  # large because the receivers' delays are unknown, not by accident


def test_statistical_errors_alone_would_be_over_confident(dcf77):
    believed = dcf77.timing_sigma_s.copy()
    believed[:] = 0.0
    estimate = locate_session(
        SessionSet(**{name: believed if name == "timing_sigma_s" else value for name, value in vars(dcf77).items()}), 0
    )
    assert estimate.ellipse().semi_major_m < 5e3
