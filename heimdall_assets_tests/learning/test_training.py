import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from heimdall_assets.errors import CorruptObject, InvalidInput, InvalidSetting, NotFound, Refused, StorageError
from heimdall_assets.learning.backbone import build_backbone
from heimdall_assets.learning.fitting.batches import EpochBatches
from heimdall_assets.learning.fitting.checkpoints import HandedCheckpointIO, load_checkpoint
from heimdall_assets.learning.fitting.fitted import SETTINGS_FILE, WEIGHTS_FILE, FittedModel, decode_model
from heimdall_assets.learning.fitting.hooks import Start
from heimdall_assets.learning.fitting.schedule import Schedule
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.learning.receiver_model.degrees import compute_metres_per_degree
from heimdall_assets.learning.task import find_task
from heimdall_assets.pipeline.pretrained import read_pretrained
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.learning.learning_cases import QUICK, SINGLE, fit_quick, get_fitted, make_sessions
from heimdall_assets_tests.stores.faults import Faulty
from heimdall_assets_tests.variation import get_seed_offset, make_rng, shift_seed

ROOT = Path(__file__).resolve().parents[2]

DIGESTS = """
import hashlib
import sys
from heimdall_assets.learning.export.onnx_file import export_onnx
from heimdall_assets.specs import ExportSpec
from heimdall_assets_tests.learning.learning_cases import get_fitted
from heimdall_assets_tests.variation import start_run
start_run(int(sys.argv[1]), None)
fitted = get_fitted()
onnx = export_onnx(fitted, ExportSpec(), {"version": "0.0.1"})
for data in [*fitted.encode().values(), onnx]:
    print(hashlib.sha256(data).hexdigest())
"""


def digest(fitted: FittedModel) -> str:
    return hashlib.sha256(fitted.encode()[WEIGHTS_FILE]).hexdigest()


def test_other_process_gives_the_same_bytes_and_no_warning() -> None:
    from heimdall_assets.learning.export.onnx_file import export_onnx
    from heimdall_assets.specs import ExportSpec

    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", DIGESTS, str(get_seed_offset())],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    fitted = get_fitted()
    files = [*fitted.encode().values(), export_onnx(fitted, ExportSpec(), {"version": "0.0.1"})]
    assert found.stdout.split() == [hashlib.sha256(data).hexdigest() for data in files]
    assert found.stderr == ""


def test_training_lowers_the_loss() -> None:
    history = get_fitted().history
    assert [record["epoch"] for record in history] == [0, 1, 2]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert get_fitted().settings["facts"]["best_epoch"] == int(np.argmin([item["val_loss"] for item in history]))


def test_folder_holds_the_three_best_and_the_last_and_nothing_else(tmp_path: Path) -> None:
    seen = []
    fitted = fit_quick(
        tmp_path,
        training=QUICK.model_copy(update={"max_epochs": 4}),
        on_epoch=lambda epoch, metrics: seen.append((epoch, metrics)),
    )
    losses = [record["val_loss"] for record in fitted.history]
    best = sorted(f"epoch-{epoch:03d}.ckpt" for epoch in np.argsort(losses, kind="stable")[:3])
    assert sorted(path.name for path in tmp_path.iterdir()) == [*best, "last.ckpt"]
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3]
    assert seen[0][1]["val_loss"] == losses[0]
    checkpoint = torch.load(tmp_path / f"epoch-{np.argmin(losses):03d}.ckpt", weights_only=True)
    for name, value in fitted.weights.items():
        assert torch.equal(checkpoint["state_dict"][f"network.{name}"], torch.from_numpy(value))


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # what a supervisor or a cluster sends


