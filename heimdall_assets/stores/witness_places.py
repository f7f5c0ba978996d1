"""Witness places: folders and buckets in which the log's checkpoints are kept a second time, a file for each size.

Belongs here: writing them, reading the last one. Does not belong here: what a checkpoint says (``merkle``), whether the
log still agrees with it (``pipeline.releases.witnesses``).

A file is never written twice, so that the place may be one that only grows: a bucket with object lock, a folder of
another machine that this one may add to.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from heimdall_assets.errors import NotFound, StorageError
from heimdall_assets.stores.objects.addresses import BucketAddress, Place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.stores.objects.files import FileWriter, describe
from heimdall_assets.stores.objects.regular_files import read_regular_file

_NAME = re.compile(r"checkpoint-([0-9]{16})\.txt")
_MAX_RETRIES = 1
"""Of a request: whoever releases does not wait for a second place that is away; the next checkpoint covers this one."""


class WitnessPlace(ABC):
    """Checkpoints by how many entries they cover.

    Attributes:
        shown: the place, for people.
    """

    shown: str

    def read_last(self) -> str | None:
        """Return the checkpoint over the most entries, with its signatures, unchecked; None: none is kept yet.

        Raises:
            StorageError: nobody can say.
        """
        kept = [name for name in self._list_names() if _NAME.fullmatch(name)]
        if not kept:
            return None
        try:
            return self._read(max(kept)).decode()
        except (NotFound, UnicodeDecodeError):
            raise StorageError(f"{self.shown}/{max(kept)}: found no text, expected a checkpoint") from None

    def keep(self, size: int, note: str) -> None:
        """Store a checkpoint over ``size`` entries, of which none is kept yet, whole or not at all.

        Raises:
            StorageError: it could not be stored.
        """
        self._write(f"checkpoint-{size:016d}.txt", note.encode())

    @abstractmethod
    def _list_names(self) -> Iterable[str]: ...

    @abstractmethod
    def _read(self, name: str) -> bytes: ...

    @abstractmethod
    def _write(self, name: str, data: bytes) -> None: ...


class FolderWitness(WitnessPlace):
    """Checkpoints in a folder, which is made with the first of them if the folder above is there."""

    def __init__(self, folder: Path):
        self._folder, self.shown = folder, str(folder)
        self._writer = FileWriter(folder)

    def _list_names(self) -> list[str]:
        try:
            return [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            if self._folder.parent.is_dir():
                return []
            # What is mounted there may be away: made below the mount point, a folder would only look like a second one.
            raise StorageError(f"{self.shown}: found no folder {self._folder.parent}, expected one") from None
        except OSError as error:
            raise StorageError(f"{self.shown}: could not be listed ({describe(error)})") from error

    def _read(self, name: str) -> bytes:
        try:
            return read_regular_file(self._folder / name)
        except OSError as error:
            raise StorageError(f"{self.shown}/{name}: could not be read ({describe(error)})") from error

    def _write(self, name: str, data: bytes) -> None:
        self._writer.write_file(self._folder / name, [data])


class BucketWitness(WitnessPlace):
    """Checkpoints as keys below the prefix of a bucket."""

    def __init__(self, bucket: Bucket):
        self._bucket, self.shown = bucket, str(bucket.address)

    def _list_names(self) -> Iterable[str]:
        return self._bucket.list_keys()

    def _read(self, name: str) -> bytes:
        return self._bucket.get(name)

    def _write(self, name: str, data: bytes) -> None:
        self._bucket.put(name, data)


def open_witness(place: Place, endpoint: str | None) -> WitnessPlace:
    """Return the checkpoints at a place; nothing is asked of a service yet.

    Args:
        place: folder, or address in S3.
        endpoint: of the S3 service; None: Amazon's.
    """
    if isinstance(place, BucketAddress):
        return BucketWitness(Bucket(place, endpoint, _MAX_RETRIES))
    return FolderWitness(place)
