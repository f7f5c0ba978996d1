"""Whatever call fails, whenever the process dies, wherever the power goes: nothing said to be stored is lost."""

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from heimdall_assets.errors import StorageError
from heimdall_assets.manifests import Artifact, compute_digest
from heimdall_assets.stores.objects.files import FileWriter
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.references import encode_reference
from heimdall_assets_tests.stores.faults import Died, Disk, Faulty, Recorded, write_tree
from heimdall_assets_tests.stores.promises import FILE, find_broken, find_leftovers, prepare, work

OUTCOMES = 48  # power losses tried at each call; where fewer are possible, all


@pytest.fixture
def source(quick_path: Path) -> Path:
    path = quick_path / "source"
    path.write_bytes(FILE)
    return path


@pytest.fixture
def base(quick_path: Path) -> Path:
    prepare(FolderObjectStore(quick_path / "base"))
    return quick_path / "base"


def finish(root: Path, source: Path, before: str | None) -> None:
    """A plain retry, by a new process as it were, ends well and leaves nothing lying about."""
    told: list[str] = []
    work(FolderObjectStore(root), source, told.append)
    assert find_broken(FolderObjectStore(root), told, before) == []
    assert find_leftovers(root) == []


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "short"])
def test_each_failing_call_loses_nothing_and_a_retry_heals(
    fault: str, base: Path, source: Path, quick_path: Path
) -> None:
    before = FolderObjectStore(base).read_reference("results/known")
    num_refused = 0
    for at in range(1, 1000):
        root = quick_path / "tried"
        shutil.copytree(base, root)
        files = Faulty(fault, at)
        store = FolderObjectStore(root, files=files)
        told: list[str] = []
        try:
            work(store, source, told.append)
        except StorageError as error:
            num_refused += fault in str(error)
        if not files.happened:
            shutil.rmtree(root)
            break
        assert find_broken(FolderObjectStore(root), told, before) == [], f"{fault} at call {at}"
        work(store, source, told.append)  # the same process tries again
        finish(root, source, before)
        shutil.rmtree(root)
    assert at > 25
    # A failed close tells nothing about the bytes, which were synced before; only its error is passed on.
    assert num_refused > 20 if fault != "short" else num_refused == 0


def test_each_kill_loses_nothing_and_a_retry_heals(base: Path, source: Path, quick_path: Path) -> None:
    before = FolderObjectStore(base).read_reference("results/known")
    driver = [sys.executable, "-m", "heimdall_assets_tests.stores.kill_driver", str(quick_path)]
    subprocess.run(driver, check=True, timeout=100, cwd=Path(__file__).resolve().parents[2])
    roots = sorted(path for path in quick_path.glob("*-*") if path.is_dir())
    assert len(roots) > 50
    num_leftovers = 0
    for root in roots:
        told = root.with_suffix(".told").read_text().splitlines()
        assert find_broken(FolderObjectStore(root), told, before) == [], root.name
        num_leftovers += len(find_leftovers(root))
        finish(root, source, before)
    assert num_leftovers > 10  # the kills did hit writers at work


def try_power_losses(quick_path: Path, source: Path, make_store, **settings) -> list[str]:  # type: ignore[no-untyped-def]
    """Return the promises that some power loss breaks, during the work and after it."""
    disk, told, broken = Disk(quick_path / "live"), [], []  # type: ignore[var-annotated]
    place = quick_path / "after"

    def lose_power() -> None:
        for tree in disk.list_outcomes(OUTCOMES, seed=files.count):
            write_tree(tree, place)
            broken.extend(find_broken(FolderObjectStore(place), told, None))
            shutil.rmtree(place)

    files = Recorded(disk, on_call=lose_power, **settings)
    work(make_store(disk.root, files), source, told.append)
    lose_power()
    return broken


def make_store(root: Path, files: Recorded) -> FolderObjectStore:
    return FolderObjectStore(root, files=files)


def test_no_power_loss_breaks_a_promise(quick_path: Path, source: Path) -> None:
    assert try_power_losses(quick_path, source, make_store) == []


