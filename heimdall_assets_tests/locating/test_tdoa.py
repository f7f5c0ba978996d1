from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.locating.bounds import compute_session_bounds
from heimdall_assets.locating.hyperbola import intersect_hyperbolas
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_distance_m, compute_range_m
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.locating.fields import HEXAGON, SQUARE, compute_coverage, compute_errors_m, make_sessions
from heimdall_assets_tests.permuted import shuffle_receivers
from heimdall_assets_tests.variation import assert_above, assert_below, make_rng, shift_seed

BOTH = pytest.mark.parametrize("robust", [False, True], ids=["plain", "robust"])


def scatter(num, half_m=60e3, seed=1):
    return make_rng(seed).uniform(-half_m, half_m, (num, 2))


def simulate(num=3000, first=0, **fields) -> SessionSet:
    spec = {"seed": shift_seed(42), "min_receivers": 3, "snr_min_db": 10.0, "snr_max_db": 30.0} | fields
    return simulate_observations(SimulationSpec.model_validate(spec), np.arange(first, first + num))


def simulate_networks(num, **fields) -> list[SessionSet]:
    """Sessions of eight networks: what a station's clock is off stays, so sessions of one network err together."""
    return [simulate(num, seed=shift_seed(42) + network, **fields) for network in range(8)]


@BOTH
def test_without_noise_the_source_is_found_to_a_centimetre(robust):
    sessions = make_sessions(HEXAGON, scatter(200), sigma_s=1e-12)
    found = locate_by_delays(sessions, robust=robust)
    assert compute_errors_m(sessions, found).max() < 0.01
    assert not found.refused.any()


@BOTH
def test_errors_reach_the_bound_and_ellipses_hold_what_they_promise_on_line_of_sight(robust):
    squares, covered = [], []
    for sessions in simulate_networks(600, min_receivers=5):
        _, bound = compute_session_bounds(sessions)
        found = locate_by_delays(sessions, robust=robust)
        squares.append((compute_errors_m(sessions, found) / bound) ** 2)
        covered.append(compute_coverage(sessions, found))
    squares = np.concatenate(squares)
    # One session in some thousands is taken for another place, tens of bounds away: counted, not averaged.
    astray = squares > 10.0**2
    assert_below(np.mean(astray), 0.003, "share more than ten bounds away")
    ratio = np.sqrt(np.mean(squares[~astray]))
    assert_above(ratio, 0.95, "error over bound, from below")
    assert_below(ratio, 1.15, "error over bound")
    assert_below(abs(np.mean(covered) - 0.90), 0.03, "coverage, off 0.90")


@BOTH
def test_one_geometry_scatters_as_the_bound_says(robust):
    sources = np.tile([[12e3, -25e3]], (2000, 1))
    sessions = make_sessions(HEXAGON, sources, sigma_s=80e-9, timing_sigma_s=60e-9)
    _, bound = compute_session_bounds(sessions)
    errors = compute_errors_m(sessions, locate_by_delays(sessions, robust=robust))
    assert_below(abs(np.sqrt(np.mean(errors**2)) / bound[0] - 1.05), 0.10, "error over bound, off 1.05")


@BOTH
def test_three_receivers_and_noise_alone_keep_the_promise_of_the_ellipse(robust):
    networks = simulate_networks(400, max_receivers=3)
    coverage = np.mean([compute_coverage(one, locate_by_delays(one, robust=robust)) for one in networks])
    assert_above(coverage, 0.80, "coverage, from below")
    assert_below(coverage, 0.95, "coverage")


def make_ambiguous(**columns):
    """Return sessions of three receivers whose delays fit a second place, 3 to 60 km away from the source."""
    receivers = np.array([[0.0, 0.0], [20e3, 3e3], [-5e3, 25e3]])
    sources = scatter(5000, 50e3)
    distance = np.hypot(*(sources[:, None] - receivers).transpose(2, 0, 1))
    places, real = intersect_hyperbolas(
        *(np.tile(axis, (5000, 1)) for axis in receivers.T), np.zeros((5000, 3)), distance
    )
    apart = np.hypot(*(places[:, 0] - places[:, 1]).T)
    chosen = real.all(axis=1) & (apart > 3e3) & (apart < 60e3)
    return make_sessions(receivers, sources[chosen], sigma_s=20e-9, **columns), apart[chosen]


@BOTH
def test_the_other_of_two_solutions_is_within_the_covariance(robust):
    sessions, apart = make_ambiguous()
    assert len(sessions) > 20
    silent = replace(sessions, level_db=np.full(3 * len(sessions), np.nan))
    found = locate_by_delays(silent, robust=robust)
    errors = compute_errors_m(silent, found)
    wrong = errors > 0.5 * apart
    assert wrong.any()
    assert_below(np.mean(wrong), 0.6, "share at the other place")  # nothing but the area tells them apart
    sigma = np.sqrt(found.covariance_m2[:, :2].sum(axis=1))
    assert_above(np.mean(errors[wrong] < 3.0 * sigma[wrong]), 0.8, "within three sigmas")


