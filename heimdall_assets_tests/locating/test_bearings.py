"""Bearings: their bound in closed form, positions with honest ellipses, and mistakes by half a turn."""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.errors import CannotLocate, InvalidSetting
from heimdall_assets.locating.arrays import pad_sessions
from heimdall_assets.locating.bearings import cross_bearings, state_bearings
from heimdall_assets.locating.bounds import (
    compute_bearing_information,
    compute_position_covariance,
    compute_session_bounds,
    invert_information,
)
from heimdall_assets.locating.classical import locate_session
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import LocalFrame, compute_azimuth_deg
from heimdall_assets.simulation.bearings import add_bearings
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.locating.fields import (
    HEXAGON,
    SQUARE,
    compute_coverage,
    compute_errors_m,
    make_sessions,
)
from heimdall_assets_tests.permuted import shuffle_receivers
from heimdall_assets_tests.variation import assert_above, assert_below, make_rng, shift_seed

MODES = ("ignored", "alone", "joined")


def simulate(num: int, seed: int, **said: float) -> SessionSet:
    spec = SimulationSpec(seed=shift_seed(seed), min_receivers=4, snr_min_db=5.0, snr_max_db=30.0)
    return add_bearings(simulate_observations(spec, np.arange(num), "random"), shift_seed(seed), **said)


def drop(sessions: SessionSet, *names: str) -> SessionSet:
    return replace(sessions, **{name: np.full_like(getattr(sessions, name), np.nan) for name in names})


def test_a_bearing_tells_its_sigma_times_distance_across_and_nothing_along():
    azimuth, distance, sigma = np.radians(130.0), 25e3, np.radians(3.0)
    out = np.array([np.sin(azimuth), np.cos(azimuth)])
    information = compute_bearing_information(np.zeros((1, 2)), np.array([sigma]), distance * out)
    across = np.array([out[1], -out[0]])
    np.testing.assert_allclose(information, np.outer(across, across) / (distance * sigma) ** 2, rtol=1e-12, atol=1e-20)


def test_two_bearings_that_cross_squarely_make_an_ellipse_with_their_own_axes():
    receivers = np.array([[-20e3, 0.0], [0.0, -50e3]])
    found = invert_information(compute_bearing_information(receivers, np.radians([2.0, 5.0]), np.zeros(2)))
    expected = [(50e3 * np.radians(5.0)) ** 2, (20e3 * np.radians(2.0)) ** 2]
    np.testing.assert_allclose(found, np.diag(expected), rtol=1e-12, atol=1e-6)


def test_the_information_is_that_of_a_numerical_jacobian():
    at = np.array([4e3, -3e3])
    azimuth = lambda place: np.arctan2(*(place - HEXAGON).T)  # noqa: E731
    steps = 0.5 * np.eye(2)
    jacobian = np.stack([azimuth(at + step) - azimuth(at - step) for step in steps], axis=-1)
    sigma = np.radians(np.linspace(1.0, 6.0, 6))
    expected = jacobian.T @ np.diag(1.0 / sigma**2) @ jacobian
    np.testing.assert_allclose(compute_bearing_information(HEXAGON, sigma, at), expected, rtol=1e-6)


def test_the_bound_of_a_session_joins_arrivals_and_bearings():
    sessions = make_sessions(SQUARE, np.array([[5e3, -9e3]]))
    joined = replace(sessions, bearing_deg=np.zeros(4), bearing_sigma_deg=np.array([2.0, np.nan, 5.0, 3.0]))
    covariance, _ = compute_session_bounds(joined)
    alone, _ = compute_session_bounds(drop(joined, "arrival_s"))
    delays, _ = compute_session_bounds(sessions)

    def to_information(columns: np.ndarray) -> np.ndarray:
        see, snn, sen = columns[0]
        return np.linalg.inv(np.array([[see, sen], [sen, snn]]))

    np.testing.assert_allclose(to_information(covariance), to_information(alone) + to_information(delays), rtol=1e-9)
    assert compute_position_covariance(SQUARE, np.full(4, np.inf), np.zeros(2))[0, 0] == np.inf


