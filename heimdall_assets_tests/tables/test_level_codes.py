"""Numbers that are no levels: what is guessed, what is asked for, and what is left alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidTable
from heimdall_assets.tables.claim import LevelUnit, TableClaim
from heimdall_assets.tables.level_codes import find_codes
from heimdall_assets.tables.level_values import LevelReader
from heimdall_assets_tests.variation import make_rng

CODES = (-101.0, -120.0, -200.0, 0.0, 100.0, 127.0)


def draw_levels(count: int, step: float, seed: int = 0, floor: float = -100.0) -> np.ndarray:
    """Levels of the log-distance law over an area, above a receiver's limit, as a chip of that step shows them."""
    rng = make_rng(seed)
    distance = np.hypot(*rng.uniform(-3e3, 3e3, (2, 40 * count)))
    level = 5.0 - 30.0 * np.log10(np.maximum(distance, 10.0)) + 6.6 * rng.normal(size=40 * count)
    level = level[level > floor][:count]
    assert len(level) == count
    return np.round(level / step) * step if step else level


NOTHING = TableClaim()


def ask(levels, claim=NOTHING, unit=None, receivers=None, is_full=False) -> str:
    levels = np.asarray(levels, float)
    index = np.zeros(len(levels), np.int64) if receivers is None else np.asarray(receivers)
    names = [f"R{number}" for number in range(int(index.max()) + 1)]
    return "; ".join(map(str, LevelReader(levels, index, names, claim, unit, is_full).find_questions("t")))


@pytest.mark.parametrize("step", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [8, 40, 300, 5000])
@pytest.mark.parametrize("seed", range(5))
def test_levels_above_a_sharp_limit_are_believed(step, count, seed):
    receivers = make_rng(seed).integers(0, 10, count)
    assert ask(draw_levels(count, step, seed), receivers=receivers) == ""


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("step", [0.0, 1.0])
@pytest.mark.parametrize(("count", "share"), [(300, 0.1), (300, 0.5), (5000, 0.05), (5000, 0.9)])
def test_a_code_in_many_cells_is_asked_for_by_name(code, step, count, share):
    levels = draw_levels(count, step)
    levels[: int(share * count)] = code
    assert f"{code:g} stands in {100 * share:.3g} % of cells (R0): say --not-heard {code:g} if" in ask(
        levels, is_full=True
    )


def test_a_code_one_step_below_the_limit_is_asked_for_where_no_cell_is_empty():
    """In whole dB it may be as frequent as the level beside it: only that no cell is empty makes it suspect."""
    levels = draw_levels(5000, 1.0, floor=-90.0)
    levels[:400], levels[400:800] = -91.0, -90.0
    assert "--not-heard -91 if" in ask(levels, is_full=True)
    assert ask(levels, TableClaim(real_levels=(-91.0,)), is_full=True) == ""
    levels[0] = np.nan
    assert ask(levels, is_full=True) == ""


@pytest.mark.parametrize("code", [-200.0, 0.0, 100.0, 127.0])
def test_a_code_that_no_receiver_shows_is_asked_for_in_a_single_row(code):
    assert f"--not-heard {code:g} if" in ask([-70.0, -98.0, -100.0, code])


@pytest.mark.parametrize("level", [-120.0, -95.0, -55.0, -72.5])
def test_a_fourth_level_like_the_others_is_believed(level):
    assert ask([-70.0, -98.0, -100.0, level]) == ""


@pytest.mark.parametrize("code", [-101.0, -120.0])
def test_a_faint_whole_number_is_asked_about_where_no_cell_of_few_is_empty(code):
    """One row may hold a level of -120 or mean by it that there is none: nothing but an empty cell tells."""
    assert f"--not-heard {code:g} if" in ask([-70.0, -98.0, -100.0, code], is_full=True)
    assert ask([-70.0, -98.0, -100.0, code], TableClaim(real_levels=(code,)), is_full=True) == ""
    assert ask([-70.0, -98.0, -100.0, code, np.nan], is_full=True) == ""
    assert ask([-70.0, -75.0, -72.0], is_full=True) == ""


def test_a_whole_number_below_broken_ones_is_asked_about_where_no_cell_is_empty():
    levels = draw_levels(5000, 0.0)
    levels[7] = -105.0
    assert "-105 stands in 0.02 % of cells" in ask(levels, is_full=True)
    levels[7] = -105.25
    assert ask(levels, is_full=True) == ""


def test_three_equal_ones_at_the_end_of_broken_ones_are_asked_about():
    levels = draw_levels(5000, 0.0)
    levels[:3] = -100.5
    assert "-100.5 stands in 0.06 % of cells" in ask(levels)


def test_two_of_one_code_apart_from_a_few_levels_are_asked_for():
    assert "--not-heard -120 if" in ask([-70.0, -98.0, -120.0, -120.0])
    assert "--not-heard -101 if" in ask([-70.2, -98.0, -60.0, -80.0, -101.0, -101.0, -101.0])


