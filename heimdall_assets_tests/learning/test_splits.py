from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.learning.splits import assign_splits, compute_hash_fraction
from heimdall_assets.signals.geodesy import compute_sites, locate_sites
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


def assign_folds(table: pd.DataFrame, num_folds: int, **chosen: Any) -> pd.DataFrame:
    """Return a column of splits for each fold, by session."""
    specs = [SplitSpec(num_folds=num_folds, fold=fold, **chosen) for fold in range(num_folds)]
    return pd.DataFrame({spec.fold: assign_splits(table, spec).set_index("session_id")["split"] for spec in specs})


@settings(max_examples=10, deadline=None)
@given(
    num_folds=st.integers(2, 6),
    num_sites=st.integers(90, 150),
    repeats=st.integers(1, 3),
    stratify_by=st.sampled_from(["none", "region"]),
    seed=st.integers(0, 1000),
)
def test_over_the_folds_each_site_that_is_no_test_validates_once(
    num_folds: int, num_sites: int, repeats: int, stratify_by: str, seed: int
) -> None:
    table = make_located(np.repeat(draw_positions(num_sites, seed), repeats, axis=0))
    splits = assign_folds(table, num_folds, stratify_by=stratify_by, region_size_m=60_000)
    is_test = splits == "test"
    assert (is_test.any(axis=1) == is_test.all(axis=1)).all()  # the test split is one and the same
    assert ((splits == "val").sum(axis=1) == (~is_test.all(axis=1))).all()
    assert ((splits == "train").sum(axis=1) == (num_folds - 1) * ~is_test.all(axis=1)).all()
    sites = assign_splits(table, SplitSpec()).set_index("session_id")["site"]
    for fold in splits:  # no site is divided
        assert splits[fold].groupby(sites.loc[splits.index]).nunique().max() == 1
    plain = assign_splits(table, SplitSpec(stratify_by=stratify_by, region_size_m=60_000)).set_index("session_id")
    assert ((plain["split"] == "test") == is_test[0]).all()  # and that of no folds


@settings(max_examples=10, deadline=None)
@given(num_old=st.integers(90, 200), num_new=st.integers(1, 100), num_folds=st.integers(2, 5))
def test_growth_moves_nobody_to_another_fold(num_old: int, num_new: int, num_folds: int) -> None:
    table = make_located(draw_positions(num_old + num_new))
    before = assign_folds(table.head(num_old), num_folds)
    after = assign_folds(table, num_folds)
    assert after.loc[before.index].equals(before)


def test_folds_are_of_about_one_size_and_no_copy_of_the_test_hash() -> None:
    splits = assign_folds(make_located(draw_positions(4000)), 5)
    sizes = (splits == "val").sum()
    assert sizes.to_numpy() == pytest.approx(0.85 * 800, abs=4 * np.sqrt(680))
    few = assign_splits(make_located(draw_positions(4000)), SplitSpec(test_fraction=0.01)).set_index("session_id")
    moved = few["split"] != assign_splits(make_located(draw_positions(4000)), SplitSpec())["split"].to_numpy()
    assert moved.any()  # another share of test moves borders of validation ...
    less = assign_folds(make_located(draw_positions(4000)), 5, test_fraction=0.01)
    common = (splits[0] != "test").to_numpy()
    assert less[common].equals(splits[common])  # ... but nobody from fold to fold


@pytest.mark.parametrize("group_by", ["site", "session"])
def test_each_region_holds_its_share_of_every_split(group_by: str) -> None:
    # four regions far apart of very different size: a plain hash misses the small ones by chance
    centres = [(45.0, 8.0, 400), (46.0, 9.0, 60), (44.0, 9.0, 20), (46.0, 7.0, 10)]
    rng = make_rng(1)
    positions = np.concatenate(
        [np.stack([rng.uniform(-0.03, 0.03, n) + lat, rng.uniform(-0.03, 0.03, n) + lon], 1) for lat, lon, n in centres]
    )
    spec = SplitSpec(
        stratify_by="region", region_size_m=100_000, val_fraction=0.2, test_fraction=0.2, group_by=group_by
    )
    assigned = assign_splits(make_located(positions), spec)
    middles = locate_sites(assigned["site"].tolist(), spec.site_size_m)
    assigned["region"] = compute_sites(*(middles if group_by == "site" else positions.T), spec.region_size_m)
    groups = assigned.drop_duplicates("site") if group_by == "site" else assigned
    for _, members in groups.groupby("region"):
        for name in ("val", "test"):
            count = (members["split"] == name).sum()
            assert abs(count - 0.2 * len(members)) <= 1.0  # never off by more than the rounding


