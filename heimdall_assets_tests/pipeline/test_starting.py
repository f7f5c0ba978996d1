import json
import shutil
import struct
from pathlib import Path

import pytest

from heimdall_assets.errors import InvalidIdentifier, InvalidInput, InvalidSetting, NotFound
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.pipeline.trainings.starting import (
    check_safetensors,
    find_checkpoint,
    recall_specs,
    start_from,
)
from heimdall_assets.specs import DatasetSpec, ModelSpec, TrainingSpec
from heimdall_assets_tests.homes import TINY


@pytest.fixture(scope="module")
def home(released_home, tmp_path_factory):
    """Stores of a home whose graph ran once, and the manifest of its checkpoint."""
    places, summary = released_home(tmp_path_factory.mktemp("starting") / "home")
    stores = places.open_stores()
    checkpoint = Manifest.decode(stores.objects.read_bytes(summary["manifests"][TRAINED_CHECKPOINT]))
    return stores, checkpoint, summary


def pick(specs, kind):
    return next(spec for spec in specs if type(spec) is kind)


def test_one_checkpoint_is_found_by_all_its_names(home, tmp_path: Path):
    stores, checkpoint, summary = home
    weights = stores.objects.local_path(checkpoint.artifacts["weights.safetensors"].digest)
    copy = tmp_path / "mine.safetensors"
    shutil.copy(weights, copy)
    names = [summary["version"], "latest", "champion", checkpoint.digest, f"sha256:{checkpoint.digest}"]
    for named in [*names, str(weights), str(copy)]:
        assert find_checkpoint(stores, named) == checkpoint, named


def test_a_kept_checkpoint_leads_to_its_training_by_what_stands_beside_it(home, tmp_path: Path):
    stores, checkpoint, _ = home
    path = tmp_path / "epoch-001.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"{}")  # other weights than the result's
    about = {name: checkpoint.specs[f"{name.title()}Spec"] for name in ("model", "training", "augmentation")}
    about["parents"] = {kind: checkpoint.parents[kind] for kind in ("train_split", "val_split")}
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps({"format": "heimdall-checkpoint/1", "about": about}))
    assert find_checkpoint(stores, str(path)) == checkpoint
    other = {"about": about | {"training": about["training"] | {"seed": 1}}}
    for text in (json.dumps(other), '{"about": {"parents": {}}}', '{"about": 1}', "no JSON", ""):
        beside.write_text(text)
        with pytest.raises(NotFound, match="weights that no training of this home left"):
            find_checkpoint(stores, str(path))