def test_a_power_loss_after_a_killed_writer_and_a_retry_breaks_no_promise(quick_path: Path, source: Path) -> None:
    assert [line for lines in try_kills_before_power_loss(quick_path, source, make_store) for line in lines] == []


def try_kills_before_power_loss(quick_path: Path, source: Path, make_store):  # type: ignore[no-untyped-def]
    """Give, for each call at which a first writer dies, which promises to a second one a power loss breaks."""
    for die_at in range(1, 1000):
        disk = Disk(quick_path / f"live-{die_at}")
        try:
            work(make_store(disk.root, Recorded(disk, die_at=die_at)), source, lambda line: None)
        except Died:
            told: list[str] = []
            work(make_store(disk.root, Recorded(disk)), source, told.append)
            broken = []
            for tree in disk.list_outcomes(OUTCOMES, seed=die_at):
                write_tree(tree, quick_path / "after")
                broken += find_broken(FolderObjectStore(quick_path / "after"), told, None)
                shutil.rmtree(quick_path / "after")
            yield broken
        else:
            assert die_at > 25
            return
        finally:
            shutil.rmtree(disk.root, ignore_errors=True)


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC"])
def test_damaged_bytes_are_set_aside_or_stay(fault: str, base: Path, quick_path: Path) -> None:
    (digest,) = FolderObjectStore(base).list_digests()
    path = next(base.rglob(digest))
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    for at in range(1, 100):
        root = quick_path / f"tried-{at}"
        shutil.copytree(base, root)
        files = Faulty(fault, at)
        store = FolderObjectStore(root, files=files)
        with suppress(StorageError):
            store.set_aside(digest)
        if not files.happened:
            break
        assert [found.read_bytes() for found in root.rglob(digest)] == [b"damaged"], at
        store.set_aside(digest)
        assert not store.exists(digest)
        assert (root / "damaged" / digest).read_bytes() == b"damaged"
        store.put_bytes(whole, "application/octet-stream")
        assert not store.set_aside(digest)
        assert find_broken(FolderObjectStore(root), [], digest) == []
    assert at > 3


# --- planted mutants: the trials above must catch each of them


def test_a_store_that_does_not_sync_files_is_caught(quick_path: Path, source: Path) -> None:
    broken = try_power_losses(quick_path, source, make_store, without=("sync_file",))
    assert any(line.startswith("damaged") for line in broken)


def test_a_store_that_does_not_sync_folders_is_caught(quick_path: Path, source: Path) -> None:
    broken = try_power_losses(quick_path, source, make_store, without=("sync_folder",))
    assert any(line.startswith("lost: object") for line in broken)


class ReferenceFirst(FolderObjectStore):
    """Writes the object only when its reference already stands."""

    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        self._late = data
        return Artifact(digest=compute_digest(data), media_type=media_type, size=len(data))

    def write_reference(self, name: str, digest: str) -> None:
        self._writer.write_file(self._reference_path(name), [encode_reference(name, digest)])
        super().put_bytes(self._late, "application/octet-stream")


def test_a_store_that_writes_references_first_is_caught(quick_path: Path, source: Path) -> None:
    broken = try_power_losses(quick_path, source, lambda root, files: ReferenceFirst(root, files=files))
    assert any(line.startswith("lost: what reference") for line in broken)


class Trusting(FolderObjectStore):
    """Takes an object that is there for stored, though its writer may have died before the folder was synced."""

    def _make_durable_if_whole(self, digest: str) -> bool:
        return self.exists(digest)

    def write_reference(self, name: str, digest: str) -> None:
        self._writer.write_file(self._reference_path(name), [encode_reference(name, digest)])


def test_a_store_that_trusts_what_a_killed_writer_left_is_caught(quick_path: Path, source: Path) -> None:
    class Careless(FileWriter):
        def prepare_folder(self, folder: Path) -> None:
            if not folder.is_dir():
                super().prepare_folder(folder)

    def make_trusting(root: Path, files: Recorded) -> FolderObjectStore:
        store = Trusting(root, files=files)
        store._writer = Careless(root, files)
        return store

    assert any(try_kills_before_power_loss(quick_path, source, make_trusting))
