"""Signal tasks: labels follow the clock and are never guessed, heads see pictures alone, figures have baselines."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.model_card import render_signals_table
from heimdall_assets.evaluation.signal_figures import evaluate_signals, evaluate_spans
from heimdall_assets.evaluation.signal_labels import NO_TYPE, NUM_FRAMES, list_labelled, make_signal_labels
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.learning.session_model.signal_heads import (
    OUTPUTS,
    SignalHeads,
    compute_signal_losses,
    mask_unseen,
    read_signals,
)
from heimdall_assets.learning.session_model.table import join_sessions
from heimdall_assets.learning.session_model.task import NetworkTask
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import AugmentationSpec, ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.variation import make_rng, shift_seed

SMALL = {"width": 16, "num_layers": 1, "num_heads": 2}


def make_sessions(num=8, first=0, **strata):
    spec = SimulationSpec(seed=shift_seed(1), min_receivers=3, max_receivers=3)
    sessions = simulate_observations(spec, np.arange(first, first + num))
    return replace(sessions, strata=strata)


def make_timed(num=8, first=0, **changes):
    """Every second session a tone that begins late; the rest voice from the first sample on."""
    odd = np.arange(num) % 2 == 0
    strata = {
        "signal_type": np.where(odd, "tone", "voice"),
        "span_start_s": np.where(odd, 0.25, 0.0),
        "span_end_s": np.full(num, 0.765625),
        "duration_s": np.ones(num),
        "true_snr_db": np.where(odd, 20.0, 5.0),
    }
    return make_sessions(num, first, **(strata | changes))


def give_pictures(sessions, seed=0, frames=32):
    """Spectrograms whose frames are loud where the transmission is."""
    rng = make_rng(seed)
    features = rng.normal(-80.0, 3.0, (len(sessions.station_id), 3, 32, frames)).astype(np.float32)
    owner = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    features += 30.0 * make_signal_labels(sessions)["span"][owner][:, None, None, :]
    return replace(sessions, features=features, feature_row=np.arange(len(features)))


def to_tensors(labels):
    return {name: torch.from_numpy(values) for name, values in labels.items()}


def fit(folder, train, val, **changes):
    training = TrainingSpec(max_epochs=2, batch_size=8, num_threads=1, warmup_epochs=0)
    return fit_model(ModelSpec(**(SMALL | changes)), training, AugmentationSpec(), train, val, CheckpointFolder(folder))


def test_labels_follow_the_clock():
    labels = make_signal_labels(make_timed())
    assert labels["type"].tolist()[:2] == [1, 0]
    np.testing.assert_allclose(labels["edges"][0], [0.25, 0.765625])
    span = labels["span"][0]
    assert span[:8].sum() == 0.0
    assert (span[8:24] == 1.0).all()
    assert span[24] == pytest.approx(0.5)
    assert span.sum() == pytest.approx((0.765625 - 0.25) * NUM_FRAMES)
    np.testing.assert_allclose(labels["countdown"][0][:8], np.arange(8, 0, -1))
    assert np.isnan(labels["countdown"][0][8:]).all()
    assert np.isnan(labels["countdown"][1]).all()  # it began before the recording: there is no onset to wait for
    assert labels["snr"][:2, 0].tolist() == [20.0, 5.0]


def test_what_nobody_said_is_masked_and_gives_no_gradient():
    """The SNR that a receiver states is a measurement, no truth."""
    unknown = make_sessions(signal_type=np.full(8, "unknown"))
    assert np.isfinite(unknown.snr_db).all()
    labels = make_signal_labels(unknown)
    assert (labels["type"] == NO_TYPE).all()
    assert all(np.isnan(labels[name]).all() for name in ("span", "edges", "countdown", "snr"))
    assert list_labelled(labels) == []
    heads = SignalHeads(24, 16)
    outputs = heads(torch.randn(8, 3, 24), torch.ones(8, 3, dtype=torch.bool))
    losses = compute_signal_losses(heads, outputs, to_tensors(labels))
    losses["signal"].backward()
    assert all(float(value.detach()) == 0.0 for value in losses.values())
    assert all(weight.grad is None or weight.grad.abs().max() == 0.0 for weight in heads.parameters())


@pytest.mark.parametrize(
    ("name", "value"), [("span_start_s", -0.1), ("span_start_s", 0.9), ("span_end_s", 1.1), ("duration_s", 0.0)]
)
def test_a_span_that_is_none_of_the_recording_is_no_label(name, value):
    labels = make_signal_labels(make_timed(**{name: np.full(8, value)}))
    assert all(np.isnan(labels[task]).all() for task in ("span", "edges", "countdown"))
    assert list_labelled(labels) == ["type", "snr"]


def test_sessions_without_a_picture_are_not_learned_from():
    seen = torch.tensor([[True, False], [False, False]])
    labels = mask_unseen(
        {name: values[:2] for name, values in to_tensors(make_signal_labels(make_timed())).items()}, seen
    )
    assert labels["type"].tolist() == [1, NO_TYPE]
    assert not labels["span"][0].isnan().any()
    assert all(labels[name][1].isnan().all() for name in ("span", "edges", "countdown", "snr"))


def test_heads_start_at_the_mean_label_and_at_the_losses_of_that_answer():
    labels = make_signal_labels(make_timed(40))
    heads = SignalHeads(24, 16)
    heads.start(labels)
    outputs = heads(torch.randn(5, 3, 24), torch.ones(5, 3, dtype=torch.bool))
    np.testing.assert_allclose(
        outputs["span"].sigmoid().detach()[0], labels["span"].mean(0).clip(0.01, 0.99), atol=1e-5
    )
    np.testing.assert_allclose(outputs["edges"].detach()[0], [0.125, 0.765625], atol=1e-6)
    assert outputs["snr"].detach()[:, 0] == pytest.approx([12.5] * 5)
    assert outputs["type"].softmax(1)[0, :2].tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    everyone = heads(torch.zeros(40, 1, 24), torch.ones(40, 1, dtype=torch.bool))
    losses = compute_signal_losses(heads, everyone, to_tensors(labels))
    spread = heads.log_variance.detach()
    assert float(spread[0]) == pytest.approx(np.log(float(losses["type"].detach())), abs=1e-4)
    assert float(spread[4]) == pytest.approx(np.log(0.5 * 0.75**2), abs=1e-4)  # Huber of 7.5 dB


def test_each_loss_is_the_one_that_is_named():
    """Against hand-computed values: cross-entropy, span's soft cross-entropy, Huber with deltas 0.08, 1 and 10 dB."""
    heads = SignalHeads(8, 8)
    outputs = {
        "type": torch.tensor([[2.0, 0.0, 0.0]]),
        "span": torch.zeros(1, NUM_FRAMES),
        "edges": torch.tensor([[0.29, 0.765625]]),
        "countdown": torch.full((1, NUM_FRAMES), 11.0),
        "snr": torch.tensor([[45.0]]),
    }
    labels = {name: values[:1] for name, values in to_tensors(make_signal_labels(make_timed())).items()}
    losses = {name: float(value.detach()) for name, value in compute_signal_losses(heads, outputs, labels).items()}
    assert losses["type"] == pytest.approx(np.log(np.exp(2.0) + 2.0))
    assert losses["span"] == pytest.approx(np.log(2.0))
    assert losses["edges"] == pytest.approx(0.5 * (0.5 * 0.04**2))
    assert losses["countdown"] == pytest.approx(np.mean([11.0 - left - 0.5 for left in range(1, 9)]))
    assert losses["snr"] == pytest.approx(2.5 - 0.5)
    assert losses["signal"] == pytest.approx(
        sum(losses[name] for name in ("type", "span", "edges", "countdown", "snr"))
    )


