"""Buckets: keys and bytes of an S3 service, below one prefix.

Belongs here: the one place that speaks to S3. Does not belong here: what keys and bytes mean (``s3``, ``releases``),
what its errors mean (``bucket_faults``), locks and numbers (``database``: no two S3 services agree on conditional
writes).

Keys come from where all tools of S3 look for them (boto3's chain: environment, files, roles) and are asked for anew
when they end. Requests that the service or the way there failed are tried again by the library, with jitter; bytes that
came and are wrong never are.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import InvalidInput, NotFound, OutOfReach, StorageError
from heimdall_assets.stores.objects.addresses import BucketAddress
from heimdall_assets.stores.objects.bucket_faults import tell_faults

if TYPE_CHECKING:
    from obstore.store import S3Store

PART_BYTES = 8 << 20
"""Of an upload in parts; S3 takes 5 MiB to 5 GiB a part, and at most 10 000 of them."""

NUM_AT_ONCE = 8
"""Parts or ranges of one object under way at a time."""

PAGE_KEYS = 1000
LISTED_FOR = 8
"""A page of a listing is asked for where it may spare so many requests."""

MAX_RETRIES = 6
RETRY_S = 60.0
CONNECT_S, REQUEST_S = 5.0, 60.0

KEYS_LAST_S = 300.0
"""Keys are asked for again after this time; the chain that gives them renews what ends."""


@dataclass(frozen=True)
class Head:
    """What a service says of an object without its bytes."""

    size: int
    e_tag: str | None
    stored_at: datetime


class Bucket:
    """Keys below the prefix of one address; nothing is loaded or asked before the first request.

    Another process that is handed one opens it anew.
    """

    def __init__(self, address: BucketAddress, endpoint: str | None = None, max_retries: int = MAX_RETRIES):
        self.address = address
        self.endpoint = endpoint
        self.max_retries = max_retries

    def __reduce__(self) -> tuple[Callable[..., "Bucket"], tuple[BucketAddress, str | None, int]]:
        return Bucket, (self.address, self.endpoint, self.max_retries)

    @cached_property
    def _store(self) -> "S3Store":
        return _open_store(self.address, self.endpoint, self.max_retries)

    def put(self, key: str, data: bytes) -> str | None:
        """Store ``data`` under ``key``, whole, in place of what was there; return the ETag that the service gave it.

        Raises:
            StorageError: the service refused, or could not be reached.
        """
        return self._put(key, data, len(data) > PART_BYTES)

    def put_stream(self, key: str, chunks: Iterable[bytes]) -> str | None:
        """Store pieces as one object, in parts as they come; where they raise, nothing is stored and that is raised.

        Raises:
            StorageError: the service refused, or could not be reached.
        """
        return self._put(key, iter(chunks), True)

    def _put(self, key: str, data: bytes | Iterator[bytes], in_parts: bool) -> str | None:
        import obstore

        try:
            with self._told(key, "stored"):
                done = obstore.put(
                    self._store,
                    key,
                    data,
                    use_multipart=in_parts,
                    chunk_size=PART_BYTES,
                    max_concurrency=NUM_AT_ONCE,
                )
        except NotFound:
            raise StorageError(
                f"{self.address}/{key}: could not be stored (found no bucket {self.address.bucket}, expected one)"
            ) from None
        return _strip(done["e_tag"])

    def head(self, key: str) -> Head | None:
        """Return what the service says of ``key``; None: nothing is there, or no such bucket, which it does not tell.

        Raises:
            StorageError: the service refused, or could not be reached.
        """
        import obstore

        try:
            with self._told(key, "looked at"):
                found = obstore.head(self._store, key)
        except NotFound:
            return None
        return Head(found["size"], _strip(found["e_tag"]), found["last_modified"])

    def find_present(self, folder: str, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` under which something is there, asked at once.

        Many are looked for in the listing of their folder first, a thousand a request. What it does not name is asked
        for by itself, for a service may list late what is there.

        Args:
            folder: in which all of them are.
            keys: to look for.

        Raises:
            StorageError: the service refused, or could not be reached.
        """
        wanted = set(keys)
        present = wanted & self._list_some(folder, len(wanted) // LISTED_FOR) if len(wanted) >= LISTED_FOR else set()
        asked = sorted(wanted - present)
        with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
            return present | {key for key, found in zip(asked, pool.map(self.head, asked), strict=True) if found}

    def _list_some(self, folder: str, num_pages: int) -> set[str]:
        """Return the keys below a folder that the first pages of its listing name."""
        import obstore

        with self._told(folder, "listed"):
            pages = islice(obstore.list(self._store, folder, chunk_size=PAGE_KEYS), num_pages)
            return {item["path"] for page in pages for item in page}

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        """Return the bytes of ``key``, of one state of it even where somebody writes it meanwhile.

        Raises:
            NotFound: nothing is there.
            InvalidInput: it is larger than ``max_bytes``; found before anything is read.
            StorageError: the service refused, or could not be reached.
        """
        import obstore

        with self._told(key, "read"):
            found = obstore.get(self._store, key)
            self._check_size(key, found.meta["size"], max_bytes)
            return bytes(found.bytes())

    def get_dated(self, key: str) -> tuple[bytes, datetime]:
        """Return the bytes of ``key`` and when they were stored; raises as ``get``."""
        import obstore

        with self._told(key, "read"):
            found = obstore.get(self._store, key)
            return bytes(found.bytes()), found.meta["last_modified"]

    def get_pieces(self, key: str, max_bytes: int | None = None) -> Iterator[bytes]:
        """Return the bytes of ``key`` in order; of a large one several ranges are read at once, so it must not change.

        Raises: as ``get``.
        """
        import obstore

        with self._told(key, "read"):
            found = obstore.get(self._store, key)
            size = found.meta["size"]
            self._check_size(key, size, max_bytes)
            whole = bytes(found.bytes()) if size <= 2 * PART_BYTES else None
        if whole is not None:
            yield whole
            return
        del found  # its answer is not read on
        starts = list(range(0, size, PART_BYTES))
        for first in range(0, len(starts), NUM_AT_ONCE):
            chosen = starts[first : first + NUM_AT_ONCE]
            yield from self.get_ranges(key, chosen, [min(start + PART_BYTES, size) for start in chosen])

    def get_ranges(self, key: str, starts: list[int], ends: list[int]) -> list[bytes]:
        """Return the bytes of ``key`` from each start to before each end, read at once.

        Raises:
            NotFound: nothing is there.
            StorageError: the service refused, or could not be reached.
        """

        def get_range(start: int, end: int) -> bytes:
            import obstore

            with self._told(key, "read"):
                return bytes(obstore.get_range(self._store, key, start=start, end=end))

        # The library's own get_ranges makes one request of ranges that meet.
        with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
            return list(pool.map(get_range, starts, ends))

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Return the keys below the folder ``prefix``, ascending.

        Raises:
            StorageError: the service refused, or could not be reached.
        """
        yield from (key for key, _ in self.list_heads(prefix))

    def list_heads(self, prefix: str = "") -> Iterator[tuple[str, Head]]:
        """Return the keys below the folder ``prefix``, ascending, and what the service says of each; raises the same.

        The ETag is not looked at.
        """
        import obstore

        with self._told(prefix or "*", "listed"):
            pages = list(obstore.list(self._store, prefix or None))
        for path, item in sorted((item["path"], item) for page in pages for item in page):
            yield path, Head(item["size"], None, item["last_modified"])

    def copy(self, key: str, target: str) -> None:
        """Give the bytes of ``key`` a second key, in place of what was there; raises as ``get``."""
        import obstore

        with self._told(key, "copied"):
            obstore.copy(self._store, key, target)

    def remove(self, keys: list[str]) -> None:
        """Remove keys; one that is not there is fine.

        Raises:
            StorageError: the service refused, or could not be reached.
        """
        import obstore

        for key in keys:
            try:
                with self._told(key, "removed"):
                    obstore.delete(self._store, key)
            except NotFound:
                continue

    def _told(self, key: str, done: str) -> Any:
        return tell_faults(f"{self.address}/{key}", done)

    def _check_size(self, key: str, size: int, max_bytes: int | None) -> None:
        if max_bytes is not None and size > max_bytes:
            raise InvalidInput(f"{self.address}/{key}: found {size} bytes, expected at most {max_bytes}")


class ETag:
    """Computes the ETag that a service gives to bytes that ``Bucket`` stored, unless it encrypts them under keys.

    Of one part it is their MD5; of several, the MD5 of the parts' MD5s and how many parts there are.
    """

    def __init__(self) -> None:
        self._part, self._num_bytes = _md5(), 0
        self._parts: list[bytes] = []

    def update(self, data: bytes) -> "ETag":
        """Take the next bytes; return itself."""
        rest = memoryview(data)
        while rest:
            if self._num_bytes == PART_BYTES:
                self._parts.append(self._part.digest())
                self._part, self._num_bytes = _md5(), 0
            taken = rest[: PART_BYTES - self._num_bytes]
            self._part.update(taken)
            self._num_bytes, rest = self._num_bytes + len(taken), rest[len(taken) :]
        return self

    def list_possible(self) -> set[str]:
        """Return the ETags of the bytes: put in parts and, where they are one part, whole."""
        parts = [*self._parts, self._part.digest()]
        in_parts = f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"
        return {in_parts, *([] if self._parts else [self._part.hexdigest()])}


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)


def _strip(e_tag: str | None) -> str | None:
    return (e_tag or "").strip('"') or None


def describe_keys() -> str:
    """Return where keys were found, by boto3's name of it (``env``, ``shared-credentials-file``, ``iam-role``)."""
    import boto3

    keys = boto3.Session().get_credentials()
    return "nowhere" if keys is None else str(keys.method)


def _open_store(address: BucketAddress, endpoint: str | None, max_retries: int) -> "S3Store":
    """Return the library's store; nothing is asked of the service yet.

    Raises:
        OutOfReach: no keys are found where tools of S3 look for them.
    """
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    try:
        keys = Boto3CredentialProvider(boto3.Session(), ttl=timedelta(seconds=KEYS_LAST_S))
    except ValueError:
        raise OutOfReach(
            f"{address}: found no keys; expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role"
        ) from None
    settings: dict[str, Any] = {"region": "us-east-1", **keys.config}
    if endpoint:
        settings["virtual_hosted_style_request"] = False
        settings["aws_endpoint_url_s3"] = endpoint  # "endpoint" would yield to the environment's variable
    return S3Store(
        address.bucket,
        prefix=address.prefix or None,
        config=settings,  # type: ignore[arg-type]  # a TypedDict of some fifty optional names
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=REQUEST_S),
        },
        retry_config={
            "max_retries": max_retries,
            "retry_timeout": timedelta(seconds=RETRY_S),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10.0), "base": 2},
        },
        credential_provider=keys,
    )
