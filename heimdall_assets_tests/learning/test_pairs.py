"""Pairs of receivers: taken and joined as sessions are, and the same whatever order they were found in."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.assembly import assemble_sessions
from heimdall_assets.learning.pairs import match_pairs
from heimdall_assets.learning.session_model.table import join_sessions
from heimdall_assets.session_set import PairSet
from heimdall_assets.signals.delays import compute_delays
from heimdall_assets.simulation.network import simulate_session
from heimdall_assets.specs import DelaySpec, SimulationSpec, TimingSpec
from heimdall_assets_tests.learning.learning_cases import make_approved, make_sessions
from heimdall_assets_tests.variation import make_rng, shift_seed

COLUMNS = [item.name for item in fields(PairSet)]
TIMING = TimingSpec()


def make_pairs(counts, seed=0, num_lags=5) -> PairSet:
    rng = make_rng(seed)
    total = sum(counts)
    return PairSet(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        first=rng.integers(0, 3, total),
        second=rng.integers(3, 6, total),
        coherence=rng.random(total),
        curvature=rng.random(total),
        lag_step_s=rng.random(total),
        correlation=rng.normal(size=(total, 2 * num_lags)).view(np.complex128).astype(np.complex64),
    )


def assert_same(one: PairSet, two: PairSet) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), strict=True)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_taken_sessions_keep_their_own_pairs(counts, data):
    pairs = make_pairs(counts)
    chosen = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=8))
    taken = pairs.take(np.array(chosen, dtype=np.int64))
    assert taken.num_pairs.tolist() == [counts[session] for session in chosen]
    for place, session in enumerate(chosen):
        for name in set(COLUMNS) - {"offsets"}:
            before = getattr(pairs, name)[pairs.offsets[session] : pairs.offsets[session + 1]]
            np.testing.assert_array_equal(getattr(taken, name)[taken.offsets[place] : taken.offsets[place + 1]], before)


def test_sessions_are_taken_and_joined_with_their_pairs():
    sessions = replace(make_sessions(3, 1), pairs=make_pairs([1, 0, 1]))
    assert sessions.take(np.array([2])).pairs.num_pairs.tolist() == [1]
    assert make_sessions(3, 1).take(np.array([2])).pairs is None
    bare = replace(make_sessions(2, 2), features=None)
    more = replace(bare, pairs=make_pairs([1, 1], seed=3))
    joined = join_sessions([sessions, bare, more])
    assert joined.pairs.num_pairs.tolist() == [1, 0, 1, 0, 0, 1, 1]
    assert_same(joined.pairs.take(np.arange(3)), sessions.pairs)
    assert_same(joined.pairs.take(np.array([5, 6])), more.pairs)
    assert join_sessions([bare, bare]).pairs is None
    with pytest.raises(InvalidInput, match=r"pairs of \[5, 7\] lags"):
        join_sessions([sessions, replace(bare, pairs=make_pairs([1, 1], num_lags=7))])


def list_pairs(delays, names, session="s0") -> tuple[pd.DataFrame, np.ndarray]:
    """What stores list of a session's pairs."""
    table = pd.DataFrame(
        {
            "session_id": session,
            "first": [names[place] for place in delays.pairs[:, 0]],
            "second": [names[place] for place in delays.pairs[:, 1]],
            "coherence": delays.pair_coherence,
            "curvature": delays.pair_curvature,
            "lag_step_s": delays.lag_step_s,
            "row": np.arange(len(delays.pairs)),
        }
    )
    return table, delays.pair_correlation


@pytest.fixture(scope="module")
def simulated():
    spec = SimulationSpec(seed=shift_seed(42), min_receivers=4, max_receivers=4, snr_min_db=20.0, snr_max_db=30.0)
    return simulate_session(spec, 0)


def solve(session, order):
    return compute_delays(
        [session.recordings[place] for place in order],
        [session.stations[place].position for place in order],
        DelaySpec(),
    )


