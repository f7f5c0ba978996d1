"""S3: bytes at rest under their SHA-256 in a bucket, and references, small names that point at them.

Belongs here: ``objects.interface`` on a bucket, in as few requests as its promises allow. Not: the requests themselves
(``buckets``), copies on this machine (``cache``), the same on a disk (``folder``).

Keys are named as the files of a folder are: ``objects/sha256/ab/abcd...``, ``references/results/<key>@``,
``damaged/abcd...``; one may be copied into the other. An upload shows whole or not at all, a read is compared with the
digest, and the last writer of a reference wins: nothing hangs on writes that are conditional.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from heimdall_assets.errors import CorruptObject, NotFound
from heimdall_assets.manifests import Artifact, compute_digest
from heimdall_assets.stores.objects.buckets import NUM_AT_ONCE, PART_BYTES, Bucket, ETag
from heimdall_assets.stores.objects.cache import ObjectCache
from heimdall_assets.stores.objects.interface import USED_AGAIN_S, ObjectStore, Resting
from heimdall_assets.stores.objects.locations import CHUNK_BYTES, check_digest, parse_location
from heimdall_assets.stores.objects.other_recordings import OtherRecordings
from heimdall_assets.stores.objects.references import (
    SUFFIX,
    decode_reference,
    describe_missing_object,
    encode_reference,
    name_file,
)
from heimdall_assets.stores.objects.verified import hash_file, read_unchanged, reading_source, verify_pieces

_OBJECTS = "objects/sha256"
_OBJECT_KEY = re.compile(rf"{_OBJECTS}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})")

SENT_UNASKED_BYTES = 256 << 10
"""Of many objects that are put at once, new recordings, those up to it are sent without asking for each first."""


class BucketObjectStore(ObjectStore):
    """Objects below the prefix of a bucket; recordings that others wrote are read in ``recordings``."""

    def __init__(self, bucket: Bucket, cache: ObjectCache, recordings: OtherRecordings, uses_copies: bool = True):
        """Lay objects into ``bucket``.

        Args:
            bucket: where they rest.
            cache: where copies lie that are read again.
            recordings: of others.
            uses_copies: read a copy where there is one; else always what rests.
        """
        self.bucket, self.cache, self.recordings = bucket, cache, recordings
        self._uses_copies = uses_copies
        self._stored: set[str] = set()  # objects that this process stored or saw whole
        self._used_at: dict[str, float] = {}  # of references that it read, Unix seconds
        self._damaged: set[str] = set()  # objects whose bytes it saw wrong, whatever their ETag says

    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        return self._put(data, media_type, asks=True)

    def _put(self, data: bytes, media_type: str, asks: bool) -> Artifact:
        artifact = Artifact(digest=compute_digest(data), media_type=media_type, size=len(data))
        e_tags = ETag().update(data).list_possible()
        if not asks or not self._is_whole(artifact, e_tags):
            self._confirm(artifact, e_tags, self.bucket.put(_key(artifact.digest), data))
        self.cache.keep(artifact.digest, data)
        return artifact

    def put_all(self, parts: Sequence[bytes], media_type: str) -> list[Artifact]:
        with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
            return list(pool.map(lambda data: self._put(data, media_type, len(data) > SENT_UNASKED_BYTES), parts))

    def put_file(self, path: Path, media_type: str) -> Artifact:
        with reading_source(path):
            digest, size = hash_file(path)
            if size <= PART_BYTES:
                return self.put_bytes(b"".join(read_unchanged(path, digest)), media_type)
            artifact, e_tags = Artifact(digest=digest, media_type=media_type, size=size), _compute_e_tags(path)
            if not self._is_whole(artifact, e_tags):
                self._confirm(artifact, e_tags, self.bucket.put_stream(_key(digest), read_unchanged(path, digest)))
        return artifact

    def read_bytes(self, digest: str) -> bytes:
        return self._read(check_digest(digest), None)

    def local_path(self, digest: str) -> Path:
        copy = self.cache.find(check_digest(digest)) if self._uses_copies else None
        return copy or self.cache.write(digest, self._fetch(digest))

    def exists(self, digest: str) -> bool:
        return self.bucket.head(_key(digest)) is not None

    def find_present(self, digests: Iterable[str]) -> set[str]:
        keys = {_key(digest): digest for digest in digests}
        return {keys[key] for key in self.bucket.find_present(_OBJECTS, keys)}

    def at_rest(self) -> "BucketObjectStore":
        return BucketObjectStore(self.bucket, self.cache, self.recordings, uses_copies=False)

    def set_aside(self, digest: str) -> bool:
        try:
            for _ in self._fetch(digest):
                pass
        except NotFound:
            return False
        except CorruptObject:
            self.bucket.copy(_key(digest), f"damaged/{digest}")
            self.bucket.remove([_key(digest)])
            self._stored.discard(digest)
            self._damaged.discard(digest)
            return True
        return False

    def list_digests(self) -> Iterator[str]:
        for key in self.bucket.list_keys(_OBJECTS):
            if found := _OBJECT_KEY.fullmatch(key):
                yield found[2]

    def write_reference(self, name: str, digest: str) -> None:
        key = _reference_key(name)
        if digest not in self._stored and not self.exists(digest):
            raise describe_missing_object(name, digest)
        self.bucket.put(key, encode_reference(name, digest))

    def read_reference(self, name: str) -> str | None:
        try:
            data, stored_at = self.bucket.get_dated(_reference_key(name))
        except NotFound:
            return None
        self._used_at[name] = stored_at.timestamp()
        return decode_reference(name, data)

    def list_references(self, prefix: str = "") -> list[str]:
        folder = f"references/{prefix.rpartition('/')[0]}".rstrip("/")
        keys = [key for key in self.bucket.list_keys(folder) if key.endswith(SUFFIX)]
        names = [key.removeprefix("references/").removesuffix(SUFFIX) for key in keys]
        return sorted(name for name in names if name.startswith(prefix))

    def renew_reference(self, name: str) -> bool:
        used_at = self._used_at.get(name)
        if used_at is not None and used_at >= time.time() - USED_AGAIN_S:
            return True
        key = _reference_key(name)
        head = self.bucket.head(key)
        if head is None:
            return False
        if head.stored_at.timestamp() < time.time() - USED_AGAIN_S:
            self.bucket.put(key, self.bucket.get(key))
        return True

    def list_resting(self) -> Iterator[Resting]:
        for key, head in self.bucket.list_heads(_OBJECTS):
            if found := _OBJECT_KEY.fullmatch(key):
                yield Resting(found[2], head.size, head.stored_at.timestamp())

    def list_resting_references(self) -> Iterator[Resting]:
        for key, head in self.bucket.list_heads("references"):
            if key.endswith(SUFFIX):
                name = key.removeprefix("references/").removesuffix(SUFFIX)
                yield Resting(name, head.size, head.stored_at.timestamp())

    def remove_object(self, digest: str, used_before: float) -> bool:
        self._stored.discard(digest)
        is_gone = self._remove(_key(digest), used_before)
        if is_gone:
            self.bucket.remove([f"damaged/{digest}"])
            self.cache.forget(digest)
        return is_gone

    def remove_reference(self, name: str, used_before: float) -> bool:
        return self._remove(_reference_key(name), used_before)

    def _remove(self, key: str, used_before: float) -> bool:
        """Remove a key; a service cannot tell in one step whether it was stored again since it was looked at."""
        head = self.bucket.head(key)
        if head is not None and head.stored_at.timestamp() >= used_before:
            return False
        self.bucket.remove([key])
        return True

    def read_location(self, location: str, max_bytes: int) -> bytes:
        found = parse_location(location)
        return self.recordings.read(found, max_bytes) if found.digest is None else self._read(found.digest, max_bytes)

    def _is_whole(self, artifact: Artifact, e_tags: set[str]) -> bool:
        """Return whether the object is there and undamaged, as the service says; else the bytes themselves do."""
        head = None if artifact.digest in self._damaged else self.bucket.head(_key(artifact.digest))
        if head is None or head.size != artifact.size:
            return False
        if head.stored_at.timestamp() < time.time() - USED_AGAIN_S:
            return False  # stored anew, it counts as used
        if head.e_tag not in e_tags:
            try:
                for _ in self._fetch(artifact.digest):
                    pass
            except (NotFound, CorruptObject):
                return False
        self._stored.add(artifact.digest)
        return True

    def _confirm(self, artifact: Artifact, e_tags: set[str], e_tag: str | None) -> None:
        """Note an upload as stored once what rests is what was sent: the service's MD5 says so, else the bytes do."""
        if e_tag not in e_tags:
            for _ in self._fetch(artifact.digest):
                pass
        self._stored.add(artifact.digest)
        self._damaged.discard(artifact.digest)

    def _read(self, digest: str, max_bytes: int | None) -> bytes:
        data = self.cache.read(digest, max_bytes) if self._uses_copies else None
        if data is None:
            data = b"".join(self._fetch(digest, max_bytes))
            self.cache.keep(digest, data)
        return data

    def _fetch(self, digest: str, max_bytes: int | None = None) -> Iterator[bytes]:
        """Return the bytes at rest in pieces; fails after the last one where they are wrong."""
        key = _key(digest)
        try:
            yield from verify_pieces(digest, self.bucket.get_pieces(key, max_bytes))
        except NotFound as error:
            raise NotFound(
                f"object {digest}: found nothing in {self.bucket.address}, expected an object put there before"
            ) from error
        except CorruptObject:
            self._damaged.add(digest)
            raise


def _key(digest: str) -> str:
    return f"{_OBJECTS}/{check_digest(digest)[:2]}/{digest}"


def _reference_key(name: str) -> str:
    return f"references/{name_file(name)}"


def _compute_e_tags(path: Path) -> set[str]:
    e_tag = ETag()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            e_tag.update(chunk)
    return e_tag.list_possible()
