"""Several processes that share each batch fit what one does, and end together."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import lightning
import pytest

from heimdall_assets.errors import InvalidInput, WorkersLost
from heimdall_assets.learning.fitting.checkpoints import load_checkpoint
from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.learning.fitting.ranks import Ranks
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets_tests.learning.toy_task import TOY, ToyTask, fit_toy, is_same


def change(**changes) -> TrainingSpec:
    return TrainingSpec.model_validate({**TOY.model_dump(), **changes})


TWO = change(num_devices=2, ema_decay=0.5, accumulate_batches=2)


class DyingRank(lightning.Callback):
    """Ends its process without a word in its second epoch."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def test_shares_are_all_examples_once():
    for count in range(12):
        shares = [Ranks(rank, 5).find_share(count) for rank in range(5)]
        assert [index for share in shares for index in range(count)[share]] == list(range(count))
        assert max(len(range(count)[share]) for share in shares) <= -(-count // 5)


def test_two_processes_give_the_epoch_losses_of_one_and_the_first_tells(tmp_path: Path):
    """Batches of 37 sessions leave 5 for the last: shares of 3 and 2; the disturbances are the same for both."""
    seen: list[int] = []
    one, one_weights = fit_toy(tmp_path / "one", change(ema_decay=0.5, accumulate_batches=2), dropout=0.0)
    two, two_weights = fit_toy(tmp_path / "two", TWO, dropout=0.0, on_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == [0, 1, 2]
    for record, same in zip(one.history, two.history, strict=True):
        for name in ("train_loss", "val_loss"):
            assert record[name] == pytest.approx(same[name], rel=1e-5), name
    assert two.best_loss == pytest.approx(one.best_loss, rel=1e-5)
    for name, value in one_weights.items():
        assert two_weights[name].numpy() == pytest.approx(value.numpy(), rel=1e-3, abs=1e-6), name
    assert is_same((two, two_weights), fit_toy(tmp_path / "two", TWO, dropout=0.0, resume_from="last.ckpt"))


def test_a_process_that_dies_ends_the_fit_in_a_line_and_the_next_start_gives_the_same_bits(tmp_path: Path):
    with pytest.raises(WorkersLost, match=r"process 1 of 2 ended with code -9 before it was done.* next start goes on"):
        fit_toy(tmp_path / "died", TWO, hooks=Hooks(callbacks=[DyingRank()]))
    assert len(load_checkpoint(CheckpointFolder(tmp_path / "died"), "last.ckpt")["history"]) == 1
    resumed = fit_toy(tmp_path / "died", TWO, resume_from="last.ckpt")
    assert is_same(fit_toy(tmp_path / "whole", TWO), resumed)  # dropout too


def test_who_is_told_of_an_epoch_may_end_them_all_as_a_search_does(tmp_path: Path):
    """The parent's own kind of exception comes out; the first process keeps its checkpoint, and none goes on."""

    class Pruned(Exception):
        pass

    def prune(epoch: int, _: dict[str, float]) -> None:
        if epoch == 1:
            raise Pruned

    many = change(num_devices=2, max_epochs=5000, early_stopping_patience=5000)
    with pytest.raises(Pruned):
        fit_toy(tmp_path, many, on_epoch=prune)
    assert multiprocessing.active_children() == []
    assert 2 <= len(load_checkpoint(CheckpointFolder(tmp_path), "last.ckpt")["history"]) < 5000


def test_what_one_of_them_finds_wrong_is_the_error_raised(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"train_loss is nan in epoch 0 .*s00036"):
        fit_toy(tmp_path, TWO, task=ToyTask(poison="s00036"))


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_fit_of_several_processes_keeps_its_checkpoint(tmp_path: Path, by):
    handler = signal.getsignal(signal.SIGTERM)

    def cancel(epoch: int, _: object) -> None:
        if epoch == 1:
            threading.Thread(target=lambda: (time.sleep(0.1), os.kill(os.getpid(), by))).start()

    with pytest.raises(KeyboardInterrupt):
        fit_toy(tmp_path, change(num_devices=2, max_epochs=5000, early_stopping_patience=5000), on_epoch=cancel)
    assert signal.getsignal(signal.SIGTERM) is handler
    files = CheckpointFolder(tmp_path)
    assert len(load_checkpoint(files, "last.ckpt")["history"]) >= 1
    assert load_checkpoint(files, "on_exception.ckpt")["progress"]["num_steps"] >= 5
