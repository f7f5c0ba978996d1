from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import CannotLocate, InvalidInput, InvalidSetting
from heimdall_assets.locating.classical import ESTIMATORS, ORACLES, locate_session
from heimdall_assets.physical import Estimate
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.simulation.bearings import add_bearings
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.locating.fields import HEXAGON, SQUARE, make_sessions
from heimdall_assets_tests.permuted import shuffle_receivers
from heimdall_assets_tests.variation import make_rng, shift_seed

ALL = {**ESTIMATORS, **ORACLES}


def make_one(num_receivers=6, **columns) -> SessionSet:
    return make_sessions(HEXAGON[:num_receivers], np.array([[4e3, -9e3]]), **columns)


def measure_error_m(sessions, estimate: Estimate) -> float:
    return float(
        compute_distance_m(
            sessions.source_latitude[0], sessions.source_longitude[0], estimate.latitude, estimate.longitude
        )
    )


@pytest.mark.parametrize("name", ALL)
def test_every_estimator_answers_row_by_row(name):
    sessions = make_sessions(SQUARE, make_rng(0).uniform(-20e3, 20e3, (7, 2)))
    found = ALL[name](sessions, None)
    assert found.latitude.shape == found.longitude.shape == found.refused.shape == (7,)
    assert found.covariance_m2.shape == (7, 3)
    assert found.method
    one = ALL[name](sessions.take(np.array([3])), None)
    np.testing.assert_allclose(one.latitude[0], found.latitude[3], atol=1e-9)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("taught", [False, True])
def test_the_order_of_receivers_changes_no_bit_of_any_estimate(name, taught):
    spec = SimulationSpec(seed=shift_seed(42), min_receivers=3, max_receivers=7, blocked_fraction=0.2)
    sessions, reference = (simulate_observations(spec, np.arange(first, first + 60)) for first in (0, 1000))
    rng = make_rng(0)
    found, other = (
        ALL[name](one, known if taught else None)
        for one, known in (
            (sessions, reference),
            (shuffle_receivers(sessions, rng), shuffle_receivers(reference, rng)),
        )
    )
    for column in ("latitude", "longitude", "covariance_m2"):
        np.testing.assert_array_equal(getattr(other, column), getattr(found, column))


def test_auto_takes_delays_before_levels_before_the_strongest():
    sessions = make_one()
    none = np.full(6, np.nan)
    assert locate_session(sessions, 0).method == "tdoa_robust"
    assert locate_session(replace(sessions, arrival_s=none), 0).method == "log_distance"
    assert locate_session(replace(sessions, timing_sigma_s=np.full(6, np.inf)), 0).method == "log_distance"
    two = np.where(np.arange(6) < 2, sessions.level_db, np.nan)
    estimate = locate_session(replace(sessions, arrival_s=none, level_db=two), 0)
    assert estimate.method == "strongest_receiver"
    assert estimate.ellipse().semi_minor_m > 40e3


def test_clocks_too_poor_for_delays_leave_it_to_the_levels():
    sessions = make_one(timing_sigma_s=10e-3)
    estimate = locate_session(sessions, 0)
    assert estimate.method == "log_distance"
    assert measure_error_m(sessions, estimate) < estimate.ellipse().semi_major_m


def test_delays_that_no_position_explains_leave_it_to_the_levels():
    sessions = make_one(arrival_s=np.array([0.0, 1e-2, -1e-2, 3e-2, 0.0, -2e-2]))
    estimate = locate_session(sessions, 0)
    assert estimate.method == "log_distance"
    assert measure_error_m(sessions, estimate) < estimate.ellipse().semi_major_m


def test_a_method_asked_for_is_the_one_used():
    sessions = add_bearings(make_one(), seed=1)
    for name in ESTIMATORS:
        assert locate_session(sessions, 0, name).method == name


def test_one_receiver_with_a_level_gives_its_surroundings():
    sessions = make_one(1)
    estimate = locate_session(sessions, 0)
    assert estimate.method == "strongest_receiver"
    assert estimate.ellipse().semi_minor_m > 100e3
    assert measure_error_m(sessions, estimate) < estimate.ellipse().semi_minor_m


def test_a_session_without_receivers_is_refused_with_its_name():
    sessions = make_one()
    columns = {k: v[:0] for k, v in vars(sessions).items() if isinstance(v, np.ndarray) and len(v) == 6}
    with pytest.raises(CannotLocate, match="session session-0: found no receiver at a known position"):
        locate_session(replace(sessions, offsets=np.array([0, 0]), **columns), 0)
    with pytest.raises(CannotLocate, match="no receiver at a known position"):
        locate_session(replace(sessions, receiver_latitude=np.full(6, np.nan)), 0)


