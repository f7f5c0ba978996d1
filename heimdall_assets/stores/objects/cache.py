"""Cache: copies of objects in a folder of this machine, so that what rests far away is fetched once.

Belongs here: which copies are kept, and for how long. Does not belong here: where objects rest (``s3``); nothing is
ever found only here.

Objects never change, so a copy is never out of date; it is verified on every use all the same. Copies that were used
least recently go first. One that was used within the last minute stays, for somebody may be about to open it; whoever
has opened or memory-mapped one that goes keeps reading it.
"""

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from heimdall_assets.errors import InvalidInput, StorageError
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.files import TEMPORARY_PREFIX, FileSystem, FileWriter, describe
from heimdall_assets.stores.objects.regular_files import read_regular_file
from heimdall_assets.stores.objects.verified import hash_file

RECENT_S = 60.0
SCAN_PART = 16
"""The folder is looked through whenever one process has added this part of the limit, and room for it is made."""

_LOG = logging.getLogger(__name__)


class UnsyncedFileSystem(FileSystem):
    """A disk that may forget what it was told: every copy is verified."""

    def sync_file(self, descriptor: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


class ObjectCache:
    """Copies below a folder that several processes may share."""

    def __init__(self, root: Path, max_bytes: int, files: FileSystem | None = None):
        self.root = Path(root).absolute()
        self.max_bytes = max_bytes
        self._writer = FileWriter(self.root, files or UnsyncedFileSystem())
        self._added: int | None = None  # since the folder was looked through; None: it never was
        self._is_told = False

    def find(self, digest: str) -> Path | None:
        """Return the verified copy of ``digest``; None: there is none."""
        path = self._path(digest)
        try:
            if path.is_symlink() or not path.is_file():
                return None
            found, _ = hash_file(path)
        except FileNotFoundError:  # another process made room just now
            return None
        except OSError as error:
            self._tell(f"{path}: could not be read ({describe(error)})")
            return None
        return path if self._use(path, digest, found) else None

    def read(self, digest: str, max_bytes: int | None = None) -> bytes | None:
        """Return the verified bytes of the copy of ``digest``; None: there is none.

        Raises:
            InvalidInput: it is larger than ``max_bytes``; found before anything is read.
        """
        path = self._path(digest)
        try:
            size = path.stat().st_size
            if max_bytes is not None and size > max_bytes:
                raise InvalidInput(f"object {digest}: found {size} bytes, expected at most {max_bytes}")
            data = read_regular_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(f"{path}: could not be read ({describe(error)})")
            return None
        return data if self._use(path, digest, compute_digest(data)) else None

    def write(self, digest: str, pieces: Iterable[bytes]) -> Path:
        """Keep the pieces of an object as its copy; return it. Where they raise, nothing is kept and that is raised.

        Raises:
            StorageError: the disk refused.
        """
        path = self._path(digest)
        self._writer.write_file(path, pieces)
        with suppress(OSError):
            self._make_room(path.stat().st_size)
        return path

    def keep(self, digest: str, data: bytes) -> None:
        """Keep a copy of an object that is at hand; where the disk refuses there is none, and that is told once."""
        if len(data) > self.max_bytes:
            return
        try:
            self.write(digest, [data])
        except StorageError as error:
            self._tell(f"{error}; objects are read from where they rest")

    def forget(self, digest: str) -> None:
        """Remove the copy of an object that was removed; one that is not there is fine.

        Raises:
            StorageError: the disk refused.
        """
        try:
            self._path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"copy of object {digest}: could not be removed ({describe(error)})") from error

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def _use(self, path: Path, digest: str, found: str) -> bool:
        """Return whether a copy is whole; one that is not goes."""
        if found == digest:
            with suppress(OSError):
                os.utime(path)
            return True
        _LOG.warning("cache %s: found bytes with SHA-256 %s, expected %s; removed", path, found, digest)
        with suppress(OSError):
            path.unlink()
        return False

    def _make_room(self, num_bytes: int) -> None:
        """Remove what was used least recently until all copies take less than the limit, and some are to come."""
        share = self.max_bytes // SCAN_PART
        if self._added is not None and self._added + num_bytes < share:
            self._added += num_bytes
            return
        self._added = 0
        copies = sorted(self._scan())
        total = sum(size for _, size, _ in copies)
        now = time.time()
        for used, size, path in copies:
            if total <= self.max_bytes - share:
                return
            if now - RECENT_S < used < now + RECENT_S:
                continue  # one that seems to be used later than that: the clock was set back since
            with suppress(FileNotFoundError):  # another process was faster
                path.unlink()
            total -= size

    def _scan(self) -> Iterable[tuple[float, int, Path]]:
        """Yield when each copy was last used (unix s), its size and where it is."""
        for folder in self.root.iterdir():
            with suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(TEMPORARY_PREFIX):
                        facts = entry.stat(follow_symlinks=False)
                        yield facts.st_mtime, facts.st_size, Path(entry.path)

    def _tell(self, what: str) -> None:
        if not self._is_told:
            _LOG.warning("cache %s", what)
        self._is_told = True
