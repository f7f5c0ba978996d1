"""Pairs at rest: computed once, whole or computed again, and compared value by value when they are made again."""

import numpy as np
import pandas as pd
import pytest

from heimdall_assets.errors import StorageError
from heimdall_assets.kinds import SPECTROGRAM_FEATURES
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.prediction.stored import observe_sessions
from heimdall_assets.pipeline.recipe import name_index
from heimdall_assets.pipeline.releases.comparison import PACKED, compare_packed
from heimdall_assets.pipeline.releases.reproduction import _Remaking
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.pipeline.stages.datasets import join_recordings
from heimdall_assets.pipeline.stages.delay_index import PAIR_COLUMNS
from heimdall_assets.pipeline.stages.features import Features, compute_features
from heimdall_assets.pipeline.stages.iq_files import pin_recordings
from heimdall_assets.pipeline.stages.recordings import ingest_recordings
from heimdall_assets.pipeline.stages.spectrogram_features import extract_features
from heimdall_assets.session_set import PairSet
from heimdall_assets.specs import DatasetSpec, DelaySpec, FeatureSpec, RecordingSpec, SimulationSpec, TimingSpec
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.overlay import RecomputingStore
from heimdall_assets.stores.objects.shards import encode_shard, load_rows
from heimdall_assets.stores.objects.tables import artifact_of_table, load_table
from heimdall_assets_tests.homes import ignore, make_places

SIMULATION = SimulationSpec(min_receivers=3, max_receivers=3, snr_min_db=20.0, snr_max_db=30.0, duration_s=0.8)
SPECS = FeatureSpec(), DelaySpec()
NAMES = ["session_id", "first", "second"]
REFERENCES = [name_index(SPECTROGRAM_FEATURES, part, DelaySpec()) for part in ("pairs", "delays")]
SPECTROGRAMS, TRACKS, PAIRS = PACKED


@pytest.fixture
def stores(tmp_path):
    return make_places(tmp_path / "home").open_stores()


@pytest.fixture
def solved(monkeypatch):
    """How many receivers each computation of delays was for."""
    from heimdall_assets.signals import delays

    calls, real = [], delays.compute_delays

    def count(recordings, receivers, spec):
        calls.append(len(recordings))
        return real(recordings, receivers, spec)

    monkeypatch.setattr(delays, "compute_delays", count)
    return calls


def add_sessions(stores, num) -> pd.DataFrame:
    """The rows of ``num`` simulated sessions, those before included."""
    import_simulated(stores, SIMULATION.model_copy(update={"num_sessions": num}), "demo", ignore)
    sessions = [row["id"] for row in stores.measurements.list_sessions()]
    return pd.concat([stores.measurements.read_session_rows(name) for name in sessions], ignore_index=True)


def compute(stores, rows, objects=None) -> Features:
    objects = stores.objects if objects is None else objects
    checked = ingest_recordings(objects, rows, RecordingSpec(), ignore).table
    return compute_features(objects, join_recordings(rows, checked), *SPECS, ignore)


def read_correlations(stores, pairs) -> np.ndarray:
    """The correlations of ``pairs``, in the order of the table."""
    found, correlations = load_rows(stores.objects, pairs)
    return correlations[found.sort_values(NAMES)["row"].to_numpy()]


def test_every_two_receivers_with_an_arrival_are_a_pair(stores):
    made = compute(stores, add_sessions(stores, 2))
    assert made.count()["num_pairs"] == len(made.pairs) == 6
    assert made.pairs.dtypes.astype(str).to_dict() == PAIR_COLUMNS
    assert read_correlations(stores, made.pairs).shape == (6, 33)
    assert read_correlations(stores, made.pairs).dtype == np.complex64
    assert made.list_shards() == sorted({*made.index["shard"], *made.tracks["shard"], *made.pairs["shard"]})
    arrivals = made.arrivals.set_index("measurement_id")
    for pair in made.pairs.itertuples():
        assert set(arrivals.loc[[pair.first, pair.second], "key"]) == {pair.key}


