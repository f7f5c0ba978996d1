"""Pair tokens: what recordings have in common reaches the position, whatever order, phase and gaps they come in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.comparison import compare_paired
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.learning.export.onnx_file import compute_parity, export_onnx, open_onnx_session, predict_onnx
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.learning.session_model.pair_columns import make_pair_columns
from heimdall_assets.learning.session_model.pair_tokens import describe_pairs, measure_pairs
from heimdall_assets.learning.session_model.task import NetworkTask
from heimdall_assets.session_set import PairSet
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import AugmentationSpec, EvaluationSpec, ExportSpec, ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.permuted import shuffle_receivers
from heimdall_assets_tests.variation import assert_below, make_rng, shift_seed

NUM_LAGS = 9
WORLD = {
    "seed": shift_seed(9), "min_receivers": 4, "max_receivers": 7, "snr_min_db": 15.0, "snr_max_db": 30.0,
    "blocked_fraction": 0.3, "blocked_excess_s": 2e-6,
}  # fmt: skip


def simulate(num, first=0, **changes):
    """Sessions whose correlations lean towards the blocked receiver of a pair."""
    sessions = simulate_observations(SimulationSpec(**(WORLD | changes)), np.arange(first, first + num), "italian")
    rng = make_rng(first)
    pairs = [np.triu_indices(count, 1) for count in sessions.num_receivers]
    first_place, second_place = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    counts = np.array([len(pair[0]) for pair in pairs])
    start = np.repeat(sessions.offsets[:-1], counts)
    lean = sessions.blocked[start + first_place].astype(float) - sessions.blocked[start + second_place]
    lags = np.arange(NUM_LAGS) - NUM_LAGS // 2
    shape = np.exp(-np.square(lags / 6.0)) * (1.0 + 0.3j * lags * lean[:, None])
    phase = np.exp(2j * np.pi * rng.random((len(lean), 1)))
    noise = rng.normal(0.0, 0.01, (len(lean), NUM_LAGS, 2)) @ [1.0, 1j]
    found = PairSet(
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        first=first_place,
        second=second_place,
        coherence=np.full(len(lean), 0.9),
        curvature=np.full(len(lean), 2.5e7),
        lag_step_s=np.full(len(lean), 8e-5),
        correlation=(0.9 * phase * shape + noise).astype(np.complex64),
    )
    return replace(sessions, pairs=found)


def build(sessions, scramble=False):
    torch.manual_seed(shift_seed(3))
    task, model = NetworkTask(), ModelSpec(width=16, num_heads=2, num_layers=1)
    statistics = task.fit_statistics(model, sessions)
    network = task.build_network(model, statistics).eval()
    if scramble:
        with torch.no_grad():
            for head in (network.prior_head, network.receiver_head, network.width_head, network.pair_encoder.tell):
                head.weight.normal_(0.0, 0.1)
    return task, network, statistics


def test_numbers_of_a_pair_know_no_carrier_phase():
    sessions = simulate(20)
    turned = replace(sessions.pairs, correlation=sessions.pairs.correlation * np.complex64(np.exp(1.3j)))
    present = np.ones((20, 7), dtype=bool)
    columns, known = make_pair_columns(sessions, present, NUM_LAGS)
    others, _ = make_pair_columns(replace(sessions, pairs=turned), present, NUM_LAGS)
    assert known.sum() == 2 * len(sessions.pairs.first)
    assert np.abs(others - columns).max() > 0.1
    found, expected = (describe_pairs(torch.from_numpy(item[known])).numpy() for item in (others, columns))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    one, other = describe_pairs(torch.from_numpy(columns[0, :2, :2][[0, 1], [1, 0]])).numpy()
    real, imaginary = one[3 : 3 + NUM_LAGS], one[3 + NUM_LAGS :]
    np.testing.assert_allclose(other, np.concatenate([one[:3], real[::-1], -imaginary[::-1]]), atol=1e-5)


def test_untrained_pairs_move_nothing():
    sessions = simulate(40)
    task, network, statistics = build(sessions)
    bare = task.predict(network, replace(sessions, pairs=None), statistics, {})
    found = task.predict(network, sessions, statistics, {})
    assert statistics["pairs"]["num_lags"] == NUM_LAGS
    np.testing.assert_array_equal(found.latitude, bare.latitude)
    np.testing.assert_array_equal(found.covariance_m2, bare.covariance_m2)


def test_the_order_of_receivers_changes_nothing():
    sessions = simulate(12)
    task, network, statistics = build(sessions, scramble=True)
    table = task.make_batch(sessions, np.arange(12), statistics)
    inputs = [table[name] for name in ("receivers", "offset")]
    with torch.no_grad():
        plain = network(*inputs, pairs=table["pairs"], paired=table["paired"])
        without = network(*inputs)
    assert (without.position - plain.position).abs().max() > 1e-3
    shuffled = shuffle_receivers(sessions, make_rng(0))
    found, other = (task.predict(network, one, statistics, {}) for one in (sessions, shuffled))
    np.testing.assert_array_equal(other.latitude, found.latitude)
    np.testing.assert_array_equal(other.covariance_m2, found.covariance_m2)


def test_sessions_without_pairs_are_answered_beside_others():
    sessions = simulate(6)
    task, network, statistics = build(sessions, scramble=True)
    counts = sessions.pairs.num_pairs.copy()
    kept = np.repeat(np.arange(6) != 2, counts)
    counts[2] = 0
    fewer = PairSet(
        np.concatenate([[0], np.cumsum(counts)]),
        *(getattr(sessions.pairs, name)[kept] for name in ("first", "second", "coherence", "curvature", "lag_step_s")),
        sessions.pairs.correlation[kept],
    )
    found = task.predict(network, replace(sessions, pairs=fewer), statistics, {})
    whole = task.predict(network, sessions, statistics, {})
    bare = task.predict(network, replace(sessions, pairs=None), statistics, {})
    assert not found.refused.any()
    others = np.arange(6) != 2
    np.testing.assert_allclose(found.latitude[others], whole.latitude[others], atol=1e-6)
    assert found.latitude[2] == pytest.approx(bare.latitude[2], abs=1e-6)
    assert found.latitude[2] != pytest.approx(whole.latitude[2], abs=1e-6)


def test_a_pair_unlike_all_of_training_moves_no_farther_than_one_at_the_edge_of_it():
    sessions = simulate(30)
    _, network, _ = build(sessions, scramble=True)
    columns, known = make_pair_columns(sessions.take(np.arange(1)), np.ones((1, 7), dtype=bool), NUM_LAGS)
    strange = columns.copy()
    strange[..., 3:] *= np.linspace(-900.0, 900.0, 2 * NUM_LAGS, dtype=np.float32)
    reach = []
    with torch.no_grad():
        for item in (columns, strange, 1e3 * strange):
            found, told = network.pair_encoder(torch.from_numpy(item), torch.from_numpy(known))
            assert torch.isfinite(told).all()
            reach.append(float(found[torch.from_numpy(known)].square().mean().sqrt()))
    assert reach[1] < 6.0 * reach[0]
    assert reach[2] < 6.0 * reach[0]


def test_other_numbers_of_lags_are_refused_and_pairs_can_be_left_out():
    sessions = simulate(30)
    task, network, statistics = build(sessions)
    short = replace(sessions.pairs, correlation=sessions.pairs.correlation[:, 1:-1])
    with pytest.raises(InvalidInput, match="correlations of 7 lags: expected 9, as in training"):
        task.predict(network, replace(sessions, pairs=short), statistics, {})
    assert task.fit_statistics(ModelSpec(use_correlations=False), sessions)["pairs"] is None
    assert measure_pairs(replace(sessions, pairs=None)) is None


@pytest.mark.long
def test_what_correlations_tell_is_learned_and_survives_export(tmp_path: Path):
    """Half of the receivers are blocked by kilometres, so that who is decides the position; only pairs tell who is."""
    world = {"min_receivers": 6, "blocked_fraction": 0.5, "blocked_excess_s": 1e-5}
    train, val, test = (simulate(num, first, **world) for num, first in ((1000, 0), (200, 10_000), (900, 20_000)))
    training = TrainingSpec(
        max_epochs=8, batch_size=64, learning_rate=8e-3, warmup_epochs=0, num_threads=1, seed=shift_seed(42)
    )
    model = ModelSpec(width=16, num_heads=2, num_layers=1, dropout=0.0)
    plain = AugmentationSpec(dropout=0.0, max_gain_db=0.0)
    fitted = fit_model(model, training, plain, train, val, CheckpointFolder(tmp_path / "paired"))
    deaf = fit_model(
        model.model_copy(update={"use_correlations": False}),
        training,
        plain,
        train,
        val,
        CheckpointFolder(tmp_path / "deaf"),
    )
    untrained = fitted.task.build_network(model, fitted.statistics)
    learned = compute_residuals(test, fitted.predict(test)).error_m
    others = (deaf.predict(test), fitted.task.predict(untrained, test, fitted.statistics, {}))
    for name, other in zip(("all else learned", "untrained"), others, strict=True):
        compared = compare_paired(learned, compute_residuals(test, other).error_m, EvaluationSpec(num_bootstrap=500))
        assert_below(compared["ratio"], 0.93, f"median error over that of {name}")
        assert_below(compared["ratio_high"], 1.0, f"its interval's end, {name}")
        assert compared["is_better"]
    data = export_onnx(fitted, ExportSpec(), {"version": "1"})
    assert {item.name for item in open_onnx_session(data).get_inputs()} == {"origin", "receivers", "pairs", "paired"}
    few = test.take(np.arange(60))
    ordered, shuffled = (predict_onnx(fitted, data, s) for s in (few, shuffle_receivers(few, make_rng(0))))
    np.testing.assert_array_equal(shuffled.latitude, ordered.latitude)
    np.testing.assert_array_equal(shuffled.covariance_m2, ordered.covariance_m2)
    bare = replace(few, pairs=None)
    for name, sessions in (("with pairs", few), ("without", bare)):
        parity = compute_parity(fitted, data, sessions)
        assert_below(parity["max_position_error_sigma"], 0.05, f"parity of position {name}, sigma")
    assert np.abs(fitted.predict(few).latitude - fitted.predict(bare).latitude).max() > 1e-4
