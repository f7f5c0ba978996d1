import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.locating.hyperbola import intersect_hyperbolas
from heimdall_assets_tests.variation import make_rng

km = st.floats(-100e3, 100e3)


def measure(east, north, up, at):
    return np.sqrt((east - at[0]) ** 2 + (north - at[1]) ** 2 + up**2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(km, km, st.floats(0, 2000)), min_size=3, max_size=3), km, km, st.floats(-1e6, 1e6))
def test_every_meeting_point_explains_the_delays_and_none_is_nan(receivers, at_east, at_north, emission):
    east, north, up = np.array(receivers).T
    arrival = measure(east, north, up, (at_east, at_north)) + emission
    places, real = intersect_hyperbolas(east, north, up, arrival)
    assert np.isfinite(places).all()
    sine = np.cross(*np.stack([east[1:] - east[0], north[1:] - north[0], [0, 0]], axis=1))[2]
    for place in places[real]:
        back = measure(east, north, up, place)
        # Close to a line float64 keeps less; the sine says how much less.
        tolerance = 1e-3 + 1e7 / max(abs(sine), 1.0) * 100
        np.testing.assert_allclose(np.diff(back), np.diff(arrival), atol=tolerance)


def test_the_source_is_among_them_and_sometimes_there_is_another():
    east, north, up = np.array([[0.0, 20e3, -5e3], [0.0, 3e3, 25e3], [500.0, 0.0, 200.0]])
    counts = []
    for at in [(8e3, 9e3), (60e3, 50e3), (-30e3, -30e3), (40e3, -3e3)]:
        places, real = intersect_hyperbolas(east, north, up, measure(east, north, up, at))
        away = np.hypot(*(places - at).T)
        assert away[real].min() < 0.01
        counts.append(int(real.sum()))
    assert set(counts) == {1, 2}


def test_receivers_on_one_line_meet_nowhere():
    line = np.array([0.0, 10e3, 30e3])
    _, real = intersect_hyperbolas(line, 2 * line, np.zeros(3), np.array([0.0, 100.0, 500.0]))
    assert not real.any()


def test_delays_longer_than_a_baseline_meet_nowhere():
    _, real = intersect_hyperbolas(
        np.array([0.0, 10e3, 0.0]), np.array([0.0, 0.0, 10e3]), np.zeros(3), np.array([0.0, 50e3, -50e3])
    )
    assert not real.any()


def test_many_triples_at_once_are_as_one_by_one():
    rng = make_rng(0)
    receivers, arrival = rng.normal(0, 2e4, (4, 5, 3, 3)), rng.normal(0, 5e3, (4, 5, 3))
    places, real = intersect_hyperbolas(receivers[..., 0], receivers[..., 1], receivers[..., 2], arrival)
    one, is_real = intersect_hyperbolas(
        receivers[2, 3, :, 0], receivers[2, 3, :, 1], receivers[2, 3, :, 2], arrival[2, 3]
    )
    assert (places[2, 3] == one).all()
    assert (real[2, 3] == is_real).all()
