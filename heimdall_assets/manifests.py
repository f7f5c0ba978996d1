"""What travels between assets: small, immutable descriptions of bytes that rest in the object store.

Belongs here: canonical JSON, digests, ``Artifact``, ``Manifest``. Does not belong here: reading or writing them.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

JSON_MEDIA_TYPE = "application/json"
PARQUET_MEDIA_TYPE = "application/vnd.apache.parquet"
NPY_MEDIA_TYPE = "application/x-npy"
SAFETENSORS_MEDIA_TYPE = "application/x-safetensors"
ONNX_MEDIA_TYPE = "application/onnx"
SVG_MEDIA_TYPE = "image/svg+xml"
BINARY_MEDIA_TYPE = "application/octet-stream"

SHA256_PATTERN = r"^[0-9a-f]{64}$"


def encode_canonical_json(value: Any) -> bytes:
    """Return the one UTF-8 encoding of ``value``: sorted keys, no blanks, no NaN; so equal values have equal digests.

    Raises:
        ValueError: ``value`` holds NaN or an infinity.

    Examples:
        >>> encode_canonical_json({"b": 1, "a": [0.5, None]})
        b'{"a":[0.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def compute_digest(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits.

    Examples:
        >>> compute_digest(b"")  # SHA-256 of nothing, FIPS 180-4
        'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    return hashlib.sha256(data).hexdigest()


def compute_json_digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``.

    Examples:
        The order of keys says nothing:

        >>> compute_json_digest({"a": 1, "b": 2}) == compute_json_digest({"b": 2, "a": 1})
        True
    """
    return compute_digest(encode_canonical_json(value))


class Artifact(BaseModel):
    """Bytes at rest in the object store, by digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str = Field(pattern=SHA256_PATTERN)
    media_type: str
    size: int = Field(ge=0)


class Manifest(BaseModel):
    """What an asset returns. Its own digest is the asset's data version.

    It holds nothing that differs between two computations of the same thing: no time, host, path or run id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str
    """Name of the asset."""
    code_version: str
    parents: dict[str, str] = Field(default_factory=dict)
    """Asset name -> digest of the manifest this one was computed from."""
    specs: dict[str, Any] = Field(default_factory=dict)
    """Spec class name -> its fields: every number that decided the result."""
    artifacts: dict[str, Artifact] = Field(default_factory=dict)
    summary: dict[str, Any] = Field(default_factory=dict)
    """Counts and small facts, JSON values only."""

    def encode(self) -> bytes:
        """Return the canonical bytes whose digest identifies this manifest."""
        return encode_canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        return compute_digest(self.encode())

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """Return the manifest that ``encode`` gave ``data`` for.

        Raises:
            pydantic.ValidationError: the bytes are no manifest.

        Examples:
            >>> manifest = Manifest(kind="splits", code_version="1", summary={"num_sessions": 3})
            >>> Manifest.decode(manifest.encode()) == manifest
            True
        """
        return cls.model_validate_json(data)


def compute_result_key(
    kind: str,
    code_version: str,
    parents: dict[str, str],
    specs: dict[str, Any],
    environment: dict[str, Any] | None = None,
) -> str:
    """Return the cache key of a result, 64 hex digits: what it is, from what, by which code, with which numbers."""
    return compute_json_digest(
        {
            "kind": kind,
            "code_version": code_version,
            "parents": parents,
            "specs": specs,
            "environment": environment or {},
        }
    )