def test_receivers_at_one_point_are_refused():
    with pytest.raises(CannotLocate, match="all 6 receivers stand at one point"):
        locate_session(make_sessions(np.full((6, 2), 7e3), np.array([[0.0, 0.0]])), 0)


def test_neither_delays_nor_levels_is_refused_with_counts():
    none = np.full(6, np.nan)
    with pytest.raises(CannotLocate, match="6 receivers with 0 usable delays and no finite level"):
        locate_session(make_one(arrival_s=none, level_db=np.full(6, -np.inf)), 0)
    with pytest.raises(CannotLocate, match="with 2 usable delays"):
        locate_session(make_one(level_db=none, arrival_s=np.array([0.0, 1e-5, *none[2:]])), 0)


def test_a_method_that_lacks_its_data_is_refused_with_what_there_was():
    sessions = make_one(arrival_s=np.full(6, np.nan))
    with pytest.raises(CannotLocate, match="tdoa_robust cannot locate it from 0 timed arrivals and 6 finite levels"):
        locate_session(sessions, 0, "tdoa_robust")
    level = np.full(6, -np.inf)
    level[:2] = -60.0
    with pytest.raises(CannotLocate, match=r"2 finite levels \(4 infinite levels ignored\)"):
        locate_session(replace(sessions, level_db=level), 0, "log_distance")


def test_an_unknown_method_or_index_is_refused():
    with pytest.raises(InvalidSetting, match="method 'magic': expected auto, prior_centre"):
        locate_session(make_one(), 0, "magic")
    for index in (-1, 1):
        with pytest.raises(InvalidInput, match=f"session index {index}: expected 0 to 0"):
            locate_session(make_one(), index)


def test_collinear_receivers_get_an_ellipse_that_holds_the_truth():
    line = np.stack([np.linspace(-30e3, 30e3, 4), np.zeros(4)], axis=1)
    for north in (25e3, -25e3):
        sessions = make_sessions(line, np.array([[2e3, north]]), level_db=np.full(4, np.nan))
        estimate = locate_session(sessions, 0)
        ellipse = estimate.ellipse()
        assert ellipse.semi_major_m > measure_error_m(sessions, estimate)
        assert ellipse.semi_major_m > 25e3
        assert ellipse.azimuth_deg < 5 or ellipse.azimuth_deg > 175


point = st.tuples(st.floats(-60e3, 60e3), st.floats(-60e3, 60e3))
odd = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -101.0, 1e3, -1e9, 1e-300])
layouts = st.one_of(
    st.lists(point, min_size=1, max_size=8),
    st.tuples(point, st.integers(1, 6)).map(lambda pair: [pair[0]] * pair[1]),
    st.tuples(st.floats(0, 6.3), st.lists(st.floats(-60e3, 60e3), min_size=2, max_size=6)).map(
        lambda pair: [(s * np.cos(pair[0]), s * np.sin(pair[0])) for s in pair[1]]
    ),
)


@settings(max_examples=40, deadline=None)
@given(layouts, st.data())
def test_no_geometry_and_no_number_gives_nan_or_a_warning(layout, data):
    receivers = np.array(layout, dtype=float).reshape(-1, 2)
    num = len(receivers)
    sessions = make_sessions(receivers, np.array([data.draw(point)]), sigma_s=1e-7, timing_sigma_s=3e-8)
    for name in ("arrival_s", "arrival_sigma_s", "timing_sigma_s", "level_db", "receiver_altitude_m"):
        values = getattr(sessions, name).copy()
        if data.draw(st.booleans()):
            values[data.draw(st.integers(0, num - 1))] = data.draw(odd)
        sessions = replace(sessions, **{name: values})
    for estimator in ALL.values():
        found = estimator(sessions, None)
        values = np.concatenate([found.latitude, found.longitude, found.covariance_m2[0]])
        assert found.refused[0] == np.isnan(values).any()
        if not found.refused[0]:
            assert np.isfinite(values).all()
            east, north, both = found.covariance_m2[0]
            assert east > 0
            assert north > 0
            assert east * north >= both**2
    reason = None
    try:
        estimate = locate_session(sessions, 0)
    except CannotLocate as error:
        reason = str(error)
    if reason is None:
        assert np.isfinite([estimate.latitude, estimate.longitude, estimate.ellipse().semi_major_m]).all()
    else:
        assert reason.startswith("session session-0: ")
        assert "\n" not in reason