@pytest.mark.parametrize("stop", [press_ctrl_c, send_sigterm])
def test_cancelled_run_stays_cancelled_and_resumes_to_the_same_bytes(tmp_path: Path, stop: Callable[[], None]) -> None:
    handler = signal.getsignal(signal.SIGINT)

    def cancel(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 1:
            stop()

    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(KeyboardInterrupt):
        fit_quick(first, on_epoch=cancel)
    assert signal.getsignal(signal.SIGINT) is handler
    assert {path.name for path in first.iterdir()} >= {"last.ckpt", "on_exception.ckpt"}
    shutil.copytree(first, second)
    elsewhere = fit_quick(second, resume_from="last.ckpt")
    in_place = fit_quick(first, resume_from="last.ckpt")
    for resumed in (elsewhere, in_place):
        assert resumed.history == get_fitted().history
        assert digest(resumed) == digest(get_fitted())


def test_run_that_had_ended_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    done = fit_quick(tmp_path)
    assert fit_quick(tmp_path, resume_from="last.ckpt").encode() == done.encode()


def test_run_that_had_stopped_early_stays_stopped(tmp_path: Path) -> None:
    spec = QUICK.model_copy(
        update={"max_epochs": 6, "early_stopping_patience": 1, "early_stopping_min_delta": 1e6, "warmup_epochs": 0}
    )
    done = fit_quick(tmp_path, training=spec)
    assert len(done.history) == 2
    assert fit_quick(tmp_path, training=spec, resume_from="last.ckpt").encode() == done.encode()


@pytest.mark.parametrize("data", [b"", b"\x80\x04pickle", b"PK\x03\x04 cut off"])
def test_damaged_checkpoint_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "last.ckpt").write_bytes(data)
    with pytest.raises(CorruptObject, match=r"last\.ckpt.*delete it to start that fit afresh"):
        fit_quick(tmp_path, resume_from="last.ckpt")


def test_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil(), "history": []}, tmp_path / "last.ckpt")
    with pytest.raises(CorruptObject):
        fit_quick(tmp_path, resume_from="last.ckpt")
    assert not (tmp_path / "ran").exists()


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    fit_quick(tmp_path, training=QUICK.model_copy(update={"max_epochs": 1}))
    with pytest.raises(InvalidInput, match="belongs to a fit of another model"):
        fit_quick(tmp_path, model=SINGLE.model_copy(update={"backbone_size": "femto"}), resume_from="last.ckpt")


def test_checkpoint_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    keeper, path = HandedCheckpointIO(checkpoints), tmp_path / "last.ckpt"
    keeper.save_checkpoint({"state_dict": {}, "history": [1], "progress": {}}, path)
    with pytest.raises(Exception, match="pickle"):
        keeper.save_checkpoint({"state_dict": lambda: None, "history": [2], "progress": {}}, path)
    assert load_checkpoint(checkpoints, "last.ckpt")["history"] == [1]


@pytest.mark.parametrize("at", [8, 30])
def test_disk_that_fails_is_the_error_shown_and_the_fit_goes_on_to_the_same_bytes(tmp_path: Path, at: int) -> None:
    failing = CheckpointFolder(tmp_path, Faulty("ENOSPC", at))
    with pytest.raises(StorageError, match=r"\.ckpt: could not be stored \(ENOSPC"):
        fit_model(
            SINGLE, QUICK, AugmentationSpec(), make_sessions(16, seed=1), make_sessions(6, seed=2, first=100), failing
        )
    resumed = fit_quick(tmp_path, resume_from="last.ckpt" if failing.exists("last.ckpt") else "on_exception.ckpt")
    assert digest(resumed) == digest(get_fitted())


def test_emergency_checkpoint_can_be_resumed_from(tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    def fail(epoch: int, metrics: dict[str, float]) -> None:
        raise Broken

    with pytest.raises(Broken):
        fit_quick(tmp_path, on_epoch=fail)
    resumed = fit_quick(tmp_path, resume_from="on_exception.ckpt")
    assert [record["epoch"] for record in resumed.history][-1] == 2


def test_fresh_run_in_a_used_folder_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "on_exception.ckpt").write_bytes(b"left over")
    assert digest(fit_quick(tmp_path)) == digest(get_fitted())


def test_global_state_is_given_back(tmp_path: Path) -> None:
    torch.manual_seed(shift_seed(5))
    expected = torch.rand(1)
    torch.manual_seed(shift_seed(5))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        fit_quick(tmp_path, training=QUICK.model_copy(update={"max_epochs": 1}))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.rand(1) == expected
    assert not torch.are_deterministic_algorithms_enabled()


def test_bf16_keeps_the_answer_in_float32(tmp_path: Path) -> None:
    spec = QUICK.model_copy(update={"precision": "bf16-mixed", "max_epochs": 1})
    fitted = fit_quick(tmp_path, training=spec)
    assert {value.dtype for value in fitted.weights.values()} == {np.dtype(np.float32)}
    assert np.isfinite(fitted.history[0]["val_loss"])


