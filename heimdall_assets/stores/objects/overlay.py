"""Overlay (copy-on-write): an object store in which nothing was ever computed, over one in which everything rests.

Belongs here: where bytes are read from and kept. Does not belong here: what is computed (``releases.reproduction``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from heimdall_assets.errors import InvalidInput
from heimdall_assets.manifests import Artifact
from heimdall_assets.stores.objects.interface import ObjectStore, Resting


class RecomputingStore(ObjectStore):
    """Reads what rests in ``base``, keeps what is made in ``apart``, and finds no earlier result.

    References are those of ``apart`` alone, so each stage computes instead of finding. What was made comes before what
    rests: a damaged object is passed over as soon as its bytes were made again.
    """

    def __init__(self, base: ObjectStore, apart: ObjectStore, pinned: Mapping[str, str]):
        """Lay ``apart`` over ``base``.

        Args:
            pinned: location -> digest of the recording that was read there then; it may hold something else by now.
        """
        self.base = base
        self.apart = apart
        self._pinned = dict(pinned)

    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        return self.apart.put_bytes(data, media_type)

    def put_all(self, parts: Sequence[bytes], media_type: str) -> list[Artifact]:
        return self.apart.put_all(parts, media_type)

    def put_file(self, path: Path, media_type: str) -> Artifact:
        return self.apart.put_file(path, media_type)

    def read_bytes(self, digest: str) -> bytes:
        return self._holder(digest).read_bytes(digest)

    def local_path(self, digest: str) -> Path:
        return self._holder(digest).local_path(digest)

    def exists(self, digest: str) -> bool:
        return self.apart.exists(digest) or self.base.exists(digest)

    def find_present(self, digests: Iterable[str]) -> set[str]:
        wanted = set(digests)
        made = self.apart.find_present(wanted)
        return made | self.base.find_present(wanted - made)

    def set_aside(self, digest: str) -> bool:
        return self.apart.set_aside(digest)

    def list_digests(self) -> Iterator[str]:
        return self.apart.list_digests()

    def write_reference(self, name: str, digest: str) -> None:
        self.apart.write_reference(name, digest)

    def read_reference(self, name: str) -> str | None:
        return self.apart.read_reference(name)

    def list_references(self, prefix: str = "") -> list[str]:
        return self.apart.list_references(prefix)

    def renew_reference(self, name: str) -> bool:
        return self.apart.renew_reference(name)

    def list_resting(self) -> Iterator[Resting]:
        return self.apart.list_resting()

    def list_resting_references(self) -> Iterator[Resting]:
        return self.apart.list_resting_references()

    def remove_object(self, digest: str, used_before: float) -> bool:
        return self.apart.remove_object(digest, used_before)

    def remove_reference(self, name: str, used_before: float) -> bool:
        return self.apart.remove_reference(name, used_before)

    def read_location(self, location: str, max_bytes: int) -> bytes:
        digest = self._pinned.get(location)
        if digest is None:
            return self.base.read_location(location, max_bytes)
        data = self.read_bytes(digest)
        if len(data) > max_bytes:
            raise InvalidInput(f"{location}: found {len(data)} bytes, expected at most {max_bytes}")
        return data

    def _holder(self, digest: str) -> ObjectStore:
        return self.apart if self.apart.exists(digest) else self.base
