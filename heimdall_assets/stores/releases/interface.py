"""What every place of releases promises, whatever it rests on.

Belongs here: the one small interface that ``ReleaseStore`` works on. Does not belong here: a backend (``folder``,
``bucket``); which of the files count, which the database alone says (``store``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

LATEST_FILE = "latest.json"


class ReleaseFiles(ABC):
    """Files by version and name, and ``latest.json`` beside them. Returned means stored; read means as they lie.

    Versions are canonical (``v1.2.3``) and names plain: whoever calls has checked both.
    """

    @abstractmethod
    def list_versions(self) -> set[str]:
        """Return the versions under which anything lies, whoever put it there.

        Raises:
            StorageError: they could not be listed.
        """

    @abstractmethod
    def list_files(self, version: str) -> list[str]:
        """Return the names of all that lies under a version, ascending; empty: nothing does.

        Raises:
            StorageError: they could not be listed.
        """

    @abstractmethod
    def read(self, version: str, name: str) -> bytes:
        """Return the bytes of a file as they lie, unchecked.

        Raises:
            NotFound: there is no such file.
            CorruptObject: what has the name is no plain file.
            StorageError: it could not be read.
        """

    @abstractmethod
    def write(self, version: str, files: Mapping[str, bytes]) -> None:
        """Store the files of a version under which nothing lies; a killed process leaves of them whole ones, or none.

        Raises:
            StorageError: they could not be stored.
        """

    @abstractmethod
    def write_file(self, version: str, name: str, data: bytes) -> None:
        """Store one file, whole or not at all, in place of what has its name.

        Raises:
            StorageError: it could not be stored.
        """

    @abstractmethod
    def remove(self, version: str, names: Iterable[str]) -> None:
        """Remove ``names``, which are all that lies under a version.

        Raises:
            StorageError: they could not be removed; some of them may be.
        """

    @abstractmethod
    def read_latest(self) -> bytes | None:
        """Return the bytes of ``latest.json``; None: there is none.

        Raises:
            StorageError: it could not be read.
        """

    @abstractmethod
    def write_latest(self, data: bytes) -> None:
        """Store ``latest.json``, whole or not at all.

        Raises:
            StorageError: it could not be stored.
        """

    @abstractmethod
    def locate(self, version: str) -> str:
        """Return where the files of a version are, for people."""
