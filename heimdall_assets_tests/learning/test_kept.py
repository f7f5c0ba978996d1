"""Kept checkpoints: two files that say all of it, checked whole, that run nothing and go on where they were."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import CorruptObject, InvalidInput, NotFound
from heimdall_assets.learning.fitting.checkpoints import load_checkpoint
from heimdall_assets.learning.fitting.continuing import is_exact
from heimdall_assets.learning.fitting.kept import (
    Kept,
    check_continues,
    decode_kept,
    encode_kept,
    keep_checkpoints,
    list_needed_to_go_on,
    write_to_resume,
)
from heimdall_assets.specs import MachineSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.learning.toy_task import TOY, fit_toy, is_same


def change(**changes) -> TrainingSpec:
    return TrainingSpec.model_validate({**TOY.model_dump(), **changes})


def describe(spec: TrainingSpec) -> dict:
    return {"model": {}, "training": spec.dump(), "augmentation": {}, "parents": {}, "statistics": {}}


def keep(folder: Path, spec: TrainingSpec, **changes) -> tuple[CheckpointFolder, tuple, list[str]]:
    """Return where the checkpoints of a toy fit were kept, how it went, and their names."""
    done = fit_toy(folder / "scratch", spec, **changes)
    kept = CheckpointFolder(folder / "kept")
    return kept, done, keep_checkpoints(CheckpointFolder(folder / "scratch"), kept, describe(spec))


def test_the_best_three_the_last_and_those_between_are_kept_as_tensors_and_json(tmp_path: Path):
    rare = MachineSpec(accelerator="cpu", checkpoint_every_epochs=2)
    kept, (outcome, weights), names = keep(tmp_path, change(max_epochs=6, ema_decay=0.5), machine=rare)
    best = sorted(range(6), key=lambda epoch: outcome.history[epoch]["val_loss"])[:3]
    assert set(names) == {"last", *(f"epoch-{epoch:03d}" for epoch in {*best, 1, 3, 5})}
    files = {path.name for path in (tmp_path / "kept").iterdir()}
    assert files == {f"{name}{ending}" for name in names for ending in (".json", ".safetensors")}
    assert not any(path.read_bytes().startswith((b"PK", b"\x80")) for path in (tmp_path / "kept").iterdir())
    found = decode_kept(f"epoch-{best[0]:03d}", kept.read)
    assert found.epoch == best[0] + 1
    for name, value in weights.items():
        assert torch.equal(found.weights[name], value)  # the moving average, which was judged
    again = encode_kept("last", decode_kept("last", kept.read))
    assert again == {name: kept.read(name) for name in again}


def test_a_kept_checkpoint_is_the_one_it_was(tmp_path: Path):
    kept, _, _ = keep(tmp_path, TOY)
    before = load_checkpoint(CheckpointFolder(tmp_path / "scratch"), "last.ckpt")
    write_to_resume(decode_kept("last", kept.read), "last.ckpt", CheckpointFolder(tmp_path / "back"))
    after = load_checkpoint(CheckpointFolder(tmp_path / "back"), "last.ckpt")
    assert before["loops"] == after["loops"]
    assert before["history"] == after["history"]
    then, now = before["optimizer_states"][0], after["optimizer_states"][0]
    assert then["state"].keys() == now["state"].keys()
    for number, state in then["state"].items():
        assert all(torch.equal(value, now["state"][number][name]) for name, value in state.items())


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_more_epochs_go_on_as_if_the_fit_had_never_been_shorter(tmp_path: Path, schedule: str):
    """Also where the best epoch is one of the shorter fit's."""
    short, more = change(schedule=schedule, max_epochs=3), change(schedule=schedule, max_epochs=6)
    kept, _, _ = keep(tmp_path, short)
    last = decode_kept("last", kept.read)
    check_continues(last, describe(more))
    scratch = CheckpointFolder(tmp_path / "longer")
    for name in ("last", *list_needed_to_go_on(last)):
        write_to_resume(decode_kept(name, kept.read), f"{name}.ckpt", scratch)
    longer = fit_toy(tmp_path / "longer", more, resume_from="last.ckpt")
    assert is_same(longer, fit_toy(tmp_path / "whole", more))


