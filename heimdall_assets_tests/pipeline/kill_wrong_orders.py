"""Orders of writing that lose something where a kill comes in between: each is what a test of kills must notice."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from heimdall_assets.manifests import JSON_MEDIA_TYPE, Artifact, compute_digest
from heimdall_assets.stores.objects.folder import FolderObjectStore, _encode_reference
from heimdall_assets.stores.releases import folders
from heimdall_assets.stores.releases.folders import LATEST_FILE, ReleaseStore


def _latest_before_commit() -> None:
    plain = ReleaseStore._commit

    def commit(self: ReleaseStore, version: str, files: Mapping[str, bytes], listed: Any, said: str) -> None:
        latest = {"version": version, "folder": version, "files": listed}
        self._writer.write_file(self.root / LATEST_FILE, [json.dumps(latest).encode()])
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
        self._writer.write_file(self._reference_path(name), [_encode_reference(name, digest)])
        plain(self, waiting.pop(digest), JSON_MEDIA_TYPE)

    FolderObjectStore.put_bytes = put_bytes
    FolderObjectStore.write_reference = write_reference


def _row_before_folder() -> None:
    plain, late = ReleaseStore._commit, folders.FileWriter.write_folder

    def commit(self: ReleaseStore, version: str, files: Mapping[str, bytes], listed: Any, said: str) -> None:
        folders.FileWriter.write_folder = lambda *_: None
        plain(self, version, files, listed, said)
        folders.FileWriter.write_folder = late
        late(self._writer, self.folder(version), files)

    ReleaseStore._commit = commit


WRONG_ORDERS: dict[str, Callable[[], None]] = {
    "latest before commit": _latest_before_commit,
    "reference before object": _reference_before_object,
    "row before folder": _row_before_folder,
}
"""What it does wrong -> what has this process, which ends soon, do so."""
