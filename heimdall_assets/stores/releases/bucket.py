"""Releases in a bucket of S3: a key a file, ``v1.2.3/model.onnx``, each whole or not there.

Belongs here: keys. Does not belong here: which of them count (``store``). A bucket knows no rename of many keys: some
files of a release may lie there while others do not yet, and nobody who asks the database ever sees that.

Nothing here relies on conditional writes, on which no two S3 services agree: whoever writes holds the database's lock.
"""

from collections.abc import Iterable, Mapping

from heimdall_assets.errors import NotFound
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.stores.releases.interface import LATEST_FILE, ReleaseFiles
from heimdall_assets.stores.releases.version_numbers import is_version


class BucketFiles(ReleaseFiles):
    """Keys of releases below the prefix of one address."""

    def __init__(self, bucket: Bucket):
        self._bucket = bucket

    def list_versions(self) -> set[str]:
        return {name for key in self._bucket.list_keys() if is_version(name := key.partition("/")[0])}

    def list_files(self, version: str) -> list[str]:
        return [key.removeprefix(f"{version}/") for key in self._bucket.list_keys(version)]

    def read(self, version: str, name: str) -> bytes:
        return self._bucket.get(f"{version}/{name}")

    def write(self, version: str, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.write_file(version, name, data)

    def write_file(self, version: str, name: str, data: bytes) -> None:
        self._bucket.put(f"{version}/{name}", data)

    def remove(self, version: str, names: Iterable[str]) -> None:
        self._bucket.remove([f"{version}/{name}" for name in names])

    def read_latest(self) -> bytes | None:
        try:
            return self._bucket.get(LATEST_FILE)
        except NotFound:
            return None

    def write_latest(self, data: bytes) -> None:
        self._bucket.put(LATEST_FILE, data)

    def locate(self, version: str) -> str:
        return f"{self._bucket.address}/{version}"
