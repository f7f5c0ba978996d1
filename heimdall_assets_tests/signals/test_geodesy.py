import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidInput
from heimdall_assets.signals.geodesy import (
    LocalFrame,
    compute_centre,
    compute_distance_m,
    compute_range_m,
    compute_straight_range_m,
)
from heimdall_assets_tests.variation import make_rng

EQUATOR_M = 6_378_137.0
POLE_M = 6_356_752.314245


def test_a_quarter_of_the_meridian_and_a_degree_of_the_equator_have_their_known_lengths():
    assert compute_distance_m(0.0, 0.0, 90.0, 0.0) == pytest.approx(10_001_965.729, abs=1e-3)
    assert compute_distance_m(0.0, 10.0, 0.0, 11.0) == pytest.approx(EQUATOR_M * np.pi / 180.0, abs=1e-6)


def test_straight_lines_are_chords():
    half = np.radians(20.0)
    assert compute_straight_range_m(0, -20, 0, 0, 20, 0) == pytest.approx(2 * EQUATOR_M * np.sin(half), abs=1e-6)
    assert compute_straight_range_m(90, 0, 0, -90, 0, 0) == pytest.approx(2 * POLE_M, abs=1e-6)
    assert compute_straight_range_m(45, 8, 0, 45, 8, 700) == pytest.approx(700.0, abs=1e-6)


def test_long_waves_follow_the_ground_and_short_ones_the_straight_line():
    near = (50.0, 9.0, 0.0, 45.8, 0.6, 0.0)
    along, straight = compute_range_m(*near, frequency_hz=77_500.0), compute_range_m(*near, frequency_hz=145e6)
    assert along == compute_distance_m(50.0, 9.0, 45.8, 0.6)
    # What an arc is longer than its chord: d^3 / (24 R^2).
    assert along - straight == pytest.approx(along**3 / (24 * 6_371_000.0**2), rel=0.02)
    assert compute_range_m(*near) == straight


def test_distances_broadcast_and_keep_what_is_not_known_as_nan():
    distance = compute_distance_m(np.array([[45.0], [np.nan]]), 8.0, np.array([45.0, 46.0, 47.0]), 8.0)
    assert distance.shape == (2, 3)
    assert distance[0, 0] == 0.0
    assert np.isnan(distance[1]).all()
    assert np.isnan(compute_straight_range_m(45, 8, 0, np.nan, 8, 0))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-89, 89), st.floats(-180, 180), st.floats(-300e3, 300e3), st.floats(-300e3, 300e3), st.floats(-100, 9000)
)
def test_local_metres_and_degrees_are_inverse_everywhere(latitude, longitude, east, north, up):
    frame = LocalFrame(latitude, longitude)
    back = frame.to_local(*frame.to_geodetic(east, north, up))
    np.testing.assert_allclose(np.array(back).ravel(), [east, north, up], atol=1e-5)


def test_local_distances_are_exact_from_the_centre_and_nearly_so_elsewhere():
    frame = LocalFrame(45.0, 8.0)
    rng = make_rng(0)
    radius, angle = 100e3 * np.sqrt(rng.uniform(size=200)), rng.uniform(0, 2 * np.pi, 200)
    east, north = radius * np.cos(angle), radius * np.sin(angle)
    latitude, longitude, _ = frame.to_geodetic(east, north)
    np.testing.assert_allclose(compute_distance_m(45.0, 8.0, latitude, longitude), radius, atol=1e-6)
    between = compute_distance_m(latitude[::2], longitude[::2], latitude[1::2], longitude[1::2])
    local = np.hypot(east[::2] - east[1::2], north[::2] - north[1::2])
    stretch = local / between - 1.0
    assert stretch.min() > -1e-9
    assert stretch.max() < (100e3 / 6_371_000.0) ** 2 / 6 * 1.02


def test_north_is_north_and_east_is_east():
    east, north, up = LocalFrame(45.0, 8.0).to_local([45.001, 45.0], [8.0, 8.001], 12.0)
    assert north[0] > 111
    assert abs(east[0]) < 1e-9
    assert east[1] > 78
    assert abs(north[1]) < 0.01
    assert (up == 12.0).all()


def test_one_frame_for_each_of_many_centres():
    centres = np.array([[45.0], [-30.0]])
    frame = LocalFrame(centres, np.array([[8.0], [170.0]]))
    east, north, _ = frame.to_local(centres + np.array([0.0, 0.1, 0.2]), np.array([[8.0], [170.0]]))
    assert east.shape == (2, 3)
    one = LocalFrame(-30.0, 170.0).to_local(-29.8, 170.0)
    assert north[1, 2] == one[1]


def test_a_frame_reaches_across_the_date_line():
    east, _, _ = LocalFrame(0.0, 179.5).to_local(0.0, -179.5)
    assert east == pytest.approx(EQUATOR_M * np.pi / 180.0, abs=1e-6)


def test_unknown_points_stay_unknown_both_ways():
    frame = LocalFrame(45.0, 8.0)
    assert np.isnan(frame.to_local(np.nan, 8.0)[0])
    assert np.isnan(frame.to_geodetic(np.nan, 1.0)[:2]).all()


@pytest.mark.parametrize("centre", [(91.0, 0.0), (0.0, 181.0), (np.nan, 0.0), (0.0, np.inf)])
def test_a_frame_refuses_a_centre_that_is_none(centre):
    with pytest.raises(InvalidInput, match=r"latitude 91|longitude 181|NaN or infinity"):
        LocalFrame(*centre)


def test_coordinates_out_of_range_are_refused():
    with pytest.raises(InvalidInput, match="latitude -95: expected -90 to 90"):
        compute_distance_m(0.0, 0.0, -95.0, 0.0)
    with pytest.raises(InvalidInput, match="longitude 200"):
        LocalFrame(0.0, 0.0).to_local(0.0, 200.0)
    with pytest.raises(InvalidInput, match="longitude 300"):
        compute_range_m(0.0, 300.0, 0.0, 0.0, 0.0, 0.0)


def test_the_mean_of_positions_lies_between_them_across_the_date_line_and_is_unknown_for_none():
    latitude, longitude = compute_centre(
        np.array([10.0, 10.0, 45.0, np.nan]), np.array([179.0, -179.0, 8.0, 1.0]), np.array([0, 0, 1, 2]), 4
    )
    assert abs(longitude[0]) == pytest.approx(180.0)
    assert (latitude[1], longitude[1]) == (pytest.approx(45.0), pytest.approx(8.0))
    assert np.isnan(latitude[2:]).all()
    assert np.isnan(longitude[2:]).all()
