"""Addresses: which places can be opened at all, told from their text alone; one rule for all that are folders.

Belongs here: reading an address, refusing it without repeating what may be a password. Does not belong here: opening.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from heimdall_assets.errors import InvalidSetting

SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
POSTGRESQL_SCHEMES = ("postgresql", "postgresql+psycopg2", "postgres")
DATABASE_EXPECTED = "sqlite:///FILE or postgresql://USER@HOST/NAME"
FOLDER_EXPECTED = "a local folder: a path or file:///PATH"
PLACE_EXPECTED = f"{FOLDER_EXPECTED}, or s3://BUCKET/PREFIX"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
"""One slash is enough: ``s3:/bucket`` is a slip of the pen, and a folder called ``s3:`` is nobody's wish."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,254}\Z")


@dataclass(frozen=True)
class BucketAddress:
    """A bucket of an S3 service, and the prefix below which everything of a place lies there.

    Attributes:
        bucket: its name.
        prefix: parts between ``/``, without a slash at either end; empty: the whole bucket.
    """

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        """Return the address that ``parse_place`` reads."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


Place = Path | BucketAddress
"""Where files rest: a folder of this machine, or a prefix in a bucket."""


def is_bucket_name(name: str) -> bool:
    """Return whether a bucket may be called so."""
    return bool(_BUCKET.match(name)) and ".." not in name


def read_scheme(address: str) -> str | None:
    """Return the scheme of an address in lower case; None: it is a plain path.

    >>> read_scheme("s3://bucket/prefix"), read_scheme("FILE:/srv"), read_scheme("./s3:/odd")
    ('s3', 'file', None)
    """
    found = _SCHEME.match(address)
    return found[1].lower() if found else None


def parse_folder(address: str | Path, what: str) -> Path:
    """Return the folder at ``address`` as an absolute path; it need not exist.

    Args:
        address: a path, or an address ``file:///PATH``.
        what: names it in errors: a variable, or what rests there.

    Raises:
        InvalidSetting: an address of another kind or another machine, or something that is there and is no folder.
    """
    text = str(address)
    scheme = read_scheme(text)
    if scheme not in (None, "file"):
        raise InvalidSetting(f"{what}: found an address of {scheme}://, expected {FOLDER_EXPECTED}")
    folder = Path(text if scheme is None else _read_file_address(text, what)).absolute()
    if folder.exists() and not folder.is_dir():
        raise InvalidSetting(f"{what}: found a file at {folder}, expected a folder")
    return folder


def parse_place(address: str | Place, what: str) -> Place:
    """Return the folder, as an absolute path, or the bucket at ``address``; neither need exist.

    Args:
        address: a path, ``file:///PATH`` or ``s3://BUCKET/PREFIX``.
        what: names it in errors: a variable, or what rests there.

    Raises:
        InvalidSetting: it is none of them. What stands before an ``@``, which may be a key, is not repeated.
    """
    if isinstance(address, BucketAddress):
        return address
    scheme = read_scheme(str(address))
    if scheme == "s3":
        return _read_bucket_address(str(address), what)
    if scheme not in (None, "file"):
        raise InvalidSetting(f"{what}: found an address of {scheme}://, expected {PLACE_EXPECTED}")
    return parse_folder(address, what)


def _read_bucket_address(address: str, what: str) -> BucketAddress:
    bucket, _, prefix = address[len("s3:") :].removeprefix("//").partition("/")
    prefix = prefix.removesuffix("/")
    if "@" in address:
        raise InvalidSetting(f"{what}: found keys in an s3:// address, expected s3://BUCKET/PREFIX alone; keys are "
                             "read from the environment or from files, as other tools of S3 read them")  # fmt: skip
    parts = prefix.split("/") if prefix else []
    named = address[len("s3:") :].startswith("//") and is_bucket_name(bucket)
    if not named or not all(_PREFIX.match(part) and ".." not in part for part in parts):
        raise InvalidSetting(f"{what}: found {address!r:.140}, expected s3://BUCKET/PREFIX")
    return BucketAddress(bucket, prefix)


def _read_file_address(address: str, what: str) -> str:
    parts = urlsplit(address)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "\0" in path:
        raise InvalidSetting(f"{what}: found {address!r:.140}, expected a folder of this machine, file:///PATH")
    return path


def check_database(address: str, what: str) -> str:
    """Return the address of a database unchanged if it is of a kind that can be opened.

    Raises:
        InvalidSetting: it is of another kind; only its scheme is repeated, for the rest may hold a password.
    """
    scheme, found, _ = address.partition("://")
    if not found or not read_scheme(address):
        raise InvalidSetting(f"{what}: found no address, expected {DATABASE_EXPECTED}")
    if scheme not in (*SQLITE_SCHEMES, *POSTGRESQL_SCHEMES):
        raise InvalidSetting(f"{what}: found an address of {scheme}://, expected {DATABASE_EXPECTED}")
    if scheme in POSTGRESQL_SCHEMES and address.partition("?")[0].count("@") > 1:
        # The driver would take what follows the first one for the host, and repeat it when it is not found.
        raise InvalidSetting(f"{what}: found two @, expected {DATABASE_EXPECTED}; write %40 for one in a password")
    return address
