"""The switches of a fit: each does what it says, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from heimdall_assets.errors import InvalidInput, InvalidSetting
from heimdall_assets.learning.fitting.averaging import MovingAverage
from heimdall_assets.learning.fitting.batches import EpochBatches, EpochSteps
from heimdall_assets.learning.fitting.checkpoints import AVERAGE, load_checkpoint
from heimdall_assets.learning.fitting.devices import choose_device
from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.learning.fitting.memory import is_out_of_memory
from heimdall_assets.specs import MachineSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.learning.toy_task import TOY, ToyTask, fit_toy, is_same, make_job


def change(**changes) -> TrainingSpec:
    return TrainingSpec.model_validate({**TOY.model_dump(), **changes})


def collect_gradients(job, step) -> tuple[list[torch.Tensor], float]:
    """Return the gradients that one step of a job leaves, and its loss."""
    module = job.build_module(lambda _: None)
    module.network.train()
    weights = module.list_trained()
    torch.manual_seed(1)

    class Optimizer:
        def zero_grad(self) -> None:
            module.network.zero_grad()

    module.manual_backward = lambda loss: loss.backward()
    means = module._add_gradients(Optimizer(), step, module.pieces.count)
    return [weight.grad.clone() for weight in weights], float(means.totals["loss"] / means.count)


def test_the_batches_of_a_step_are_all_of_an_epoch_also_where_the_last_are_fewer():
    steps = EpochSteps(EpochBatches(np.arange(37), 8, seed=1, shuffle=True), 3)
    found = list(steps)
    assert [len(step) for step in found] == [3, 2]
    assert len(steps) == 2
    assert sorted(np.concatenate([key[2] for step in found for key in step])) == list(range(37))
    steps.first = 1
    again = list(steps)
    assert len(again) == 1
    assert all(np.array_equal(one[2], other[2]) for one, other in zip(again[0], found[1], strict=True))


def test_pieces_of_a_step_add_up_to_its_gradient(tmp_path: Path):
    job = make_job(tmp_path, change(batch_size=8, accumulate_batches=5), dropout=0.0)
    (step,) = job.load_train()
    assert [len(batch.examples) for batch in step] == [8, 8, 8, 8, 5]
    gradients, loss = collect_gradients(job, step)
    again, same_loss = collect_gradients(make_job(tmp_path, job.training, dropout=0.0, num_pieces=4), step)
    assert loss == pytest.approx(same_loss, rel=1e-6)
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_a_fit_with_accumulation_is_that_of_the_summed_batches(tmp_path: Path):
    plain = {"warmup_epochs": 0, "schedule": "constant"}
    whole, _ = fit_toy(tmp_path / "1", change(batch_size=37, **plain), dropout=0.0, task=Undisturbed())
    parts, _ = fit_toy(
        tmp_path / "2", change(batch_size=8, accumulate_batches=5, **plain), dropout=0.0, task=Undisturbed()
    )
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-5)
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)


class Undisturbed(ToyTask):
    """Batches as they are, so that how examples fall into batches changes none of them."""

    def make_batch(self, sessions, examples, statistics, augmentation=None, rng=None):
        return super().make_batch(sessions, examples, statistics)


def test_the_moving_average_is_its_closed_form():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 1.0)
    average = MovingAverage(layer, 0.9)
    for _ in range(7):
        torch.nn.init.constant_(layer.weight, 3.0)
        average.update()
    assert float(average.values["weight"]) == pytest.approx(3.0 - 2.0 * 0.9**7, rel=1e-6)
    average.put_in_place(True)
    assert float(layer.weight.detach()) == pytest.approx(3.0 - 2.0 * 0.9**7, rel=1e-6)
    average.put_in_place(False)
    assert float(layer.weight.detach()) == 3.0


def test_the_moving_average_is_what_is_judged_and_kept(tmp_path: Path):
    outcome, weights = fit_toy(tmp_path, change(ema_decay=0.5))
    kept = load_checkpoint(CheckpointFolder(tmp_path), f"epoch-{outcome.best_epoch:03d}.ckpt")
    for name, value in weights.items():
        assert torch.equal(kept[AVERAGE][name], value)
        assert not torch.equal(kept["state_dict"][f"network.{name}"], value)
    none, _ = fit_toy(tmp_path / "none", change())
    assert none.history[0]["train_loss"] == outcome.history[0]["train_loss"]  # what is trained does not know of it
    assert none.history[0]["val_loss"] != outcome.history[0]["val_loss"]


def test_workers_make_the_same_batches_bit_for_bit(tmp_path: Path):
    alone = fit_toy(tmp_path / "1")
    machine = MachineSpec(accelerator="cpu", num_workers=2, prefetch_batches=3)
    assert is_same(alone, fit_toy(tmp_path / "2", machine=machine))
    steps = [list(make_job(tmp_path, machine=each).load_train()) for each in (MachineSpec(), machine)]
    for one, other in zip(*steps, strict=True):
        for batch, same in zip(one, other, strict=True):
            assert np.array_equal(batch.examples, same.examples)
            assert all(torch.equal(value, same.tensors[name]) for name, value in batch.tensors.items())


def test_pinning_without_a_gpu_is_said_and_changes_nothing(tmp_path: Path):
    machine = MachineSpec(accelerator="cpu", pin_memory=True)
    assert is_same(fit_toy(tmp_path / "1"), fit_toy(tmp_path / "2", machine=machine))


def test_fused_steps_are_the_same_within_rounding(tmp_path: Path):
    (one, _), (other, _) = fit_toy(tmp_path / "1"), fit_toy(tmp_path / "2", change(fused_optimizer=True))
    for record, same in zip(one.history, other.history, strict=True):
        assert record["val_loss"] == pytest.approx(same["val_loss"], rel=1e-4)


def test_the_gradient_is_clipped(tmp_path: Path):
    import lightning

    norms: list[float] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            norms.append(float(torch.nn.utils.get_total_norm([w.grad for w in module.list_trained()])))

    fit_toy(tmp_path, change(gradient_clip=1e-3), hooks=Hooks(callbacks=[Watch()]))
    assert len(norms) == 15
    assert max(norms) <= 1e-3 * (1 + 1e-5)


def test_a_batch_that_does_not_fit_is_halved_once_said_and_remembered(tmp_path: Path):
    said: list[str] = []
    outcome, weights = fit_toy(tmp_path / "1", task=ToyTask(too_large=3), hooks=Hooks(said.append), dropout=0.0)
    assert outcome.describe() == {"num_pieces_of_a_batch": 4}
    assert len(said) == 2
    assert (
        "a batch of 8 examples does not fit into memory: from here on 4 at once, and 2 pieces make a batch" in said[0]
    )
    assert "a batch of 4 examples" in said[1]
    plain, _ = fit_toy(tmp_path / "2", dropout=0.0)
    for record, same in zip(outcome.history, plain.history, strict=True):
        assert record["val_loss"] == pytest.approx(same["val_loss"], rel=1e-4)
    again, same_weights = fit_toy(tmp_path / "3", task=ToyTask(too_large=3), dropout=0.0)
    assert is_same((outcome, weights), (again, same_weights))
    checkpoint = load_checkpoint(CheckpointFolder(tmp_path / "1"), "last.ckpt")
    assert checkpoint["progress"]["pieces"] == 4
    silent: list[str] = []
    resumed = fit_toy(
        tmp_path / "1", task=ToyTask(too_large=3), hooks=Hooks(silent.append), dropout=0.0, resume_from="last.ckpt"
    )
    assert is_same(resumed, (outcome, weights))
    assert silent == []  # it knew


def test_one_example_that_does_not_fit_is_an_error(tmp_path: Path):
    with pytest.raises(InvalidInput, match="one example alone does not fit into memory"):
        fit_toy(tmp_path, task=ToyTask(too_large=0))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


def test_a_loss_that_is_no_number_stops_at_once_and_names_the_sessions(tmp_path: Path):
    epochs: list[int] = []
    poisoned = ToyTask(poison="s00005")
    with pytest.raises(InvalidInput, match=r"train_loss is nan in epoch 0 after \d steps, of session .*s00005"):
        fit_toy(tmp_path, task=poisoned, on_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == []
    with pytest.raises(InvalidInput, match=r"val_loss is nan in epoch 0 after 0 steps, of session .*s00105"):
        fit_toy(tmp_path, task=ToyTask(poison="s00105"))


@pytest.mark.parametrize(
    ("training", "machine", "num_gpus", "said"),
    [
        ({}, {"accelerator": "gpu"}, 0, r"accelerator gpu: found 0 GPUs that torch .* expected at least 1"),
        ({"num_devices": 4}, {"accelerator": "gpu"}, 1, r"num_devices 4: found 1 GPU that torch .* at least 4"),
        ({"num_devices": 2}, {}, 1, r"accelerator auto with TrainingSpec.num_devices 2: found 1 GPU"),
        ({"num_devices": 8, "batch_size": 4}, {}, 0, r"batch_size 4: .* expected at least num_devices 8"),
        ({"precision": "16-mixed"}, {}, 0, r"precision 16-mixed: found 0 GPUs .* expected a GPU; 32-true and bf16"),
        ({"precision": "16-mixed"}, {"accelerator": "cpu"}, 1, r"16-mixed: found 1 GPU with .*accelerator cpu"),
    ],
)
def test_what_this_machine_has_not_is_refused_in_a_line(training, machine, num_gpus, said):
    with pytest.raises(InvalidSetting, match=said):
        choose_device(TrainingSpec(**training), MachineSpec(**machine), num_gpus)


def test_auto_takes_a_gpu_where_there_is_one():
    assert choose_device(TrainingSpec(), MachineSpec(), 1).kind == "cuda"
    assert choose_device(TrainingSpec(precision="16-mixed", num_devices=2), MachineSpec(), 2).backend == "nccl"
    assert choose_device(TrainingSpec(num_devices=2), MachineSpec(), 0).backend == "gloo"
