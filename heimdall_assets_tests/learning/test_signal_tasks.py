"""Signal tasks: labels follow the clock and are never guessed, heads see tracks alone, figures have baselines."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.classical_signals import detect_signals
from heimdall_assets.evaluation.signal_figures import evaluate_signals
from heimdall_assets.evaluation.signal_labels import NO_TYPE, NUM_FRAMES, list_labelled, make_signal_labels
from heimdall_assets.evaluation.signals_table import list_worthless, render_signals_table
from heimdall_assets.learning.export.onnx_file import compute_parity, export_onnx, open_onnx_session, read_onnx_metadata
from heimdall_assets.learning.fitting.fitted import decode_model
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.learning.session_model.signal_fit import (
    compute_signal_losses,
    drop_receivers,
    fit_signal_heads,
)
from heimdall_assets.learning.session_model.signal_heads import (
    SignalHeads,
    find_edges,
    mark_inside,
    read_signals,
    read_snr_db,
)
from heimdall_assets.learning.session_model.table import join_sessions
from heimdall_assets.learning.session_model.tracks import OUTPUTS, collect_tracks, list_tracked
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.detectors import estimate_snr_db, read_span
from heimdall_assets.signals.signal_track import AUDIO, LEVEL, LINES, NOISE, NUM_ROWS, NUM_STEPS, ON, PAIR, STEP, TONE
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import AugmentationSpec, EvaluationSpec, ExportSpec, ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.signal_cases import DEVIATION_HZ, hear, make_time_s, simulate_tracked
from heimdall_assets_tests.variation import make_rng, shift_seed

SMALL = {"width": 16, "num_layers": 1, "num_heads": 2, "use_spectrograms": False, "use_correlations": False}
EVERYTHING = ["type", "span", "edges", "countdown", "snr"]


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


def give_tracks(sessions, seed=0):
    """Tracks of about what demodulation would show: a quieted carrier where the transmission is, and a steady tone."""
    rng = make_rng(seed)
    labels = make_signal_labels(sessions)
    owner = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    on = np.repeat(labels["span"][owner], NUM_STEPS // NUM_FRAMES, axis=1)
    tracks = rng.normal(0.0, 0.5, (len(owner), NUM_ROWS, NUM_STEPS))
    tracks[:, LEVEL] += -60.0 + 20.0 * on
    tracks[:, NOISE] += 64.0 - 20.0 * on
    tracks[:, AUDIO] += 60.0
    tracks[:, ON] = on
    tracks[:, STEP] = make_seconds(sessions)[owner][:, None] / NUM_STEPS
    tracks[:, PAIR] = 0.0
    tracks[:, TONE] = 0.9 * on * (labels["type"][owner] == 1)[:, None]
    tracks[:, LINES:] += 40.0
    return replace(sessions, tracks=tracks.astype(np.float16), track_row=np.arange(len(owner)))


def make_seconds(sessions):
    return np.asarray(sessions.strata.get("duration_s", np.ones(len(sessions))), dtype=np.float64)


def to_tensors(labels):
    tensors = {name: torch.from_numpy(values) for name, values in labels.items()}
    return tensors | {"inside": torch.from_numpy(mark_inside(labels["edges"]))}


def fit(folder, train, val, **changes):
    training = TrainingSpec(max_epochs=2, batch_size=8, num_threads=1, warmup_epochs=0)
    return fit_model(ModelSpec(**(SMALL | changes)), training, AugmentationSpec(), train, val, CheckpointFolder(folder))


def judge(sessions, signals, reference=None):
    return evaluate_signals(sessions, signals, reference, EvaluationSpec(num_bootstrap=200))


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


def test_a_span_that_ends_with_the_recording_ends_with_it_whatever_the_clock():
    """A receiver whose crystal errs by 20 ppm writes 1.00002 s for 1 s: that is no end within the recording."""
    labels = make_signal_labels(make_timed(span_end_s=np.ones(8), duration_s=np.full(8, 1.00002)))
    assert (labels["edges"][:, 1] == 1.0).all()
    assert (labels["span"][:, -1] == 1.0).all()


def test_what_nobody_said_is_masked_and_gives_no_gradient():
    """The SNR that a receiver states is a measurement, no truth."""
    unknown = make_sessions(signal_type=np.full(8, "unknown"))
    assert np.isfinite(unknown.snr_db).all()
    labels = make_signal_labels(unknown)
    assert (labels["type"] == NO_TYPE).all()
    assert all(np.isnan(labels[name]).all() for name in ("span", "edges", "countdown", "snr"))
    assert list_labelled(labels) == []
    heads = SignalHeads()
    outputs = heads(torch.randn(8, 3, NUM_ROWS, NUM_STEPS), torch.ones(8, 3, dtype=torch.bool))
    losses = compute_signal_losses(outputs, to_tensors(labels))
    sum(losses.values()).backward()
    assert all(float(value.detach()) == 0.0 for value in losses.values())
    assert all(weight.grad is None or weight.grad.abs().max() == 0.0 for weight in heads.parameters())


@pytest.mark.parametrize(
    ("name", "value"), [("span_start_s", -0.1), ("span_start_s", 0.9), ("span_end_s", 1.1), ("duration_s", 0.0)]
)
def test_a_span_that_is_none_of_the_recording_is_no_label(name, value):
    labels = make_signal_labels(make_timed(**{name: np.full(8, value)}))
    assert all(np.isnan(labels[task]).all() for task in ("span", "edges", "countdown"))
    assert list_labelled(labels) == ["type", "snr"]


def test_sessions_that_were_not_demodulated_are_neither_learned_from_nor_answered():
    sessions = give_tracks(make_timed())
    track_row = sessions.track_row.copy()
    track_row[:3], track_row[4] = -1, -1
    sessions = replace(sessions, track_row=track_row)
    assert list_tracked(sessions).tolist() == list(range(1, 8))
    tracks, tracked = collect_tracks(sessions)
    assert tracked.sum(1).tolist() == [0, 2, 3, 3, 3, 3, 3, 3]
    assert (tracks[~tracked] == 0.0).all()
    np.testing.assert_array_equal(tracks[1, 2], sessions.tracks[5].astype(np.float32))
    signals = detect_signals(sessions)
    assert all(np.isnan(values[0]).all() and np.isfinite(values[1:]).all() for values in signals.values())
    assert list_tracked(make_timed()).tolist() == []


def test_heads_start_at_the_mean_label_and_at_the_classical_answer():
    sessions = give_tracks(make_timed(40))
    tracks, tracked = collect_tracks(sessions)
    heads = SignalHeads()
    heads.start(tracks[tracked], make_signal_labels(sessions))
    with torch.no_grad():
        outputs = heads(torch.from_numpy(tracks), torch.from_numpy(tracked))
        signals = read_signals(outputs, torch.from_numpy(tracked), EVERYTHING)
    np.testing.assert_allclose(signals[0][:, :2], 0.5, atol=0.01)
    np.testing.assert_allclose(signals[1], make_signal_labels(sessions)["span"].mean(), atol=1e-4)
    classical = detect_signals(sessions)
    np.testing.assert_allclose(outputs["place"], classical["signal_edges"], atol=1e-3)
    np.testing.assert_allclose(signals[2], classical["signal_edges"], atol=1e-3)
    np.testing.assert_allclose(signals[4], classical["signal_snr_db"], atol=0.5)


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (0.233, 0.801)])
def test_edges_and_snr_of_the_network_are_those_of_the_detectors(start_s, end_s):
    time_s = make_time_s()
    key = ((time_s >= start_s) & (time_s < end_s)).astype(float)
    track = hear(DEVIATION_HZ * np.sin(2.0 * np.pi * 1000.0 * time_s), 15.0, key=key)
    on, noise = (torch.from_numpy(track[[row]].astype(np.float32)) for row in (ON, NOISE))
    np.testing.assert_allclose(find_edges(on)[0], read_span(track), atol=1e-4)
    assert float(read_snr_db(noise, on)[0]) == pytest.approx(estimate_snr_db(track), abs=0.5)


def test_neither_order_nor_number_nor_gain_of_receivers_matters():
    """Empty slots count for nothing; a recording's own gain reaches nothing."""
    torch.manual_seed(shift_seed(4))
    heads = SignalHeads().eval()
    for weight in heads.parameters():
        weight.data = weight.data + 0.05 * torch.randn_like(weight)
    tracks, tracked = (torch.from_numpy(part) for part in collect_tracks(give_tracks(make_timed())))
    with torch.no_grad():
        expected = heads(tracks, tracked)
        louder = tracks.clone()
        louder[:, 1, LEVEL] += 30.0
        more = torch.cat([tracks, torch.full_like(tracks[:, :2], 5.0)], 1)
        more_tracked = torch.cat([tracked, torch.zeros_like(tracked[:, :2])], 1)
        for given in ((tracks[:, [2, 0, 1]], tracked), (louder, tracked), (more, more_tracked)):
            for name, values in heads(*given).items():
                torch.testing.assert_close(values, expected[name], atol=2e-4, rtol=1e-4)