@pytest.mark.parametrize("centre", [(45.0, 8.0), (70.0, 179.9), (-55.0, -70.0)])
def test_true_azimuths_cross_where_the_source_is(centre):
    """Meridians converge by degrees there; a plane's straight lines would miss by kilometres."""
    sources = np.array([[60e3, 80e3], [-150e3, 20e3]])
    sessions = add_bearings(make_sessions(SQUARE, sources, centre=centre), 1, sigma_min_deg=1e-3, sigma_max_deg=1e-3)
    row = np.repeat(np.arange(2), 4)
    true_deg = compute_azimuth_deg(
        sessions.receiver_latitude, sessions.receiver_longitude,
        sessions.source_latitude[row], sessions.source_longitude[row],
    )  # fmt: skip
    found = locate_by_delays(replace(sessions, bearing_deg=true_deg), robust=True, bearings="alone")
    assert compute_errors_m(sessions, found).max() < 1.0


@pytest.mark.parametrize("mode", MODES)
def test_nine_of_ten_ellipses_hold_the_source_and_errors_are_near_the_bound(mode):
    sessions = simulate(400, 31, sigma_min_deg=2.0, sigma_max_deg=12.0)
    found = locate_by_delays(sessions, robust=True, bearings=mode)
    assert not found.refused.any()
    coverage = compute_coverage(sessions, found)
    assert_above(coverage, 0.85, f"coverage, bearings {mode}")
    assert_below(coverage, 0.95, f"coverage, bearings {mode}")
    bounded = drop(sessions, "bearing_deg") if mode == "ignored" else sessions
    bounded = drop(sessions, "arrival_s") if mode == "alone" else bounded
    _, bound_m = compute_session_bounds(bounded)
    # The bound is a root mean square, of which a Gaussian's median is 0.83 in one dimension and 0.67 in another.
    assert_below(np.median(compute_errors_m(sessions, found) / bound_m), 1.1, f"error over bound, bearings {mode}")


def test_bearings_make_arrivals_of_poor_geometry_better():
    sessions = simulate(300, 32, sigma_min_deg=1.0, sigma_max_deg=3.0)
    errors = {
        mode: np.quantile(compute_errors_m(sessions, locate_by_delays(sessions, robust=True, bearings=mode)), 0.95)
        for mode in MODES
    }
    assert errors["joined"] < 0.7 * errors["ignored"]
    assert errors["joined"] < errors["alone"]


def test_a_bearing_that_is_wrong_by_half_a_turn_is_an_outlier():
    sessions = add_bearings(make_sessions(HEXAGON, np.tile([[9e3, -14e3]], (200, 1))), shift_seed(4))
    wrong = np.where(np.arange(1200) % 6 == 2, (sessions.bearing_deg + 180.0) % 360.0, sessions.bearing_deg)
    clean = compute_errors_m(sessions, locate_by_delays(sessions, robust=True, bearings="alone"))
    spoiled = replace(sessions, bearing_deg=wrong)
    found = locate_by_delays(spoiled, robust=True, bearings="alone")
    assert np.median(compute_errors_m(sessions, found)) < 2.0 * np.median(clean)
    assert compute_coverage(spoiled, found) > 0.85


@pytest.mark.parametrize("mode", ["alone", "joined"])
def test_the_order_of_receivers_changes_nothing(mode):
    sessions = simulate(40, 33)
    rng = make_rng(5)
    order = shuffle_receivers(sessions, rng)
    one, other = (locate_by_delays(each, robust=True, bearings=mode) for each in (sessions, order))
    np.testing.assert_array_equal(one.latitude, other.latitude)
    np.testing.assert_array_equal(one.covariance_m2, other.covariance_m2)


