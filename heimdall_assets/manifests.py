"""What travels between assets: small, immutable descriptions of bytes that rest in the object store.

Belongs here: canonical JSON, digests, ``Artifact``, ``Manifest``. Does not belong here: reading or writing them.
"""

import hashlib
import json
import math
from typing import Any

import rfc8785
from pydantic import BaseModel, ConfigDict, Field

SHA256_PATTERN = r"^[0-9a-f]{64}$"

MAX_INTEGER = 2**53 - 1
"""The greatest integer that every reader of JSON holds (RFC 8785, 3.2.2.3)."""


def encode_canonical_json(value: Any) -> bytes:
    """Return the one UTF-8 encoding of ``value`` by RFC 8785, so that equal values have equal digests in any language.

    Args:
        value: JSON values. Whole numbers beyond ``MAX_INTEGER`` are written as texts by whoever has such.

    Raises:
        ValueError: ``value`` holds NaN, an infinity, a greater integer, a key that is no text, or half a character.

    Examples:
        >>> encode_canonical_json({"b": 24000.0, "a": [0.5, None]})
        b'{"a":[0.5,null],"b":24000}'
    """
    return rfc8785.dumps(value)


def decode_canonical_json(data: bytes | str) -> Any:
    """Return the value that ``encode_canonical_json`` gives ``data`` for.

    RFC 8785 writes a number of 2^53 to 10^21 without point or exponent; it is the float it was, not an integer.

    Raises:
        ValueError: the bytes are no JSON, or hold NaN, an infinity, or a key twice.
        RecursionError: they are nested too deep.
    """
    return json.loads(
        data,
        parse_int=_parse_integer,
        parse_float=_parse_finite,
        parse_constant=_parse_finite,
        object_pairs_hook=_take_each_once,
    )


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is no number that JSON can say")
    return number


def _take_each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of ``pairs``: readers differ in which of two equal keys they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _parse_integer(digits: str) -> int | float:
    number = float(digits)
    return number if abs(number) > MAX_INTEGER else int(digits)


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


def compute_texts_digest(value: Any) -> str:
    """Return ``compute_json_digest`` of a value whose leaves are all texts, in a tenth of the time.

    Python writes texts, and keys within the basic plane, as RFC 8785 does; numbers it does not.
    """
    return compute_digest(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode())


def show_value(value: Any) -> str:
    """Return a setting or a row's value for people: 6000.0 as 6000, which it is after it rested in canonical JSON."""
    return repr(int(value) if isinstance(value, float) and value.is_integer() else value)


class Artifact(BaseModel):
    """Bytes at rest in the object store, by digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str = Field(pattern=SHA256_PATTERN)
    media_type: str
    size: int = Field(ge=0)


RESULTS = "results/"
"""What the references of results begin with; a cache key follows, 64 hex digits."""


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
    content: dict[str, str] = Field(default_factory=dict)
    """Name -> SHA-256 of each input that is no manifest: rows that were read, pretrained weights."""
    artifacts: dict[str, Artifact] = Field(default_factory=dict)
    summary: dict[str, Any] = Field(default_factory=dict)
    """Counts and small facts, JSON values only."""

    def encode(self) -> bytes:
        """Return the canonical bytes whose digest identifies this manifest."""
        return encode_canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        return compute_digest(self.encode())

    @property
    def reference(self) -> str:
        """The reference that it is found under, its cache key: of what, from what, by which code, with which numbers.

        What lies under another is not what was asked for.
        """
        return RESULTS + compute_json_digest(
            {
                "kind": self.kind,
                "code_version": self.code_version,
                "parents": self.parents,
                "specs": self.specs,
                "content": self.content,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """Return the manifest that ``encode`` gave ``data`` for.

        Raises:
            ValueError: the bytes are no manifest; also as ``pydantic.ValidationError``.

        Examples:
            >>> manifest = Manifest(kind="splits", code_version="1", summary={"num_sessions": 3})
            >>> Manifest.decode(manifest.encode()) == manifest
            True
        """
        try:
            return cls.model_validate(decode_canonical_json(data))
        except RecursionError as error:
            raise ValueError("found JSON that is nested too deep, expected a manifest") from error
