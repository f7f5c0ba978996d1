"""Folders of trainings: whole lines while they grow, no line twice after a kill, gone when they are old."""

import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from heimdall_assets.errors import NotFound, StorageError
from heimdall_assets.stores.runs.event_files import append_whole
from heimdall_assets.stores.runs.folders import DAMAGED, FAILED, FINISHED, INTERRUPTED, STOPPED, RunFolders
from heimdall_assets.stores.runs.writing import CHECKPOINTS, METADATA, RUNNING, RunWriter
from heimdall_assets.training_tables import (
    EPOCHS,
    GRADIENTS,
    LOSSES,
    POSITIONS,
    SIGNALS,
    TABLES,
    VAL,
    Moment,
    Row,
    decode_rows,
    encode_row,
    name_file,
)

FIT = "f" * 64
CSV_FILES = {
    "epoch_metrics.csv", "loss_components.csv", "uncertainty_params.csv", "probability_stats.csv", "feature_stats.csv",
    "gradient_stats.csv",
}  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    return RunFolders(tmp_path / "runs")


def make_row(epoch: int, loss: float = 1.0, part: str = POSITIONS) -> Row:
    return {"epoch": epoch, "train_loss": loss, "val_loss": loss + 0.5, "part": part}


def train(writer: RunWriter, epochs: range, loss: float = 1.0, part: str = POSITIONS) -> None:
    for epoch in epochs:
        writer.append(EPOCHS, make_row(epoch, loss, part))
        writer.append(LOSSES, {"epoch": epoch, "phase": VAL, "total_loss": loss, "part": part})


def list_epochs(folders: RunFolders, run_id: str, table: str = EPOCHS) -> list[tuple[object, object]]:
    return [(row["part"], row["epoch"]) for row in folders.read_tables(run_id)[table]]


def kill(writer: RunWriter) -> None:
    """Leave a folder as a killed process does: nothing said, the lock gone."""
    writer.close()


def test_a_folder_is_made_with_the_first_training_and_can_be_read_at_once(folders: RunFolders):
    assert folders.list_runs() == []
    assert not folders.root.exists()
    writer = folders.begin(FIT, {"settings": {"TrainingSpec": {"max_epochs": 3}}}, goes_on=False)
    assert {path.name for path in writer.folder.glob("*.csv")} == CSV_FILES == {name_file(table) for table in TABLES}
    assert folders.read_tables(writer.id) == {table: [] for table in TABLES}
    (told,) = folders.list_runs()
    assert told["status"] == RUNNING
    train(writer, range(2))
    assert list_epochs(folders, writer.id) == [(POSITIONS, 0), (POSITIONS, 1)]
    row = folders.read_tables(writer.id)[EPOCHS][1]
    assert (row["train_loss"], row["val_loss"], row["span_f1"]) == (1, 1.5, None)
    assert isinstance(row["epoch_time"], int | float)
    writer.end(FINISHED, checkpoint="c")
    (told,) = folders.list_runs()
    assert (told["status"], told["checkpoint"], told["id"]) == (FINISHED, "c", writer.id)


def test_what_is_read_while_it_is_written_is_whole_lines(folders: RunFolders):
    """A child appends as fast as it can; each look sees a beginning of what it writes, and never half a row."""
    writer = folders.begin(FIT, {}, goes_on=False)
    child = os.fork()
    if not child:
        train(writer, range(3000))
        os._exit(0)
    counts = []
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        epochs = list_epochs(folders, writer.id)
        assert epochs == [(POSITIONS, number) for number in range(len(epochs))]
        counts.append(len(epochs))
    assert len(set(counts)) > 2, "it was over before anybody looked"
    assert len(list_epochs(folders, writer.id)) == 3000


def test_a_killed_training_goes_on_in_its_folder_without_double_rows(folders: RunFolders):
    first = folders.begin(FIT, {"dagster_run_id": "a"}, goes_on=False)
    train(first, range(4))
    first.append(GRADIENTS, {"epoch": 4, "layer": "x", "grad_norm": 1.0, "part": POSITIONS})  # killed amidst epoch 4
    append_whole(first.folder / name_file(EPOCHS), encode_row(EPOCHS, make_row(4))[:-9])  # and amidst a line
    kill(first)
    assert folders.read(first.id)["status"] == INTERRUPTED
    second = folders.begin(FIT, {"dagster_run_id": "b"}, goes_on=True)
    assert second.id == first.id
    train(second, range(3, 6), loss=2.0)  # its checkpoint was of epoch 2
    second.end(FINISHED)
    told = folders.read(first.id)
    assert len(told["attempts"]) == 2
    assert told["started"] == told["attempts"][0]
    assert told["dagster_run_id"] == "b"
    rows = folders.read_tables(first.id)
    assert [(row["epoch"], row["train_loss"]) for row in rows[EPOCHS]] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 2),
    ]
    assert [row["epoch"] for row in rows[LOSSES]] == list(range(6))
    assert rows[GRADIENTS] == []
    assert [told["id"] for told in folders.list_runs()] == [first.id]


def test_signals_come_after_positions_and_are_repeated_alone(folders: RunFolders):
    first = folders.begin(FIT, {}, goes_on=False)
    train(first, range(3))
    train(first, range(2), part=SIGNALS)
    kill(first)
    second = folders.begin(FIT, {}, goes_on=True)
    train(second, range(4), loss=7.0, part=SIGNALS)
    assert list_epochs(folders, first.id) == [*((POSITIONS, n) for n in range(3)), *((SIGNALS, n) for n in range(4))]
    kill(second)
    third = folders.begin(FIT, {}, goes_on=True)
    train(third, range(2, 3))  # positions again: what was fitted after them is fitted anew
    assert list_epochs(folders, first.id) == [(POSITIONS, number) for number in range(3)]
    third.end(FINISHED)


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_ended_well_or_begins_afresh_gets_a_new_folder(folders: RunFolders, goes_on: bool):
    first = folders.begin(FIT, {}, goes_on=False)
    first.end(FINISHED if goes_on else FAILED)
    second = folders.begin(FIT, {}, goes_on=goes_on)
    assert second.id != first.id
    other = folders.begin("e" * 64, {}, goes_on=True)
    assert len({first.id, second.id, other.id}) == 3


