"""The format of a home: a newer one is refused by name, an older one upgraded, or opened read-only where it must be.

Belongs here: the file that says it. Does not belong here: the schema of the database, which has revisions of its own
(``database.shape``); opening (``home``).
"""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from heimdall_assets.errors import Refused, StorageError
from heimdall_assets.stores.installation import read_version
from heimdall_assets.stores.objects.files import FileWriter, describe

FORMAT = 1
"""Of the homes that this code makes; raised when older code could not use them. 0: made before homes had a format."""

FILE = "home.json"
EMBEDDED = "heimdall.db"
"""The database of a home that is told of no other."""

MADE = (EMBEDDED, "objects", "heimdall-models")
"""What stores make below a home: one of them is there, so somebody has used it."""

_EXPECTED = '{"format": NUMBER, "made_by": VERSION}'
_LOG = logging.getLogger(__name__)


def read_format(home: Path) -> int | None:
    """Return the format of a home; None: nothing was made there yet.

    Raises:
        Refused: it is newer than this code.
        StorageError: its file cannot be read, or says nothing that can be understood.
    """
    try:
        text = (home / FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return 0 if any((home / name).exists() for name in MADE) else None
    except OSError as error:
        raise StorageError(f"home {home}: {FILE} could not be read ({describe(error)})") from error
    try:
        told = json.loads(text)
        number, made_by = told["format"], told["made_by"]
    except (ValueError, LookupError, TypeError):
        number, made_by = None, None
    if type(number) is not int or number < 1 or not isinstance(made_by, str):
        raise StorageError(f"home {home}: {FILE} holds {text!r:.80}, expected {_EXPECTED}; put a whole copy back")
    if number > FORMAT:
        raise Refused(
            f"home {home}: found format {number}, made by heimdall-assets {made_by}; this is {read_version()}, which "
            f"knows formats up to {FORMAT}: install the newer version"
        )
    return number


def begin_home(home: Path) -> None:
    """Say in a new home which format it has; where nothing may be written, whoever needs to write says so."""
    with suppress(StorageError):
        _write_format(home)


def may_write(folder: Path) -> bool:
    """Return whether files in a folder may be written; on a read-only mount nobody may, not even root."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def upgrade_home(home: Path, found: int) -> None:
    """Bring an older home to today's format, and tell of it in one line of the log; where that cannot be, tell that.

    Raises:
        StorageError: the disk refused.
    """
    if may_write(home):
        _write_format(home)
        _LOG.warning("home %s: upgraded from format %d to %d", home, found, FORMAT)
    else:
        _LOG.warning("home %s: format %d, older than %d, may not be written: opened read-only", home, found, FORMAT)


def _write_format(home: Path) -> None:
    text = json.dumps({"format": FORMAT, "made_by": read_version()})
    FileWriter(home).write_file(home / FILE, [f"{text}\n".encode()])
