"""Training on stored splits: found again by all that decides it, pretrained weights included, and lost by no kill."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from heimdall_assets.errors import InvalidSetting, MissingDependency, StorageError
from heimdall_assets.kinds import TEST_SPLIT, TRAIN_SPLIT, TRAINED_CHECKPOINT, VAL_SPLIT
from heimdall_assets.learning.backbone import build_backbone
from heimdall_assets.manifests import Manifest, compute_digest
from heimdall_assets.pipeline.planning import Step, plan_materialization
from heimdall_assets.pipeline.pretrained import read_pretrained, state_content
from heimdall_assets.pipeline.releases.reproduction import reproduce_release
from heimdall_assets.pipeline.results import Result, name_result
from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint
from heimdall_assets.pipeline.stages.model_release import release_model
from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint
from heimdall_assets.pipeline.stages.trained_checkpoint import PRETRAINED, load_checkpoint, train_checkpoint
from heimdall_assets.specs import AugmentationSpec, EvaluationSpec, ExportSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets_tests.homes import SIMULATION, fill_home, ignore, split_home

FEW = SIMULATION.model_copy(update={"num_sessions": 12})
FIT = TrainingSpec(max_epochs=1, num_threads=1)
SMALL = ModelSpec(use_spectrograms=False, width=8, num_layers=1, num_heads=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stores, dict[str, Manifest]]:
    """Opened stores of a small home, and its splits by kind."""
    return split_home(fill_home(tmp_path_factory.mktemp("home"), FEW))


def train(home: tuple[Stores, dict[str, Manifest]], model: ModelSpec, training: TrainingSpec = FIT, **more) -> Result:
    stores, splits = home
    parents = splits[TRAIN_SPLIT], splits[VAL_SPLIT]
    return train_checkpoint(stores.objects, stores.scratch, *parents, model, training, AugmentationSpec(), **more)


def write_backbone(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    path.write_bytes(save(build_backbone("atto").state_dict()))


def plan_training(stores: Stores, model: ModelSpec) -> Step:
    steps = plan_materialization(stores, [model, FIT])
    return next(step for step in steps if step.asset == TRAINED_CHECKPOINT)


def test_other_weights_under_the_same_name_give_another_result(home, tmp_path: Path):
    stores, _ = home
    path = tmp_path / "atto.safetensors"
    model = ModelSpec(kind="single_receiver", pretrained=True, weights_file=str(path), freeze_backbone=True)
    results = []
    for seed in (1, 2):
        write_backbone(path, seed)
        assert plan_training(stores, model).action == "compute"
        result = train(home, model)
        assert not result.reused
        assert plan_training(stores, model).action == "reuse"
        assert result.manifest.content == {"pretrained_weights": compute_digest(path.read_bytes())}
        assert stores.objects.read_bytes(result.manifest.artifacts[PRETRAINED].digest) == path.read_bytes()
        weights = load_checkpoint(stores.objects, result.manifest).weights
        torch.manual_seed(seed)
        for name, value in build_backbone("atto").state_dict().items():
            assert np.array_equal(weights[f"backbone.{name}"], value.numpy()), name
        results.append(result.manifest)
    assert results[0].specs == results[1].specs  # all that told them apart was the file's content
    write_backbone(path, 1)
    again = train(home, model)
    assert again.reused
    assert again.manifest == results[0]
    path.unlink()
    with pytest.raises(MissingDependency, match=r"atto\.safetensors.*No such file"):
        train(home, model)
    step = plan_training(stores, model)
    assert step.action == "compute"
    assert "No such file" in step.reason


@pytest.mark.long
def test_a_model_made_again_from_other_weights_says_so_first(home, tmp_path: Path):
    stores, splits = home
    path = tmp_path / "atto.safetensors"
    write_backbone(path, 5)
    model = ModelSpec(kind="single_receiver", pretrained=True, weights_file=str(path), freeze_backbone=True)
    checkpoint = train(home, model).manifest
    judged = (stores.objects, checkpoint, splits[TEST_SPLIT])
    evaluation = evaluate_checkpoint(*judged, EvaluationSpec(num_bootstrap=100)).manifest
    onnx = export_checkpoint(*judged, ExportSpec()).manifest
    version = release_model(stores, onnx, evaluation).manifest.summary["version"]
    assert reproduce_release(stores, version, [], ignore).first_difference is None
    before = compute_digest(path.read_bytes())
    write_backbone(path, 6)
    assert reproduce_release(stores, version, [], ignore).first_difference is None  # from the bytes that were kept
    other = path.rename(tmp_path / "other.safetensors")
    different = reproduce_release(stores, version, [ModelSpec(weights_file=str(other))], ignore).first_difference
    assert different is not None
    assert different.stage == TRAINED_CHECKPOINT
    assert different.differences[:2] == [
        f"ModelSpec.weights_file {str(path)!r} then, {str(other)!r} now",
        f"pretrained_weights: SHA-256 {before} then, {compute_digest(other.read_bytes())} now",
    ]


def test_a_result_without_pretrained_weights_has_the_key_it_always_had(home):
    _, splits = home
    parents = {TRAIN_SPLIT: splits[TRAIN_SPLIT].digest, VAL_SPLIT: splits[VAL_SPLIT].digest}
    specs = [SMALL, FIT, AugmentationSpec()]
    assert state_content(read_pretrained(SMALL)) == {}
    asked = (TRAINED_CHECKPOINT, parents, specs)
    assert name_result(*asked, {}) == name_result(*asked)
    manifest = train(home, SMALL).manifest
    assert home[0].objects.read_reference(name_result(*asked)) == manifest.digest
    assert manifest.content == {}
    assert PRETRAINED not in manifest.artifacts
    assert "weights_file_sha256" not in manifest.summary


def test_a_file_that_nobody_would_use_is_refused_or_not_read(tmp_path: Path):
    absent = str(tmp_path / "absent.safetensors")
    with pytest.raises(InvalidSetting, match=r"weights_file '.*' with pretrained=False: expected pretrained=True"):
        read_pretrained(ModelSpec(weights_file=absent))
    assert read_pretrained(ModelSpec(pretrained=True, weights_file=absent, use_spectrograms=False)) is None
    with pytest.raises(MissingDependency, match="expected a local"):
        read_pretrained(ModelSpec(pretrained=True, weights_file=absent))


class Unnamed(FolderObjectStore):
    """A store whose process dies where a result gets its name."""

    def write_reference(self, name: str, digest: str) -> None:
        raise StorageError("died here")


def test_a_training_that_dies_before_its_result_has_a_name_is_not_trained_again(home):
    stores, splits = home
    training = FIT.model_copy(update={"seed": 8})
    dying = replace(stores, objects=Unnamed(stores.objects.root))
    with pytest.raises(StorageError, match="died here"):
        train((dying, splits), SMALL, training)
    (kept,) = stores.scratch.iterdir()
    epochs, started = [], []
    result = train(home, SMALL, training, on_epoch=lambda epoch, _: epochs.append(epoch), on_start=started.append)
    assert started == [kept / "last.ckpt"]
    assert epochs == []
    assert not result.reused
    assert list(stores.scratch.iterdir()) == []


def test_checkpoints_that_a_killed_process_left_beside_its_stored_result_go(home):
    stores, _ = home
    result = train(home, SMALL)
    name = next(
        name.removeprefix("results/")
        for name in stores.objects.list_references("results/")
        if stores.objects.read_reference(name) == result.manifest.digest
    )
    (stores.scratch / name).mkdir(parents=True)
    (stores.scratch / name / "last.ckpt").write_bytes(b"left over")
    assert train(home, SMALL).reused
    assert list(stores.scratch.iterdir()) == []