def test_a_folder_has_one_writer(folders: RunFolders):
    writer = folders.begin(FIT, {}, goes_on=False)
    with pytest.raises(StorageError, match="another process writes it"):
        RunWriter(writer.folder, {})
    other = folders.begin(FIT, {}, goes_on=True)  # the same fit at the same time: a folder of its own
    assert other.id != writer.id


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as a disk that is full does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_on_a_full_disk_a_table_stays_as_it_was(folders: RunFolders):
    writer = folders.begin(FIT, {}, goes_on=False)
    train(writer, range(3))
    path = writer.folder / name_file(EPOCHS)
    before = path.read_bytes()
    with full_disk(len(before) + 10), pytest.raises(StorageError, match="could not be appended to"):
        writer.append(EPOCHS, make_row(3))
    assert path.read_bytes() == before
    with full_disk(len(before)), pytest.raises(StorageError, match="could not be appended to"):
        writer.append(EPOCHS, make_row(3))
    assert path.read_bytes() == before
    writer.append(EPOCHS, make_row(3))
    assert list_epochs(folders, writer.id)[-1] == (POSITIONS, 3)


def test_moments_are_told_and_the_last_one_stays(folders: RunFolders):
    writer = folders.begin(FIT, {}, goes_on=False)
    assert folders.read_progress(writer.id) is None
    for step in range(50):
        writer.note(Moment(0, step, 50, 8 * step))
    first = folders.read_progress(writer.id)
    assert first is not None
    assert (first["step"], first["num_steps"]) == (0, 50)  # once a second
    writer.note(Moment(0, 50, 50, 400))
    writer.end(STOPPED)
    last = folders.read_progress(writer.id)
    assert last is not None
    assert last["step"] == 50
    assert last["samples_per_s"] > 0


def test_tensorboard_reads_the_curves_and_forgets_what_was_repeated(folders: RunFolders):
    first = folders.begin(FIT, {}, goes_on=False)
    train(first, range(4), loss=1.0)
    kill(first)
    second = folders.begin(FIT, {}, goes_on=True)
    train(second, range(2, 5), loss=3.0)
    second.end(FINISHED)
    events = EventAccumulator(str(first.folder / "tensorboard" / POSITIONS), purge_orphaned_data=True)
    events.Reload()
    curve = [(event.step, event.value) for event in events.Scalars("epoch_metrics/train_loss")]
    assert curve == [(0, 1.0), (1, 1.0), (2, 3.0), (3, 3.0), (4, 3.0)]
    assert [event.value for event in events.Scalars(f"loss_components/{VAL}/total_loss")] == [1.0, 1.0, 3.0, 3.0, 3.0]


def age(folder: Path, days: float) -> None:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (time.time() - days * 86_400,) * 2)


def test_old_folders_go_and_never_one_that_is_written(folders: RunFolders):
    writers = [folders.begin(f"{number}" * 64, {}, goes_on=False) for number in range(4)]
    held, aged, kept, newest = writers
    for writer in writers[1:]:
        (writer.folder / CHECKPOINTS).mkdir()
        (writer.folder / CHECKPOINTS / "best.safetensors").write_bytes(b"x")
        writer.end(FINISHED)
    age(held.folder, 1000)
    age(aged.folder, 400)
    age(kept.folder, 40)
    lines = folders.remove_old(max_runs=10, max_days=365, max_checkpoint_days=30)
    assert set(lines) == {f"training {kept.id}: its checkpoints removed", f"training {aged.id}: its folder removed"}
    assert {path.name for path in folders.root.iterdir()} == {held.id, kept.id, newest.id}
    assert not (kept.folder / CHECKPOINTS).exists()
    assert (newest.folder / CHECKPOINTS / "best.safetensors").exists()
    assert folders.remove_old(max_runs=1, max_days=365, max_checkpoint_days=30) == [
        f"training {kept.id}: its folder removed"
    ]
    assert {told["id"] for told in folders.list_runs()} == {held.id, newest.id}
    held.append(EPOCHS, make_row(0))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "other", "status": "finished"}', '{"status": "new"}'])
def test_metadata_that_nobody_understands_are_called_damaged(folders: RunFolders, text: str):
    writer = folders.begin(FIT, {}, goes_on=False)
    writer.end(FINISHED)
    (writer.folder / METADATA).write_text(text)
    assert folders.read(writer.id) == {"id": writer.id, "status": DAMAGED}
    assert folders.list_runs() == [{"id": writer.id, "status": DAMAGED}]
    with pytest.raises(NotFound, match=r"found no metadata\.json"):
        folders.read("0" * 12)


def test_no_file_names_where_the_folder_lies(folders: RunFolders):
    writer = folders.begin(FIT, {}, goes_on=False)
    train(writer, range(2))
    writer.note(Moment(0, 1, 2, 3))
    writer.end(FINISHED)
    for path in writer.folder.rglob("*"):
        assert path.is_dir() or str(folders.root).encode() not in path.read_bytes(), path
    assert json.loads((writer.folder / METADATA).read_text())["format"] == 1
    assert decode_rows(EPOCHS, (writer.folder / name_file(EPOCHS)).read_bytes())