@BOTH
def test_levels_choose_between_two_solutions(robust):
    sessions, apart = make_ambiguous()
    silent = replace(sessions, level_db=np.full(3 * len(sessions), np.nan))
    receivers = np.array([[0.0, 0.0], [20e3, 3e3], [-5e3, 25e3]])
    reference = make_sessions(receivers, scatter(100, 50e3, seed=9), shadowing_db=1.0)
    wrong, guessed = (
        np.sum(compute_errors_m(s, locate_by_delays(s, reference, robust=robust)) > 0.5 * apart)
        for s in (sessions, silent)
    )
    assert_below(wrong / guessed, 0.5, "wrong with levels over wrong without")


@BOTH
def test_the_order_of_receivers_and_of_sessions_changes_nothing(robust):
    sessions = simulate(300)
    found = locate_by_delays(sessions, robust=robust)
    other = locate_by_delays(shuffle_receivers(sessions, make_rng(0)), robust=robust)
    np.testing.assert_array_equal(other.latitude, found.latitude)
    np.testing.assert_array_equal(other.covariance_m2, found.covariance_m2)
    turned = locate_by_delays(sessions.take(np.arange(300)[::-1]), robust=robust)
    np.testing.assert_allclose(turned.latitude[::-1], found.latitude, atol=1e-9)


@BOTH
def test_turning_the_earth_and_setting_all_clocks_turns_the_answer(robust):
    sessions = simulate(200)
    turned = replace(
        sessions,
        receiver_longitude=(sessions.receiver_longitude + 172.0 + 180.0) % 360.0 - 180.0,
        arrival_s=sessions.arrival_s + 3.5,
    )
    found, other = locate_by_delays(sessions, robust=robust), locate_by_delays(turned, robust=robust)
    back = (other.longitude - 172.0 + 180.0) % 360.0 - 180.0
    sigma = np.sqrt(found.covariance_m2[:, :2].sum(axis=1))
    assert (compute_distance_m(found.latitude, found.longitude, other.latitude, back) < 0.02 * sigma + 0.01).all()


def test_few_blocked_receivers_hurt_the_robust_estimate_less():
    sessions = make_sessions(HEXAGON, scatter(3000, 30e3))
    late = sessions.arrival_s.reshape(3000, 6).copy()
    late[:, 2] += 3e-6
    sessions = replace(sessions, arrival_s=late.ravel(), blocked=np.tile(np.arange(6) == 2, 3000))
    plain, robust = (np.median(compute_errors_m(sessions, locate_by_delays(sessions, robust=r))) for r in (False, True))
    oracle = np.median(compute_errors_m(sessions, locate_by_delays(sessions, robust=False, blocked="dropped")))
    weighted = np.median(compute_errors_m(sessions, locate_by_delays(sessions, robust=False, blocked="weighted")))
    assert_below(robust / plain, 0.25, "robust over plain")
    assert_below(oracle / robust, 1.0, "oracle over robust")
    assert_below(weighted / oracle, 1.5, "weighted over oracle")


def test_residuals_beyond_the_stated_sigmas_make_the_ellipse_larger():
    sources = scatter(300, 30e3)
    sessions = make_sessions(HEXAGON, sources, sigma_s=2e-6)
    believed = replace(sessions, arrival_sigma_s=np.full_like(sessions.arrival_sigma_s, 20e-9))
    found = locate_by_delays(believed, robust=False)
    # 0.0 if the stated sigmas were believed
    assert_above(compute_coverage(believed, found), 0.75, "coverage")


def test_delays_that_no_position_explains_give_no_confident_position():
    sessions = make_sessions(SQUARE, np.zeros((50, 2)))
    rng = make_rng(0)
    sessions = replace(sessions, arrival_s=rng.normal(0, 10e-3, 200))
    for robust in (False, True):
        found = locate_by_delays(sessions, robust=robust)
        major = np.sqrt(found.covariance_m2[:, :2].sum(axis=1))
        assert np.isfinite(found.covariance_m2).all()
        assert np.median(major) > 30e3


def test_a_reference_teaches_how_large_errors_really_are():
    fields = {"blocked_fraction": 0.3, "blocked_excess_s": 2e-6, "snr_min_db": 5.0}
    sessions, reference = simulate(2500, **fields), simulate(2500, first=10_000, **fields)
    for robust in (False, True):
        alone = compute_coverage(sessions, locate_by_delays(sessions, robust=robust))
        taught = compute_coverage(sessions, locate_by_delays(sessions, reference, robust=robust))
        kind = "robust" if robust else "plain"
        assert_below(alone, 0.80, f"{kind} coverage alone")
        assert_below(abs(taught - 0.90), 0.04, f"{kind} coverage taught, off 0.90")


