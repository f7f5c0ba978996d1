"""Folder: bytes at rest under their SHA-256, never overwritten, and references, small names that point at them.

Belongs here: ``objects.interface`` on a disk. Does not belong here: on a bucket (``s3``), what the bytes mean
(``formats``, ``tables``), rows (``database``), recordings of others (``other_recordings``).

Layout of a folder: ``objects/sha256/ab/abcd...`` and ``references/results/<key>@``.
"""

import errno
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from heimdall_assets.errors import InvalidInput, NotFound, StorageError
from heimdall_assets.manifests import Artifact, compute_digest
from heimdall_assets.stores.objects.files import FileSystem, FileWriter, describe
from heimdall_assets.stores.objects.interface import USED_AGAIN_S, ObjectStore, Resting
from heimdall_assets.stores.objects.locations import (
    check_digest,
    parse_location,
)
from heimdall_assets.stores.objects.other_recordings import FolderRecordings, OtherRecordings
from heimdall_assets.stores.objects.references import (
    SUFFIX,
    decode_reference,
    describe_missing_object,
    encode_reference,
    name_file,
)
from heimdall_assets.stores.objects.verified import describe_corrupt, hash_file, read_unchanged, reading_source

__all__ = ["FolderObjectStore", "ObjectStore"]


class FolderObjectStore(ObjectStore):
    """Objects in a folder; recordings that others wrote are read in ``recordings``, else in a folder beside them."""

    def __init__(self, root: Path, recordings: OtherRecordings | None = None, files: FileSystem | None = None):
        self.root = Path(root).absolute()
        self.recordings = recordings or FolderRecordings(self.root / "recordings")
        self._writer = FileWriter(self.root, files)
        self._objects = self.root / "objects" / "sha256"
        self._references = self.root / "references"
        self._durable: set[str] = set()  # objects that this process made durable

    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        artifact = Artifact(digest=compute_digest(data), media_type=media_type, size=len(data))
        if not self._make_durable_if_whole(artifact.digest):
            self._write(artifact.digest, [data])
        return artifact

    def put_file(self, path: Path, media_type: str) -> Artifact:
        with reading_source(path):
            digest, size = hash_file(path)
            artifact = Artifact(digest=digest, media_type=media_type, size=size)
            if not self._make_durable_if_whole(digest):
                self._write(digest, read_unchanged(path, digest))
        return artifact

    def read_bytes(self, digest: str) -> bytes:
        return self._read(digest, None)

    def local_path(self, digest: str) -> Path:
        path = self._path(digest)
        try:
            found, _ = hash_file(path)
        except OSError as error:
            raise self._cannot_read(digest, error) from error
        if found != digest:
            raise describe_corrupt(digest, found)
        return path

    def exists(self, digest: str) -> bool:
        path = self._path(digest)
        return path.is_file() and not path.is_symlink()

    def find_present(self, digests: Iterable[str]) -> set[str]:
        return {digest for digest in digests if self.exists(digest)}

    def set_aside(self, digest: str) -> bool:
        path = self._path(digest)
        try:
            if not path.is_symlink() and (not path.exists() or hash_file(path)[0] == digest):
                return False
            self._writer.move_aside(path, self.root / "damaged" / digest)
        except OSError as error:
            raise StorageError(f"object {digest}: could not be moved aside ({describe(error)})") from error
        return True

    def list_digests(self) -> Iterator[str]:
        for path in sorted(self._objects.glob("[0-9a-f][0-9a-f]/" + "[0-9a-f]" * 64)):
            if path.name.startswith(path.parent.name) and path.is_file() and not path.is_symlink():
                yield path.name

    def write_reference(self, name: str, digest: str) -> None:
        path = self._reference_path(name)
        if not self.exists(digest):
            raise describe_missing_object(name, digest)
        self._make_durable(digest)
        self._writer.write_file(path, [encode_reference(name, digest)])

    def read_reference(self, name: str) -> str | None:
        try:
            data = self._reference_path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"reference {name}: could not be read ({describe(error)})") from error
        return decode_reference(name, data)

    def list_references(self, prefix: str = "") -> list[str]:
        names = [
            path.relative_to(self._references).as_posix().removesuffix(SUFFIX)
            for path in self._references.glob(f"**/*{SUFFIX}")
        ]
        return sorted(name for name in names if name.startswith(prefix))

    def renew_reference(self, name: str) -> bool:
        try:
            return self._writer.mark_used(self._reference_path(name), USED_AGAIN_S)
        except PermissionError:
            return True  # of somebody else's, who may only be looked at
        except OSError as error:
            if error.errno == errno.EROFS:
                return True
            raise StorageError(f"reference {name}: could not be marked as used ({describe(error)})") from error

    def list_resting(self) -> Iterator[Resting]:
        for digest in self.list_digests():
            yield from _describe(digest, self._path(digest))

    def list_resting_references(self) -> Iterator[Resting]:
        for name in self.list_references():
            yield from _describe(name, self._reference_path(name))

    def remove_object(self, digest: str, used_before: float) -> bool:
        self._durable.discard(digest)
        is_gone = self._remove(f"object {digest}", self._path(digest), used_before)
        if is_gone:  # and the damaged bytes that were moved aside once
            self._remove(f"damaged object {digest}", self.root / "damaged" / digest, math.inf)
        return is_gone

    def remove_reference(self, name: str, used_before: float) -> bool:
        return self._remove(f"reference {name}", self._reference_path(name), used_before)

    def _remove(self, what: str, path: Path, used_before: float) -> bool:
        try:
            return self._writer.remove_unused(path, used_before)
        except OSError as error:
            raise StorageError(f"{what}: could not be removed ({describe(error)})") from error

    def read_location(self, location: str, max_bytes: int) -> bytes:
        found = parse_location(location)
        return self.recordings.read(found, max_bytes) if found.digest is None else self._read(found.digest, max_bytes)

    def _path(self, digest: str) -> Path:
        return self._objects / check_digest(digest)[:2] / digest

    def _reference_path(self, name: str) -> Path:
        return self._references / name_file(name)

    def _make_durable_if_whole(self, digest: str) -> bool:
        """Return whether the object is there, undamaged and durable; one at its final name is checked, not trusted."""
        path = self._path(digest)
        try:
            if path.is_symlink() or hash_file(path)[0] != digest:
                return False
            if not self._writer.mark_used(path, USED_AGAIN_S):
                return False
        except OSError:
            return False
        self._make_durable(digest)
        return True

    def _write(self, digest: str, chunks: Iterable[bytes]) -> None:
        self._writer.write_file(self._path(digest), chunks)
        self._durable.add(digest)

    def _make_durable(self, digest: str) -> None:
        """Make an object durable that another process may have left between its rename and the fsync of its folder."""
        if digest not in self._durable:
            self._writer.make_durable(self._path(digest))
            self._durable.add(digest)

    def _read(self, digest: str, max_bytes: int | None) -> bytes:
        path = self._path(digest)
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if max_bytes is not None and size > max_bytes:
                    raise InvalidInput(f"object {digest}: found {size} bytes, expected at most {max_bytes}")
                data = file.read()
        except OSError as error:
            raise self._cannot_read(digest, error) from error
        found = compute_digest(data)
        if found != digest:
            raise describe_corrupt(digest, found)
        return data

    def _cannot_read(self, digest: str, error: OSError) -> NotFound | StorageError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return NotFound(f"object {digest}: found nothing in {self.root}, expected an object put there before")
        return StorageError(f"object {digest}: could not be read ({describe(error)})")


def _describe(name: str, path: Path) -> Iterator[Resting]:
    try:
        facts = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return  # removed since it was listed
    yield Resting(name, facts.st_size, facts.st_mtime)