def test_frozen_backbone_stays_and_heads_move(tmp_path: Path) -> None:
    model = SINGLE.model_copy(update={"freeze_backbone": True})
    spec = QUICK.model_copy(update={"max_epochs": 1})
    one = fit_quick(tmp_path / "1", model=model, training=spec)
    two = fit_quick(tmp_path / "2", model=model, training=spec.model_copy(update={"learning_rate": 1e-2}))
    moved = {name for name in one.weights if not np.array_equal(one.weights[name], two.weights[name])}
    assert moved
    assert not any(name.startswith("backbone.") for name in moved)


def test_pretrained_weights_come_from_a_local_file(tmp_path: Path) -> None:
    backbone = build_backbone("atto")
    path = tmp_path / "backbone.safetensors"
    save_file(backbone.state_dict(), path)
    model = SINGLE.model_copy(update={"pretrained": True, "weights_file": str(path), "freeze_backbone": True})
    fitted = fit_quick(
        tmp_path / "run",
        model=model,
        training=QUICK.model_copy(update={"max_epochs": 1}),
        weights=read_pretrained(model),
    )
    for name, value in backbone.state_dict().items():
        assert np.array_equal(fitted.weights[f"backbone.{name}"], value.numpy())
    assert fitted.settings["facts"]["weights_file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    assert not decode_model(fitted.encode()).predict(make_sessions(2, seed=1)).refused.any()


def test_a_fit_from_a_model_with_a_frozen_backbone_tunes_what_stands_on_it(tmp_path: Path) -> None:
    before = get_fitted()
    model = SINGLE.model_copy(update={"freeze_backbone": True})
    spec = QUICK.model_copy(update={"max_epochs": 2, "warmup_epochs": 0, "schedule": "constant"})
    tuned = fit_quick(tmp_path, model=model, training=spec, start=Start(before, facts={"note": 1}))
    moved = {name for name in tuned.weights if not np.array_equal(tuned.weights[name], before.weights[name])}
    assert moved
    assert not any(name.startswith("backbone.") for name in moved)
    assert tuned.statistics == before.statistics  # what its weights were fitted to
    facts = tuned.settings["facts"]
    assert facts["initial_val_loss"] == pytest.approx(before.settings["facts"]["best_val_loss"], rel=1e-6)
    assert facts["note"] == 1
    larger = SINGLE.model_copy(update={"backbone_size": "femto"})
    with pytest.raises(InvalidInput, match=r"start_from: backbone\..* it is of another architecture"):
        fit_quick(tmp_path / "other", model=larger, start=Start(before))


def test_shared_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="session s00000: stands in the training and the validation split"):
        fit_quick(tmp_path, val=make_sessions(6, seed=2))


def test_split_without_examples_is_refused(tmp_path: Path) -> None:
    sessions = make_sessions(4, seed=2, first=100)
    blind = replace(sessions, feature_row=np.full(8, -1))
    with pytest.raises(
        InvalidInput, match="validation split: 0 examples for a single_receiver model: expected at least 1"
    ):
        fit_quick(tmp_path, val=blind)
    with pytest.raises(InvalidInput, match="0 of 8 receivers"):
        fit_quick(tmp_path, train=blind, val=make_sessions(4, seed=3))


def test_training_sources_at_one_point_are_refused(tmp_path: Path) -> None:
    sessions = make_sessions(4, seed=2)
    with pytest.raises(InvalidInput, match="sources spread 0 m north"):
        fit_quick(tmp_path, train=replace(sessions, source_latitude=np.full(4, 45.0)))


def test_training_that_only_harms_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    still = QUICK.model_copy(update={"max_epochs": 1, "learning_rate": 1e-12})
    harmful = QUICK.model_copy(update={"max_epochs": 1, "learning_rate": 0.3, "warmup_epochs": 0})
    fitted = fit_quick(tmp_path / "harmful", training=harmful)
    facts = fitted.settings["facts"]
    assert facts["best_epoch"] is None
    assert facts["best_val_loss"] == facts["initial_val_loss"] < min(item["val_loss"] for item in fitted.history)
    unmoved = fit_quick(tmp_path / "still", training=still)
    assert unmoved.settings["facts"]["initial_val_loss"] == facts["initial_val_loss"]
    for name, value in unmoved.weights.items():
        np.testing.assert_allclose(fitted.weights[name], value, rtol=0.0, atol=1e-6)