def test_several_codes_are_all_asked_for_and_those_stated_are_not():
    levels = draw_levels(300, 1.0)
    levels[:40], levels[40:60], levels[60:90] = 100.0, -200.0, -120.0
    said = ask(levels)
    assert all(f"--not-heard {code}" in said for code in (100, -200, -120))
    assert ask(levels, TableClaim(real_levels=(100.0, -200.0, -120.0))) == ""
    left = np.where(np.isin(levels, (100.0, -200.0, -120.0)), np.nan, levels)
    assert ask(left) == ""


def test_a_code_among_the_levels_is_asked_for():
    levels = np.concatenate([draw_levels(300, 0.0), make_rng(1).normal(-112.0, 3.0, 50), np.full(60, -101.0)])
    assert "-101 stands in 14.6 % of cells" in ask(levels)


def test_a_code_of_one_receiver_is_asked_for_though_others_show_lower_levels():
    mine, others = draw_levels(60, 0.0, floor=-85.0), draw_levels(3000, 0.0, seed=1)
    mine[:12] = -90.0
    receivers = np.repeat([0, 1], [60, 3000])
    assert "-90 stands in 0.392 % of cells (R0): say --not-heard -90 if" in ask(
        np.concatenate([mine, others]), receivers=receivers
    )


def test_a_receiver_that_shows_one_value_only_is_asked_about():
    levels = np.concatenate([np.full(60, -90.5), draw_levels(300, 0.0)])
    assert "--not-heard -90.5 if" in ask(levels, receivers=np.repeat([0, 1], [60, 300]))


@pytest.mark.parametrize("unit", [None, LevelUnit.DBM])
def test_a_column_that_holds_something_else_is_named(unit):
    levels, receivers = np.concatenate([draw_levels(40, 0.0), np.linspace(35, 90, 20)]), np.repeat([0, 1], [40, 20])
    if unit is None:
        assert "R1: levels of 35 to 90 that may be no dBm: say --unit" in ask(levels, receivers=receivers)
        return
    with pytest.raises(InvalidTable, match=r"^t: R1: levels of 35 to 90, expected -174 to 30 dB by --unit dbm"):
        ask(levels, unit=unit, receivers=receivers)


@pytest.mark.parametrize(
    ("levels", "asked"),
    [
        (np.linspace(5.0, 60.0, 40), True),  # dB above noise, or percent
        (np.linspace(-0.99, -0.01, 40), True),  # made to fit an interval
        (10.0 ** np.linspace(-9.0, -4.0, 40), True),  # power
        (np.linspace(-120.0, -30.0, 40), False),
        (np.linspace(-80.0, -2.0, 40), False),  # dB below full scale
    ],
)
def test_the_unit_is_asked_for_where_the_numbers_do_not_tell(levels, asked):
    assert ("say --unit dbm, db, rssi (with --db-per-unit) or mw" in ask(levels)) is asked


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-120.0, -20.0), min_size=1, max_size=30), st.sampled_from([0.25, 0.5, 2.0, -1.0]))
def test_units_differ_by_a_step_and_power_by_its_logarithm(levels, step):
    levels_db, index = np.array(levels), np.zeros(len(levels), np.int64)

    def read(value, unit, db_per_unit=None):
        claim = TableClaim(unit=unit, db_per_unit=db_per_unit)
        return LevelReader(value, index, ["R"], claim, unit).read_level_db("t")

    np.testing.assert_allclose(read(levels_db / step, LevelUnit.RSSI, step), levels_db, rtol=1e-12)
    np.testing.assert_allclose(read(10.0 ** (levels_db / 10.0), LevelUnit.MW), levels_db, rtol=1e-9)
    np.testing.assert_array_equal(read(levels_db, LevelUnit.DB), levels_db)


def test_a_code_among_powers_and_chip_units_is_named_as_it_stands():
    power = 10.0 ** (draw_levels(300, 0.0) / 10.0)
    power[:30] = 0.0
    assert "0 stands in 10 % of cells (R0): say --not-heard 0 if" in ask(power, unit=LevelUnit.MW)
    units = np.round((draw_levels(300, 0.0) + 120.0) / 0.5)
    units[:30] = 255.0
    claim = TableClaim(unit=LevelUnit.RSSI, db_per_unit=0.5)
    assert "--not-heard 255 if" in ask(units, claim, LevelUnit.RSSI)
    with pytest.raises(InvalidTable, match="0 said to be a level, expected -250 to 150 dB"):
        LevelReader(power, np.zeros(300, np.int64), ["R"], TableClaim(real_levels=(0.0,)), LevelUnit.MW).read_level_db(
            "t"
        )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6) | st.sampled_from(CODES), max_size=60))
def test_guessing_ends_whatever_stands_there(levels):
    values = np.array(levels, float)
    found = find_codes(values, np.zeros(len(values), np.int64))
    assert {code.value for code in found} <= set(levels)
    assert all(code.count == levels.count(code.value) for code in found)
