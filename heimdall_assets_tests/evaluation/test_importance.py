"""Importance of inputs and confusion of types: closed forms on models whose inputs are known."""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.evaluation.confusion import count_confusion, encode_confusion, plot_confusion
from heimdall_assets.evaluation.importance import (
    GROUPS,
    compute_importance,
    draw_exchange,
    exchange_inputs,
    list_read,
    plot_importance,
)
from heimdall_assets.session_set import PairSet, Predictions, SessionSet
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import ModelSpec, SimulationSpec

VARIED = SimulationSpec(min_receivers=4, max_receivers=6)


@pytest.fixture(scope="module")
def sessions() -> SessionSet:
    return simulate_observations(VARIED, np.arange(40))


def read_levels(sessions: SessionSet) -> Predictions:
    """A model that reads the first receiver's level and nothing else: a degree of latitude for each 100 dB."""
    latitude = 40.0 + sessions.level_db[sessions.offsets[:-1]] / 100.0
    longitude = np.full(len(sessions), 8.0)
    return Predictions(latitude, longitude, np.full((len(sessions), 3), [1e6, 1e6, 0.0]), "levels")


def answer_exactly(sessions: SessionSet) -> SessionSet:
    """Sessions whose truth is what ``read_levels`` says of them."""
    said = read_levels(sessions)
    return replace(sessions, source_latitude=said.latitude, source_longitude=said.longitude)


def test_only_what_a_model_reads_is_important_and_by_how_much_is_exact(sessions: SessionSet):
    exact = answer_exactly(sessions)
    found = compute_importance(read_levels, exact, list(GROUPS), seed=3)
    assert set(found) == {"levels", "arrivals"}  # what is not there is not exchanged
    assert found["arrivals"] | {"increase_m": 0.0} == found["arrivals"]
    assert found["levels"]["median_m"] == 0.0
    # The same exchanges by hand: metres of the differences of levels.
    rng, differences = np.random.default_rng([3, *b"levels"]), []
    for _ in range(2):
        drawn = draw_exchange(exact, "levels", rng)
        first = exact.level_db[exact.offsets[:-1]]
        differences.append(np.abs(first[drawn.to] - first[drawn.source]))
    expected_m = np.median(np.concatenate(differences)) / 100.0 * 111_100.0
    assert found["levels"]["increase_m"] == pytest.approx(expected_m, rel=0.005)
    assert found["levels"]["num_exchanged"] == len(exact)


def test_the_same_seed_gives_the_same_figures_and_another_one_others(sessions: SessionSet):
    exact = answer_exactly(sessions)
    first, again, other = (compute_importance(read_levels, exact, ["levels"], seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert plot_importance(first) == plot_importance(again)


@pytest.mark.parametrize("seed", range(5))
def test_an_exchange_gives_each_session_the_whole_input_of_another_of_its_size(sessions: SessionSet, seed: int):
    drawn = draw_exchange(sessions, "arrivals", np.random.default_rng(seed))
    assert not (drawn.to == drawn.source).any()
    assert sorted(drawn.to) == sorted(drawn.source) == list(range(len(sessions)))
    assert (sessions.num_receivers[drawn.to] == sessions.num_receivers[drawn.source]).all()
    changed = exchange_inputs(sessions, "arrivals", drawn)
    for to, source in zip(drawn.to, drawn.source, strict=True):
        there, here = changed.receivers(to), sessions.receivers(source)
        assert np.array_equal(changed.arrival_s[there], sessions.arrival_s[here], equal_nan=True)
    assert np.array_equal(changed.level_db, sessions.level_db)


def test_a_session_without_another_of_its_size_keeps_its_own(sessions: SessionSet):
    sizes = sessions.num_receivers
    alone = int(np.flatnonzero(sizes == sizes.max())[0])
    few = sessions.take(np.array([alone, *np.flatnonzero(sizes == sizes.min())[:3]]))
    drawn = draw_exchange(few, "levels", np.random.default_rng(0))
    assert sorted(drawn.to) == [1, 2, 3]
    assert compute_importance(read_levels, answer_exactly(few), ["levels"], 0)["levels"]["num_exchanged"] == 3


def test_correlations_move_between_sessions_of_as_many_pairs():
    sessions = simulate_observations(SimulationSpec(min_receivers=4, max_receivers=4), np.arange(3))
    counts = np.array([2, 2, 1])
    values = np.arange(5.0)
    lags = (values[:, None] + np.arange(3)).astype(np.complex64)
    pairs = PairSet(np.array([0, 2, 4, 5]), np.zeros(5, np.int64), np.ones(5, np.int64), values, values, values, lags)
    sessions = replace(sessions, pairs=pairs)
    drawn = draw_exchange(sessions, "correlations", np.random.default_rng(0))
    assert sorted(drawn.to) == [0, 1]
    changed = exchange_inputs(sessions, "correlations", drawn).pairs
    assert changed is not None
    assert counts.tolist() == changed.num_pairs.tolist()
    assert changed.coherence.tolist() == [2.0, 3.0, 0.0, 1.0, 4.0]
    assert changed.correlation[:, 0].real.tolist() == [2.0, 3.0, 0.0, 1.0, 4.0]


def test_what_a_model_does_not_read_is_not_exchanged():
    assert list_read(ModelSpec(kind="single_receiver")) == ["spectrograms"]
    assert list_read(ModelSpec(use_spectrograms=False)) == ["levels", "arrivals", "correlations", "bearings"]


def test_confusion_counts_each_session_with_label_and_answer_once(sessions: SessionSet):
    kinds = np.array(["voice", "voice", "tone", "dtmf", "unknown", "tone"])
    few = sessions.take(np.arange(6))
    few = replace(few, strata={**few.strata, "signal_type": kinds})
    said = np.eye(3)[[0, 1, 1, 0, 0, 2]]
    said[5] = np.nan  # no answer
    counts = count_confusion(few, said)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert encode_confusion(counts).decode() == "sent,voice,tone,dtmf\nvoice,1,1,0\ntone,0,1,0\ndtmf,1,0,0\n"
    assert plot_confusion(counts).startswith(b"<?xml")
