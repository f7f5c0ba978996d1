"""Files that are whole or not there (atomic replace): what changes a disk, and the one order in which that is safe.

Belongs here: ``FileSystem`` (each state-changing call once, so that a test can make any of them fail) and
``FileWriter``, which keeps the promise "returned means stored". Does not belong here: what the files mean.

The order is: temporary file in the same folder, write, fsync, rename over the final name, fsync the folder. A failed
fsync means not stored: the kernel may have dropped the pages, so the next attempt writes a new file.
"""

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from heimdall_assets.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
"""No object, reference or release is named so: their names start with a letter or digit."""


class FileSystem:
    """Every call that changes a disk, one method each."""

    def make_folder(self, path: Path) -> None:
        """Make the folder ``path``; one that exists is fine."""
        with suppress(FileExistsError):
            path.mkdir()

    def create(self, path: Path) -> int:
        """Return the descriptor of the new, empty file ``path``; its lock tells others that its writer lives."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        """Return how many bytes of ``data`` were taken; the kernel may take fewer than offered."""
        return os.write(descriptor, data)

    def sync_file(self, descriptor: int) -> None:
        """Return once the file's bytes survive a power loss."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close the file, which gives up its lock."""
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target`` in one step, in place of what had it."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove the file ``path``."""
        path.unlink()

    def link(self, source: Path, target: Path) -> None:
        """Give ``source`` a second name; one that is taken is an error."""
        os.link(source, target, follow_symlinks=False)

    def mark_used(self, path: Path) -> None:
        """Let the file ``path`` be used now: its time of change is the present."""
        os.utime(path, follow_symlinks=False)

    def remove_folder(self, path: Path) -> None:
        """Remove the empty folder ``path``."""
        path.rmdir()

    def sync_folder(self, path: Path) -> None:
        """Return once the names in the folder survive a power loss."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class FileWriter:
    """Writes files below ``root`` durably; remembers which folders it made durable itself."""

    def __init__(self, root: Path, files: FileSystem | None = None):
        self.root = root
        self.files = files or FileSystem()
        self._durable: set[Path] = set()

    def prepare_folder(self, folder: Path) -> None:
        """Make ``folder`` (``root`` or below it) and its name durable, and remove what dead writers left in it."""
        if folder in self._durable:
            return
        if folder != self.root:
            self.prepare_folder(folder.parent)
        elif not folder.parent.is_dir():
            self._make_parents(folder.parent)
        self.files.make_folder(folder)
        try:
            # A folder that another, killed process made may exist and still not be durable.
            self.files.sync_folder(folder.parent)
        except PermissionError:
            if folder != self.root:
                raise  # above the root, a folder that may not be read was made by somebody else, long ago
        self._remove_leftovers(folder)
        self._durable.add(folder)

    def _make_parents(self, folder: Path) -> None:
        if not folder.parent.is_dir():
            self._make_parents(folder.parent)
        self.files.make_folder(folder)
        self.files.sync_folder(folder.parent)

    def write_file(self, path: Path, chunks: Iterable[bytes | memoryview]) -> None:
        """Store ``chunks`` as the file ``path``, whole or not at all, in place of what was there.

        Raises:
            StorageError: the disk refused; the previous file, if any, is untouched or already replaced by a whole one.
        """
        try:
            self.prepare_folder(path.parent)
            temporary, descriptor = self._create_temporary(path.parent)
            try:
                self._fill(descriptor, chunks)
                self.files.replace(temporary, path)
            except BaseException:
                self._discard(temporary)
                raise
            self.files.sync_folder(path.parent)
        except OSError as error:
            self._durable.clear()
            raise StorageError(f"{path}: could not be stored ({describe(error)}); nothing before is lost") from error

    def write_folder(self, path: Path, files: Mapping[str, bytes]) -> None:
        """Store a new folder ``path`` with ``files``, all of it or nothing.

        Raises:
            StorageError: the disk refused, or there is such a folder already; nothing of the new one shows.
        """
        try:
            self.prepare_folder(path.parent)
            temporary, lock = self._create_temporary_folder(path.parent)
            try:
                for name, data in files.items():
                    self._fill(self.files.create(temporary / name), [data])
                self.files.sync_folder(temporary)
                self.files.replace(temporary, path)
            except BaseException:
                self._discard_folder(temporary)
                raise
            finally:
                os.close(lock)
            self.files.sync_folder(path.parent)
        except OSError as error:
            self._durable.clear()  # whatever happened to the folders, the next attempt looks again
            raise StorageError(f"{path}: could not be stored ({describe(error)}); nothing before is lost") from error

    def remove_folder(self, path: Path) -> None:
        """Remove the folder ``path`` and its files; its name is free in one step.

        Raises:
            StorageError: the disk refused.
        """
        try:
            self.prepare_folder(path.parent)
            temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            self.files.replace(path, temporary)
            self.files.sync_folder(path.parent)
            self._remove_tree(temporary)
        except OSError as error:
            self._durable.clear()
            raise StorageError(f"{path}: could not be removed ({describe(error)})") from error

    def move_aside(self, path: Path, target: Path) -> None:
        """Give the file ``path`` the name ``target`` below ``root``, durably; raises ``OSError``."""
        self.prepare_folder(target.parent)
        self.files.replace(path, target)
        self.files.sync_folder(target.parent)
        self.files.sync_folder(path.parent)

    def mark_used(self, path: Path, after_s: float) -> bool:
        """Mark a file as used now that was not within ``after_s``; return whether it is there; raises ``OSError``."""
        try:
            if path.lstat().st_mtime < time.time() - after_s:
                self.files.mark_used(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def remove_unused(self, path: Path, used_before: float) -> bool:
        """Remove a file that was not used since ``used_before``, Unix seconds; return whether it is gone.

        Whoever marks it as used either does so in time, or finds that it is gone. Raises ``OSError``.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # nobody takes what is set aside here for a dead writer's
            if os.fstat(descriptor).st_mtime >= used_before:
                return False
            aside = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            self.files.replace(path, aside)
            is_unused = os.fstat(descriptor).st_mtime < used_before
            if not is_unused:  # just before it lost its name
                with suppress(FileExistsError):  # else it was written again meanwhile
                    self.files.link(aside, path)
            self.files.remove(aside)
            return is_unused
        finally:
            os.close(descriptor)

    def make_durable(self, path: Path) -> None:
        """Make the existing file ``path`` durable, whoever wrote it.

        Raises:
            StorageError: the disk refused.
        """
        try:
            self.prepare_folder(path.parent)
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self.files.sync_file(descriptor)
            finally:
                os.close(descriptor)
            self.files.sync_folder(path.parent)
        except OSError as error:
            self._durable.clear()  # whatever happened to the folders, the next attempt looks again
            raise StorageError(f"{path}: could not be made durable ({describe(error)})") from error

    def _create_temporary(self, folder: Path) -> tuple[Path, int]:
        while True:
            temporary = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            descriptor = self.files.create(temporary)
            if os.fstat(descriptor).st_nlink:
                return temporary, descriptor
            os.close(descriptor)  # a cleaner took it between creation and lock

    def _create_temporary_folder(self, folder: Path) -> tuple[Path, int]:
        while True:
            temporary = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            self.files.make_folder(temporary)
            with suppress(FileNotFoundError):  # else: a cleaner took it before the lock
                lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.fstat(lock).st_nlink:
                    return temporary, lock
                os.close(lock)

    def _fill(self, descriptor: int, chunks: Iterable[bytes | memoryview]) -> None:
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    taken = self.files.write(descriptor, rest)
                    if taken <= 0:
                        raise OSError(errno.EIO, "the disk takes no more bytes")
                    rest = rest[taken:]
            self.files.sync_file(descriptor)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        self.files.close(descriptor)

    def _discard(self, temporary: Path) -> None:
        try:
            self.files.remove(temporary)
        except FileNotFoundError:
            pass
        except OSError:
            self._durable.discard(temporary.parent)  # harmless where it lies; the next attempt cleans the folder again

    def _discard_folder(self, temporary: Path) -> None:
        try:
            self._remove_tree(temporary)
        except FileNotFoundError:
            pass
        except OSError:
            self._durable.discard(temporary.parent)

    def _remove_tree(self, folder: Path) -> None:
        for part in sorted(folder.iterdir()):
            self.files.remove(part)
        self.files.remove_folder(folder)

    def _remove_leftovers(self, folder: Path) -> None:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(TEMPORARY_PREFIX)]
        for name in sorted(names):
            self._remove_leftover(folder / name)

    def _remove_leftover(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                self._remove_tree(path)
            else:
                self.files.remove(path)
        except OSError:
            pass  # its writer lives, or the disk refuses: it stays, and harms nobody
        finally:
            os.close(descriptor)


def describe(error: OSError) -> str:
    """Return the operating system's words for ``error``, without its path."""
    return f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror or error}"