def test_what_is_no_checkpoint_of_this_home_is_one_line(home, tmp_path: Path):
    stores, checkpoint, summary = home
    data = stores.objects.read_bytes(checkpoint.artifacts["weights.safetensors"].digest)
    files = {
        "pickle.ckpt": b"PK\x03\x04" + bytes(40),
        "old.pt": b"\x80\x02" + bytes(40),
        "short.safetensors": data[: len(data) // 2],
        "tiny.safetensors": data[:5],
        "long.safetensors": data + b"x",
        "text.safetensors": b"these are no weights at all",
        "empty.safetensors": b"",
        "foreign.safetensors": struct.pack("<Q", 2) + b"{}",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    said = {
        "pickle.ckpt": "found a pickle, which is never loaded, expected safetensors",
        "old.pt": "found a pickle, which is never loaded, expected safetensors",
        "short.safetensors": "it is truncated",
        "tiny.safetensors": "found 5 bytes that are no whole safetensors",
        "long.safetensors": "it is truncated or has a tail",
        "text.safetensors": "no whole safetensors",
        "empty.safetensors": "found 0 bytes that are no whole safetensors",
    }
    for name, line in said.items():
        with pytest.raises(InvalidInput, match=line):
            find_checkpoint(stores, str(tmp_path / name))
    with pytest.raises(NotFound, match="weights that no training of this home left"):
        find_checkpoint(stores, str(tmp_path / "foreign.safetensors"))
    with pytest.raises(NotFound):
        find_checkpoint(stores, str(tmp_path / "none.safetensors"))
    with pytest.raises(NotFound, match="a folder"):
        find_checkpoint(stores, f"{tmp_path}/")
    with pytest.raises(InvalidInput, match="found the manifest of train_split, expected that of a trained_checkpoint"):
        find_checkpoint(stores, summary["manifests"]["train_split"])
    with pytest.raises(InvalidInput, match="found no manifest"):
        find_checkpoint(stores, checkpoint.artifacts["weights.safetensors"].digest)
    with pytest.raises(NotFound):
        find_checkpoint(stores, "0" * 64)
    for named in ("9.9.9", "no-such-model"):
        with pytest.raises((NotFound, InvalidIdentifier)):
            find_checkpoint(stores, named)


@pytest.mark.parametrize(
    "header",
    [b"[1, 2]", b'{"a": 1}', b'{"a": {"data_offsets": []}}', b'{"a": {"data_offsets": "x"}}', b"{" * 300, b"\xff\xfe"],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: bytes):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InvalidInput, match="found"):
        check_safetensors(path, "checkpoint odd")


def test_the_safetensors_of_another_writer_are_whole(tmp_path: Path):
    import numpy as np
    from safetensors.numpy import save_file

    path = tmp_path / "own.safetensors"
    save_file({"a": np.zeros(3, np.float32), "b": np.ones((2, 2))}, path, metadata={"by": "hand"})
    check_safetensors(path, "own")


def test_a_start_takes_the_architecture_and_leaves_the_rest_to_who_asks(home):
    _, checkpoint, _ = home
    asked = [TrainingSpec(max_epochs=3), DatasetSpec(campaigns=["demo"])]
    started = start_from("v1.0.0", checkpoint, asked)
    assert pick(started.specs, ModelSpec) == pick(TINY, ModelSpec)
    training = pick(started.specs, TrainingSpec)
    assert training == TrainingSpec(max_epochs=3, start_from=f"sha256:{checkpoint.digest}")
    assert training.model_fields_set == {"max_epochs", "start_from"}
    assert pick(started.specs, DatasetSpec).campaigns == ["demo"]
    assert started.notices == ["Starts from v1.0.0: network, all of its weights are trained"]
    same = start_from("v1.0.0", checkpoint, [ModelSpec(width=16, dropout=0.3)])
    assert pick(same.specs, ModelSpec) == pick(TINY, ModelSpec).model_copy(update={"dropout": 0.3})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (ModelSpec(width=32), "ModelSpec.width: found 32, expected 16 as v1.0.0 has it"),
        (ModelSpec(kind="single_receiver"), "ModelSpec.kind: found single_receiver, expected network"),
        (ModelSpec(pretrained=True), "found a start beside v1.0.0"),
        (ModelSpec(freeze_backbone=True), "sees no spectrograms and has no backbone to freeze"),
        (TrainingSpec(start_from=f"sha256:{'0' * 64}"), "TrainingSpec.start_from: found a start beside v1.0.0"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_anything_runs(home, asked, said):
    with pytest.raises(InvalidSetting, match=said):
        start_from("v1.0.0", home[1], [asked])


def test_a_frozen_backbone_is_said(home):
    _, checkpoint, _ = home
    specs = dict(checkpoint.specs) | {"ModelSpec": ModelSpec(kind="single_receiver").dump()}
    other = checkpoint.model_copy(update={"specs": specs})
    started = start_from("it", other, [ModelSpec(freeze_backbone=True)])
    assert pick(started.specs, ModelSpec) == ModelSpec(kind="single_receiver", freeze_backbone=True)
    assert started.notices == ["Starts from it: single_receiver, its backbone stays as it is"]


def test_a_checkpoint_recalls_every_setting_that_decided_it(home):
    stores, checkpoint, _ = home
    recalled = {type(spec).__name__: spec for spec in recall_specs(stores.objects, checkpoint)}
    assert set(recalled) == {
        *("DatasetSpec", "RecordingSpec", "FeatureSpec", "DelaySpec", "SplitSpec", "TimingSpec"),
        *("ModelSpec", "TrainingSpec", "AugmentationSpec"),
    }
    assert recalled["TrainingSpec"] == pick(TINY, TrainingSpec)
    later = checkpoint.model_copy(update={"parents": {**checkpoint.parents, TRAINED_CHECKPOINT: checkpoint.digest}})
    assert recall_specs(stores.objects, later) == recall_specs(stores.objects, checkpoint)


def test_a_checkpoint_of_a_manifest_is_one_that_rests_here(home):
    """A manifest whose words were changed has another digest: it is found under that one alone."""
    stores, checkpoint, _ = home
    changed = json.loads(checkpoint.encode()) | {"code_version": "0"}
    digest = stores.objects.put_bytes(Manifest.model_validate(changed).encode(), JSON_MEDIA_TYPE).digest
    assert digest != checkpoint.digest
    assert find_checkpoint(stores, digest).code_version == "0"
