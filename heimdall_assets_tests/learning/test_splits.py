import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.learning.splits import assign_splits, compute_hash_fraction
from heimdall_assets.signals.geodesy import compute_sites
from heimdall_assets.specs import SplitSpec
from heimdall_assets_tests.learning.learning_cases import make_approved, make_located
from heimdall_assets_tests.variation import make_rng


def draw_positions(count: int, seed: int = 0) -> np.ndarray:
    rng = make_rng(seed)
    return np.stack([rng.uniform(44, 46, count), rng.uniform(7, 9, count)], axis=1)


def test_fractions_converge() -> None:
    splits = assign_splits(make_located(draw_positions(4000)), SplitSpec())["split"]
    share = splits.value_counts(normalize=True)
    # binomial sigma of 0.15 over 4000 sites is 0.0056
    assert share["test"] == pytest.approx(0.15, abs=0.02)
    assert share["val"] == pytest.approx(0.15, abs=0.02)


@settings(max_examples=10, deadline=None)
@given(num_old=st.integers(60, 200), num_new=st.integers(1, 100), salt=st.text(min_size=1, max_size=8))
def test_growth_moves_nobody(num_old: int, num_new: int, salt: str) -> None:
    spec = SplitSpec(salt=salt, val_fraction=0.3, test_fraction=0.3)
    table = make_located(draw_positions(num_old + num_new))
    before = assign_splits(table.head(num_old), spec).set_index("session_id")
    after = assign_splits(table.sample(frac=1.0, random_state=num_new), spec).set_index("session_id")
    assert after.loc[before.index].equals(before)


@settings(max_examples=10, deadline=None)
@given(num_sites=st.integers(40, 80), repeats=st.integers(2, 4), seed=st.integers(0, 1000))
def test_no_site_and_no_session_is_in_two_splits(num_sites: int, repeats: int, seed: int) -> None:
    positions = np.repeat(draw_positions(num_sites, seed), repeats, axis=0)
    assigned = assign_splits(make_located(positions), SplitSpec(val_fraction=0.3, test_fraction=0.3))
    assert assigned["session_id"].is_unique
    assert assigned.groupby("site")["split"].nunique().max() == 1


def test_receivers_of_a_session_are_one_row() -> None:
    table = make_located(draw_positions(80))
    double = make_located(draw_positions(80)).assign(station_id="other", measurement_id="n" + table["measurement_id"])
    both = table.merge(double, how="outer").astype(table.dtypes.to_dict())
    assert len(both) == 160
    assert assign_splits(both, SplitSpec()).equals(assign_splits(table, SplitSpec()))


def test_other_salt_other_splits() -> None:
    table = make_located(draw_positions(300))
    one, two = (assign_splits(table, SplitSpec(salt=salt))["split"] for salt in ("42", "43"))
    # unequal with probability 1 - (0.7^2 + 2 x 0.15^2) = 0.465
    assert (one != two).mean() == pytest.approx(0.465, abs=0.1)


def test_hash_fractions_are_uniform() -> None:
    places = np.array([compute_hash_fraction("42", str(number)) for number in range(5000)])
    assert places.min() >= 0.0
    assert places.max() < 1.0
    assert np.histogram(places, 10, (0, 1))[0] == pytest.approx(500, abs=5 * np.sqrt(450))


def test_group_by_session_splits_a_site() -> None:
    positions = np.repeat(draw_positions(2), 100, axis=0)
    assigned = assign_splits(make_located(positions), SplitSpec(group_by="session"))
    assert assigned.groupby("site")["split"].nunique().min() > 1


def test_publishers_column_decides_test_and_the_hash_the_rest() -> None:
    positions = draw_positions(200)
    flags = [{"grid_test": int(number % 4 == 0)} for number in range(200)]
    assigned = assign_splits(make_located(positions, flags), SplitSpec(column="grid_test"))
    expected = [number % 4 == 0 for number in range(200)]
    assert ((assigned["split"] == "test").to_numpy() == expected).all()
    assert (assigned["split"] == "val").sum() == pytest.approx(0.15 * 150, abs=15)


@pytest.mark.parametrize("value", [2, "1", None, [1]])
def test_publishers_flag_that_is_none_is_refused(value: object) -> None:
    flags = [{"flag": 1}, {"flag": value}]
    with pytest.raises(InvalidSetting, match=r"s00001 holds .* expected 0 or 1"):
        assign_splits(make_located(draw_positions(2), flags), SplitSpec(column="flag"))


def test_missing_publishers_column_names_those_there_are() -> None:
    with pytest.raises(InvalidSetting, match="no such attribute; it has season"):
        assign_splits(make_located(draw_positions(1), [{"season": "july"}]), SplitSpec(column="flag"))


def test_empty_split_says_the_counts() -> None:
    with pytest.raises(InvalidInput, match=r"3 sessions at 1 site gave .*: expected at least 1 each"):
        assign_splits(make_located(np.repeat(draw_positions(1), 3, axis=0)), SplitSpec())


def test_session_with_two_positions_is_refused() -> None:
    table = make_approved([{"source_latitude": 45.0}, {"source_latitude": 46.0}])
    with pytest.raises(InvalidInput, match=r"session s0: .* several source positions"):
        assign_splits(table, SplitSpec())


def test_sites_are_about_as_large_as_asked() -> None:
    rng = make_rng(3)
    for latitude in (0.0, 45.0, 70.0):
        # 5 km square in steps of at most 10 m around a random longitude
        north = rng.uniform(-2500, 2500, 40000)
        east = rng.uniform(-2500, 2500, 40000)
        longitude = rng.uniform(-170, 170)
        degrees = 6371008.8 * np.pi / 180
        sites = compute_sites(
            latitude + north / degrees, longitude + east / degrees / np.cos(np.radians(latitude)), 250.0
        )
        assert len(set(sites)) == pytest.approx(400, rel=0.12)


def test_sites_meet_at_the_antimeridian_and_the_poles() -> None:
    west, east = compute_sites(np.array([10.0, 10.0]), np.array([-180.0, 180.0]), 250.0)
    assert west == east
    assert len(compute_sites(np.array([90.0, -90.0]), np.array([0.0, 0.0]), 250.0)) == 2


@pytest.mark.parametrize("position", [(91.0, 0.0), (0.0, 181.0), (float("nan"), 0.0)])
def test_position_off_the_globe_is_refused(position: tuple[float, float]) -> None:
    with pytest.raises(InvalidInput, match="source position 0"):
        compute_sites(np.array([position[0]]), np.array([position[1]]), 250.0)


def test_order_and_types_of_the_answer() -> None:
    assigned = assign_splits(make_located(draw_positions(100)).sample(frac=1.0, random_state=1), SplitSpec())
    assert list(assigned.columns) == ["session_id", "site", "split"]
    assert assigned["session_id"].is_monotonic_increasing
    assert set(assigned["split"]) == {"train", "val", "test"}
