"""A misplaced reference: all clocks err together, and ellipses hold what they claim, wherever the reference stands."""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.domain import Position
from heimdall_assets.locating.ellipses import compute_mahalanobis_square
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.acquisition import Search
from heimdall_assets.signals.geodesy import LocalFrame, compute_range_m
from heimdall_assets.signals.reference_clock import Reference, compute_shared_s
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.variation import assert_above, assert_below, shift_seed

CHI_SQUARE_90 = -2.0 * np.log(0.10)
NUM_SESSIONS = 400
MARGIN_M = 200.0  # 667 ns: nine times what clocks and noise of these sessions add
CENTRE, EDGE, OUTSIDE = (45.0, 8.2), (45.4, 9.6), (46.5, 7.0)


def misplace(sessions: SessionSet, place: tuple[float, float], is_told: bool) -> SessionSet:
    """Return the sessions as timed by a reference that stands some 200 m from ``place``, where it is said to be."""
    rng, frame = np.random.default_rng(shift_seed(1)), LocalFrame(*place)
    margin_m = MARGIN_M if is_told else 0.0
    reference = Reference(
        "R", Position(latitude=place[0], longitude=place[1]), Search(0.1, 1e-12, 1e8), margin_m, receiver_margin_m=0.0
    )
    arrival_s, sigma_s = sessions.arrival_s.copy(), sessions.timing_sigma_s.copy()
    for first, after in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True):
        rows = slice(first, after)
        here = (sessions.receiver_latitude[rows], sessions.receiver_longitude[rows], sessions.receiver_altitude_m[rows])
        latitude, longitude, _ = frame.to_geodetic(*(MARGIN_M * rng.normal(size=2)))
        stated_m, true_m = compute_range_m(*place, 0.0, *here), compute_range_m(latitude, longitude, 0.0, *here)
        arrival_s[rows] += (stated_m - true_m) / SIGNAL_SPEED_M_S
        receivers = [
            Position(latitude=float(one), longitude=float(two), altitude_m=float(three))
            for one, two, three in zip(*here, strict=True)
        ]
        sigma_s[rows] = np.hypot(sigma_s[rows], compute_shared_s(receivers, reference))
    return replace(sessions, arrival_s=arrival_s, timing_sigma_s=sigma_s)


def compute_coverage(sessions: SessionSet) -> float:
    found = locate_by_delays(sessions, robust=True)
    return float(np.mean(compute_mahalanobis_square(sessions, found) <= CHI_SQUARE_90))


@pytest.mark.parametrize("num_receivers", [(3, 3), (5, 7)], ids=["three", "five to seven"])
def test_ellipses_hold_what_a_misplaced_reference_does(num_receivers):
    spec = SimulationSpec(min_receivers=num_receivers[0], max_receivers=num_receivers[1])
    sessions = simulate_observations(spec, np.arange(NUM_SESSIONS))
    for place in (CENTRE, EDGE, OUTSIDE):
        coverage = compute_coverage(misplace(sessions, place, is_told=True))
        assert_above(coverage, 0.87, f"coverage with a misplaced reference at {place}")
        assert_below(coverage, 0.96, f"coverage with a misplaced reference at {place}")
    assert_below(compute_coverage(misplace(sessions, CENTRE, is_told=False)), 0.75, "coverage if nobody says so")
