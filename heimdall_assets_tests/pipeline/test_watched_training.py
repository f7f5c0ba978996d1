"""A training that is told of in its folder: the same result, no row twice after SIGKILL, kept beside its checkpoint."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heimdall_assets.pipeline.keeping.collecting import InUse, collect_garbage
from heimdall_assets.pipeline.runs import TRAININGS, find_training, list_trainings, read_training_tables
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.runs.folders import FINISHED, INTERRUPTED
from heimdall_assets.training_tables import EPOCHS, GRADIENTS, LOSSES, UNCERTAINTY
from heimdall_assets_tests.homes import SIMULATION, fill_home, ignore, make_places, split_home
from heimdall_assets_tests.pipeline.watch_driver import train

EPOCHS_TO_TRAIN = 16


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched") / "home"
    split_home(fill_home(folder, SIMULATION.model_copy(update={"num_sessions": 12})))
    return folder


def kill_at(home: Path, num_epochs: int) -> str:
    """Train in a process of its own, kill it once so many epochs are told of, and return the training's id."""
    program = [sys.executable, "-m", "heimdall_assets_tests.pipeline.watch_driver", str(home), str(EPOCHS_TO_TRAIN)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
    stores = make_places(home).open_stores()
    assert stores.runs is not None
    try:
        while process.poll() is None:
            for told in stores.runs.list_runs():
                if len(stores.runs.read_tables(told["id"])[EPOCHS]) >= num_epochs:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return str(told["id"])
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    raise AssertionError(f"it ended with {process.returncode} before it was killed")


def read_figures(stores: Stores, run_id: str) -> dict[str, list[dict[str, object]]]:
    """The rows of a training without what its clock said."""
    tables = read_training_tables(stores, find_training(stores, run_id))
    clock = ("epoch_time", "samples_per_s")
    return {
        table: [{name: value for name, value in row.items() if name not in clock} for row in rows]
        for table, rows in tables.items()
    }


def test_killed_twice_a_training_is_told_of_as_one_that_nobody_touched(home: Path, tmp_path: Path):
    shutil.copytree(home, tmp_path / "untouched")
    shutil.copytree(home, tmp_path / "killed")
    expected = train(tmp_path / "untouched", EPOCHS_TO_TRAIN)
    first = kill_at(tmp_path / "killed", 2)
    stores = make_places(tmp_path / "killed").open_stores()
    assert find_training(stores, first).told["status"] == INTERRUPTED
    assert kill_at(tmp_path / "killed", 6) == first
    assert train(tmp_path / "killed", EPOCHS_TO_TRAIN) == expected
    told = find_training(stores, first).told
    assert (told["status"], len(told["attempts"]), told["checkpoint"]) == (FINISHED, 3, expected)
    assert len(list_trainings(stores)) == 1
    untouched = make_places(tmp_path / "untouched").open_stores()
    other = find_training(untouched, "latest").id
    ours, theirs = read_figures(stores, first), read_figures(untouched, other)
    assert [row["epoch"] for row in ours[EPOCHS]] == list(range(EPOCHS_TO_TRAIN))
    for table in (EPOCHS, LOSSES, UNCERTAINTY, GRADIENTS):
        assert ours[table] == theirs[table], table


def test_a_training_that_is_found_makes_no_folder(home: Path, tmp_path: Path):
    shutil.copytree(home, tmp_path / "home")
    digest = train(tmp_path / "home", 2)
    stores = make_places(tmp_path / "home").open_stores()
    assert len(list_trainings(stores)) == 1
    assert train(tmp_path / "home", 2) == digest
    assert len(list_trainings(stores)) == 1


def test_what_a_folder_says_lives_beside_its_checkpoint(home: Path, tmp_path: Path):
    shutil.copytree(home, tmp_path / "home")
    digest = train(tmp_path / "home", 2)
    stores = make_places(tmp_path / "home").open_stores()
    assert list(stores.objects.list_references(TRAININGS)) == [TRAININGS + digest]
    here = find_training(stores, "latest")
    tables = read_training_tables(stores, here)
    shutil.rmtree(tmp_path / "home" / "runs")
    away = find_training(stores, here.id)
    assert (here.is_here, away.is_here) == (True, False)
    assert away.told == here.told
    assert read_training_tables(stores, away) == tables


def test_it_is_collected_with_its_checkpoint_and_not_before(home: Path, tmp_path: Path):
    shutil.copytree(home, tmp_path / "home")
    digest = train(tmp_path / "home", 2)
    stores = make_places(tmp_path / "home").open_stores()
    shutil.rmtree(tmp_path / "home" / "runs")
    later = time.time() + 86_400.0
    collect_garbage(stores, later, InUse({digest}), False, ignore)
    (run,) = list_trainings(stores)
    assert len(read_training_tables(stores, run)[EPOCHS]) == 2
    gone = collect_garbage(stores, later, InUse(), False, ignore)
    assert TRAININGS + digest in gone.references
    assert list_trainings(stores) == []
