"""Copies of objects: verified on every use, bounded, and never the only thing that an object can be read from."""

import errno
import logging
import mmap
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from heimdall_assets.errors import StorageError
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.addresses import BucketAddress, parse_place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.stores.objects.cache import RECENT_S, ObjectCache
from heimdall_assets.stores.objects.files import FileSystem
from heimdall_assets.stores.objects.opening import open_object_store

SIZE = 10_000
TYPE = "application/octet-stream"


class Full(FileSystem):
    """A disk without room."""

    def write(self, descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def fill(cache: ObjectCache, numbers: range) -> list[str]:
    """Keep objects of ``SIZE`` bytes, each used an hour ago and a second after the one before; return their digests."""
    digests = []
    for number in numbers:
        data = number.to_bytes(4, "big") * (SIZE // 4)
        digests.append(compute_digest(data))
        cache.keep(digests[-1], data)
        if path := cache.find(digests[-1]):
            with suppress(FileNotFoundError):  # another process made room
                os.utime(path, (time.time() - 3600 + number,) * 2)
    return digests


def list_kept(cache: ObjectCache, digests: list[str]) -> list[int]:
    return [number for number, digest in enumerate(digests) if (cache.root / digest[:2] / digest).exists()]


def test_what_was_used_least_recently_goes_first(quick_path: Path):
    cache = ObjectCache(quick_path / "cache", 20 * SIZE)
    digests = fill(cache, range(16))
    assert list_kept(cache, digests) == list(range(16))
    assert cache.read(digests[0]) is not None  # used now
    digests += fill(cache, range(16, 24))
    kept = list_kept(cache, digests)
    assert 0 in kept
    assert kept[1:] == list(range(24))[-(len(kept) - 1) :]
    assert len(kept) <= 20
    assert [cache.find(digests[1]), cache.read(digests[1])] == [None, None]


def test_what_was_used_just_now_stays_for_who_is_about_to_open_it(quick_path: Path):
    cache = ObjectCache(quick_path / "cache", 2 * SIZE)
    digests = [compute_digest(bytes([number]) * SIZE) for number in range(6)]
    for number, digest in enumerate(digests):
        cache.write(digest, [bytes([number]) * SIZE])
    assert list_kept(cache, digests) == list(range(6))
    old = time.time() - RECENT_S - 1
    for digest in digests:
        os.utime(cache.root / digest[:2] / digest, (old, old))
    ObjectCache(cache.root, 2 * SIZE).write(compute_digest(b"x"), [b"x"])  # another process makes room
    assert len(list_kept(cache, digests)) == 1


def test_copies_from_before_the_clock_was_set_back_go_too(quick_path: Path):
    cache = ObjectCache(quick_path / "cache", 20 * SIZE)
    digests = fill(cache, range(16))
    ahead = time.time() + 1e6
    for digest in digests:
        os.utime(cache.root / digest[:2] / digest, (ahead, ahead))
    for number in range(16, 28):  # used just now: none of these goes
        data = number.to_bytes(4, "big") * (SIZE // 4)
        digests.append(compute_digest(data))
        cache.keep(digests[-1], data)
    kept = list_kept(cache, digests)
    assert kept[-12:] == list(range(16, 28))
    assert len(kept) <= 20


def test_a_copy_that_goes_is_read_on_by_who_mapped_it(quick_path: Path):
    cache = ObjectCache(quick_path / "cache", 2 * SIZE)
    (digest,) = fill(cache, range(1, 2))
    path = cache.find(digest)
    assert path is not None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        os.utime(path, (0, 0))
        fill(cache, range(2, 6))
        assert not path.exists()
        assert compute_digest(bytes(mapped)) == digest


def test_a_damaged_copy_goes_and_is_told_of(quick_path: Path, caplog: pytest.LogCaptureFixture):
    cache = ObjectCache(quick_path / "cache", 20 * SIZE)
    for look in (cache.find, cache.read):
        (digest,) = fill(cache, range(1))
        path = cache.root / digest[:2] / digest
        path.write_bytes(b"wrong")
        with caplog.at_level(logging.WARNING):
            assert look(digest) is None
        assert f"cache {path}: found bytes with SHA-256 {compute_digest(b'wrong')}, expected {digest}" in caplog.text
        assert not path.exists()
        path.symlink_to(quick_path / "elsewhere")
        assert look(digest) is None


def test_pieces_that_are_wrong_are_not_kept(quick_path: Path):
    cache = ObjectCache(quick_path / "cache", 20 * SIZE)

    def fail():
        yield b"some"
        raise StorageError("the way was cut")

    with pytest.raises(StorageError, match="the way was cut"):
        cache.write("a" * 64, fail())
    assert [path for path in cache.root.rglob("*") if path.is_file()] == []


def test_what_is_larger_than_the_limit_is_not_kept(quick_path: Path):
    cache = ObjectCache(quick_path / "cache", SIZE - 1)
    assert list_kept(cache, fill(cache, range(3))) == []


def test_processes_share_a_cache(quick_path: Path):
    program = (
        "import sys; from pathlib import Path\n"
        "from heimdall_assets.stores.objects.cache import ObjectCache\n"
        "from heimdall_assets_tests.stores.test_cache import SIZE, fill\n"
        "cache = ObjectCache(Path(sys.argv[1]), 8 * SIZE)\n"
        "for _ in range(10): fill(cache, range(30))\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(quick_path / "cache")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[1] for process in running] == [b"", b""]
    assert [process.returncode for process in running] == [0, 0]
    kept = [path for path in (quick_path / "cache").rglob("*") if path.is_file()]
    assert 0 < len(kept) <= 10
    assert all(compute_digest(path.read_bytes()) == path.name for path in kept)


def test_under_a_full_disk_objects_are_served_all_the_same(bucket: str, s3, quick_path: Path, caplog):
    place = parse_place(f"{bucket}/home", "objects")
    assert isinstance(place, BucketAddress)
    full = ObjectCache(quick_path / "cache", 10**9, Full())
    store = open_object_store(place, quick_path, s3.endpoint, full)
    with caplog.at_level(logging.WARNING):
        digest = store.put_bytes(b"one", TYPE).digest
        assert store.read_bytes(digest) == store.read_bytes(digest) == b"one"
    assert caplog.text.count("No space left on device") == 1
    assert "objects are read from where they rest" in caplog.text
    with pytest.raises(StorageError, match=r"could not be stored \(ENOSPC: No space left on device\)") as caught:
        store.local_path(digest)  # a memory map wants a file
    assert str(quick_path / "cache") in str(caught.value)
    assert Bucket(place, s3.endpoint).get(f"objects/sha256/{digest[:2]}/{digest}") == b"one"
