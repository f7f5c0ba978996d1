import numpy as np
import pytest

from heimdall_assets.locating.reach import (
    Heard,
    _explain,
    compute_horizon_m,
    compute_reach_m,
    find_contradictions,
)
from heimdall_assets.signals.geodesy import (
    MEAN_EARTH_RADIUS_M,
    LocalFrame,
    compute_distance_m,
    compute_longest_m,
)

UHF, VHF, LONG_WAVE = 462.7e6, 145.5e6, 77.5e3
DCF77 = (50.0155, 9.0108)
GERMANS = [(47.1721, 8.42683), (45.77929, 0.614638), (53.665337, 7.282766)]


def hear(source, receivers, frequency_hz, session="s"):
    rows = len(receivers)
    place = [(*receiver, 0.0) for receiver in receivers]
    return Heard(
        session=np.full(rows, session, dtype=object),
        station=np.array([f"R{index}" for index in range(rows)], dtype=object),
        frequency_hz=np.full(rows, frequency_hz),
        receiver=np.array(place, dtype=np.float64),
        source=np.array([(*source, 0.0)] * rows, dtype=np.float64),
    )


def find(source, receivers, frequency_hz):
    return find_contradictions(hear(source, receivers, frequency_hz)).get("s")


def test_the_horizon_is_where_the_line_touches_the_earth():
    height_m, radius_m = 1234.0, 4.0 / 3.0 * MEAN_EARTH_RADIUS_M
    tangent_m = radius_m * np.arccos(radius_m / (radius_m + height_m))  # exact, along the ground
    assert compute_horizon_m(height_m, 0.0) == pytest.approx(tangent_m, rel=1e-3)
    assert compute_horizon_m(height_m, 50.0) == pytest.approx(
        compute_horizon_m(height_m, -7.0) + compute_horizon_m(0.0, 50.0)
    )


def test_reach_grows_with_height_and_falls_with_frequency():
    reach = compute_reach_m([1e6, 29.9e6, 30e6, 109e6, 110e6, 10e9], 0.0, 0.0)
    assert (np.diff(reach) <= 0.0).all()
    assert reach[0] > np.pi * MEAN_EARTH_RADIUS_M  # half the globe
    assert compute_reach_m(UHF, 20_000.0, 0.0) > compute_reach_m(UHF, 0.0, 0.0)


@pytest.mark.parametrize("excess_m", [-1000.0, 1000.0])
@pytest.mark.parametrize("frequency_hz", [50e6, VHF, UHF])
def test_a_source_beyond_reach_is_contradicted_and_one_within_is_not(excess_m, frequency_hz):
    distance_m = float(compute_reach_m(frequency_hz, 0.0, 0.0)) + excess_m
    latitude, longitude, _ = LocalFrame(46.0, 8.0).to_geodetic(distance_m, 0.0)
    found = find((float(latitude), float(longitude)), [(46.0, 8.0)], frequency_hz)
    assert (found is not None) == (excess_m > 0.0)


def test_swapped_coordinates_are_named_with_their_distance():
    near = [(51.20, 4.40), (51.22, 4.40), (51.20, 4.44)]
    assert find((51.201, 4.401), near, UHF) is None
    found = find((4.401, 51.201), near, UHF)
    assert found == (
        "its source at 4.40100, 51.20100 is 6757 km from R1, which heard it at 462.7 MHz, expected at most 952 km "
        "(radio horizon); with latitude and longitude swapped it would be at most 3 km from each"
    )
    assert "the sign of its longitude turned" in str(find((40.76, 111.84), [(40.77, -111.83)], UHF))
    assert "the sign of its latitude turned" in str(find((33.9, 151.2), [(-33.8, 151.1)], UHF))


def test_below_30_mhz_only_turned_coordinates_are_contradicted():
    assert find(DCF77, GERMANS, LONG_WAVE) is None
    assert find((-34.0, 151.0), GERMANS, 15e6) is None  # Sydney, a usual short-wave path
    assert find((-DCF77[0], DCF77[1]), GERMANS, 15e6) is None  # so is its mirror image: the sea may hold a ship
    found = find((DCF77[1], DCF77[0]), GERMANS, LONG_WAVE)
    assert found is not None
    assert "the nearest of 3 receivers; with latitude and longitude swapped it would be at most 784 km" in found


