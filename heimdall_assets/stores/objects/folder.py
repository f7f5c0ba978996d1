"""Folder: bytes at rest under their SHA-256, never overwritten, and references, small names that point at them.

Belongs here: the backends of ``objects.interface``, and how an address finds its own. Does not belong here: what the
bytes mean (``formats``, ``tables``), rows (``database``).

Layout of a folder: ``objects/sha256/ab/abcd...`` and ``references/results/<key>@``.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from heimdall_assets.errors import CorruptObject, InvalidInput, NotFound, StorageError
from heimdall_assets.manifests import Artifact, compute_digest
from heimdall_assets.stores.objects.addresses import parse_folder
from heimdall_assets.stores.objects.files import FileSystem, FileWriter, describe
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.locations import (
    CHUNK_BYTES,
    check_digest,
    open_below,
    parse_location,
    read_descriptor,
    split_reference_name,
)

__all__ = ["FolderObjectStore", "ObjectStore", "open_object_store"]

REFERENCE_SUFFIX = "@"
"""No part of a reference name ends so: a reference never stands where another needs a folder."""


class FolderObjectStore(ObjectStore):
    """Objects in a folder; recordings that others wrote are read below ``recordings``."""

    def __init__(self, root: Path, recordings: Path | None = None, files: FileSystem | None = None):
        self.root = Path(root).absolute()
        self.recordings = Path(recordings).absolute() if recordings is not None else self.root / "recordings"
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
        try:
            digest, size = _hash_file(path)
            artifact = Artifact(digest=digest, media_type=media_type, size=size)
            if not self._make_durable_if_whole(digest):
                self._write(digest, _read_unchanged(path, digest))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFound(f"{path}: found no file to store") from error
        except OSError as error:
            raise StorageError(f"{path}: could not be read ({describe(error)})") from error
        return artifact

    def read_bytes(self, digest: str) -> bytes:
        return self._read(digest, None)

    def local_path(self, digest: str) -> Path:
        path = self._path(digest)
        try:
            found, _ = _hash_file(path)
        except OSError as error:
            raise self._cannot_read(digest, error) from error
        if found != digest:
            raise _corrupt(digest, found)
        return path

    def exists(self, digest: str) -> bool:
        path = self._path(digest)
        return path.is_file() and not path.is_symlink()

    def set_aside(self, digest: str) -> bool:
        path = self._path(digest)
        try:
            if not path.is_symlink() and (not path.exists() or _hash_file(path)[0] == digest):
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
            raise NotFound(f"reference {name}: found no object {digest}, expected it stored before its reference")
        self._make_durable(digest)
        self._writer.write_file(path, [_encode_reference(name, digest)])

    def read_reference(self, name: str) -> str | None:
        try:
            data = self._reference_path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"reference {name}: could not be read ({describe(error)})") from error
        digest = data[7:71].decode("ascii", "replace")
        if data != _encode_reference(name, digest):
            raise CorruptObject(
                f"reference {name}: found {data[:80]!r}, expected a digest and its check; computing the result "
                "again writes it anew"
            )
        return check_digest(digest)

    def list_references(self, prefix: str = "") -> list[str]:
        names = [
            path.relative_to(self._references).as_posix().removesuffix(REFERENCE_SUFFIX)
            for path in self._references.glob(f"**/*{REFERENCE_SUFFIX}")
        ]
        return sorted(name for name in names if name.startswith(prefix))

    def read_location(self, location: str, max_bytes: int) -> bytes:
        digest, parts = parse_location(location)
        if digest is not None:
            return self._read(digest, max_bytes)
        with open_below(self.recordings, parts) as descriptor:
            return read_descriptor(descriptor, location, max_bytes)

    def _path(self, digest: str) -> Path:
        return self._objects / check_digest(digest)[:2] / digest

    def _reference_path(self, name: str) -> Path:
        *folders, leaf = split_reference_name(name)
        return self._references.joinpath(*folders, leaf + REFERENCE_SUFFIX)

    def _make_durable_if_whole(self, digest: str) -> bool:
        """Return whether the object is there, undamaged and durable; one at its final name is checked, not trusted."""
        path = self._path(digest)
        try:
            if path.is_symlink() or _hash_file(path)[0] != digest:
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
            raise _corrupt(digest, found)
        return data

    def _cannot_read(self, digest: str, error: OSError) -> NotFound | StorageError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return NotFound(f"object {digest}: found nothing in {self.root}, expected an object put there before")
        return StorageError(f"object {digest}: could not be read ({describe(error)})")


def open_object_store(address: str | Path, recordings: str | Path | None = None) -> ObjectStore:
    """Return the object store in a folder; recordings of others are read below the folder ``recordings``.

    Raises:
        InvalidSetting: an address is not that of a folder of this machine.
    """
    others = parse_folder(recordings, "recordings") if recordings else None
    return FolderObjectStore(parse_folder(address, "object store"), others)


def _hash_file(path: Path) -> tuple[str, int]:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _read_unchanged(path: Path, digest: str) -> Iterator[bytes]:
    """Return the file's bytes in pieces; fails after the last one where they no longer have ``digest``."""
    seen = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            seen.update(chunk)
            yield chunk
    if seen.hexdigest() != digest:
        raise StorageError(f"{path}: changed while it was being stored; put it again")


def _encode_reference(name: str, digest: str) -> bytes:
    # The check makes a flipped bit, and a file moved to another name, visible.
    return f"sha256:{digest} {compute_digest(f'{name} {digest}'.encode())[:16]}\n".encode()


def _corrupt(digest: str, found: str) -> CorruptObject:
    return CorruptObject(
        f"object {digest}: found bytes with SHA-256 {found}, expected {digest}; putting the same bytes again heals it"
    )
