"""Object stores of both kinds for the same tests: the keys in a bucket are the names of the files in a folder."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from heimdall_assets.stores.objects.addresses import BucketAddress, parse_place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.stores.objects.cache import ObjectCache
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.opening import open_object_store

KINDS = ["folder", "s3"]


class ObjectPlace(ABC):
    """Where objects rest in a test, and a back door to the bytes there."""

    store: ObjectStore
    step: int
    """Of what is tried everywhere on a disk: one request takes as long as a hundred files."""

    @abstractmethod
    def open(self) -> ObjectStore:
        """Return the store as another machine would open it: without memory and without copies."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Put bytes under a key, whatever was there."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Return the bytes under a key."""


def key_of(digest: str) -> str:
    """Return the key of an object."""
    return f"objects/sha256/{digest[:2]}/{digest}"


@dataclass
class FolderPlace(ObjectPlace):
    """In a folder."""

    folder: Path
    recordings: Path | BucketAddress
    endpoint: str | None = None
    step: int = 1

    def __post_init__(self) -> None:
        self.store = self.open()

    def open(self) -> ObjectStore:
        return open_object_store(
            self.folder / "objects", self.recordings, self.endpoint, ObjectCache(self.folder / "cache", 10**9)
        )

    def write(self, key: str, data: bytes) -> None:
        path = self.folder / "objects" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def read(self, key: str) -> bytes:
        return (self.folder / "objects" / key).read_bytes()


class S3Place(ObjectPlace):
    """In a bucket."""

    step = 16

    def __init__(self, address: str, recordings: Path | BucketAddress, endpoint: str, caches: Path):
        place = parse_place(address, "objects")
        assert isinstance(place, BucketAddress)
        self.address, self.endpoint, self.recordings, self._caches = place, endpoint, recordings, caches
        self._num_opened = 0
        self.bucket = Bucket(place, endpoint)
        self.store = self.open()

    def open(self) -> ObjectStore:
        self._num_opened += 1
        cache = ObjectCache(self._caches / f"cache{self._num_opened}", 10**9)
        return open_object_store(self.address, self.recordings, self.endpoint, cache)

    def write(self, key: str, data: bytes) -> None:
        self.bucket.put(key, data)

    def read(self, key: str) -> bytes:
        return self.bucket.get(key)
