"""A fit that is killed in the middle of an epoch goes on from its last step checkpoint to the same bits."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import lightning
import pytest

from heimdall_assets.learning.fitting.checkpoints import load_checkpoint
from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.specs import MachineSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.learning.toy_task import TOY, fit_toy, is_same

ROOT = Path(__file__).resolve().parents[2]
STEPWISE = MachineSpec(accelerator="cpu", checkpoint_every_steps=2)
EVERYTHING = {
    "batch_size": 4,
    "accumulate_batches": 2,
    "ema_decay": 0.7,
    "schedule": "plateau",
    "early_stopping_patience": 2,
    "early_stopping_min_delta": 0.05,
    "warmup_epochs": 0,
    "max_epochs": 8,
}


def change(**changes) -> TrainingSpec:
    return TrainingSpec.model_validate({**TOY.model_dump(), **changes})


@pytest.mark.parametrize(("num_steps", "place"), [(8, (1, 2)), (4, (0, 4))])
def test_a_killed_fit_goes_on_within_its_epoch_to_the_same_bits(tmp_path: Path, num_steps: int, place):
    spec = change(**EVERYTHING)
    whole = fit_toy(tmp_path / "whole", spec)
    assert 3 <= len(whole[0].history) < 8  # it stopped early
    assert len({record["learning_rate"] for record in whole[0].history}) > 1  # after a plateau
    settings = json.dumps(spec.dump())
    command = [sys.executable, "-m", "heimdall_assets_tests.learning.fit_driver", str(tmp_path / "killed")]
    done = subprocess.run([*command, settings, str(num_steps)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    last = load_checkpoint(CheckpointFolder(tmp_path / "killed"), "last.ckpt")
    assert (len(last["history"]), last["progress"]["steps_in_epoch"]) == place
    assert is_same(whole, fit_toy(tmp_path / "killed", spec, machine=STEPWISE, resume_from="last.ckpt"))


class Fault(Exception):
    """What breaks a fit off."""


class Breaker(lightning.Callback):
    """Breaks a fit off in the middle of step ``num_steps``."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if module.num_steps == self.num_steps:
            raise Fault


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "plateau", "constant"])
def test_any_schedule_goes_on_within_an_epoch_also_with_workers(tmp_path: Path, schedule: str):
    spec = change(schedule=schedule, ema_decay=0.5)
    whole = fit_toy(tmp_path / "whole", spec)
    machine = MachineSpec(accelerator="cpu", checkpoint_every_steps=1, num_workers=2 * (schedule == "cosine"))
    with pytest.raises(Fault):
        fit_toy(tmp_path / "broken", spec, machine=machine, hooks=Hooks(callbacks=[Breaker(8)]))
    last = load_checkpoint(CheckpointFolder(tmp_path / "broken"), "last.ckpt")
    assert (last["progress"]["num_steps"], last["progress"]["steps_in_epoch"]) == (8, 3)
    assert is_same(whole, fit_toy(tmp_path / "broken", spec, machine=machine, resume_from="last.ckpt"))


def test_a_fit_may_be_broken_off_at_each_of_its_steps(tmp_path: Path):
    spec = change(max_epochs=2)
    machine = MachineSpec(accelerator="cpu", checkpoint_every_steps=1)
    resume_from = None
    for number in range(1, 10):
        hooks = Hooks(callbacks=[Breaker(number)])
        with pytest.raises(Fault):
            fit_toy(tmp_path / "broken", spec, machine=machine, hooks=hooks, resume_from=resume_from)
        resume_from = "last.ckpt"
    broken = fit_toy(tmp_path / "broken", spec, machine=machine, resume_from=resume_from)
    assert is_same(fit_toy(tmp_path / "whole", spec), broken)


def test_how_often_it_keeps_changes_no_bit(tmp_path: Path):
    rare = MachineSpec(accelerator="cpu", checkpoint_every_epochs=2)
    spec = change(max_epochs=5)
    whole = fit_toy(tmp_path / "1", spec)
    assert is_same(whole, fit_toy(tmp_path / "2", spec, machine=rare))
    assert is_same(whole, fit_toy(tmp_path / "3", spec, machine=STEPWISE))
    best = {
        f"epoch-{record:03d}.ckpt" for record in sorted(range(5), key=lambda e: whole[0].history[e]["val_loss"])[:3]
    }
    assert {path.name for path in (tmp_path / "1").iterdir()} == best | {"last.ckpt"}
    assert {path.name for path in (tmp_path / "2").iterdir()} == best | {
        "last.ckpt",
        "epoch-001.ckpt",
        "epoch-003.ckpt",
    }


def test_rare_checkpoints_lose_epochs_and_no_bit(tmp_path: Path):
    spec = change(max_epochs=5)
    machine = MachineSpec(accelerator="cpu", checkpoint_every_epochs=2)
    with pytest.raises(Fault):
        fit_toy(tmp_path / "broken", spec, machine=machine, hooks=Hooks(callbacks=[Breaker(18)]))
    assert len(load_checkpoint(CheckpointFolder(tmp_path / "broken"), "last.ckpt")["history"]) == 2
    resumed = fit_toy(tmp_path / "broken", spec, machine=machine, resume_from="last.ckpt")
    assert is_same(fit_toy(tmp_path / "whole", spec), resumed)
