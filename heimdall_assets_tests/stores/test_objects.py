"""The object store: what is read is what was put, whatever lies on the disk, and nothing outside is ever reached."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import (
    CorruptObject,
    InvalidIdentifier,
    InvalidInput,
    InvalidSetting,
    NotFound,
    StorageError,
)
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.files import FileSystem
from heimdall_assets.stores.objects.folder import FolderObjectStore, open_object_store
from heimdall_assets.stores.objects.locations import parse_location, split_reference_name

TYPE = "application/octet-stream"
SECRET = b"lies outside of the store"


@pytest.fixture
def store(quick_path: Path) -> FolderObjectStore:
    (quick_path / "secret").write_bytes(SECRET)
    store = FolderObjectStore(quick_path / "home" / "objects", recordings=quick_path / "recordings")
    (store.recordings / "sessions" / "a").mkdir(parents=True)
    (store.recordings / "sessions" / "a" / "websdr_b.npy").write_bytes(b"samples")
    return store


def object_path(store: FolderObjectStore, digest: str) -> Path:
    return store.root / "objects" / "sha256" / digest[:2] / digest


@pytest.mark.parametrize("data", [b"", b"x", b"\x00" * 3_000_000])
def test_what_is_put_is_read(store: FolderObjectStore, data: bytes) -> None:
    artifact = store.put_bytes(data, TYPE)
    assert (artifact.digest, artifact.size, artifact.media_type) == (compute_digest(data), len(data), TYPE)
    assert store.read_bytes(artifact.digest) == data
    assert store.local_path(artifact.digest).read_bytes() == data
    assert store.read_location(f"sha256:{artifact.digest}", len(data)) == data
    assert store.exists(artifact.digest)
    assert list(store.list_digests()) == [artifact.digest]
    assert object_path(store, artifact.digest).is_file()


def test_a_file_is_put_by_its_bytes(store: FolderObjectStore, quick_path: Path) -> None:
    big = os.urandom(2_500_000)
    (quick_path / "big").write_bytes(big)
    artifact = store.put_file(quick_path / "big", TYPE)
    assert artifact == store.put_bytes(big, TYPE)
    assert store.read_bytes(artifact.digest) == big
    assert (quick_path / "big").read_bytes() == big
    for absent in (quick_path / "absent", quick_path):
        with pytest.raises(NotFound, match="found no file"):
            store.put_file(absent, TYPE)


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


def test_digests_are_listed_in_order(store: FolderObjectStore) -> None:
    digests = sorted(store.put_bytes(bytes([number]), TYPE).digest for number in range(40))
    (store.root / "objects" / "sha256" / digests[0][:2] / ".tmp-0123").write_bytes(b"left over")
    (store.root / "objects" / "sha256" / digests[0][:2] / "stray").write_bytes(b"not ours")
    assert list(store.list_digests()) == digests


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap", "grow"])
def test_damage_is_found_named_and_healed_by_putting_again(store: FolderObjectStore, damage: str) -> None:
    data, other = os.urandom(5000), os.urandom(5000)
    digest = store.put_bytes(data, TYPE).digest
    path = object_path(store, digest)
    path.write_bytes(
        {
            "flip": bytes([data[0] ^ 1]) + data[1:],
            "truncate": data[:-1],
            "empty": b"",
            "swap": other,
            "grow": data + b"\x00",
        }[damage]
    )
    found = compute_digest(path.read_bytes())
    for read in (store.read_bytes, store.local_path, lambda name: store.read_location(f"sha256:{name}", 10_000)):
        with pytest.raises(
            CorruptObject, match=f"object {digest}: found bytes with SHA-256 {found}, expected {digest}"
        ):
            read(digest)
    assert store.put_bytes(data, TYPE).digest == digest
    assert store.read_bytes(digest) == data


def test_a_link_at_an_objects_name_is_replaced_by_the_object(store: FolderObjectStore, quick_path: Path) -> None:
    digest = store.put_bytes(SECRET, TYPE).digest
    object_path(store, digest).unlink()
    object_path(store, digest).symlink_to(quick_path / "secret")
    assert not store.exists(digest)
    assert list(store.list_digests()) == []
    store.put_bytes(SECRET, TYPE)
    assert not object_path(store, digest).is_symlink()
    assert (quick_path / "secret").read_bytes() == SECRET


def test_what_is_not_there_is_said_so(store: FolderObjectStore) -> None:
    digest = compute_digest(b"never put")
    for read in (store.read_bytes, store.local_path):
        with pytest.raises(NotFound, match=digest):
            read(digest)
    assert not store.exists(digest)
    assert list(FolderObjectStore(store.root / "nowhere").list_digests()) == []
    assert FolderObjectStore(store.root / "nowhere").list_references() == []


@pytest.mark.parametrize("digest", ["", "../../secret", "ab", "A" * 64, "a" * 63 + "\n", "a" * 65, None, 7])
def test_only_digests_name_objects(store: FolderObjectStore, digest: str) -> None:
    for ask in (store.read_bytes, store.local_path, store.exists):
        with pytest.raises(InvalidIdentifier, match="expected a SHA-256"):
            ask(digest)


# --- references


def test_references_point_and_move(store: FolderObjectStore) -> None:
    one, two = store.put_bytes(b"1", TYPE).digest, store.put_bytes(b"2", TYPE).digest
    assert store.read_reference("results/a") is None
    store.write_reference("results/a", one)
    store.write_reference("results/a/b", one)  # a name may be the beginning of another
    store.write_reference("features/c", two)
    assert store.read_reference("results/a") == one
    store.write_reference("results/a", two)
    assert store.read_reference("results/a") == two
    assert store.list_references() == ["features/c", "results/a", "results/a/b"]
    assert store.list_references("results/") == ["results/a", "results/a/b"]


def test_a_reference_comes_after_its_object(store: FolderObjectStore) -> None:
    with pytest.raises(NotFound, match="expected it stored before"):
        store.write_reference("results/a", compute_digest(b"never put"))
    assert store.list_references() == []


def test_damaged_and_swapped_references_are_found_and_healed(store: FolderObjectStore) -> None:
    one, two = store.put_bytes(b"1", TYPE).digest, store.put_bytes(b"2", TYPE).digest
    store.write_reference("results/a", one)
    store.write_reference("results/b", two)
    first, second = store.root / "references/results/a@", store.root / "references/results/b@"
    written = first.read_bytes()
    for position in range(len(written)):
        first.write_bytes(written[:position] + bytes([written[position] ^ 1]) + written[position + 1 :])
        with pytest.raises(CorruptObject, match="reference results/a"):
            store.read_reference("results/a")
    for damaged in (b"", written[:-1], second.read_bytes(), written * 2):
        first.write_bytes(damaged)
        with pytest.raises(CorruptObject, match="reference results/a"):
            store.read_reference("results/a")
    store.write_reference("results/a", one)
    assert store.read_reference("results/a") == one


# --- names and locations

HOSTILE = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../secret",
    "sessions/../../secret",
    "sessions//a",
    "sessions/./a",
    "sessions/a/",
    "a\\b",
    "..\\secret",
    "file:///etc/passwd",
    "s3://bucket/key",
    "http://host/a",
    "//host/share",
    "a?b",
    "a#b",
    "a;b",
    "a%2e%2e",
    "a\x00b",
    "a\nb",
    "sha256:../../secret",
    "sha256:" + "a" * 63,
    "SHA256:" + "a" * 64,
    "-rf",
    ".hidden",
    "~root",
    "$HOME",
    "a:b",
    "ä",
    "a" * 256,
    "/".join(["a"] * 17),
]


@pytest.mark.parametrize("location", HOSTILE)
def test_hostile_locations_are_refused(store: FolderObjectStore, location: str) -> None:
    with pytest.raises(InvalidIdentifier):
        store.read_location(location, 1000)
    with pytest.raises(InvalidIdentifier):
        store.write_reference(location, store.put_bytes(b"x", TYPE).digest)


def test_recordings_of_others_are_read_below_their_root(store: FolderObjectStore) -> None:
    assert store.read_location("sessions/a/websdr_b.npy", 7) == b"samples"
    with pytest.raises(InvalidInput, match="found 7 bytes, expected at most 6"):
        store.read_location("sessions/a/websdr_b.npy", 6)
    digest = store.put_bytes(b"samples", TYPE).digest
    with pytest.raises(InvalidInput, match="found 7 bytes, expected at most 6"):
        store.read_location(f"sha256:{digest}", 6)
    for absent in ("sessions/a/websdr_c.npy", "sessions/z/websdr_b.npy", "sessions/a/websdr_b.npy/c"):
        with pytest.raises(NotFound):
            store.read_location(absent, 1000)


def test_no_link_leads_out_of_the_recordings(store: FolderObjectStore, quick_path: Path) -> None:
    folder = store.recordings / "sessions"
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


@given(st.text(alphabet=st.sampled_from("ab/.\\:?#;%~\x00\n -"), max_size=24) | st.text(max_size=24))
@settings(max_examples=300, deadline=None)
def test_a_location_is_refused_or_stays_below_the_root(text: str) -> None:
    for parse in (parse_location, split_reference_name):
        try:
            parsed = parse(text)
        except InvalidIdentifier:
            continue
        parts = parsed[1] if isinstance(parsed, tuple) else parsed
        below = Path("/root/of/all").joinpath(*parts)
        assert Path(os.path.normpath(below)) == below
        assert below != Path("/root/of/all")
        assert "/".join(parts) == text


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


# --- left-overs and places


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


def test_addresses_open_a_folder_or_say_what_is_missing(quick_path: Path) -> None:
    opened = open_object_store(str(quick_path / "objects"), recordings=str(quick_path / "rec"))
    assert isinstance(opened, FolderObjectStore)
    assert opened.recordings == quick_path / "rec"
    for address in ("s3://bucket/prefix", "gs://bucket"):
        with pytest.raises(InvalidSetting, match=r"object store: found an address of .*://, expected a local folder"):
            open_object_store(address)
    with pytest.raises(InvalidSetting, match="recordings: found an address of s3://"):
        open_object_store(str(quick_path), recordings="s3://bucket")
