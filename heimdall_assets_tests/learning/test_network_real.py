"""The session model on the three DCF77 recordings of 2017, before it has learned anything: physics must carry it."""

import numpy as np
import pytest
import torch

from heimdall_assets.domain import Position
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.formats.kiwisdr import decode_kiwisdr
from heimdall_assets.learning.session_model.physics import LevelLaw
from heimdall_assets.learning.session_model.task import NetworkTask
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.delays import compute_delays
from heimdall_assets.specs import DelaySpec, ModelSpec, TimingSpec
from heimdall_assets_tests.variation import shift_seed

RECEIVERS = {"HB9RYZ": (47.1721, 8.42683), "F1JEK": (45.779290, 0.614638), "DF0KL": (53.665337, 7.282766)}
STATISTICS = {
    "feature_shape": None,
    "feature_mean_db": None,
    "feature_std_db": None,
    "level_prior": None,
    "level_law": LevelLaw()._asdict(),
    "pairs": None,
}


@pytest.mark.parametrize("trust", [0.0, 1.0])
def test_a_transmitter_300_km_away_is_found_and_the_ellipse_holds_it(shared_data, trust):
    folder = shared_data / "kiwisdr_dcf77_2017"
    files = [next(folder.glob(f"*_{code}_iq.wav")) for code in RECEIVERS]
    places = [Position(latitude=latitude, longitude=longitude) for latitude, longitude in RECEIVERS.values()]
    delays = compute_delays([decode_kiwisdr(path.read_bytes(), path.name) for path in files], places, DelaySpec())
    latitude, longitude = np.array(list(RECEIVERS.values())).T
    unknown = np.full(3, np.nan)
    sessions = SessionSet(
        session_id=np.array(["dcf77"]),
        offsets=np.array([0, 3]),
        receiver_latitude=latitude,
        receiver_longitude=longitude,
        receiver_altitude_m=np.zeros(3),
        station_id=np.array(list(RECEIVERS)),
        frequency_hz=np.full(3, 77_500.0),
        level_db=unknown,
        snr_db=unknown,
        carrier_offset_hz=unknown,
        timing_sigma_s=np.full(3, TimingSpec.model_validate({}).gnss_s),
        arrival_s=delays.arrival_s,
        arrival_sigma_s=delays.arrival_sigma_s,
        coherence=delays.coherence,
        feature_row=np.full(3, -1),
        source_latitude=np.array([50.0155]),
        source_longitude=np.array([9.0108]),
        error_margin_m=np.zeros(1),
    )
    task = NetworkTask()
    torch.manual_seed(shift_seed(0))
    network = task.build_network(ModelSpec(), STATISTICS | {"trust": trust})
    residuals = compute_residuals(sessions, task.predict(network, sessions, STATISTICS, {}))
    assert residuals.error_m[0] < 15e3
    assert residuals.mahalanobis_squared[0] < 4.605
