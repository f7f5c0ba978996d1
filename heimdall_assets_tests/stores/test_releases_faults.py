"""Folders of releases on disks that refuse, take half, or lose power: whole releases or none, and a retry heals."""

import json
import shutil
from pathlib import Path

import pytest

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases.folder import FolderFiles
from heimdall_assets.stores.releases.interface import LATEST_FILE
from heimdall_assets.stores.releases.ledger import ReleaseLedger
from heimdall_assets.stores.releases.store import ReleaseStore
from heimdall_assets_tests.stores.faults import Disk, Faulty, Recorded, write_tree
from heimdall_assets_tests.stores.promises import find_leftovers
from heimdall_assets_tests.stores.releasing import FILES, RECORD, reserve


@pytest.fixture
def sqlite_store(quick_path: Path) -> MeasurementStore:
    store = MeasurementStore(f"sqlite:///{quick_path / 'h.db'}")
    store.upgrade()
    return store


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "short"])
def test_each_failing_call_leaves_whole_releases_and_a_retry_heals(
    fault: str, sqlite_store: MeasurementStore, quick_path: Path
) -> None:
    num_refused, ledger = 0, ReleaseLedger(sqlite_store.database)
    for at in range(1, 1000):
        root = quick_path / f"models-{at}"
        files = Faulty(fault, at)
        releases = ReleaseStore(FolderFiles(root, files), ledger)
        first = reserve(releases, "minor")
        said = ""
        try:
            releases.publish(first, FILES, RECORD)
        except StorageError as error:
            said = str(error)
            num_refused += fault in said
        # Where all is stored but latest.json, the release shows already; a retry writes that too.
        assert releases.is_published(first) == (not said or LATEST_FILE in said)
        if not files.happened:
            break
        check_whole_files(root)
        releases.publish(first, FILES, RECORD)  # the same process tries again
        assert releases.find_problems(first) == []
        check_whole_files(root)
        ReleaseStore(FolderFiles(root), ledger).publish(first, FILES, RECORD)  # and so does another one
        assert find_leftovers(root) == []
    assert at > 15
    assert num_refused > 10 if fault != "short" else num_refused == 0


def check_whole_files(root: Path) -> None:
    for folder in root.glob("v*"):
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    if (root / "latest.json").exists():
        latest = json.loads((root / "latest.json").read_text())
        assert set(latest["files"]) == {path.name for path in (root / latest["folder"]).iterdir()}


def try_power_losses(store: MeasurementStore, quick_path: Path, **settings: object) -> list[str]:
    """Return what a power loss at some call, or after publishing, leaves broken."""
    disk, broken, published = Disk(quick_path / "models"), [], []  # type: ignore[var-annotated]
    place = quick_path / "after"

    def lose_power() -> None:
        for tree in disk.list_outcomes(24, seed=files.count):
            write_tree(tree, place)
            try:
                check_whole_files(place)
                for version in published:
                    assert (place / version).is_dir(), f"lost {version}"
            except (AssertionError, ValueError, OSError) as error:
                broken.append(f"{type(error).__name__}: {error}")
            shutil.rmtree(place)

    files = Recorded(disk, on_call=lose_power, **settings)  # type: ignore[arg-type]
    releases = ReleaseStore(FolderFiles(disk.root, files), ReleaseLedger(store.database))
    for _ in range(2):
        version = reserve(releases, "patch")
        releases.publish(version, FILES, RECORD)
        published.append(version)
    lose_power()
    return broken


def test_no_power_loss_breaks_a_release(sqlite_store: MeasurementStore, quick_path: Path) -> None:
    assert try_power_losses(sqlite_store, quick_path) == []


@pytest.mark.parametrize("without", ["sync_file", "sync_folder"])
def test_releases_without_a_sync_are_caught(sqlite_store: MeasurementStore, quick_path: Path, without: str) -> None:
    assert try_power_losses(sqlite_store, quick_path, without=(without,))
