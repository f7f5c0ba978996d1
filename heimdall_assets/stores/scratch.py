"""Scratch: local files of work in progress, which nobody needs once its result is stored.

Belongs here: the checkpoints of a fit that may be resumed, folders that are gone when they are left. Does not belong
here: results (``objects``), what a checkpoint holds (``learning.fitting.checkpoints``).
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from heimdall_assets.errors import NotFound, StorageError
from heimdall_assets.stores.objects.files import FileSystem, FileWriter, describe


class CheckpointFolder:
    """The checkpoints of one fit by name, each whole or not there (atomic replace), whenever the process is killed."""

    def __init__(self, folder: Path, files: FileSystem | None = None):
        self.folder = Path(folder)
        self._files = files or FileSystem()
        self._writer = FileWriter(self.folder, self._files)

    def exists(self, name: str) -> bool:
        """Return whether there is a checkpoint ``name``; its bytes are not looked at."""
        return (self.folder / name).is_file()

    def read(self, name: str) -> bytes:
        """Return the bytes of the checkpoint ``name``.

        Raises:
            NotFound: no such checkpoint.
            StorageError: the disk refused.
        """
        path = self.folder / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"checkpoint {str(path)!r}: no such file") from error
        except OSError as error:
            raise StorageError(f"checkpoint {str(path)!r}: could not be read ({describe(error)})") from error

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Keep ``data`` as the checkpoint ``name``, in place of the one before.

        Raises:
            StorageError: the disk refused; the one before is untouched.
        """
        self._writer.write_file(self.folder / name, [data])

    def remove(self, name: str) -> None:
        """Remove the checkpoint ``name``; one that is not there is fine.

        Raises:
            StorageError: the disk refused.
        """
        path = self.folder / name
        try:
            with suppress(FileNotFoundError):
                self._files.remove(path)
        except OSError as error:
            raise StorageError(f"checkpoint {str(path)!r}: could not be removed ({describe(error)})") from error

    def discard(self) -> None:
        """Remove all of them: their fit's result is stored.

        Raises:
            StorageError: the disk refused.
        """
        _remove_tree(self.folder)
        self._writer = FileWriter(self.folder, self._files)  # what it made durable is gone


@contextmanager
def lend_folder(within: Path | None = None) -> Iterator[Path]:
    """Yield a new, empty folder that is gone when it is left; below ``within``, else where the system has such.

    Raises:
        StorageError: it could not be made or not be removed.
    """
    try:
        if within is not None:
            within.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="heimdall-", dir=within))
    except OSError as error:
        raise StorageError(
            f"scratch folder in {within or 'the temporary folder of the system'}: could not be made ({describe(error)})"
        ) from error
    try:
        yield folder
    finally:
        _remove_tree(folder)


@contextmanager
def lend_copy(source: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """Yield a folder with a copy of those files of ``source``, gone when it is left: to be opened by what would write.

    Raises:
        StorageError: they could not be read, or the copy not be made.
    """
    with lend_folder() as folder:
        try:
            for path in (path for pattern in patterns for path in sorted(source.glob(pattern)) if path.is_file()):
                copy = folder / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        except OSError as error:
            raise StorageError(f"{source}: could not be copied to {folder} ({describe(error)})") from error
        yield folder


def remove_old_work(scratch: Path, older_than_days: float) -> list[str]:
    """Remove what nobody wrote to for so long below ``scratch``, a folder each; return the names of what was removed.

    Raises:
        StorageError: the disk refused.
    """
    oldest_s = time.time() - older_than_days * 86_400.0
    try:
        folders = sorted(path for path in scratch.iterdir() if path.is_dir() and not path.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []
    old = [path for path in folders if _find_newest(path) < oldest_s]
    for path in old:
        _remove_tree(path)
    return [path.name for path in old]


def find_oldest_work(scratch: Path) -> float | None:
    """Return when the oldest file of work in progress was written, Unix seconds; None: there is none."""
    try:
        times = [path.lstat().st_mtime for path in scratch.rglob("*") if path.is_file()]
    except OSError as error:
        raise StorageError(f"scratch {scratch}: could not be looked through ({describe(error)})") from error
    return min(times, default=None)


def _find_newest(folder: Path) -> float:
    """Return when anything in a folder was last written, in seconds since 1970."""
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            times.append(path.lstat().st_mtime)
    return max(times)


def remove_file(path: Path) -> None:
    """Remove a file of work that is done; one that is not there is fine.

    Raises:
        StorageError: the disk refused.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: could not be removed ({describe(error)})") from error


def _remove_tree(folder: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
    except OSError as error:
        raise StorageError(f"{folder}: could not be removed ({describe(error)})") from error