@settings(max_examples=25, deadline=None)
@given(num_sites=st.integers(60, 120), seed=st.integers(0, 10_000), folds=st.sampled_from([None, 4]))
def test_in_regions_one_more_site_moves_one_other_over_each_border(
    num_sites: int, seed: int, folds: int | None
) -> None:
    table = make_located(draw_positions(num_sites + 1, seed))
    spec = SplitSpec(stratify_by="region", region_size_m=100_000, num_folds=folds)
    before = assign_splits(table.head(num_sites), spec).set_index("session_id")
    after = assign_splits(table, spec).set_index("session_id")
    new = after.drop(before.index)
    moved = before.index[(after.loc[before.index, "split"] != before["split"]).to_numpy()]
    region, of_new = (
        compute_sites(*locate_sites(sites.tolist(), spec.site_size_m), spec.region_size_m)
        for sites in (after.loc[moved, "site"], new["site"])
    )
    assert set(region) <= set(of_new)  # nobody of another region
    pairs = list(zip(before.loc[moved, "split"], after.loc[moved, "split"], strict=True))
    # a fold lies between two borders, and the border of test is one more
    assert len(pairs) <= (2 if folds is None else 3), pairs


def test_small_regions_are_right_on_average() -> None:
    """Of single sites, each a region of its own, the wanted share is test: rounding favours nobody."""
    positions = np.stack([45.0 + np.arange(2000) % 50 * 0.3, 7.0 + np.arange(2000) // 50 * 0.5], axis=1)
    assigned = assign_splits(make_located(positions), SplitSpec(stratify_by="region", region_size_m=5000))
    share = assigned["split"].value_counts(normalize=True)
    assert share["test"] == pytest.approx(0.15, abs=0.03)
    assert share["val"] == pytest.approx(0.15, abs=0.03)


def test_publishers_test_stays_and_folds_deal_the_rest() -> None:
    flags = [{"grid_test": int(number % 4 == 0)} for number in range(200)]
    table = make_located(draw_positions(200), flags)
    for chosen in ({}, {"stratify_by": "region", "region_size_m": 80_000.0}):
        splits = assign_folds(table, 3, column="grid_test", **chosen)
        assert ((splits == "test").all(axis=1) == [flag["grid_test"] == 1 for flag in flags]).all()
        assert ((splits == "val").sum(axis=1)[(splits != "test").all(axis=1)] == 1).all()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fold": 1}, "fold 1: expected less than num_folds, which is not set"),
        ({"fold": 3, "num_folds": 3}, "fold 3: expected less than num_folds 3"),
        ({"stratify_by": "region", "region_size_m": 100.0}, "region_size_m 100: expected at least site_size_m 250"),
    ],
)
def test_folds_and_regions_that_are_none_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SplitSpec(**fields)


def test_empty_fold_names_itself() -> None:
    with pytest.raises(InvalidInput, match=r"fold 0 of 50, 12 sessions .* num_folds"):
        assign_splits(make_located(draw_positions(12)), SplitSpec(num_folds=50))


@settings(max_examples=30, deadline=None)
@given(latitude=st.floats(-90, 90), longitude=st.floats(-180, 180), size_m=st.sampled_from([250.0, 25_000.0, 3e6]))
def test_the_middle_of_a_tile_lies_in_it(latitude: float, longitude: float, size_m: float) -> None:
    sites = compute_sites(np.array([latitude]), np.array([longitude]), size_m)
    assert compute_sites(*locate_sites(sites.tolist(), size_m), size_m).tolist() == sites.tolist()
