from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.locating.area import OWN_SITES, RADIO_HORIZON_M, compute_area, compute_own_area, find_elsewhere
from heimdall_assets.locating.arrays import pad_sessions
from heimdall_assets.locating.classical import ESTIMATORS
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.simulation.bearings import add_bearings
from heimdall_assets_tests.locating.fields import HEXAGON, compute_coverage, make_sessions
from heimdall_assets_tests.variation import assert_above, assert_below, make_rng, shift_seed

SOURCES = make_rng(2).normal(0, 10e3, (300, 2))


def test_the_area_of_many_sites_is_theirs():
    sources = make_rng(0).normal([5e3, -8e3], [12e3, 3e3], (3000, 2))
    area = compute_area(pad_sessions(make_sessions(HEXAGON, np.zeros((1, 2)))), make_sessions(HEXAGON[:1], sources))
    east_m, north_m = np.sqrt(area.covariance_m2[0, :2])
    assert_below(abs(east_m / 12e3 - 1.0), 0.05, "spread to the east, off 12 km")
    assert_below(abs(north_m / 3e3 - 1.0), 0.30, "spread to the north, off 3 km")
    identity = area.information()[0] @ np.array(
        [[area.covariance_m2[0, 0], area.covariance_m2[0, 2]], [area.covariance_m2[0, 2], area.covariance_m2[0, 1]]]
    )
    np.testing.assert_allclose(identity, np.eye(2), atol=1e-9)


def test_one_site_heard_a_hundred_times_does_not_promise_that_the_next_source_stands_there():
    reference = make_sessions(HEXAGON, np.tile([[9e3, 9e3]], (100, 1)))
    padded = pad_sessions(make_sessions(HEXAGON, np.zeros((1, 2))))
    own = compute_own_area(padded).covariance_m2[0, 0]
    assert compute_area(padded, reference).covariance_m2[0, 0] == pytest.approx(own * OWN_SITES / (OWN_SITES + 1))


def test_without_a_reference_or_known_sources_it_is_the_surroundings_of_the_receivers():
    padded = pad_sessions(make_sessions(HEXAGON, np.zeros((2, 2))))
    unknown = replace(make_sessions(HEXAGON, SOURCES), source_latitude=np.full(300, np.nan))
    for reference in (None, unknown):
        area = compute_area(padded, reference)
        np.testing.assert_allclose(np.sqrt(area.covariance_m2[:, 0]), 50e3)
        assert compute_distance_m(area.latitude, area.longitude, 45.0, 8.0).max() < 30.0
    campus = compute_own_area(pad_sessions(make_sessions(HEXAGON / 40, np.zeros((1, 2)))))
    assert np.sqrt(campus.covariance_m2[0, 0]) == pytest.approx(2e3, rel=1e-3)
    lonely = compute_own_area(pad_sessions(make_sessions(HEXAGON[:1], np.zeros((1, 2)))))
    assert np.sqrt(lonely.covariance_m2[0, 0]) == RADIO_HORIZON_M


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_reference_from_another_continent_pulls_nobody_there(name):
    reference = make_sessions(HEXAGON / 30, SOURCES / 30, shadowing_db=4.0, seed=5)
    away = make_sessions(
        HEXAGON, 2.0 * SOURCES, shadowing_db=6.0, centre=(40.0, -111.0), station_id=np.full(1800, "new station")
    )
    assert find_elsewhere(pad_sessions(away), reference).all()
    assert not find_elsewhere(pad_sessions(make_sessions(HEXAGON, SOURCES)), reference).any()
    away = add_bearings(away, seed=shift_seed(2))
    found = ESTIMATORS[name](away, reference)
    assert compute_distance_m(found.latitude, found.longitude, 40.0, -111.0).max() < 300e3
    assert_above(compute_coverage(away, found), 0.80, "coverage")