def test_receivers_on_one_line_leave_two_sides_and_say_so():
    line = np.stack([np.linspace(-40e3, 40e3, 5), np.zeros(5)], axis=1)
    sources = np.array([[5e3, 20e3], [5e3, -20e3], [-10e3, 35e3], [-10e3, -35e3]])
    sessions = make_sessions(line, sources, sigma_s=30e-9, level_db=np.full(20, np.nan))
    found = locate_by_delays(sessions, robust=True)
    # The mirror images are 40 and 70 km apart; across the line the covariance reaches from one to the other.
    across = np.sqrt(found.covariance_m2[:, 1])
    assert (across > 0.45 * np.array([40e3, 40e3, 70e3, 70e3])).all()
    assert (np.sqrt(found.covariance_m2[:, 0]) < 1e3).all()


def test_a_source_far_outside_has_a_long_ellipse_along_the_line_of_sight():
    sessions = make_sessions(SQUARE, np.tile([[0.0, 300e3]], (200, 1)), sigma_s=100e-9)
    found = locate_by_delays(sessions, robust=False)
    assert (found.covariance_m2[:, 1] > 10 * found.covariance_m2[:, 0]).all()


def test_long_waves_over_a_continent_are_located_along_the_ground():
    receivers = np.array([[-400e3, -300e3], [450e3, -200e3], [50e3, 450e3], [-200e3, 300e3]])
    sources = scatter(20, 200e3)
    sessions = make_sessions(receivers, sources, sigma_s=1e-12, frequency_hz=77_500.0, centre=(50.0, 9.0))
    assert compute_errors_m(sessions, locate_by_delays(sessions, robust=False)).max() < 0.1
    short = replace(sessions, frequency_hz=np.full(80, 145e6))
    assert compute_errors_m(short, locate_by_delays(short, robust=False)).max() > 20.0


def test_altitude_of_receivers_and_source_counts():
    receivers = SQUARE / 6
    sessions = make_sessions(receivers, scatter(20, 4e3), sigma_s=1e-12)
    altitude = np.tile([0.0, 400.0, 900.0, 1500.0], 20)
    row = np.repeat(np.arange(20), 4)
    distance = compute_range_m(
        sessions.source_latitude[row],
        sessions.source_longitude[row],
        200.0,
        sessions.receiver_latitude,
        sessions.receiver_longitude,
        altitude,
    )
    sessions = replace(sessions, receiver_altitude_m=altitude, arrival_s=distance / SIGNAL_SPEED_M_S)
    assert compute_errors_m(sessions, locate_by_delays(sessions, robust=False, source_altitude_m=200.0)).max() < 0.1
    assert compute_errors_m(sessions, locate_by_delays(sessions, robust=False)).max() > 5.0


def test_sessions_with_too_few_or_untimed_or_identical_receivers_are_refused_and_the_others_are_not():
    sessions = make_sessions(HEXAGON, scatter(5, 20e3))
    clock = sessions.timing_sigma_s.reshape(5, 6).copy()
    arrival = sessions.arrival_s.reshape(5, 6).copy()
    latitude, longitude = (x.reshape(5, 6).copy() for x in (sessions.receiver_latitude, sessions.receiver_longitude))
    clock[0] = np.inf
    arrival[1, 2:] = np.nan
    latitude[2], longitude[2] = 45.0, 8.0
    arrival[3, :3] = np.nan
    sessions = replace(
        sessions,
        timing_sigma_s=clock.ravel(),
        arrival_s=arrival.ravel(),
        receiver_latitude=latitude.ravel(),
        receiver_longitude=longitude.ravel(),
    )
    found = locate_by_delays(sessions, robust=True)
    assert found.refused.tolist() == [True, True, True, False, False]
    assert np.isnan(found.covariance_m2[found.refused]).all()
    assert np.isfinite(found.covariance_m2[~found.refused]).all()


def test_no_sessions_give_no_positions():
    sessions = make_sessions(HEXAGON, scatter(3)).take(np.array([], dtype=np.int64))
    assert len(locate_by_delays(sessions, robust=True).latitude) == 0


def test_sixty_four_receivers_are_as_good_as_their_bound():
    receivers = scatter(64, 80e3, seed=3)
    sessions = make_sessions(receivers, scatter(500, 60e3, seed=4))
    _, bound = compute_session_bounds(sessions)
    ratio = compute_errors_m(sessions, locate_by_delays(sessions, robust=True)) / bound
    assert_below(np.sqrt(np.mean(ratio**2)), 1.2, "error over bound")