def test_heads_learn_what_the_pictures_hold():
    torch.manual_seed(shift_seed(0))
    sessions = make_timed(64)
    features = torch.randn(64, 3, 24) * 0.1
    features[::2, :, :12] += 1.0
    labels, seen, heads = make_signal_labels(sessions), torch.ones(64, 3, dtype=torch.bool), SignalHeads(24, 16)
    heads.start(labels)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.01)
    before = heads.log_variance.detach().clone()
    for _ in range(200):
        loss = compute_signal_losses(heads, heads(features, seen), to_tensors(labels))["signal"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    outputs = read_signals(heads(features, seen), seen, ["type", "span", "edges", "countdown", "snr"])
    signals = {name: value.detach().numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}
    figures = evaluate_signals(sessions, signals, sessions)
    assert figures["type"]["accuracy"] > 0.95 > figures["type"]["baseline_accuracy"]
    assert figures["span"]["f1"] > 0.95
    assert figures["span"]["separation"] > 0.8 > figures["span"]["baseline_separation"]
    for name in ("onset", "countdown", "snr"):
        assert figures[name]["mean_absolute_error"] < 0.2 * (figures[name]["baseline_mean_absolute_error"] or np.inf)
    assert (heads.log_variance < before - 0.5).all()  # small losses earn large weights


def test_span_figures_against_hand_counted_frames():
    covered = np.array([[1.0, 1.0, 0.0, 0.0], [np.nan] * 4])
    figures = evaluate_spans(np.array([[0.9, 0.2, 0.8, 0.1], [1.0] * 4]), covered)
    assert figures == {
        "num_sessions": 1,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "separation": pytest.approx(0.1),
    }


def test_figures_of_a_perfect_and_of_an_unlabelled_set():
    sessions = make_timed(10)
    labels = make_signal_labels(sessions)
    perfect = {
        "signal_type": np.eye(3)[labels["type"]],
        "signal_span": labels["span"],
        "signal_edges": labels["edges"],
        "signal_countdown": np.nan_to_num(labels["countdown"]),
        "signal_snr_db": labels["snr"],
    }
    figures = evaluate_signals(sessions, perfect, sessions)
    assert figures["type"]["recall"] == {"voice": 1.0, "tone": 1.0}
    assert figures["type"]["baseline_balanced_accuracy"] == 0.5
    assert figures["span"]["f1"] == 1.0
    assert figures["span"]["separation"] > 0.95  # the last frame is covered by half
    assert figures["span"]["baseline_recall"] == pytest.approx(160 / 200)  # a half-covered frame is not transmission
    assert all(figures[name]["mean_absolute_error"] == 0.0 for name in ("onset", "end", "countdown", "snr"))
    assert figures["onset"]["baseline_mean_absolute_error"] == pytest.approx(0.125)  # median of 0 and 0.25
    assert (figures["onset"]["inside_num_sessions"], figures["end"]["inside_num_sessions"]) == (5, 10)
    assert figures["countdown"]["num_sessions"] == 5
    assert figures["snr"]["receivers_own_mean_absolute_error"] > 0.0
    table = render_signals_table({"signals": json.loads(json.dumps(figures, allow_nan=False))})
    assert "| onset, inside the recording alone | 5 | 0 | 0.125 |" in table
    nobody = make_sessions(10)
    silent = json.dumps(evaluate_signals(nobody, perfect, nobody), allow_nan=False)
    assert "| span: F1 of frames at 0.5 | 0 | - | - |" in render_signals_table({"signals": json.loads(silent)})
    assert render_signals_table({}) == ""


def test_a_fitted_model_answers_from_pictures_alone_and_only_what_it_learned(tmp_path):
    train, val = give_pictures(make_timed(24, true_snr_db=np.full(24, np.nan))), give_pictures(make_timed(8, 100), 1)
    fitted = fit(tmp_path, train, val, multi_target=True)
    assert fitted.statistics["signal_tasks"] == ["type", "span", "edges", "countdown"]
    signals = fitted.predict_signals(val)
    assert np.isnan(signals["signal_snr_db"]).all()  # no training session knew it: an answer would be a guess
    np.testing.assert_allclose(signals["signal_type"].sum(1), 1.0, rtol=1e-5)
    assert ((signals["signal_span"] > 0.0) & (signals["signal_span"] < 1.0)).all()
    deaf = replace(val, **{name: np.full(24, np.nan) for name in ("arrival_s", "snr_db", "carrier_offset_hz")})
    for name, values in fitted.predict_signals(deaf).items():
        np.testing.assert_array_equal(values, signals[name])
    blind = np.where(np.arange(24) < 3, -1, val.feature_row)
    blind[3] = -1
    unseen = fitted.predict_signals(replace(val, feature_row=blind))
    assert all(np.isnan(values[0]).all() for values in unseen.values())
    assert np.isfinite(unseen["signal_span"][1:]).all()
    back = np.arange(24).reshape(8, 3)[:, ::-1].ravel()
    turned = replace(val, feature_row=val.feature_row[back])
    np.testing.assert_allclose(fitted.predict_signals(turned)["signal_span"], signals["signal_span"], atol=1e-5)


def test_without_multi_target_it_is_the_position_model_to_the_byte(tmp_path):
    """Labels change nothing, there are no heads, and with heads positions start at the same weights."""
    train, val = give_pictures(make_timed(16)), give_pictures(make_timed(8, 100), 1)
    fitted = fit(tmp_path / "labelled", train, val)
    bare = fit(tmp_path / "bare", replace(train, strata={}), replace(val, strata={}))
    assert fitted.encode() == bare.encode()
    assert not [name for name in fitted.weights if name.startswith("signals")]
    assert fitted.predict_signals(val) is None
    assert not {"signal", "val_signal"} & set(fitted.history[0])
    task, statistics = NetworkTask(), fitted.statistics
    states = []
    for multi_target in (False, True):
        torch.manual_seed(shift_seed(3))
        network = task.build_network(ModelSpec(**SMALL, multi_target=multi_target), statistics)
        states.append({name: value for name, value in network.state_dict().items() if not name.startswith("signals")})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_every_weight_of_the_heads_and_the_encoder_learns(tmp_path):
    train, val = give_pictures(make_timed(24)), give_pictures(make_timed(8, 100), 1)
    fitted = fit(tmp_path, train, val, multi_target=True)
    assert {"val_signal", "val_type", "val_span", "val_edges", "val_countdown", "val_snr"} <= set(fitted.history[0])
    task, network = fitted.task, fitted.network.requires_grad_(True)
    losses = task.compute_loss(network, task.make_batch(train, np.arange(24), fitted.statistics), 0)
    losses["signal"].backward()
    assert all(weight.grad.abs().max() > 0 for weight in network.signals.parameters())
    assert network.backbone.stem[0].weight.grad.abs().max() > 0


def test_signals_that_cannot_be_learned_are_refused(tmp_path):
    for fields in ({"use_spectrograms": False}, {"kind": "single_receiver"}):
        with pytest.raises(ValidationError, match="multi_target: expected kind network and use_spectrograms"):
            ModelSpec(multi_target=True, **fields)
    val = give_pictures(make_timed(8, 100))
    for train in (give_pictures(make_timed(8), 1), make_timed(8)):
        unlabelled = replace(train, strata={}) if train.features is not None else train
        with pytest.raises(InvalidInput, match="0 of 8 sessions have both a spectrogram and a label"):
            fit(tmp_path, unlabelled, val, multi_target=True)


def test_joining_sessions_that_know_less_keeps_the_labels_of_those_that_know():
    timed = give_pictures(make_timed(4))
    joined = join_sessions([timed, make_sessions(3, 50, signal_type=np.full(3, "dtmf"))])
    labels = make_signal_labels(joined)
    assert labels["type"].tolist() == [1, 0, 1, 0, 2, 2, 2]
    assert np.isfinite(labels["span"]).all(axis=1).tolist() == [True] * 4 + [False] * 3
