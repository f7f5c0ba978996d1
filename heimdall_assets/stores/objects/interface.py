"""What every object store promises, whatever it rests on.

Belongs here: the one small interface that the rest of the project works on. Does not belong here: a backend
(``folder``, ``s3``, ``overlay``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heimdall_assets.manifests import Artifact

USED_AGAIN_S = 86_400.0
"""What is used again so long after it was stored or last used is marked as used now; sooner it is young anyway."""


@dataclass(frozen=True)
class Resting:
    """Something at rest.

    Attributes:
        name: digest of an object, or name of a reference.
        size: bytes.
        used_at: when it was stored or last used, Unix seconds, to within ``USED_AGAIN_S``.
    """

    name: str
    size: int
    used_at: float


class ObjectStore(ABC):
    """Content-addressed bytes. Returned means stored; read means verified.

    Nothing is deleted but by ``remove_object`` and ``remove_reference``, whose callers know what nobody needs. What is
    put, or found behind a reference that is renewed, counts as used from then on, so that neither takes it from under
    a run that goes on from it.
    """

    @abstractmethod
    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        """Return the artifact that ``data`` rests as; an equal object is checked, and healed where it is damaged.

        Raises:
            StorageError: it could not be stored; what was stored before is untouched.
        """

    def put_all(self, parts: Sequence[bytes], media_type: str) -> list[Artifact]:
        """Return the artifacts that the parts rest as, in their order, put together; raises as ``put_bytes``."""
        return [self.put_bytes(data, media_type) for data in parts]

    @abstractmethod
    def put_file(self, path: Path, media_type: str) -> Artifact:
        """Return the artifact that the file's bytes rest as; the file itself stays.

        Raises:
            NotFound: there is no such file.
            StorageError: it could not be stored, or changed meanwhile.
        """

    @abstractmethod
    def read_bytes(self, digest: str) -> bytes:
        """Return the bytes of ``digest``, verified.

        Raises:
            NotFound: no such object.
            CorruptObject: the bytes at rest have another digest.
        """

    @abstractmethod
    def local_path(self, digest: str) -> Path:
        """Return a local file with the verified bytes of ``digest``, for memory maps; never write to it.

        Raises:
            NotFound: no such object.
            CorruptObject: the bytes at rest have another digest.
        """

    @abstractmethod
    def exists(self, digest: str) -> bool:
        """Return whether an object rests under ``digest``; its bytes are not checked."""

    @abstractmethod
    def find_present(self, digests: Iterable[str]) -> set[str]:
        """Return those of ``digests`` that ``exists``, asked together; their bytes are not checked."""

    def at_rest(self) -> "ObjectStore":
        """Return this store as one that reads what rests and never a copy of it, for whoever looks for damage."""
        return self

    @abstractmethod
    def set_aside(self, digest: str) -> bool:
        """Return whether damaged bytes lay under ``digest`` and were moved away; whole ones stay, nothing is deleted.

        What is looked for by ``exists`` alone is then missing, and so computed again instead of being read in vain.

        Raises:
            StorageError: they could not be moved.
        """

    @abstractmethod
    def list_digests(self) -> Iterator[str]:
        """Return the digests of all objects, ascending."""

    @abstractmethod
    def write_reference(self, name: str, digest: str) -> None:
        """Let ``name`` point at the stored object ``digest``, in one step, whatever it pointed at before.

        Raises:
            InvalidIdentifier: ``name`` is no reference name.
            NotFound: no such object: references come after objects.
        """

    @abstractmethod
    def read_reference(self, name: str) -> str | None:
        """Return the digest that ``name`` points at, or None.

        Raises:
            CorruptObject: what rests under the name is damaged or belongs to another name.
        """

    @abstractmethod
    def list_references(self, prefix: str = "") -> list[str]:
        """Return the names of references that start with ``prefix``, ascending."""

    @abstractmethod
    def renew_reference(self, name: str) -> bool:
        """Mark a reference, and so all that hangs on it, as used now; return whether it is still there."""

    @abstractmethod
    def list_resting(self) -> Iterator[Resting]:
        """Return all objects, ascending."""

    @abstractmethod
    def list_resting_references(self) -> Iterator[Resting]:
        """Return all references, ascending."""

    @abstractmethod
    def remove_object(self, digest: str, used_before: float) -> bool:
        """Remove an object that was not used since ``used_before``, Unix seconds; return whether it is gone.

        Raises:
            StorageError: it could not be removed.
        """

    @abstractmethod
    def remove_reference(self, name: str, used_before: float) -> bool:
        """Remove a reference that was not used since ``used_before``, Unix seconds; return whether it is gone.

        Raises:
            StorageError: it could not be removed.
        """

    @abstractmethod
    def read_location(self, location: str, max_bytes: int) -> bytes:
        """Return the bytes at ``sha256:<hex>``, or of a file of others at a name below their place.

        Args:
            location: that name, relative or in full, ``s3://BUCKET/NAME``.
            max_bytes: the most to read.

        Raises:
            InvalidIdentifier: the location climbs, is absolute, an address elsewhere, or leads through a link.
            NotFound: there is nothing.
            InvalidInput: it is larger than ``max_bytes``; found before anything is read.
            CorruptObject: the bytes at rest have another digest.
        """
