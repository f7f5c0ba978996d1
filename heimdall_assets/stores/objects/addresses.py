"""Addresses: which places can be opened at all, told from their text alone; one rule for all that are folders.

Belongs here: reading an address, refusing it without repeating what may be a password. Does not belong here: opening.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from heimdall_assets.errors import InvalidSetting

SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
POSTGRESQL_SCHEMES = ("postgresql", "postgresql+psycopg2", "postgres")
DATABASE_EXPECTED = "sqlite:///FILE or postgresql://USER@HOST/NAME"
FOLDER_EXPECTED = "a local folder: a path or file:///PATH"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
"""One slash is enough: ``s3:/bucket`` is a slip of the pen, and a folder called ``s3:`` is nobody's wish."""


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
    return address
