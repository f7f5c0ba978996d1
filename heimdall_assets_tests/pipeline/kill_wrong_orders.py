"""Orders of writing that lose something where a kill comes in between: each is what a test of kills must notice."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from heimdall_assets.manifests import Artifact, compute_digest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.references import encode_reference
from heimdall_assets.stores.releases.store import ReleaseStore


def _latest_before_commit() -> None:
    plain = ReleaseStore._commit

    def commit(self: ReleaseStore, version: str, files: Mapping[str, bytes], listed: Any, said: str) -> None:
        latest = {"version": version, "folder": version, "files": listed}
        self.files.write_latest(json.dumps(latest).encode())
        plain(self, version, files, listed, said)

    ReleaseStore._commit = commit


def _reference_before_object() -> None:
    plain, waiting = FolderObjectStore.put_bytes, {}

    def put_bytes(self: FolderObjectStore, data: bytes, media_type: str) -> Artifact:
        if media_type != JSON_MEDIA_TYPE:
            return plain(self, data, media_type)
        waiting[compute_digest(data)] = data
        return Artifact(digest=compute_digest(data), media_type=media_type, size=len(data))

    def write_reference(self: FolderObjectStore, name: str, digest: str) -> None:
        self._writer.write_file(self._reference_path(name), [encode_reference(name, digest)])
        of = name.removeprefix("facts/")  # a manifest, whose own reference comes after that of its facts
        for late in [late for late in waiting if late != of]:
            plain(self, waiting.pop(late), JSON_MEDIA_TYPE)

    FolderObjectStore.put_bytes = put_bytes
    FolderObjectStore.write_reference = write_reference


def row_before_files() -> None:
    """Have releases be published before their files lie there, in a folder or a bucket."""
    plain = ReleaseStore._commit

    def commit(self: ReleaseStore, version: str, files: Mapping[str, bytes], listed: Any, said: str) -> None:
        self.files.write = lambda *_: None
        plain(self, version, files, listed, said)
        del self.files.write
        self.files.write(version, files)

    ReleaseStore._commit = commit


WRONG_ORDERS: dict[str, Callable[[], None]] = {
    "latest before commit": _latest_before_commit,
    "reference before object": _reference_before_object,
    "row before files": row_before_files,
}
"""What it does wrong -> what has this process, which ends soon, do so."""
