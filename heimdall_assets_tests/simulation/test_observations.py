"""Simulated observations obey the physics they claim, and each session depends on its own index only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.simulation.observations import (
    ITALIAN_NETWORK,
    simulate_observations,
)
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.variation import shift_seed


def make_spec(**changes):
    fields = {"seed": shift_seed(3), "min_receivers": 3, "max_receivers": 7, "snr_min_db": 5.0, "snr_max_db": 30.0}
    return SimulationSpec(**(fields | changes))


def compute_residuals_s(sessions):
    """Arrival minus propagation minus the session's own zero, one value a receiver; truth from geodesics."""
    owner = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    _, _, ground_m = Geod(ellps="WGS84").inv(
        sessions.source_longitude[owner],
        sessions.source_latitude[owner],
        sessions.receiver_longitude,
        sessions.receiver_latitude,
    )
    chord_m = 2.0 * 6_371_000.0 * np.sin(ground_m / (2.0 * 6_371_000.0))
    residual_s = sessions.arrival_s - np.hypot(chord_m, sessions.receiver_altitude_m) / SIGNAL_SPEED_M_S
    first = sessions.offsets[:-1][owner]
    return residual_s - residual_s[first]


@pytest.mark.parametrize("network", ["italian", "random"])
@settings(max_examples=15, deadline=None)
@given(chosen=st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_a_session_depends_on_its_index_only(network, chosen):
    together = simulate_observations(make_spec(), np.array(chosen), network)
    for row, index in enumerate(chosen):
        alone = simulate_observations(make_spec(), np.array([index]), network)
        mine = together.take(np.array([row]))
        for name in (
            "arrival_s",
            "level_db",
            "snr_db",
            "coherence",
            "receiver_latitude",
            "source_longitude",
            "blocked",
        ):
            np.testing.assert_array_equal(getattr(alone, name), getattr(mine, name))
        assert alone.session_id[0] == mine.session_id[0]


def test_seeds_give_other_sessions():
    one, two = (simulate_observations(make_spec(seed=seed), np.arange(50)) for seed in (1, 2))
    assert not np.any(one.source_latitude == two.source_latitude)


def test_without_noise_arrivals_are_ranges_over_the_signal_speed():
    spec = make_spec(clock_bias_s=0.0, clock_jitter_s=0.0, snr_min_db=90.0, snr_max_db=90.0)
    for network in ("italian", "random"):
        residual_s = compute_residuals_s(simulate_observations(spec, np.arange(200), network))
        # The truth here is a sphere's chord: metres at 500 km, so tens of nanoseconds.
        assert np.abs(residual_s).max() < 40e-9


def test_noise_has_the_size_of_the_bound_and_of_the_clock():
    voice = {"voice_fraction": 1.0, "tone_fraction": 0.0}
    spec = make_spec(min_receivers=7, clock_bias_s=0.0, snr_min_db=10.0, snr_max_db=10.0, **voice)
    sessions = simulate_observations(spec, np.arange(4000))
    residual_s = compute_residuals_s(sessions)[np.arange(sessions.offsets[-1]) % 7 != 0]
    expected_s = np.sqrt(2.0) * np.hypot(398e-9, 70e-9)  # science of TDOA: voice, 1 s, 10 dB
    assert residual_s.std() == pytest.approx(expected_s, rel=0.03)
    assert sessions.arrival_sigma_s == pytest.approx(398e-9, rel=0.01)
    assert sessions.timing_sigma_s == pytest.approx(70e-9)


def test_blocked_receivers_are_late_by_the_stated_mean():
    spec = make_spec(
        min_receivers=7, blocked_fraction=0.3, blocked_excess_s=2e-6, clock_bias_s=0.0, clock_jitter_s=0.0,
        snr_min_db=60.0, snr_max_db=60.0,
    )  # fmt: skip
    sessions = simulate_observations(spec, np.arange(3000))
    assert sessions.blocked.mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_array_equal(
        sessions.strata["line_of_sight"], ~np.logical_or.reduceat(sessions.blocked, sessions.offsets[:-1])
    )
    clear_first = ~sessions.blocked[np.repeat(sessions.offsets[:-1], 7)]
    excess_s = compute_residuals_s(sessions)[clear_first & sessions.blocked]
    assert excess_s.min() > -60e-9
    assert excess_s.mean() == pytest.approx(2e-6, rel=0.05)


def test_blocked_receivers_lose_level_and_with_a_link_budget_snr():
    fields = {"blocked_fraction": 0.5, "blocked_loss_db": 15.0}
    for drawn in ({}, {"snr_min_db": None, "snr_max_db": None}):
        clear = simulate_observations(make_spec(blocked_fraction=0.5, **drawn), np.arange(200))
        lossy = simulate_observations(make_spec(**fields, **drawn), np.arange(200))
        assert clear.level_db - lossy.level_db == pytest.approx(15.0 * lossy.blocked)
        assert clear.snr_db - lossy.snr_db == pytest.approx(15.0 * lossy.blocked if drawn else 0.0)


def test_link_budget_decides_without_an_snr_range_and_weak_receivers_have_no_delay():
    spec = make_spec(snr_min_db=None, snr_max_db=None, source_power_dbm=-10.0)
    sessions = simulate_observations(spec, np.arange(500))
    np.testing.assert_array_equal(np.isnan(sessions.arrival_s), sessions.snr_db < -10.0)
    assert np.isnan(sessions.arrival_s).any()
    assert np.isfinite(sessions.level_db).all()
    assert sessions.level_db - sessions.snr_db == pytest.approx(-113.0)


def test_free_running_clocks_carry_no_delay():
    sessions = simulate_observations(make_spec(clock_class="none"), np.arange(20))
    assert np.isnan(sessions.arrival_s).all()
    assert np.isinf(sessions.timing_sigma_s).all()


def test_multipath_delays_only():
    quiet = {"clock_bias_s": 0.0, "clock_jitter_s": 0.0, "snr_min_db": 90.0, "snr_max_db": 90.0}
    clear = simulate_observations(make_spec(**quiet), np.arange(50))
    spread = simulate_observations(make_spec(**quiet, rician_k_db=0.0), np.arange(50))
    late_s = spread.arrival_s - clear.arrival_s
    assert late_s.min() >= 0.0
    assert late_s.mean() == pytest.approx(0.5 * 0.5e-6, rel=0.2)


def test_italian_sessions_use_the_seven_stations_once_each():
    sessions = simulate_observations(make_spec(), np.arange(300))
    assert set(sessions.station_id) == {name for name, *_ in ITALIAN_NETWORK}
    assert sorted(set(sessions.num_receivers)) == [3, 4, 5, 6, 7]
    for session in range(300):
        names = sessions.station_id[sessions.receivers(session)]
        assert len(set(names)) == len(names)
    assert sessions.source_latitude.min() >= 44.395 - 0.3
    assert sessions.source_longitude.max() <= 9.123 + 0.3


def test_a_lone_receiver_has_no_partner_to_be_coherent_with():
    sessions = simulate_observations(make_spec(min_receivers=1, max_receivers=1), np.arange(5))
    assert np.isnan(sessions.coherence).all()


def test_too_many_receivers_and_negative_indices_are_refused():
    with pytest.raises(InvalidSetting, match="max_receivers 8"):
        simulate_observations(make_spec(max_receivers=8), np.arange(2))
    with pytest.raises(InvalidSetting, match="session index -1"):
        simulate_observations(make_spec(), np.array([-1]))
    assert (
        simulate_observations(make_spec(min_receivers=20, max_receivers=20), np.arange(2), "random").offsets[-1] == 40
    )
