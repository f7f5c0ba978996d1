"""The object store in a folder: what only a disk does, such as links, left-overs and folders that go.

The promises that hold wherever objects rest are asked in ``test_objects``; every possible name is tried here alone, for
a service takes as long for one as a disk for hundreds.
"""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidIdentifier, StorageError
from heimdall_assets.stores.objects.files import FileSystem, FileWriter
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.other_recordings import FolderRecordings

TYPE = "application/octet-stream"
SECRET = b"lies outside of the store"


@pytest.fixture
def store(quick_path: Path) -> FolderObjectStore:
    (quick_path / "secret").write_bytes(SECRET)
    recordings = FolderRecordings(quick_path / "recordings")
    (recordings.root / "sessions" / "a").mkdir(parents=True)
    (recordings.root / "sessions" / "a" / "websdr_b.npy").write_bytes(b"samples")
    return FolderObjectStore(quick_path / "home" / "objects", recordings)


def object_path(store: FolderObjectStore, digest: str) -> Path:
    return store.root / "objects" / "sha256" / digest[:2] / digest


def test_a_file_that_changes_while_it_is_put_is_refused(quick_path: Path) -> None:
    source = quick_path / "growing"
    source.write_bytes(b"a" * 100)

    class Meddling(FileSystem):
        def create(self, path: Path) -> int:
            source.write_bytes(b"b" * 100)
            return super().create(path)

    store = FolderObjectStore(quick_path / "store", files=Meddling())
    with pytest.raises(StorageError, match="changed while"):
        store.put_file(source, TYPE)
    assert list(store.list_digests()) == []


def test_a_link_at_an_objects_name_is_replaced_by_the_object(store: FolderObjectStore, quick_path: Path) -> None:
    digest = store.put_bytes(SECRET, TYPE).digest
    object_path(store, digest).unlink()
    object_path(store, digest).symlink_to(quick_path / "secret")
    assert not store.exists(digest)
    assert list(store.list_digests()) == []
    store.put_bytes(SECRET, TYPE)
    assert not object_path(store, digest).is_symlink()
    assert (quick_path / "secret").read_bytes() == SECRET


def test_no_link_leads_out_of_the_recordings(store: FolderObjectStore, quick_path: Path) -> None:
    folder = quick_path / "recordings" / "sessions"
    (folder / "link.npy").symlink_to(quick_path / "secret")
    (folder / "away").symlink_to(quick_path)
    (folder / "inside.npy").symlink_to(folder / "a" / "websdr_b.npy")
    os.link(quick_path / "secret", folder / "hard.npy")
    os.mkfifo(folder / "pipe.npy")
    for name, what in [
        ("link.npy", "symbolic link"),
        ("away/secret", "symbolic link"),
        ("inside.npy", "symbolic link"),
        ("hard.npy", "hard link"),
        ("pipe.npy", "no regular file"),
        ("a", "no regular file"),
    ]:
        with pytest.raises(InvalidIdentifier, match=what):
            store.read_location(f"sessions/{name}", 1000)


@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,12}(/[A-Za-z0-9][A-Za-z0-9._+=-]{0,12}){0,3}", fullmatch=True)
)
@settings(max_examples=60, deadline=None)
def test_every_reference_name_works_or_is_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = FolderObjectStore(tmp_path_factory.getbasetemp() / "names")
    digest = store.put_bytes(name.encode(), TYPE).digest
    try:
        store.write_reference(name, digest)
    except InvalidIdentifier:
        assert ".." in name
    else:
        assert store.read_reference(name) == digest
        assert name in store.list_references(name)


def test_left_over_files_are_removed_but_not_those_of_a_living_writer(store: FolderObjectStore) -> None:
    digest = store.put_bytes(b"x", TYPE).digest
    folder = object_path(store, digest).parent
    (folder / ".tmp-dead").write_bytes(b"half")
    (folder / ".tmp-deadfolder").mkdir()
    (folder / ".tmp-deadfolder" / "part").write_bytes(b"half")
    living = FileSystem().create(folder / ".tmp-alive")
    FolderObjectStore(store.root).put_bytes(b"x", TYPE)
    assert sorted(path.name for path in folder.glob(".tmp-*")) == [".tmp-alive"]
    os.close(living)
    FolderObjectStore(store.root).put_bytes(b"x", TYPE)
    assert list(folder.glob(".tmp-*")) == []


def test_a_store_that_was_removed_meanwhile_grows_anew(store: FolderObjectStore) -> None:
    digest = store.put_bytes(b"x", TYPE).digest
    store.root.rename(store.root.with_name("moved"))
    with pytest.raises(StorageError):
        store.put_bytes(b"x", TYPE)
    assert store.put_bytes(b"x", TYPE).digest == digest
    assert store.read_bytes(digest) == b"x"


def test_a_place_that_cannot_be_is_one_line(quick_path: Path) -> None:
    (quick_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not be stored") as caught:
        FolderObjectStore(quick_path / "file" / "store").put_bytes(b"x", TYPE)
    assert "\n" not in str(caught.value)


# --- used and unused


LONG_AGO = 1e9


class UsedBeside(FileSystem):
    """A disk on which somebody else uses a file just before, or just after, it is set aside."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def replace(self, source: Path, target: Path) -> None:
        is_set_aside = target.name.startswith(".tmp-")
        if is_set_aside and self.moment == "before":
            os.utime(source)
        super().replace(source, target)
        if is_set_aside and self.moment == "written again":
            source.write_bytes(b"newer")


@pytest.mark.parametrize("moment", ["before", "written again", "never"])
def test_a_file_that_is_used_while_it_is_removed_stays(quick_path: Path, moment: str) -> None:
    writer = FileWriter(quick_path, UsedBeside(moment))
    path = quick_path / "file"
    path.write_bytes(b"whole")
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert writer.remove_unused(path, LONG_AGO + 1) is (moment != "before")
    left = {"before": [b"whole"], "written again": [b"newer"], "never": []}[moment]
    assert [one.read_bytes() for one in quick_path.iterdir()] == left


def test_putting_and_finding_mark_as_used(quick_path: Path) -> None:
    store = FolderObjectStore(quick_path)
    digest = store.put_bytes(b"kept", TYPE).digest
    store.write_reference("results/a", digest)
    paths = [path for path in quick_path.rglob("*") if path.is_file()]
    for path in paths:
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert not FolderObjectStore(quick_path).remove_object(digest, LONG_AGO)
    FolderObjectStore(quick_path).put_bytes(b"kept", TYPE)
    assert FolderObjectStore(quick_path).renew_reference("results/a")
    assert all(path.stat().st_mtime > LONG_AGO + 1 for path in paths)
    assert not store.remove_object(digest, LONG_AGO + 1)


def test_what_may_only_be_read_is_found_and_not_marked(quick_path: Path) -> None:
    class ReadOnly(FileSystem):
        def mark_used(self, path: Path) -> None:
            raise OSError(errno.EROFS, "read-only")

    store = FolderObjectStore(quick_path)
    store.write_reference("results/a", store.put_bytes(b"kept", TYPE).digest)
    path = next((quick_path / "references").rglob("*@"))
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert FolderObjectStore(quick_path, files=ReadOnly()).renew_reference("results/a")

    class Broken(FileSystem):
        def mark_used(self, path: Path) -> None:
            raise OSError(errno.EIO, "no")

    with pytest.raises(StorageError, match="reference results/a: could not be marked as used"):
        FolderObjectStore(quick_path, files=Broken()).renew_reference("results/a")