def test_two_arrivals_and_a_bearing_are_enough_and_two_bearings_at_one_point_are_not():
    sessions = simulate(30, 34)
    session = np.repeat(np.arange(30), sessions.num_receivers)
    place = np.arange(len(session)) - sessions.offsets[:-1][session]
    few = replace(
        sessions,
        arrival_s=np.where(place < 2, sessions.arrival_s, np.nan),
        bearing_deg=np.where(place == 2, sessions.bearing_deg, np.nan),
    )
    assert not locate_by_delays(few, robust=True, bearings="joined").refused.any()
    assert locate_by_delays(few, robust=True, bearings="alone").refused.all()
    assert locate_by_delays(few, robust=True).refused.all()
    together = make_sessions(np.zeros((2, 2)), np.array([[9e3, 9e3]]))
    together = replace(together, bearing_deg=np.array([45.0, 45.0]), bearing_sigma_deg=np.array([2.0, 2.0]))
    assert locate_by_delays(together, robust=True, bearings="alone").refused.all()


def test_the_estimator_is_chosen_by_what_there_is():
    sessions = simulate(1, 35)
    without_levels = drop(sessions, "level_db")
    assert locate_session(without_levels, 0).method == "arrivals_and_bearings"
    assert locate_session(drop(without_levels, "arrival_s"), 0).method == "bearings"
    assert locate_session(drop(without_levels, "bearing_deg"), 0).method == "tdoa_robust"
    broken = replace(sessions, arrival_s=np.arange(len(sessions.arrival_s)) * 1e-2)
    assert locate_session(broken, 0).method == "bearings"
    lonely = drop(without_levels, "arrival_s")
    lonely.bearing_deg[1:] = np.nan
    with pytest.raises(CannotLocate, match=r"0 usable delays, 1 bearings and no finite level; expected at least 3"):
        locate_session(lonely, 0)


def test_lines_cross_in_either_direction_and_parallel_ones_do_not():
    sessions = make_sessions(np.array([[0.0, 0.0], [1e3, 0.0]]), np.array([[500.0, 500.0]]))
    frame = LocalFrame(sessions.source_latitude[:, None], sessions.source_longitude[:, None])
    for bearings, is_real in (((45.0, 315.0), True), ((225.0, 315.0), True), ((0.0, 0.0), False)):
        padded = pad_sessions(replace(sessions, bearing_deg=np.array(bearings), bearing_sigma_deg=np.ones(2)))
        rows = state_bearings(padded, frame)
        east, north, _ = frame.to_local(padded.latitude, padded.longitude)
        points, real = cross_bearings(rows, east, north)
        assert real.tolist() == [[is_real]]
        if is_real:
            assert np.abs(points).max() < 0.1


def test_simulated_bearings_are_as_wrong_as_they_say_and_each_of_its_own():
    sessions = simulate(300, 36, sigma_min_deg=1.0, sigma_max_deg=9.0, reversed_fraction=0.0)
    row = np.repeat(np.arange(300), sessions.num_receivers)
    true_deg = compute_azimuth_deg(
        sessions.receiver_latitude, sessions.receiver_longitude,
        sessions.source_latitude[row], sessions.source_longitude[row],
    )  # fmt: skip
    z = ((sessions.bearing_deg - true_deg + 180.0) % 360.0 - 180.0) / sessions.bearing_sigma_deg
    assert z.std() == pytest.approx(1.0, abs=0.05)
    alone = add_bearings(sessions.take(np.array([7])), shift_seed(36), sigma_min_deg=1.0, sigma_max_deg=9.0)
    np.testing.assert_array_equal(alone.bearing_deg, sessions.take(np.array([7])).bearing_deg)
    turned = simulate(300, 36, sigma_min_deg=1.0, sigma_max_deg=9.0, reversed_fraction=0.25)
    away = np.abs((turned.bearing_deg - true_deg + 180.0) % 360.0 - 180.0)
    assert (away > 90.0).mean() == pytest.approx(0.25, abs=0.04)
    with pytest.raises(InvalidSetting, match="sigmas of bearings 0 to 5 deg: expected above 0"):
        simulate(1, 36, sigma_min_deg=0.0, sigma_max_deg=5.0)
    with pytest.raises(InvalidSetting, match=r"reversed_fraction 1\.5: expected 0 to 1"):
        simulate(1, 36, reversed_fraction=1.5)
