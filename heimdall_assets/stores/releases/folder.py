"""Releases in a folder of this machine: a folder a version, which appears whole (atomic rename) or not at all.

Belongs here: files and their durability. Does not belong here: which of them count (``store``).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from heimdall_assets.errors import CorruptObject, NotFound, StorageError
from heimdall_assets.stores.objects.files import FileSystem, FileWriter, describe
from heimdall_assets.stores.objects.regular_files import read_regular_file
from heimdall_assets.stores.releases.interface import LATEST_FILE, ReleaseFiles
from heimdall_assets.stores.releases.version_numbers import is_version


class FolderFiles(ReleaseFiles):
    """Folders of releases below ``root``, which is made with the first of them."""

    def __init__(self, root: Path, files: FileSystem | None = None):
        self.root = Path(root).absolute()
        self._writer = FileWriter(self.root, files)

    def folder(self, version: str) -> Path:
        """Return the folder of a version."""
        return self.root / version

    def list_versions(self) -> set[str]:
        return {name for name in _list_names(self.root) if is_version(name)}

    def list_files(self, version: str) -> list[str]:
        return _list_names(self.folder(version))

    def read(self, version: str, name: str) -> bytes:
        return _read(self.folder(version) / name)

    def write(self, version: str, files: Mapping[str, bytes]) -> None:
        self._writer.write_folder(self.folder(version), files)

    def write_file(self, version: str, name: str, data: bytes) -> None:
        self._writer.write_file(self.folder(version) / name, [data])

    def remove(self, version: str, names: Iterable[str]) -> None:
        self._writer.remove_folder(self.folder(version))

    def read_latest(self) -> bytes | None:
        try:
            return _read(self.root / LATEST_FILE)
        except (NotFound, CorruptObject):
            return None

    def write_latest(self, data: bytes) -> None:
        self._writer.write_file(self.root / LATEST_FILE, [data])

    def locate(self, version: str) -> str:
        return str(self.folder(version))


def _list_names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"{folder}: could not be listed ({describe(error)})") from error


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path}: found nothing") from None
    except OSError as error:
        if path.is_symlink() or not path.is_file():
            raise CorruptObject(f"{path}: found no regular file, expected one") from error
        raise StorageError(f"{path}: could not be read ({describe(error)})") from error