def test_an_edge_is_moved_by_seconds_however_long_the_recording():
    """The ramp of a transmitter is 5 ms of a second and of ten."""
    heads = SignalHeads()
    heads.whole[2].bias.data[5:] = 1.0
    tracks, tracked = (torch.from_numpy(part) for part in collect_tracks(give_tracks(make_timed(1))))
    ten = tracks.clone()
    ten[:, :, STEP] *= 10.0
    with torch.no_grad():
        start = [heads(given, tracked)["place"] for given in (tracks, ten)]
    classical = torch.tensor([[0.25, 0.765625]])
    torch.testing.assert_close(start[0] - classical, torch.full((1, 2), 0.00997), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(start[1] - classical, torch.full((1, 2), 0.000997), atol=1e-4, rtol=0.0)


def test_snr_is_the_median_of_the_receivers():
    heads = SignalHeads()
    levels = torch.tensor([40.0, 50.0, 44.0, 0.0])
    tracks = torch.zeros(1, 4, NUM_ROWS, NUM_STEPS)
    tracks[0, :, ON] = 1.0
    tracks[0, :, NOISE] = levels.unsqueeze(1)
    alone = [float(heads(tracks[:, [i]], torch.ones(1, 1, dtype=torch.bool))["snr"].detach()) for i in range(3)]
    for known, expected in (
        ([1, 1, 1, 0], alone[2]),
        ([1, 1, 0, 0], 0.5 * (alone[0] + alone[1])),
        ([0, 1, 0, 0], alone[1]),
    ):
        found = heads(tracks, torch.tensor([known], dtype=torch.bool))["snr"]
        assert float(found.detach()) == pytest.approx(expected, abs=1e-3)


def test_each_loss_is_the_one_that_is_named():
    """Against hand-computed values: cross-entropies, Huber with deltas 0.3 parts of the recording and 1 dB."""
    outputs = {
        "type": torch.tensor([[2.0, 0.0, 0.0]]),
        "span": torch.zeros(1, NUM_STEPS),
        "inside": torch.tensor([[1.0, 1.0]]),
        "place": torch.tensor([[0.25 + 0.1 / NUM_STEPS, 0.765625 + 2.0 / NUM_STEPS]]),
        "snr": torch.tensor([[45.0]]),
    }
    labels = to_tensors({name: values[:1] for name, values in make_signal_labels(make_timed()).items()})
    losses = {name: float(value) for name, value in compute_signal_losses(outputs, labels).items()}
    assert losses["type"] == pytest.approx(np.log(np.exp(2.0) + 2.0))
    assert losses["span"] == pytest.approx(np.log(2.0))
    assert losses["inside"] == pytest.approx(np.log1p(np.exp(-1.0)))
    assert losses["edges"] == pytest.approx(0.5 * (0.5 * 0.1**2 + 0.3 * (2.0 - 0.15)), rel=1e-3)
    assert losses["snr"] == pytest.approx(0.1 * (2.5 - 0.05))


def test_receivers_are_dropped_from_some_sessions_and_never_all_of_one():
    tracked = make_rng(5).random((400, 4)) < 0.7
    tracked[:, 2] = True
    kept = drop_receivers(tracked, make_rng(6))
    assert not (kept & ~tracked).any()
    assert (kept.sum(1) >= 1).all()
    assert 0.05 < 1.0 - kept.sum() / tracked.sum() < 0.25


def test_heads_learn_what_the_tracks_hold():
    torch.manual_seed(shift_seed(0))
    train, val = give_tracks(make_timed(96)), give_tracks(make_timed(32, 100), 1)
    heads = SignalHeads()
    facts = fit_signal_heads(heads, train, val, seed=0)
    assert facts["signal_val_loss"] < 0.3 * facts["signal_initial_val_loss"]
    assert facts["signal_best_epoch"] is not None
    tracks, tracked = (torch.from_numpy(part) for part in collect_tracks(val))
    outputs = read_signals(heads(tracks, tracked), tracked, EVERYTHING)
    figures = judge(val, dict(zip(OUTPUTS, (value.numpy() for value in outputs), strict=True)), train)["all"]
    assert figures["accuracy"]["model"]["value"] > 0.95 > figures["accuracy"]["without_looking"]["value"]
    assert figures["span_f1"]["model"]["value"] > 0.97
    assert figures["snr_error_db"]["is_worth"]  # that of these tracks is a law of their own, which no textbook knows
    for name in ("onset_error", "countdown_error", "snr_error_db"):
        assert figures[name]["model"]["value"] < 0.3 * figures[name]["without_looking"]["value"] + 1e-2


def test_the_same_seed_gives_the_same_heads_and_no_validation_the_start():
    train, val = give_tracks(make_timed(16)), give_tracks(make_timed(8, 100), 1)
    states = []
    for _ in range(2):
        torch.manual_seed(shift_seed(1))
        heads = SignalHeads()
        fit_signal_heads(heads, train, val, seed=3)
        states.append(heads.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    torch.manual_seed(shift_seed(1))
    untaught = SignalHeads()
    facts = fit_signal_heads(untaught, train, make_timed(8, 100), seed=3)
    assert (facts["signal_num_epochs"], facts["signal_best_epoch"]) == (0, None)
    assert float(untaught.whole[2].weight.detach().abs().max()) == 0.0


def test_figures_of_a_perfect_and_of_an_unlabelled_set():
    sessions = give_tracks(make_timed(10))
    labels = make_signal_labels(sessions)
    perfect = {
        "signal_type": np.eye(3)[labels["type"]],
        "signal_span": labels["span"],
        "signal_edges": labels["edges"],
        "signal_countdown": np.nan_to_num(labels["countdown"]),
        "signal_snr_db": labels["snr"],
    }
    figures = judge(sessions, perfect, sessions)
    every = figures["all"]
    assert every["recall_voice"]["model"] == every["recall_tone"]["model"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert every["recall_dtmf"]["model"]["value"] is None
    assert every["mean_recall"]["without_looking"]["value"] == 0.5
    assert every["span_f1"]["model"]["value"] == 1.0
    assert every["span_f1"]["classical"]["value"] == 1.0
    assert every["onset_error"]["without_looking"]["value"] == pytest.approx(0.125)  # median of 0 and 0.25
    assert [every[name]["num_sessions"] for name in ("onset_error", "end_error", "edges_error")] == [5, 10, 10]
    assert every["snr_error_db"]["over_without_looking"]["low"] > 0.0
    assert figures["clear"]["accuracy"]["num_sessions"] == 5  # those at 20 dB
    assert every["accuracy"]["is_worth"] is False  # the classical answer is right too: the head adds nothing
    assert figures["snr_stated_error_db"] > 0.0
    table = render_signals_table({"signals": json.loads(json.dumps(figures, allow_nan=False))})
    assert "| type: mean recall | 10 | 100.0 % [100.0, 100.0] | 100.0 % [100.0, 100.0] | 50.0 % [50.0, 50.0] |" in table
    assert "no: classical is as good" in table
    assert "type: accuracy" in list_worthless({"signals": figures})
    nobody = give_tracks(make_timed(10, signal_type=np.full(10, "unknown")))
    silent = judge(replace(nobody, strata={}), perfect, replace(nobody, strata={}))
    assert "| span: F1 of 32 frames | 0 | - | - | - | - | - |" in render_signals_table(
        {"signals": json.loads(json.dumps(silent, allow_nan=False))}
    )
    assert render_signals_table({}) == ""
    assert list_worthless({}) == []


def test_f1_and_its_interval_against_hand_counted_frames():
    """One session called wholly transmission that is by half (F1 2/3), one called rightly."""
    sessions = give_tracks(make_timed(2, span_start_s=np.array([0.5, 0.0]), span_end_s=np.ones(2)))
    said = {name: values.copy() for name, values in detect_signals(sessions).items()}
    said["signal_span"][:] = 1.0
    figure = evaluate_signals(sessions, said, None, EvaluationSpec())["all"]["span_f1"]
    assert figure["model"]["value"] == pytest.approx(2.0 * 48 / (64 + 48))
    # Two sessions drawn with replacement: a quarter each of (one, one) and (other, other), half of both.
    assert figure["model"]["low"] == pytest.approx(2.0 / 3.0)
    assert figure["model"]["high"] == 1.0
    assert figure["classical"]["value"] == 1.0
    assert figure["over_classical"]["value"] == pytest.approx(2.0 * 48 / (64 + 48) - 1.0)
    assert figure["without_looking"]["value"] is None
    assert figure["is_worth"] is False


def test_a_fitted_model_answers_from_tracks_alone_and_only_what_it_learned(tmp_path):
    train, val = give_tracks(make_timed(24, true_snr_db=np.full(24, np.nan))), give_tracks(make_timed(8, 100), 1)
    fitted = fit(tmp_path, train, val, multi_target=True)
    assert fitted.statistics["signal_tasks"] == ["type", "span", "edges", "countdown"]
    assert fitted.settings["facts"]["signal_num_epochs"] >= 1
    signals = fitted.predict_signals(val)
    assert np.isnan(signals["signal_snr_db"]).all()  # no training session knew it: an answer would be a guess
    np.testing.assert_allclose(signals["signal_type"].sum(1), 1.0, rtol=1e-5)
    assert ((signals["signal_span"] >= 0.0) & (signals["signal_span"] <= 1.0)).all()
    deaf = replace(val, **{name: np.full(24, np.nan) for name in ("arrival_s", "snr_db", "carrier_offset_hz")})
    for name, values in fitted.predict_signals(deaf).items():
        np.testing.assert_array_equal(values, signals[name])
    blind = np.where(np.arange(24) < 3, -1, val.track_row)
    blind[3] = -1
    unheard = fitted.predict_signals(replace(val, track_row=blind))
    assert all(np.isnan(values[0]).all() for values in unheard.values())
    assert np.isfinite(unheard["signal_span"][1:]).all()
    back = np.arange(24).reshape(8, 3)[:, ::-1].ravel()
    turned = replace(val, track_row=val.track_row[back])
    np.testing.assert_allclose(fitted.predict_signals(turned)["signal_span"], signals["signal_span"], atol=1e-5)
    again = decode_model(fitted.encode()).predict_signals(val)
    assert all(np.array_equal(again[name], values, equal_nan=True) for name, values in signals.items())


def test_positions_are_the_same_to_the_bit_with_heads_as_without(tmp_path):
    train, val = give_tracks(make_timed(24)), give_tracks(make_timed(24, 100), 1)
    plain = fit(tmp_path / "plain", train, val)
    bare = fit(tmp_path / "bare", *(replace(part, strata={}, tracks=None, track_row=None) for part in (train, val)))
    assert plain.encode() == bare.encode()  # labels and tracks alone change nothing
    assert not [name for name in plain.weights if name.startswith("signals")]
    assert plain.predict_signals(val) is None
    headed = fit(tmp_path / "headed", train, val, multi_target=True)
    assert headed.history == plain.history
    for name, values in plain.weights.items():
        np.testing.assert_array_equal(headed.weights[name], values)
    np.testing.assert_array_equal(headed.predict(val).latitude, plain.predict(val).latitude)
    np.testing.assert_array_equal(headed.predict(val).covariance_m2, plain.predict(val).covariance_m2)


def test_the_exported_file_takes_tracks_and_says_what_pytorch_says(tmp_path):
    train, val = give_tracks(make_timed(24)), give_tracks(make_timed(8, 100), 1)
    fitted = fit(tmp_path, train, val, multi_target=True)
    data = export_onnx(fitted, ExportSpec(), {})
    inputs = {item.name: item.shape for item in open_onnx_session(data).get_inputs()}
    assert set(inputs) == {"origin", "receivers", "tracks", "tracked"}
    assert inputs["tracks"][2:] == [NUM_ROWS, NUM_STEPS]
    partly = replace(val, track_row=np.where(np.arange(24) % 5 == 0, -1, val.track_row))
    for sessions in (val, partly):
        assert compute_parity(fitted, data, sessions)["max_signal_error"] < 1e-3
    metadata = read_onnx_metadata(data)
    assert "signal_track" in metadata["input.tracks"]
    assert {f"output.{name}" for name in OUTPUTS} <= set(metadata)


def test_the_exported_file_takes_any_number_of_sessions_where_a_task_had_no_labels(tmp_path):
    """What nobody labelled is NaN in each row; as a constant it would have the rows that were traced."""
    train, val = (give_tracks(make_sessions(num, first, signal_type=np.resize(["dtmf", "voice"], num)), first)
                  for num, first in ((24, 0), (8, 100)))  # fmt: skip
    fitted = fit(tmp_path, train, val, multi_target=True)
    assert fitted.statistics["signal_tasks"] == ["type"]
    data = export_onnx(fitted, ExportSpec(), {})
    for num in (1, 2, 5):
        sessions = val.take(np.arange(num))
        assert compute_parity(fitted, data, sessions)["max_signal_error"] < 1e-3


def test_signals_that_cannot_be_learned_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="multi_target: found kind single_receiver, expected network"):
        ModelSpec(multi_target=True, kind="single_receiver")
    val = give_tracks(make_timed(8, 100))
    for train in (replace(give_tracks(make_timed(8), 1), strata={}), make_timed(8)):
        with pytest.raises(InvalidInput, match="0 of 8 sessions have both a demodulated recording and a label"):
            fit(tmp_path, train, val, multi_target=True)


def test_joining_sessions_that_know_less_keeps_the_labels_of_those_that_know():
    timed = give_tracks(make_timed(4))
    joined = join_sessions([timed, make_sessions(3, 50, signal_type=np.full(3, "dtmf"))])
    labels = make_signal_labels(joined)
    assert labels["type"].tolist() == [1, 0, 1, 0, 2, 2, 2]
    assert np.isfinite(labels["span"]).all(axis=1).tolist() == [True] * 4 + [False] * 3
    assert joined.tracked.sum() == 12
    assert joined.track_row[12:].tolist() == [-1] * 9
    with pytest.raises(InvalidInput, match="only the first may carry spectrograms or signal tracks"):
        join_sessions([timed, timed])


MIXED = SimulationSpec(seed=11, min_receivers=2, max_receivers=2, voice_fraction=0.4, tone_fraction=0.3)


def test_a_small_simulated_set_is_told_by_detection_alone():
    """Seconds of the bar: recall and F1 of sessions at 10 dB and above, receivers with all their faults."""
    sessions = simulate_tracked(MIXED.model_copy(update={"seed": shift_seed(11)}), range(60))
    figures = judge(sessions, detect_signals(sessions), sessions)["clear"]
    assert figures["mean_recall"]["num_sessions"] > 20
    assert figures["mean_recall"]["model"]["value"] >= 0.95
    assert figures["span_f1"]["model"]["value"] > figures["span_f1"]["without_looking"]["value"]
    assert figures["span_f1"]["model"]["value"] > 0.99


@pytest.mark.long
def test_the_bar():
    """Mean recall of 0.95 at 10 dB and above, span F1 above that of not looking, on unseen sessions."""
    everything = simulate_tracked(MIXED.model_copy(update={"seed": shift_seed(12)}), range(1100))
    train, val, test = (everything.take(rows) for rows in np.split(np.arange(1100), [700, 850]))
    torch.manual_seed(shift_seed(0))
    heads = SignalHeads()
    fit_signal_heads(heads, train, val, seed=0)
    signals = answer(heads, test)
    figures = evaluate_signals(test, signals, train, EvaluationSpec())
    for part in ("all", "clear"):
        assert figures[part]["span_f1"]["over_without_looking"]["low"] > 0.0
    clear = figures["clear"]
    assert clear["mean_recall"]["num_sessions"] >= 150
    assert min(clear[name]["model"]["value"] for name in ("mean_recall", "recall_dtmf", "recall_tone")) >= 0.95
    for name in ("mean_recall", "edges_error", "end_error", "snr_error_db"):
        assert figures["all"][name]["over_without_looking"]["low"] > 0.0
    for name in ("end_error", "snr_error_db"):  # where there is something that the textbook does not know
        assert figures["all"][name]["is_worth"]


def answer(heads: SignalHeads, sessions: SessionSet):
    tracks, tracked = (torch.from_numpy(part) for part in collect_tracks(sessions))
    with torch.no_grad():
        outputs = read_signals(heads(tracks, tracked), tracked, EVERYTHING)
    return dict(zip(OUTPUTS, (value.numpy() for value in outputs), strict=True))