def test_divergence_is_an_error(tmp_path: Path) -> None:
    spec = QUICK.model_copy(update={"learning_rate": 1e30, "warmup_epochs": 0})
    with pytest.raises(InvalidInput, match=r"train_loss is nan in epoch 0 after 1 steps, of session s0\d+ at w\d"):
        fit_quick(tmp_path, training=spec)


def test_simulated_sessions_without_iq_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="num_simulated_sessions 5"):
        fit_quick(tmp_path, training=QUICK.model_copy(update={"num_simulated_sessions": 5}))


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"absent\.ckpt"):
        fit_quick(tmp_path, resume_from="absent.ckpt")


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="expected one of single_receiver, network"):
        find_task("telepathy")


def test_schedule_rises_and_falls() -> None:
    spec = TrainingSpec(max_epochs=40, warmup_epochs=5)
    schedule = Schedule(spec, steps_per_epoch=10)
    factors = [schedule.compute_factor(step) for step in range(400)]
    assert factors[0] == pytest.approx(1 / 51)
    assert np.argmax(factors) == 50
    assert factors[50] == 1.0
    assert factors[225] == pytest.approx(0.5)
    assert schedule.compute_factor(400) == pytest.approx(0.0)


def test_batches_cover_every_example_once_and_ascend() -> None:
    batches = EpochBatches(np.arange(5, 42), 8, seed=1, shuffle=True)
    batches.set_epoch(3)
    parts = [part for _, _, part in batches]
    assert len(parts) == len(batches) == 5
    assert sorted(np.concatenate(parts)) == list(range(5, 42))
    assert all((np.diff(part) > 0).all() for part in parts)
    batches.set_epoch(4)
    assert not all(np.array_equal(one, other) for one, (_, _, other) in zip(parts, batches, strict=True))


def test_encode_and_decode_give_the_same_model() -> None:
    fitted = get_fitted()
    again = decode_model(fitted.encode())
    assert again.encode() == fitted.encode()
    sessions = make_sessions(3, seed=9, first=500)
    assert np.array_equal(again.predict(sessions).latitude, fitted.predict(sessions).latitude)


def test_predictions_stay_within_the_network() -> None:
    sessions = make_sessions(5, seed=9, first=500)
    predictions = get_fitted().predict(sessions)
    assert len(predictions.latitude) == 5
    assert not predictions.refused.any()
    assert (np.abs(predictions.latitude - 45.0) < 2).all()
    assert (predictions.covariance_m2[:, :2] > 0).all()


def test_sessions_without_spectrogram_are_refused_and_others_unchanged() -> None:
    sessions = make_sessions(4, seed=9, first=500)
    rows = sessions.feature_row.copy()
    rows[2:4] = -1
    partly = get_fitted().predict(replace(sessions, feature_row=rows))
    assert partly.refused.tolist() == [False, True, False, False]
    assert np.isnan(partly.latitude[1])
    keep = np.array([0, 2, 3])
    # Batches of other sizes are multiplied in other blocks: float32 of some 100 km is a centimetre, 1e-7 degrees.
    assert partly.latitude[keep] == pytest.approx(get_fitted().predict(sessions).latitude[keep], abs=1e-7)


def test_receivers_are_predicted_one_by_one() -> None:
    sessions = make_sessions(3, seed=9, first=500)
    rows = sessions.feature_row.copy()
    rows[1] = -1
    alone = get_fitted().predict_receivers(replace(sessions, feature_row=rows))
    assert alone.refused.tolist() == [False, True, False, False, False, False]
    fused = get_fitted().predict(replace(sessions, feature_row=rows))
    assert fused.latitude[0] == pytest.approx(alone.latitude[0], abs=1e-12)


def test_calibration_makes_ellipses_hold_and_few_sessions_only_widen() -> None:
    fitted, val = get_fitted(), make_sessions(60, seed=21, first=2000)
    calibration = fitted.task.calibrate(fitted.network, val, fitted.statistics)
    found = fitted.task.predict(fitted.network, val, fitted.statistics, calibration)
    north, east = compute_metres_per_degree(val.source_latitude)
    offset = np.stack([(found.longitude - val.source_longitude) * east, (found.latitude - val.source_latitude) * north])
    variance = found.covariance_m2 + np.array([2500.0, 2500.0, 0.0])
    matrix = np.stack([variance[:, [0, 2]], variance[:, [2, 1]]], axis=1)
    energy = np.einsum("is,sij,js->s", offset, np.linalg.inv(matrix), offset)
    inside = np.mean(energy < -2 * np.log(0.1))
    # split conformal on its own sessions: at least 0.9, at most one session more than ceil(61 x 0.9)
    assert 0.88 <= inside <= 0.94
    few = fitted.task.calibrate(fitted.network, make_sessions(3, seed=21, first=2000), fitted.statistics)
    assert min(few.values()) >= 1.0


