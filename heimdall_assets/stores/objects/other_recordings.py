"""Recordings of others: files below one place that somebody else writes, read by the names that rows hold.

Belongs here: reading them, and refusing whatever leads out of their place. Does not belong here: our own objects
(``folder``, ``s3``), what may be a name at all (``locations``).
"""

from abc import ABC, abstractmethod
from pathlib import Path

from heimdall_assets.errors import InvalidIdentifier
from heimdall_assets.stores.objects.addresses import Place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.stores.objects.locations import Location, open_below, read_descriptor, split_object_name

VARIABLE = "HEIMDALL_RECORDINGS"


class OtherRecordings(ABC):
    """Files of others below one place; nothing is written there."""

    place: Place

    @abstractmethod
    def read(self, location: Location, max_bytes: int) -> bytes:
        """Return the bytes at a location that is no object's.

        Raises:
            InvalidIdentifier: it is named in full and lies elsewhere, or leads through a link.
            NotFound: there is nothing.
            InvalidInput: it is larger than ``max_bytes``; found before anything is read.
            StorageError: the disk or the service refused.
        """

    def _refuse(self, location: Location) -> InvalidIdentifier:
        return InvalidIdentifier(
            f"location {location}: lies outside of {VARIABLE}, which is {self.place}; no row makes us read elsewhere"
        )


class FolderRecordings(OtherRecordings):
    """Files below a folder."""

    def __init__(self, root: Path):
        self.place = self.root = Path(root).absolute()

    def read(self, location: Location, max_bytes: int) -> bytes:
        if location.bucket is not None:
            raise self._refuse(location)
        with open_below(self.root, location.parts) as descriptor:
            return read_descriptor(descriptor, str(location), max_bytes)


class BucketRecordings(OtherRecordings):
    """Objects below a prefix of a bucket."""

    def __init__(self, bucket: Bucket):
        self.place = bucket.address
        self._bucket = bucket

    def read(self, location: Location, max_bytes: int) -> bytes:
        return self._bucket.get("/".join(self._find_below(location)), max_bytes)

    def _find_below(self, location: Location) -> list[str]:
        """Return the parts below our prefix."""
        if location.bucket is None:
            return location.parts
        above = self._bucket.address.prefix.split("/") if self._bucket.address.prefix else []
        below = location.parts[len(above) :]
        if location.bucket != self._bucket.address.bucket or location.parts[: len(above)] != above or not below:
            raise self._refuse(location)
        return split_object_name("/".join(below))