def test_the_order_in_which_receivers_were_compared_changes_nothing(simulated):
    """Delays computed with the receivers the other way round are other pairs, and the same once assembled."""
    found = {}
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        rows = make_approved([{"station_id": f"w{place}", "measurement_id": f"m{place}"} for place in order])
        table, correlations = list_pairs(solve(simulated, order), [f"m{place}" for place in order])
        sessions = assemble_sessions(rows, None, None, None, TIMING, pairs=table, correlations=correlations)
        found[order[0]] = sessions.pairs
    one, other = found.values()
    assert one.num_pairs.tolist() == other.num_pairs.tolist() == [6]
    assert list(zip(one.first, one.second, strict=True)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert (one.first.tolist(), one.second.tolist()) == (other.first.tolist(), other.second.tolist())
    np.testing.assert_allclose(other.correlation, one.correlation, atol=2e-3)
    assert np.abs(one.correlation - one.correlation[:, ::-1].conj()).max() > 0.02  # else turning would prove nothing
    np.testing.assert_allclose(other.coherence, one.coherence, atol=1e-3)
    np.testing.assert_allclose(other.curvature, one.curvature, rtol=1e-2)
    middle = np.abs(one.correlation[:, 16])
    np.testing.assert_allclose(middle, one.coherence, atol=1e-3)
    assert (middle[:, None] >= np.abs(one.correlation) - 1e-3).all()


def test_order_of_rows_and_of_pairs_changes_no_bit(simulated):
    names = [f"m{place}" for place in range(4)]
    rows = make_approved([{"station_id": f"w{place}", "measurement_id": f"m{place}"} for place in range(4)])
    table, correlations = list_pairs(solve(simulated, range(4)), names)
    straight = assemble_sessions(rows, None, None, None, TIMING, pairs=table, correlations=correlations).pairs
    mixed = table.sample(frac=1.0, random_state=1)
    assert_same(
        assemble_sessions(rows[::-1], None, None, None, TIMING, pairs=mixed, correlations=correlations).pairs, straight
    )
    turned = table.rename(columns={"first": "second", "second": "first"})
    other = np.conj(correlations[:, ::-1])
    assert_same(assemble_sessions(rows, None, None, None, TIMING, pairs=turned, correlations=other).pairs, straight)


ROWS = make_approved(
    [{"session_id": name[0], "station_id": name[1], "measurement_id": name} for name in ("a1", "a2", "b1", "b2", "b3")]
)
OFFSETS = np.array([0, 2, 5])
GOOD = {"coherence": 0.5, "curvature": 1e6, "lag_step_s": 1e-5}


def match(*ends, correlations=None, **changes):
    table = pd.DataFrame([{"first": a, "second": b, **GOOD, **changes, "row": n} for n, (a, b) in enumerate(ends)])
    correlations = np.zeros((len(ends), 5), dtype=np.complex64) if correlations is None else correlations
    return match_pairs(ROWS, OFFSETS, table, correlations)


def test_pairs_of_other_splits_are_left_out():
    pairs = match(("c1", "c2"), ("b3", "b1"), ("a1", "c1"), ("b1", "b2"))
    assert pairs.offsets.tolist() == [0, 0, 2]
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 0], [1, 2])
    none = match(("c1", "c2"))
    assert none.num_pairs.tolist() == [0, 0]
    assert none.correlation.shape == (0, 5)


@pytest.mark.parametrize("name", GOOD)
def test_a_value_that_is_not_finite_is_named(name):
    with pytest.raises(InvalidInput, match=r"pair of measurements a2 and a1: found a value not finite \(1 of 1\)"):
        match(("a2", "a1"), **{name: np.inf})
    assert match(("c2", "c1"), **{name: np.inf}).num_pairs.sum() == 0


def test_what_is_no_pair_is_named():
    broken = np.zeros((1, 5), dtype=np.complex64)
    broken[0, 3] = np.nan
    with pytest.raises(InvalidInput, match="a1 and a2: found a value not finite"):
        match(("a1", "a2"), correlations=broken)
    for ends in (("a1", "b1"), ("b2", "b2")):
        with pytest.raises(InvalidInput, match=f"{ends[0]} and {ends[1]}: found no two receivers of one session"):
            match(ends)
    with pytest.raises(InvalidInput, match="b2 and b1: stands in the table twice"):
        match(("b1", "b2"), ("b2", "b1"))


@pytest.mark.parametrize("shape", [(1, 4), (1,), (0, 5)])
def test_correlations_that_do_not_fit_are_refused(shape):
    with pytest.raises(InvalidInput, match="expected"):
        match(("a1", "a2"), correlations=np.zeros(shape, dtype=np.complex64))
    with pytest.raises(InvalidInput, match="expected complex"):
        match(("a1", "a2"), correlations=np.zeros((1, 5)))
    with pytest.raises(InvalidInput, match="expected both or neither"):
        match_pairs(ROWS, OFFSETS, None, np.zeros((1, 5), dtype=np.complex64))
