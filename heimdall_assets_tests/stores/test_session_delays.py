"""What pairs of recordings have in common is kept, found again, and the same whichever recording comes first."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.network_data import join_sessions
from heimdall_assets.learning.pairs import add_pairs
from heimdall_assets.signals.delays import compute_delays
from heimdall_assets.specs import DelaySpec, FeatureSpec, RecordingSpec, SimulationSpec, TimingSpec
from heimdall_assets.stores import features
from heimdall_assets.stores.datasets import join_recordings, observe_sessions
from heimdall_assets.stores.features import compute_features
from heimdall_assets.stores.ingesting import decode_row, ingest_recordings
from heimdall_assets.stores.simulated import import_simulated
from heimdall_assets_tests.homes import ignore, make_places

SPECS = FeatureSpec(), DelaySpec()


@pytest.fixture
def stores(tmp_path):
    return make_places(tmp_path / "home").open_stores()


def add_rows(stores, num_sessions) -> pd.DataFrame:
    spec = SimulationSpec(num_sessions=num_sessions, min_receivers=3, max_receivers=4)
    import_simulated(stores, spec, "demo", ignore)
    names = [row["id"] for row in stores.measurements.list_sessions()]
    return pd.concat([stores.measurements.read_session_rows(name) for name in names], ignore_index=True)


def ingest(stores, rows):
    return join_recordings(rows, ingest_recordings(stores.objects, rows, RecordingSpec(), ignore).table)


def observe(stores, rows):
    sessions, _ = observe_sessions(stores.objects, rows, RecordingSpec(), *SPECS, TimingSpec(), ignore)
    return sessions


def test_pairs_are_those_of_the_recordings_whichever_comes_first(stores):
    rows = add_rows(stores, 1)
    found = observe(stores, rows).pairs
    ordered = ingest(stores, rows).sort_values("station_id", ignore_index=True).to_dict("records")
    backwards = ordered[::-1]
    places = [
        Position(**{name: row[f"receiver_{name}"] for name in ("latitude", "longitude", "altitude_m")})
        for row in backwards
    ]
    recordings = [decode_row(stores.objects.read_bytes(row["digest"]), row, max_samples=10**7) for row in backwards]
    solved = compute_delays(recordings, places, DelaySpec())
    last = len(ordered) - 1
    assert len(found.first) == len(solved.pairs) >= 3
    assert (found.first < found.second).all()
    for (one, other), correlation, coherence in zip(
        solved.pairs, solved.pair_correlation, solved.pair_coherence, strict=True
    ):
        first, second = sorted((last - one, last - other))
        turned = last - one > last - other
        row = np.flatnonzero((found.first == first) & (found.second == second))[0]
        expected = correlation[::-1].conj() if turned else correlation
        # The two solutions differ by what their iterations leave, far below the signal.
        middle = len(expected) // 2
        expected = expected * np.exp(1j * (np.angle(found.correlation[row, middle]) - np.angle(expected[middle])))
        np.testing.assert_allclose(found.correlation[row], expected, atol=0.02)
        assert found.coherence[row] == pytest.approx(coherence, abs=0.01)


def test_only_new_sessions_are_correlated_and_what_is_lost_is_made_again(stores, monkeypatch):
    rows = ingest(stores, add_rows(stores, 3))
    tasks = []

    def watch(work, parts, *others):
        tasks.extend(task for part in parts for task in part)
        return original(work, parts, *others)

    original = features.run_parts
    monkeypatch.setattr(features, "run_parts", watch)
    few = rows[rows["session_id"] != rows["session_id"].iloc[0]]
    before = compute_features(stores.objects, few, *SPECS, ignore)
    assert len(tasks) == 2
    tasks.clear()
    whole = compute_features(stores.objects, rows, *SPECS, ignore)
    assert [task.rows[0]["session_id"] for task in tasks] == [rows["session_id"].iloc[0]]
    old = whole.pairs[whole.pairs["session_id"].isin(few["session_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, before.pairs)
    counts = whole.arrivals.groupby("session_id")["arrival_s"].count()
    assert whole.count()["num_pairs"] == int((counts * (counts - 1) // 2).sum())
    tasks.clear()
    compute_features(stores.objects, rows, *SPECS, ignore)
    assert not tasks
    stores.objects.local_path(str(before.pairs["shard"].iloc[0])).unlink()
    again = compute_features(stores.objects, rows, *SPECS, ignore)
    assert len(tasks) == 2
    assert not any(any(task.needs_feature) for task in tasks)
    columns = ["session_id", "first", "second", "coherence", "curvature"]
    pd.testing.assert_frame_equal(again.pairs[columns], whole.pairs[columns])


def test_taking_sessions_takes_their_pairs(stores):
    sessions = observe(stores, add_rows(stores, 4))
    taken = sessions.take(np.array([2, 0, 2]))
    parts = []
    for number in (2, 0, 2):
        rows = slice(sessions.pairs.offsets[number], sessions.pairs.offsets[number + 1])
        parts.append(sessions.pairs.correlation[rows])
    np.testing.assert_array_equal(taken.pairs.correlation, np.concatenate(parts))
    np.testing.assert_array_equal(taken.pairs.num_pairs, sessions.pairs.num_pairs[[2, 0, 2]])
    bare = replace(sessions.take(np.array([1])), features=None, pairs=None)
    joined = join_sessions([replace(taken, features=None), bare, replace(taken, features=None)])
    np.testing.assert_array_equal(joined.pairs.num_pairs, [*taken.pairs.num_pairs, 0, *taken.pairs.num_pairs])
    assert join_sessions([bare, bare]).pairs is None
    other = replace(taken, features=None, pairs=replace(taken.pairs, correlation=taken.pairs.correlation[:, 1:-1]))
    with pytest.raises(InvalidInput, match=r"correlations of \[31, 33\] lags"):
        join_sessions([replace(taken, features=None), other])


def test_pairs_that_fit_no_session_are_refused(stores):
    rows = add_rows(stores, 2)
    made = compute_features(stores.objects, ingest(stores, rows), *SPECS, ignore)
    sessions = replace(observe(stores, rows), pairs=None)
    table = made.pairs.assign(row=np.arange(len(made.pairs)))
    values = np.ones((len(table), 33), dtype=np.complex64)
    assert len(add_pairs(sessions, rows, table, values).pairs.first) == len(table)
    strange = table.assign(first=table["first"].where(table.index != 1, "nobody"))
    with pytest.raises(InvalidInput, match="measurement nobody: expected one of session"):
        add_pairs(sessions, rows, strange, values)
    with pytest.raises(InvalidInput, match="of a recording with itself"):
        add_pairs(sessions, rows, table.assign(second=table["first"]), values)
    with pytest.raises(InvalidInput, match="expected finite numbers"):
        add_pairs(sessions, rows, table, np.where(np.arange(33) == 3, np.nan, values))
    assert add_pairs(sessions, rows, None, None).pairs is None


def test_an_even_number_of_lags_has_no_middle():
    with pytest.raises(ValidationError, match="num_lags 32: expected an odd number"):
        DelaySpec(num_lags=32)
