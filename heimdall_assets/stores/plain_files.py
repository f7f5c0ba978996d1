"""Plain files: what people and other programs read at a path of their own choice: a page, Dagster's settings.

Belongs here: writing them whole. Does not belong here: what rests under a digest (``objects``) or a version
(``releases``), what the files say.
"""

import os
from pathlib import Path

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.objects.files import FileSystem, FileWriter, describe


class _ForeignFolder(FileWriter):
    """Writes into a folder that holds other people's files too: it is neither made nor cleaned."""

    def prepare_folder(self, folder: Path) -> None:
        """Take ``folder`` as it is."""


class _PrivateFiles(FileSystem):
    """Makes files that nobody but their owner may read, from their first byte on."""

    def create(self, path: Path) -> int:
        """Return the descriptor of the new, empty file ``path``."""
        descriptor = super().create(path)
        os.fchmod(descriptor, 0o600)
        return descriptor


def write_named_file(path: Path, data: bytes) -> None:
    """Store ``data`` as the file that somebody named, whole or not at all (atomic replace).

    A link is followed; a pipe or a device is written to as it is.

    Raises:
        StorageError: there is no such folder, or the disk refused; a file that was there before is untouched.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
    except OSError as error:
        raise StorageError(f"{path}: could not be written ({describe(error)})") from error
    _ForeignFolder(target.parent).write_file(target, [data])


def write_private_file(path: Path, data: bytes) -> None:
    """Store ``data`` as the file ``path``, which its owner alone may read, whole or not at all (atomic replace).

    Raises:
        StorageError: there is no such folder, or the disk refused; a file that was there before is untouched.
    """
    if not path.parent.is_dir():
        raise StorageError(f"{path}: could not be stored (found no folder {path.parent}, expected one)")
    _ForeignFolder(path.parent, _PrivateFiles()).write_file(path, [data])


def make_plain_folder(path: Path) -> None:
    """Make the folder ``path`` and those above it; one that is there is fine.

    Raises:
        StorageError: the disk refused.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: could not be made ({describe(error)})") from error


def write_missing_file(path: Path, data: bytes) -> None:
    """Store ``data`` as the file ``path``, and its folder, unless there is one: what was edited by hand stays.

    Raises:
        StorageError: the disk refused.
    """
    if path.exists():
        return
    make_plain_folder(path.parent)
    _ForeignFolder(path.parent).write_file(path, [data])
