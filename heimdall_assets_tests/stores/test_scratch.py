"""Scratch: a checkpoint is whole or the one before it, a lent folder is gone, and a disk that refuses is named."""

from contextlib import suppress
from pathlib import Path

import pytest

from heimdall_assets.errors import NotFound, StorageError
from heimdall_assets.stores.scratch import CheckpointFolder, lend_folder
from heimdall_assets_tests.stores.faults import Died, Disk, Faulty, Recorded

BEFORE, AFTER = b"before" * 1000, b"after" * 1000


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoints_are_kept_replaced_removed_and_discarded(tmp_path: Path):
    checkpoints = CheckpointFolder(tmp_path / "deep" / "fit")
    assert not checkpoints.exists("last.ckpt")
    with pytest.raises(NotFound, match=r"checkpoint '.*fit/last\.ckpt': no such file"):
        checkpoints.read("last.ckpt")
    checkpoints.write("last.ckpt", BEFORE)
    checkpoints.write("last.ckpt", memoryview(AFTER))
    checkpoints.write("epoch-000.ckpt", BEFORE)
    assert checkpoints.read("last.ckpt") == AFTER
    for _ in range(2):
        checkpoints.remove("epoch-000.ckpt")
    assert list_names(checkpoints.folder) == ["last.ckpt"]
    for _ in range(2):
        checkpoints.discard()
    assert not checkpoints.folder.exists()
    checkpoints.write("last.ckpt", BEFORE)  # a fit that starts anew
    assert CheckpointFolder(checkpoints.folder).read("last.ckpt") == BEFORE


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "short"])
def test_whatever_call_fails_the_checkpoint_before_or_the_new_one_is_there_whole(fault: str, tmp_path: Path):
    num_refused = 0
    for at in range(1, 100):
        folder = tmp_path / str(at)
        CheckpointFolder(folder).write("last.ckpt", BEFORE)
        files = Faulty(fault, at)
        try:
            CheckpointFolder(folder, files).write("last.ckpt", AFTER)
        except StorageError as error:
            num_refused += fault in str(error)
        else:
            assert CheckpointFolder(folder).read("last.ckpt") == AFTER
        assert CheckpointFolder(folder).read("last.ckpt") in (BEFORE, AFTER)
        CheckpointFolder(folder).write("last.ckpt", AFTER)  # a plain retry heals, and cleans up
        assert list_names(folder) == ["last.ckpt"]
        if not files.happened:
            break
    assert at > 5
    assert bool(num_refused) == (fault != "short")


def test_wherever_the_process_dies_or_the_power_goes_one_epoch_is_lost_at_most(tmp_path: Path):
    for at in range(1, 100):
        disk = Disk(tmp_path / str(at))
        CheckpointFolder(disk.root, Recorded(disk)).write("last.ckpt", BEFORE)
        dying = Recorded(disk, die_at=at)
        try:
            CheckpointFolder(disk.root, dying).write("last.ckpt", AFTER)
            died = False
        except Died:
            died = True
        kept = {BEFORE, AFTER} if died else {AFTER}  # returned means stored
        assert CheckpointFolder(disk.root).read("last.ckpt") in kept
        for tree in disk.list_outcomes(16, seed=at):
            assert tree["last.ckpt"] in kept
        if not died:
            break
    assert at > 5


def test_a_checkpoint_that_cannot_be_read_or_removed_is_named(tmp_path: Path):
    checkpoints = CheckpointFolder(tmp_path)
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(StorageError, match=r"last\.ckpt': could not be read \(EISDIR"):
        checkpoints.read("last.ckpt")
    with pytest.raises(StorageError, match=r"last\.ckpt': could not be removed"):
        checkpoints.remove("last.ckpt")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not be removed"):
        CheckpointFolder(tmp_path / "file").discard()


def test_a_lent_folder_is_empty_and_gone_afterwards_whatever_happens_in_it(tmp_path: Path):
    with lend_folder(tmp_path / "scratch") as folder:
        assert folder.parent == tmp_path / "scratch"
        assert list_names(folder) == []
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_bytes(b"x")
    with suppress(KeyError), lend_folder() as elsewhere:
        (elsewhere / "file").write_bytes(b"x")
        raise KeyError
    assert not folder.exists()
    assert not elsewhere.exists()
    assert list_names(tmp_path / "scratch") == []


def test_a_place_that_cannot_hold_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"scratch folder in .*file/deep: could not be made \(ENOTDIR"):
        lend_folder(tmp_path / "file" / "deep").__enter__()
