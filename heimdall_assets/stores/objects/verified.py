"""Verified bytes: what was read is compared with the digest that it was asked for by.

Belongs here: hashing files and pieces, and saying that they are wrong. Does not belong here: where they rest.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heimdall_assets.errors import CorruptObject, NotFound, StorageError
from heimdall_assets.stores.objects.files import describe
from heimdall_assets.stores.objects.locations import CHUNK_BYTES


def hash_file(path: Path) -> tuple[str, int]:
    """Return SHA-256 and size of a file; raises ``OSError``."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


@contextmanager
def reading_source(path: Path) -> Iterator[None]:
    """Tell what the disk says of a file that is being stored in our errors.

    Raises:
        NotFound: there is no such file.
        StorageError: it could not be read.
    """
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"{path}: found no file to store") from error
    except OSError as error:
        raise StorageError(f"{path}: could not be read ({describe(error)})") from error


def read_unchanged(path: Path, digest: str) -> Iterator[bytes]:
    """Return the file's bytes in pieces; fails after the last one where they no longer have ``digest``.

    Raises:
        StorageError: the file changed.
    """
    seen = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            seen.update(chunk)
            yield chunk
    if seen.hexdigest() != digest:
        raise StorageError(f"{path}: changed while it was being stored; put it again")


def verify_pieces(digest: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Return the pieces of an object; fails after the last one where they do not have its digest.

    Raises:
        CorruptObject: they have another.
    """
    seen = hashlib.sha256()
    for piece in pieces:
        seen.update(piece)
        yield piece
    if seen.hexdigest() != digest:
        raise describe_corrupt(digest, seen.hexdigest())


def describe_corrupt(digest: str, found: str) -> CorruptObject:
    """Return the error of an object whose bytes have another digest."""
    return CorruptObject(
        f"object {digest}: found bytes with SHA-256 {found}, expected {digest}; putting the same bytes again heals it"
    )