@pytest.mark.parametrize(("schedule", "exact"), [("constant", True), ("plateau", False), ("cosine", False)])
def test_a_fit_that_stopped_by_itself_goes_on_with_more_patience(tmp_path: Path, schedule: str, exact: bool):
    """Its step size is nothing, so that no epoch is better than the first."""
    still = {"schedule": schedule, "learning_rate": 1e-30, "warmup_epochs": 0, "max_epochs": 8}
    short, more = change(**still, early_stopping_patience=2), change(**still, early_stopping_patience=4)
    kept, (outcome, _), _ = keep(tmp_path, short)
    last = decode_kept("last", kept.read)
    assert last.epoch == len(outcome.history) < 8
    assert is_exact(short.dump(), more.dump()) is exact
    scratch = CheckpointFolder(tmp_path / "longer")
    for name in ("last", *list_needed_to_go_on(last)):
        write_to_resume(decode_kept(name, kept.read), f"{name}.ckpt", scratch)
    longer = fit_toy(tmp_path / "longer", more, resume_from="last.ckpt")
    assert len(longer[0].history) == len(outcome.history) + 2
    if exact:
        assert is_same(longer, fit_toy(tmp_path / "whole", more))


def test_what_goes_on_is_the_same_fit_with_more_epochs(tmp_path: Path):
    kept, _, _ = keep(tmp_path, TOY)
    last = decode_kept("last", kept.read)
    with pytest.raises(InvalidInput, match=r"TrainingSpec.seed: found 7, expected 42, as the training had"):
        check_continues(last, describe(change(max_epochs=9, seed=7)))
    with pytest.raises(InvalidInput, match=r"found TrainingSpec.max_epochs 3 after 3 that are done, expected more"):
        check_continues(last, describe(TOY))
    with pytest.raises(InvalidInput, match=r"TrainingSpec.early_stopping_patience: found 1, expected 10 or more"):
        check_continues(last, describe(change(max_epochs=9, early_stopping_patience=1)))
    with pytest.raises(InvalidInput, match=r"how they are split: val_split: found '0000"):
        check_continues(last, {**describe(change(max_epochs=9)), "parents": {"val_split": "0" * 64}})


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], r"last\.(json|safetensors): "),
        (lambda data: data[: len(data) // 2], r"last\.(json|safetensors): "),
        (lambda data: b"", r"last\.(json|safetensors): "),
        (lambda data: b"PK\x03\x04" + data, r"a file that torch\.save or pickle made, which is never read"),
        (lambda data: b"\x80\x04cos\nsystem\n", r"a file that torch\.save or pickle made, which is never read"),
    ],
)
def test_a_damaged_file_is_a_line_that_names_it(tmp_path: Path, ending: str, damage, said: str):
    kept, _, _ = keep(tmp_path, change(max_epochs=1))
    kept.write(f"last{ending}", damage(kept.read(f"last{ending}")))
    with pytest.raises(CorruptObject, match=said) as caught:
        decode_kept("last", kept.read)
    assert "\n" not in str(caught.value)


def test_files_of_two_checkpoints_do_not_match(tmp_path: Path):
    kept, _, _ = keep(tmp_path / "1", change(max_epochs=1))
    other, _, _ = keep(tmp_path / "2", change(max_epochs=1, ema_decay=0.5))
    kept.write("last.safetensors", other.read("last.safetensors"))
    with pytest.raises(CorruptObject, match=r"checkpoint last: '/average/.*' is in one of its two files alone"):
        decode_kept("last", kept.read)
    with pytest.raises(NotFound, match=r"absent\.json"):
        decode_kept("absent", kept.read)


def test_what_is_no_value_is_refused_when_it_is_written():
    state = {"state_dict": {}, "history": [], "progress": {"hidden": object()}}
    with pytest.raises(InvalidInput, match="/progress/hidden: found object, expected a tensor or a JSON value"):
        encode_kept("last", Kept({}, state))


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_no_changed_byte_of_json_gives_another_error(place: int, byte: int):
    """Nor does it run anything: what is read is JSON and safetensors."""
    state = {"state_dict": {"a": torch.ones(2)}, "history": [{"epoch": 0, "val_loss": 0.5}], "progress": {1: (2, None)}}
    files = encode_kept("last", Kept(describe(TOY), state))
    data = bytearray(files["last.json"])
    data[place % len(data)] = byte
    with suppress(CorruptObject):  # or it is the value of some number that changed
        decode_kept("last", {**files, "last.json": bytes(data)}.__getitem__)
