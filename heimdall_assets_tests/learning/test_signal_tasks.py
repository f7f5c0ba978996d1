"""Signal heads: labels follow the clock, missing ones are masked, and what the spectrogram shows can be learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from heimdall_assets.learning.network_task import NetworkTask
from heimdall_assets.learning.signal_tasks import (
    NO_TYPE,
    NUM_FRAMES,
    SignalHeads,
    compute_signal_losses,
    judge_spans,
    make_signal_labels,
)
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import ModelSpec, SimulationSpec


def make_sessions(num=8, **strata):
    sessions = simulate_observations(SimulationSpec(seed=1, min_receivers=3, max_receivers=3), np.arange(num))
    return replace(sessions, strata=strata)


def make_timed(num=8):
    times = {"span_start_s": np.full(num, 0.25), "span_end_s": np.full(num, 0.765625), "duration_s": np.ones(num)}
    return make_sessions(num, signal_type=np.array(["tone", "voice"] * (num // 2)), **times)


def test_labels_follow_the_clock():
    labels = make_signal_labels(make_timed())
    assert labels["type"].tolist()[:2] == [1, 0]
    np.testing.assert_allclose(labels["edges"][0], [0.25, 0.765625])
    span = labels["span"][0].numpy()
    assert span[:8].sum() == 0.0
    assert (span[8:24] == 1.0).all()
    assert span[24] == pytest.approx(0.5)
    assert span.sum() == pytest.approx((0.765625 - 0.25) * NUM_FRAMES)
    countdown = labels["countdown"][0].numpy()
    np.testing.assert_allclose(countdown[:8], np.arange(8, 0, -1))
    assert np.isnan(countdown[8:]).all()


def test_what_nobody_said_is_masked_and_gives_no_gradient():
    unknown = replace(make_sessions(signal_type=np.full(8, "unknown")), snr_db=np.full(24, np.nan))
    labels = make_signal_labels(unknown)
    assert (labels["type"] == NO_TYPE).all()
    assert all(labels[name].isnan().all() for name in ("span", "edges", "countdown", "snr"))
    heads = SignalHeads(16)
    losses = compute_signal_losses(heads, heads(torch.randn(8, 3, 16), torch.ones(8, 3, dtype=torch.bool)), labels)
    losses["signal"].backward()
    assert all(float(value.detach()) == 0.0 for value in losses.values())
    assert all(weight.grad.abs().max() == 0.0 for weight in heads.parameters())


def test_heads_learn_what_the_tokens_hold():
    torch.manual_seed(0)
    sessions = make_timed(64)
    tokens = torch.randn(64, 3, 16) * 0.1
    tokens[::2] += 1.0
    labels, seen, heads = make_signal_labels(sessions), torch.ones(64, 3, dtype=torch.bool), SignalHeads(16)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.02)
    for _ in range(150):
        loss = compute_signal_losses(heads, heads(tokens, seen), labels)["signal"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    outputs = heads(tokens, seen)
    assert (outputs["type"].argmax(1) == labels["type"]).float().mean() > 0.95
    figures = judge_spans(outputs["span"].sigmoid().detach().numpy(), labels["span"].numpy())
    assert figures["f1"] > 0.95
    assert figures["separation"] > 0.8
    assert (heads.log_variance < 0).all()  # small losses earn large weights


def test_span_figures_against_hand_counted_frames():
    covered = np.array([[1.0, 1.0, 0.0, 0.0], [np.nan] * 4])
    figures = judge_spans(np.array([[0.9, 0.2, 0.8, 0.1], [1.0] * 4]), covered)
    assert figures == {
        "num_sessions": 1.0,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "separation": pytest.approx(0.1),
    }


def test_the_session_model_carries_them_where_the_spec_asks():
    statistics = {
        "feature_shape": [3, 32, 32], "feature_mean_db": [-60.0] * 3, "feature_std_db": [10.0] * 3,
        "level_prior": None, "late_level": None, "trust": 0.0,
    }  # fmt: skip
    task, sessions = NetworkTask(), make_timed(4)
    features = np.random.default_rng(0).normal(-60.0, 10.0, (12, 3, 32, 32)).astype(np.float32)
    sessions = replace(sessions, features=features, feature_row=np.arange(12))
    network = task.build_network(ModelSpec(multi_target=True), statistics)
    batch = task.make_batch(sessions, np.arange(4), statistics)
    losses = task.compute_loss(network, batch, 0)
    assert {"signal", "type", "span", "edges", "countdown", "snr"} <= set(losses)
    losses["loss"].backward()
    assert network.signals.log_variance.grad.abs().min() > 0
    assert network.backbone.stem[0].weight.grad.abs().max() > 0
    alone = task.build_network(ModelSpec(), statistics)
    assert alone.signals is None
    assert "signal" not in task.compute_loss(alone, batch, 0)
