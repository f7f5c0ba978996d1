"""Levels and the places that are stated: right ones, turned ones within reach, and rows that were joined wrongly."""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.locating.truth_by_levels import LevelsHeard, Preference, compare_with_others, find_turned
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.variation import make_rng

WORLDS = {
    "open": SimulationSpec(),
    "mountains": SimulationSpec(blocked_fraction=0.5, blocked_loss_db=15.0),
    "much shadowing": SimulationSpec(shadowing_db=12.0),
    "four receivers": SimulationSpec(min_receivers=4, max_receivers=4),
}


def simulate(spec: SimulationSpec, num: int, shift: tuple[float, float] = (0.0, 0.0)) -> LevelsHeard:
    """Return levels of simulated sessions, the whole network moved by ``shift`` in degrees."""
    sessions = simulate_observations(spec, np.arange(num))
    row = np.repeat(np.arange(num), sessions.num_receivers)
    source = np.stack([sessions.source_latitude, sessions.source_longitude], axis=1)[row]
    return LevelsHeard(
        session=sessions.session_id[row].astype(object),
        frequency_hz=sessions.frequency_hz,
        level_db=sessions.level_db,
        receiver=np.stack([sessions.receiver_latitude, sessions.receiver_longitude], axis=1) + shift,
        source=source + shift,
    )


def join_wrongly(heard: LevelsHeard, seed: int) -> LevelsHeard:
    """Return the levels with the sessions' places dealt out anew."""
    names, first, row = np.unique(heard.session.astype(str), return_index=True, return_inverse=True)
    return replace(heard, source=heard.source[first][make_rng(seed).permutation(len(names))][row])


@pytest.mark.parametrize("world", WORLDS)
def test_levels_prefer_the_place_where_the_source_was(world):
    heard = simulate(WORLDS[world], 60)
    found = compare_with_others(heard)
    assert found.is_clear, found
    assert found.share > 0.75, found
    assert find_turned(heard) is None
    wrong = compare_with_others(join_wrongly(heard, 1))
    assert not wrong.is_clear, wrong
    assert abs(wrong.share - 0.5) < 4 * wrong.sigma, wrong


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("what", "shift", "turn"),
    [
        # a network of 2 degrees around 45.2 N 45.0 E, one on the zero meridian, one on the equator: nothing is far
        ("latitude and longitude swapped", (0.0, 37.0), lambda source: source[:, ::-1]),
        ("the sign of its longitude turned", (0.0, -7.8), lambda source: source * [1.0, -1.0]),
        ("the sign of its latitude turned", (-45.0, 0.0), lambda source: source * [-1.0, 1.0]),
    ],
)
def test_coordinates_that_were_turned_within_reach_are_told_by_name(world, what, shift, turn):
    heard = simulate(WORLDS[world], 200, shift)
    assert find_turned(heard) is None
    found = find_turned(replace(heard, source=turn(heard.source)))
    assert found is not None
    assert found.what == what
    assert found.mended_m < found.stated_m


def test_too_few_sites_and_short_waves_say_nothing():
    few = compare_with_others(simulate(WORLDS["open"], 9))
    assert not few.is_known
    assert not few.is_clear
    scattered = Preference(0.7, 0.14, 10)
    assert (scattered.is_usual, scattered.is_clear) == (True, False)  # neither proof nor reason to warn
    heard = simulate(WORLDS["open"], 30)
    nothing = Preference(0.5, np.inf, 0)
    assert compare_with_others(replace(heard, frequency_hz=np.full(len(heard.level_db), 7e6))) == nothing
    assert compare_with_others(replace(heard, level_db=np.full(len(heard.level_db), np.nan))) == nothing
    swapped = replace(heard, source=heard.source[:, ::-1])
    assert find_turned(swapped) is not None
    assert find_turned(replace(swapped, frequency_hz=np.full(len(heard.level_db), 7e6))) is None


def test_one_site_is_one_however_often_it_was_heard():
    heard = simulate(WORLDS["open"], 30)
    first = replace(heard, source=np.broadcast_to(heard.source[0], heard.source.shape))
    assert compare_with_others(first).num_sites == 0  # no other place to compare with
    assert find_turned(replace(first, source=first.source[:, ::-1])) is None


def test_power_and_the_scale_of_levels_do_not_matter():
    heard = simulate(WORLDS["open"], 30)
    power = make_rng(3).normal(0.0, 30.0, 30)[np.unique(heard.session.astype(str), return_inverse=True)[1]]
    assert compare_with_others(replace(heard, level_db=heard.level_db + power)) == compare_with_others(heard)