def test_new_sessions_alone_are_computed(stores, solved):
    before = compute(stores, add_sessions(stores, 2))
    assert solved == [3, 3]
    after = compute(stores, add_sessions(stores, 3))
    assert solved == [3, 3, 3]
    assert (len(after.pairs), after.num_computed) == (9, 3)
    old = after.pairs[after.pairs["session_id"].isin(before.pairs["session_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, before.pairs)  # where they lay, shard and row included
    again = compute(stores, add_sessions(stores, 3))
    assert solved == [3, 3, 3]
    pd.testing.assert_frame_equal(again.pairs, after.pairs)


@pytest.mark.parametrize("lost", ["shard", "pairs", "delays"])
def test_what_is_lost_is_computed_again_and_equal(stores, solved, lost):
    rows = add_sessions(stores, 1)
    compute(stores, rows)
    rows = add_sessions(stores, 2)
    before = compute(stores, rows)
    correlations = read_correlations(stores, before.pairs)
    first = str(before.pairs["session_id"].iloc[0])
    if lost == "shard":
        stores.objects.local_path(str(before.pairs["shard"].iloc[0])).unlink()
    else:
        reference = REFERENCES[lost == "delays"]
        stores.objects.local_path(stores.objects.read_reference(reference)).unlink()
    solved.clear()
    after = compute(stores, rows)
    assert len(solved) == (1 if lost == "shard" else 2)
    assert after.num_computed == 0  # no spectrogram hangs on it
    pd.testing.assert_frame_equal(
        after.pairs.drop(columns=["shard", "row"]), before.pairs.drop(columns=["shard", "row"])
    )
    pd.testing.assert_frame_equal(after.arrivals, before.arrivals)
    np.testing.assert_array_equal(read_correlations(stores, after.pairs), correlations)
    if lost == "shard":
        other = after.pairs["session_id"] != first
        pd.testing.assert_frame_equal(after.pairs[other], before.pairs[other])
    healed = compute(stores, rows)
    assert len(solved) == (1 if lost == "shard" else 2)
    pd.testing.assert_frame_equal(healed.pairs, after.pairs)


@pytest.mark.parametrize("failing", range(2))
def test_an_index_that_cannot_be_written_loses_nothing(stores, solved, monkeypatch, failing):
    rows = add_sessions(stores, 1)
    before = compute(stores, rows)
    write = stores.objects.write_reference

    def refuse(name, digest):
        if name == REFERENCES[failing]:
            raise StorageError("the disk is full")
        write(name, digest)

    more = add_sessions(stores, 2)
    with monkeypatch.context() as patch:
        patch.setattr(stores.objects, "write_reference", refuse)
        with pytest.raises(StorageError, match="disk is full"):
            compute(stores, more)
    solved.clear()
    pd.testing.assert_frame_equal(compute(stores, rows).pairs, before.pairs)
    assert solved == []
    after = compute(stores, more)
    assert solved == [3]
    assert not after.pairs.duplicated(NAMES).any()
    assert not after.arrivals["measurement_id"].duplicated().any()
    pd.testing.assert_frame_equal(compute(stores, more).pairs, after.pairs)


def observe(objects, rows) -> PairSet:
    sessions, _ = observe_sessions(objects, rows, RecordingSpec(), *SPECS, TimingSpec(), ignore)
    assert sessions.pairs is not None
    return sessions.pairs


def test_another_home_gives_the_same_pairs_whatever_the_order_of_rows(stores, tmp_path):
    rows = add_sessions(stores, 2)
    one = observe(stores.objects, rows)
    assert one.num_pairs.tolist() == [3, 3]
    for name, ordered, tolerance in (("alike", rows, 0.0), ("shuffled", rows.iloc[::-1], 2e-3)):
        apart = RecomputingStore(stores.objects, FolderObjectStore(tmp_path / name), {})
        other = observe(apart, ordered)
        for column in ("offsets", "first", "second", "lag_step_s"):
            np.testing.assert_array_equal(getattr(other, column), getattr(one, column))
        np.testing.assert_allclose(other.correlation, one.correlation, rtol=0.0, atol=tolerance)
        np.testing.assert_allclose(other.coherence, one.coherence, rtol=0.0, atol=tolerance)


def list_words(found):
    return [unlike.text for unlike in found]


def test_making_again_finds_one_changed_value(stores, tmp_path):
    rows = add_sessions(stores, 2)
    recorded = compute(stores, rows)
    remaking = RecomputingStore(stores.objects, FolderObjectStore(tmp_path / "apart"), {})
    made = compute(stores, rows, remaking)
    assert made.num_computed == 6
    assert list_words(compare_packed(remaking, PAIRS, recorded.pairs, made.pairs)) == []
    assert list_words(compare_packed(remaking, SPECTROGRAMS, recorded.index, made.index)) == []
    assert list_words(compare_packed(remaking, TRACKS, recorded.tracks, made.tracks)) == []

    (shard,) = set(recorded.pairs["shard"])
    values = np.load(stores.objects.local_path(shard)).copy()
    values[2, 7] = values[2, 7].conj()
    flipped = stores.objects.put_bytes(encode_shard(values), NPY_MEDIA_TYPE).digest
    other = recorded.pairs.assign(shard=pd.array([flipped] * 6, dtype="string"))
    assert list_words(compare_packed(remaking, PAIRS, other, made.pairs)) == ["1 of 6 correlations"]
    assert list_words(compare_packed(remaking, PAIRS, other.iloc[:3], made.pairs)) == [
        "correlations of 3 pairs then, of 6 now"
    ]
    unlike = recorded.pairs.assign(curvature=recorded.pairs["curvature"] * 2.0)
    assert list_words(compare_packed(remaking, PAIRS, unlike, made.pairs)) == ["curvature of 6 of 6 pairs"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("none", []),
        ("value", ["1 of 3 correlations"]),
        ("lags", ["DelaySpec.num_lags 33 then, 31 now", "3 of 3 correlations"]),
        ("unknown", ["pairs: none then"]),
    ],
)
def test_reproducing_tells_which_correlations_came_out_otherwise(stores, tmp_path, change, expected):
    add_sessions(stores, 1)
    snapshot = take_snapshot(stores, DatasetSpec())[0].manifest
    pinned = pin_recordings(stores.objects, snapshot, RecordingSpec(), ignore).result.manifest
    features = extract_features(stores.objects, pinned, *SPECS, ignore).result.manifest
    artifacts = dict(features.artifacts)
    if change == "value":
        table = load_table(stores.objects, artifacts["pairs"])
        values = np.load(stores.objects.local_path(str(table["shard"].iloc[0]))).copy()
        values[1, 16] *= np.complex64(1j)
        flipped = stores.objects.put_bytes(encode_shard(values), NPY_MEDIA_TYPE).digest
        artifacts["pairs"] = artifact_of_table(stores.objects, table.assign(shard=pd.array([flipped] * 3, "string")))
    if change == "unknown":
        del artifacts["pairs"]
    recorded = features.model_copy(update={"artifacts": artifacts})
    provenance = {"nodes": [node.model_dump(mode="json") for node in (snapshot, pinned, recorded)]}
    chosen = [DelaySpec(num_lags=31)] if change == "lags" else []
    stages = _Remaking(stores.objects, provenance, chosen, tmp_path, ignore).run()
    assert next(stages).differences == []
    assert next(stages).differences == expected


def test_a_lost_shard_is_made_again_with_the_same_bytes_however_it_was_packed(stores, tmp_path):
    compute(stores, add_sessions(stores, 1))
    rows = add_sessions(stores, 2)
    recorded = compute(stores, rows)
    shards = sorted(set(recorded.pairs["shard"]))
    assert len(shards) == 2  # one a run
    whole = [stores.objects.read_bytes(shard) for shard in shards]
    for shard in shards:
        stores.objects.local_path(shard).unlink()
    remaking = RecomputingStore(stores.objects, FolderObjectStore(tmp_path / "apart"), {})
    made = compute(stores, rows, remaking)
    assert list_words(compare_packed(remaking, PAIRS, recorded.pairs, made.pairs)) == []
    assert [remaking.apart.read_bytes(shard) for shard in shards] == whole