def test_augmentation_disturbs_training_only() -> None:
    task, sessions = find_task("single_receiver"), make_sessions(4, seed=1)
    statistics = task.fit_statistics(SINGLE, sessions)
    examples = np.arange(8)
    plain = task.make_batch(sessions, examples, statistics)["features"]
    disturbed = task.make_batch(sessions, examples, statistics, AugmentationSpec(), make_rng(1))["features"]
    assert plain.shape == disturbed.shape
    assert not torch.equal(plain, disturbed)
    assert torch.equal(plain, task.make_batch(sessions, examples, statistics)["features"])
    with pytest.raises(InvalidInput, match="without a random generator"):
        task.make_batch(sessions, examples, statistics, AugmentationSpec())


def test_training_reads_a_memory_map(tmp_path: Path) -> None:
    sessions = make_sessions(16, seed=1)
    np.save(tmp_path / "features.npy", sessions.features)
    mapped = replace(sessions, features=np.load(tmp_path / "features.npy", mmap_mode="r", allow_pickle=False))
    assert digest(fit_quick(tmp_path / "run", train=mapped)) == digest(get_fitted())


def damage(**files: bytes) -> dict[str, bytes]:
    return {**get_fitted().encode(), **{name: data for name, data in files.items()}}


def test_damaged_files_are_refused() -> None:
    files = get_fitted().encode()
    weights, settings = files[WEIGHTS_FILE], files[SETTINGS_FILE]
    name = b'"uncertainty_head.0.bias"'
    double = weights.replace(b'"uncertainty_head.3.bias"', name)
    cases = [
        {SETTINGS_FILE: settings},
        {WEIGHTS_FILE: b"", SETTINGS_FILE: settings},
        {WEIGHTS_FILE: weights[:-1], SETTINGS_FILE: settings},
        {WEIGHTS_FILE: b"\xff" * 8 + weights, SETTINGS_FILE: settings},
        {WEIGHTS_FILE: b"\x80\x04pickle", SETTINGS_FILE: settings},
        {WEIGHTS_FILE: double, SETTINGS_FILE: settings},
        {WEIGHTS_FILE: weights, SETTINGS_FILE: settings[:-1]},
        {WEIGHTS_FILE: weights, SETTINGS_FILE: b"{}"},
        {WEIGHTS_FILE: weights, SETTINGS_FILE: b"[" * 100_000},
        {WEIGHTS_FILE: weights, SETTINGS_FILE: settings.replace(b'"format":1', b'"format":2')},
        {WEIGHTS_FILE: weights, SETTINGS_FILE: settings.replace(b'"format":1', b'"format":NaN')},
        {WEIGHTS_FILE: weights, SETTINGS_FILE: settings.replace(b'"single_receiver"', b'"other"')},
    ]
    assert double != weights
    for case in cases:
        with pytest.raises(CorruptObject):
            decode_model(case)


def test_weights_of_another_architecture_are_refused() -> None:
    fitted = get_fitted()
    lacking = {name: value for name, value in fitted.weights.items() if not name.startswith("position_head.0")}
    with pytest.raises(InvalidInput, match="2 weights missing"):
        _ = replace(fitted, weights=lacking).network
    name = "position_head.0.bias"
    with pytest.raises(InvalidInput, match=r"position_head\.0\.bias is \(3,\): expected \(512,\)"):
        _ = replace(fitted, weights={**fitted.weights, name: np.zeros(3, np.float32)}).network


def test_fit_model_takes_the_contracts_arguments(tmp_path: Path) -> None:
    fitted = fit_model(
        ModelSpec(kind="single_receiver"),
        QUICK.model_copy(update={"max_epochs": 1}),
        AugmentationSpec(),
        make_sessions(8, seed=1),
        make_sessions(4, seed=2, first=100),
        CheckpointFolder(tmp_path),
    )
    assert fitted.settings["model"]["kind"] == "single_receiver"