def test_one_receiver_that_stands_elsewhere_contradicts_too():
    found = find((51.2, 4.4), [(51.2, 4.4), (4.4, 51.2)], UHF)
    assert found is not None
    assert "from R1" in found
    assert "swapped" not in found  # the other one heard it where it is said to be


def test_an_unknown_place_contradicts_nothing_and_sessions_are_told_apart():
    assert find((np.nan, np.nan), GERMANS, UHF) is None
    assert find((0.0, 0.0), [(np.nan, np.nan)], UHF) is None
    good, bad = hear((46.0, 8.0), [(46.0, 8.1)], UHF, "good"), hear((0.0, 0.0), [(46.0, 8.1)], UHF, "bad")
    both = Heard(**{name: np.concatenate([getattr(good, name), getattr(bad, name)]) for name in vars(good)})
    assert set(find_contradictions(both)) == {"bad"}


@pytest.mark.parametrize("seed", range(5))
def test_only_sessions_in_doubt_are_measured_and_none_is_judged_otherwise(seed):
    draw = np.random.default_rng(seed)
    sessions = np.array([f"s{number % 50:02d}" for number in draw.permutation(300)], dtype=object)
    sources = draw.uniform([-80.0, -180.0, 0.0], [80.0, 180.0, 0.0], (50, 3))
    source = sources[[int(name[1:]) for name in sessions]]
    # Distances from nothing to half the globe, most of them near what a band reaches; a few coordinates turned.
    away = draw.choice([0.1, 3.0, 4.4, 8.5, 8.6, 20.6, 60.0], (300, 1)) * draw.choice([-1.0, 1.0], (300, 3))
    receiver = np.clip(source + away * [1.0, 0.0, 0.0], -90.0, 90.0)
    turned = draw.random(300) < 0.3
    receiver[turned] = np.clip(source[turned] * [1.0, -1.0, 1.0], -90.0, 90.0)
    receiver[draw.random(300) < 0.1] = np.nan
    frequency = draw.choice([77.5e3, 50e6, VHF, UHF], 50)[[int(name[1:]) for name in sessions]]
    station = np.array([f"R{row}" for row in range(300)], dtype=object)
    heard = Heard(sessions, station, frequency, receiver, source)
    found = find_contradictions(heard)
    assert list(found) == sorted(found)
    assert found == {name: why for name in sorted(set(sessions)) if (why := explain_plainly(heard, name))}
    assert 0 < len(found) < 50


def explain_plainly(heard, session):
    """Every receiver of the session measured on the ellipsoid."""
    distance_m = compute_distance_m(*heard.source.T[:2], *heard.receiver.T[:2])
    rows = np.flatnonzero((heard.session == session) & np.isfinite(distance_m))
    reach_m = compute_reach_m(heard.frequency_hz, heard.receiver[:, 2], heard.source[:, 2])
    usual_m = np.where(heard.frequency_hz < 30e6, 2000e3, reach_m - 500e3)
    all_far = bool((distance_m > usual_m)[rows].all())
    if not len(rows) or not (all_far or (distance_m > reach_m)[rows].any()):
        return None
    return _explain(heard, rows, distance_m[rows], reach_m[rows], all_far)


def test_no_shortest_path_is_longer_than_its_bound_or_much_shorter():
    draw = np.random.default_rng(0)
    low, high = np.array([[-90.0], [-180.0]]), np.array([[90.0], [180.0]])
    first, anywhere = draw.uniform(low, high, (2, 2, 20_000))
    near = np.clip(first + draw.uniform(-0.01, 0.01, first.shape), low, high)
    for other in (anywhere, near):
        ratio = compute_distance_m(*first, *other) / compute_longest_m(*first, *other)
        assert ratio.min() > 1.0 - 0.011
        assert ratio.max() <= 1.0 + 1e-9  # of metres: the last digits of either
    assert compute_longest_m(90.0, 0.0, 89.0, 0.0) == pytest.approx(compute_distance_m(90.0, 0.0, 89.0, 0.0), rel=1e-5)
