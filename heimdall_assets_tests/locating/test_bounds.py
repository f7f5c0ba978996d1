import numpy as np
import pytest

from heimdall_assets.locating.bounds import (
    compute_combined_covariance,
    compute_delay_bound_s,
    compute_delay_information,
    compute_gdop,
    compute_level_covariance,
    compute_level_information,
    compute_position_covariance,
    compute_session_bounds,
)
from heimdall_assets.locating.path_loss import PathLoss
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets_tests.locating.fields import HEXAGON, SQUARE, make_sessions

RECEIVERS = np.array(
    [[-20e3, 5e3, 300.0], [15e3, 25e3, 100.0], [30e3, -20e3, 700.0], [-5e3, -35e3, 0.0], [2e3, 9e3, 50]]
)
AT = np.array([4e3, -3e3])


def compute_ranges(at):
    return np.sqrt(((RECEIVERS[:, :2] - at) ** 2).sum(1) + RECEIVERS[:, 2] ** 2)


def differentiate(function, at, step=0.5):
    return np.stack(
        [(function(at + step * axis) - function(at - step * axis)) / (2 * step) for axis in np.eye(2)], axis=-1
    )


def test_delay_bounds_of_voice_in_one_second_are_the_known_ones():
    bound = compute_delay_bound_s(np.array([0.0, 10.0, 20.0, 30.0]), 12_500.0, 1.0, 800.0)
    np.testing.assert_allclose(bound, [1258e-9, 398e-9, 126e-9, 40e-9], rtol=6e-3)


def test_a_bare_carrier_has_no_delay_and_twice_the_time_halves_the_variance():
    assert np.isinf(compute_delay_bound_s(20.0, 12_500.0, 1.0, 0.0))
    ratio = compute_delay_bound_s(20.0, 12_500.0, 2.0, 800.0) / compute_delay_bound_s(20.0, 12_500.0, 1.0, 800.0)
    assert ratio == pytest.approx(np.sqrt(0.5))


def test_delay_information_is_that_of_correlated_differences_with_a_numerical_jacobian():
    sigma = np.array([50e-9, 80e-9, 100e-9, 200e-9, 70e-9])
    pairs = np.eye(5)[1:] - np.eye(5)[0]
    jacobian = pairs @ differentiate(compute_ranges, AT)
    covariance = pairs @ np.diag((sigma * SIGNAL_SPEED_M_S) ** 2) @ pairs.T
    expected = jacobian.T @ np.linalg.solve(covariance, jacobian)
    np.testing.assert_allclose(compute_delay_information(RECEIVERS, sigma, AT), expected, rtol=1e-6)


def test_level_information_is_that_of_differences_with_a_numerical_jacobian():
    sigma = np.array([6.0, 6.0, 8.0, 5.0, 7.0])
    pairs = np.eye(5)[1:] - np.eye(5)[0]
    jacobian = pairs @ differentiate(lambda at: -10 * 2.7 * np.log10(compute_ranges(at)), AT)
    covariance = pairs @ np.diag(sigma**2) @ pairs.T
    expected = jacobian.T @ np.linalg.solve(covariance, jacobian)
    np.testing.assert_allclose(compute_level_information(RECEIVERS, sigma, AT, 2.7), expected, rtol=1e-6)


def test_in_the_middle_of_a_square_the_bound_is_round_and_as_large_as_one_range():
    covariance = compute_position_covariance(SQUARE, np.full(4, 100e-9), np.zeros(2))
    # Unit vectors at 45 degrees: J = 4 / 2 per axis, so each axis has variance sigma^2 / 2.
    np.testing.assert_allclose(covariance, np.eye(2) * (100e-9 * SIGNAL_SPEED_M_S) ** 2 / 2, rtol=1e-12, atol=1e-9)
    sessions = make_sessions(SQUARE, np.zeros((1, 2)))
    assert compute_gdop(sessions) == pytest.approx(1.0, abs=1e-6)


def test_a_regular_polygon_has_gdop_two_over_root_n():
    assert compute_gdop(make_sessions(HEXAGON, np.zeros((1, 2)))) == pytest.approx(2 / np.sqrt(6), abs=1e-6)


def test_an_absent_receiver_is_as_good_as_none():
    with_absent = compute_position_covariance(RECEIVERS, np.array([1e-7, 1e-7, np.inf, 1e-7, 1e-7]), AT)
    without = compute_position_covariance(np.delete(RECEIVERS, 2, axis=0), np.full(4, 1e-7), AT)
    np.testing.assert_allclose(with_absent, without, rtol=1e-12)


def test_two_receivers_or_one_line_through_the_source_leave_a_direction_open():
    two = compute_position_covariance(RECEIVERS[:2], np.full(2, 1e-7), AT)
    line = compute_position_covariance(np.array([[-10e3, 0.0], [10e3, 0.0], [30e3, 0.0]]), np.full(3, 1e-7), [50e3, 0])
    none = compute_position_covariance(RECEIVERS, np.full(5, np.inf), AT)
    for covariance in (two, line, none):
        assert np.isinf(np.diag(covariance)).all()
        assert covariance[0, 1] == 0.0


def test_a_source_at_a_receiver_has_a_finite_bound():
    covariance = compute_position_covariance(SQUARE, np.full(4, 1e-7), SQUARE[0])
    assert np.isfinite(covariance).all()


def test_levels_and_delays_together_are_better_than_either():
    sigma_s, sigma_db = np.full(5, 2e-5), np.full(5, 6.0)
    both = compute_combined_covariance(RECEIVERS, sigma_s, sigma_db, AT, 3.0)
    for single in (
        compute_position_covariance(RECEIVERS, sigma_s, AT),
        compute_level_covariance(RECEIVERS, sigma_db, AT, 3.0),
    ):
        assert (np.linalg.eigvalsh(single - both) > 0).all()


def test_session_bounds_agree_with_the_planar_formula_and_know_what_they_do_not_know():
    sources = np.array([[0.0, 0.0], [10e3, -20e3], [5e3, 5e3]])
    sessions = make_sessions(SQUARE, sources, sigma_s=80e-9, timing_sigma_s=60e-9)
    sessions.source_latitude[2] = np.nan
    covariance, rms = compute_session_bounds(sessions)
    for i in range(2):
        plane = compute_position_covariance(SQUARE, np.full(4, 100e-9), sources[i])
        # Frames differ in where north points by what meridians converge over 20 km.
        np.testing.assert_allclose(covariance[i], [plane[0, 0], plane[1, 1], plane[0, 1]], rtol=1e-3, atol=2.0)
        assert rms[i] == pytest.approx(np.sqrt(np.trace(plane)), rel=1e-4)
    assert np.isnan(covariance[2]).all()
    assert np.isnan(rms[2])
    assert np.isnan(compute_gdop(sessions)[2])


def test_sessions_without_delays_are_bounded_by_levels_alone():
    sessions = make_sessions(SQUARE, np.array([[3e3, 1e3]]), arrival_s=np.full(4, np.nan))
    assert np.isinf(compute_session_bounds(sessions)[1])
    assert np.isinf(compute_gdop(sessions))
    plane = compute_level_covariance(SQUARE, np.full(4, 6.6), [3e3, 1e3], 3.0)
    assert compute_session_bounds(sessions, PathLoss())[1] == pytest.approx(np.sqrt(np.trace(plane)), rel=1e-3)
