"""Names and locations: what may name a file of ours, and files opened without ever leaving their folder.

Belongs here: the grammar of object locations and reference names, and reading below a root. Does not belong here:
writing (``files``), what the bytes are (``formats``).
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from heimdall_assets.errors import InvalidIdentifier, InvalidInput, NotFound, StorageError
from heimdall_assets.manifests import SHA256_PATTERN
from heimdall_assets.stores.objects.addresses import is_bucket_name
from heimdall_assets.stores.objects.files import describe

CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(SHA256_PATTERN.removesuffix("$") + r"\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@ -]{0,254}\Z")
_REFERENCE_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}\Z")
_MAX_SEGMENTS = 16


def check_digest(digest: str) -> str:
    """Return ``digest`` unchanged if it is 64 lower-case hexadecimal digits.

    Raises:
        InvalidIdentifier: it is not.
    """
    if not isinstance(digest, str) or not _DIGEST.match(digest):
        raise InvalidIdentifier(f"object {digest!r:.100}: expected a SHA-256 as 64 lower-case hexadecimal digits")
    return digest


def split_object_name(name: str) -> list[str]:
    """Return the parts of a relative object name such as ``sessions/a/websdr_b.npy``.

    Raises:
        InvalidIdentifier: it climbs, is absolute, looks like an address, or holds a character no object name has.
    """
    return _split(name, _SEGMENT, "object name", "letters, digits, blanks or . _ + = @ -")


def split_reference_name(name: str) -> list[str]:
    """Return the parts of a reference name such as ``results/0f3a``.

    Raises:
        InvalidIdentifier: it climbs, is absolute, looks like an address, or holds a character no reference has.
    """
    return _split(name, _REFERENCE_SEGMENT, "reference name", "letters, digits or . _ + = -")


def _split(name: str, grammar: re.Pattern[str], what: str, letters: str) -> list[str]:
    parts = name.split("/") if isinstance(name, str) else []
    if not 1 <= len(parts) <= _MAX_SEGMENTS or not all(grammar.match(part) and ".." not in part for part in parts):
        raise InvalidIdentifier(
            f"{what} {name!r:.140}: expected 1 to {_MAX_SEGMENTS} parts between '/', each of {letters} without '..'; "
            "never an absolute path or an address"
        )
    return parts


@dataclass(frozen=True)
class Location:
    """Where a row's recording rests.

    Attributes:
        digest: of an object of ours; None: a file of others.
        bucket: of a file of others that is named in full; None: it is named from their place on, whatever that is.
        parts: of the file's name.
    """

    digest: str | None = None
    bucket: str | None = None
    parts: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the text that ``parse_location`` reads."""
        if self.digest is not None:
            return f"sha256:{self.digest}"
        return "/".join([*([f"s3://{self.bucket}"] if self.bucket else []), *self.parts])


def parse_location(location: str) -> Location:
    """Return the location ``sha256:<hex>``, ``s3://BUCKET/NAME``, or a relative object name.

    Raises:
        InvalidIdentifier: it is none of them. What stands before an ``@``, which may be a key, is not repeated.
    """
    if isinstance(location, str) and location.startswith("sha256:"):
        return Location(digest=check_digest(location.removeprefix("sha256:")))
    if isinstance(location, str) and location.startswith("s3://"):
        bucket, _, name = location.removeprefix("s3://").partition("/")
        if not is_bucket_name(bucket):
            found = "keys in it" if "@" in bucket else f"{bucket!r:.80}"
            raise InvalidIdentifier(f"location of s3://: found {found}, expected s3://BUCKET/NAME")
        return Location(bucket=bucket, parts=split_object_name(name))
    return Location(parts=split_object_name(location))


@contextmanager
def open_below(root: Path, parts: list[str]) -> Iterator[int]:
    """Give the descriptor of the regular file ``parts`` below ``root``; no link of any kind is followed below the root.

    Raises:
        NotFound: there is no such file.
        InvalidIdentifier: a part is a symbolic link, the file has a second name (hard link), or it is no regular file.
        StorageError: the disk refused.
    """
    name = "/".join(parts)
    opened: list[int] = []
    try:
        opened.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in parts[:-1]:
            _refuse_link(opened[-1], part, name)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened.append(os.open(part, flags, dir_fd=opened[-1]))
        _refuse_link(opened[-1], parts[-1], name)
        # Non-blocking: a pipe at that name must not hold the reader for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        opened.append(os.open(parts[-1], flags, dir_fd=opened[-1]))
        facts = os.fstat(opened[-1])
        if not stat.S_ISREG(facts.st_mode):
            raise InvalidIdentifier(f"object name {name}: found no regular file, expected one")
        if facts.st_nlink > 1:
            raise InvalidIdentifier(
                f"object name {name}: found a file with {facts.st_nlink} names (hard link), expected 1"
            )
        yield opened[-1]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"object name {name}: found nothing below {root}") from error
    except OSError as error:
        raise StorageError(f"object name {name}: could not be read ({describe(error)})") from error
    finally:
        for descriptor in reversed(opened):
            with suppress(OSError):
                os.close(descriptor)


def _refuse_link(folder: int, part: str, name: str) -> None:
    if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
        raise InvalidIdentifier(f"object name {name}: found a symbolic link at {part!r}, expected a file of the store")


def read_descriptor(descriptor: int, what: str, max_bytes: int) -> bytes:
    """Return all bytes of an open file.

    Raises:
        InvalidInput: it holds more than ``max_bytes``; found before anything is read.
    """
    size = os.fstat(descriptor).st_size
    if size > max_bytes:
        raise InvalidInput(f"{what}: found {size} bytes, expected at most {max_bytes}")
    chunks, num_bytes = [], 0
    while chunk := os.read(descriptor, min(CHUNK_BYTES, max_bytes + 1 - num_bytes)):
        chunks.append(chunk)
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise InvalidInput(f"{what}: found more than {max_bytes} bytes, expected at most that")
    return b"".join(chunks)
