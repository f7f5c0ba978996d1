"""SigMF archives (``.sigmf``: one tar with metadata and samples), read and validated by the ``sigmf`` library.

Belongs here: what that library accepts and this project must not: duplicate keys, NaN, deep nesting, datasets outside
the archive, compressed or many-part archives. Source: SigMF specification 1.2.
"""

import hashlib
import io
import re
import tarfile
import warnings
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import Recording
from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.finite import refuse_infinite
from heimdall_assets.formats.strict_json import parse_strict_json

SAMPLE_BYTES = {"cf32_le": 8, "cf64_le": 16, "ci16_le": 4}
"""Supported ``core:datatype`` and the bytes of one complex sample."""

_MAX_MEMBERS = 16
_DATETIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,18}))?Z")


def decode_sigmf(data: bytes, *, name: str, max_samples: int = 200_000_000) -> Recording:
    """Return the samples of a SigMF archive, with rate, start and centre frequency as its metadata state them.

    ``timing_sigma_s`` is the resolution of the stated ``core:datetime``; the clock behind it is the station's matter.
    Annotations are not looked at.

    Args:
        data: the whole uncompressed tar.
        name: what to call it in an error.
        max_samples: longer recordings are refused before anything is allocated.

    Raises:
        InvalidRecording: the archive holds anything but one recording, its metadata are not strict JSON, break the
            SigMF schema, name a dataset elsewhere, an unsupported datatype, several channels or captures, no rate; or
            the samples are cut off, not finite, or do not match ``core:sha512``.
    """
    metadata_bytes, samples_bytes = _unpack(data, name)
    metadata = _parse_metadata(metadata_bytes, name)
    described, capture = metadata["global"], metadata["captures"][0]
    num_samples = _count_samples(described, len(samples_bytes), name)
    if num_samples > max_samples:
        raise InvalidRecording(f"{name}: {num_samples} samples, expected at most {max_samples}")
    claimed = described.get("core:sha512")
    if claimed is not None and claimed != hashlib.sha512(samples_bytes).hexdigest():
        raise InvalidRecording(f"{name}: samples do not match core:sha512, expected the bytes that were hashed")
    rate_hz = described.get("core:sample_rate")
    if rate_hz is None or not rate_hz > 0:
        raise InvalidRecording(f"{name}: core:sample_rate {rate_hz}, expected a positive rate in Hz")
    start_unix_ns, sigma_s = _parse_start(capture.get("core:datetime"), name)
    frequency_hz = capture.get("core:frequency")
    return Recording(
        samples=_read_samples(metadata, samples_bytes, name),
        sample_rate_hz=float(rate_hz),
        start_unix_ns=start_unix_ns,
        timing_sigma_s=sigma_s,
        centre_frequency_hz=None if frequency_hz is None else float(frequency_hz),
    )


def pack_sigmf(metadata: bytes, samples: bytes, *, stem: str) -> bytes:
    """Return the archive (tar) of a ``.sigmf-meta`` and ``.sigmf-data`` pair: their own bytes, the same every time."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for ending, content in ((".sigmf-meta", metadata), (".sigmf-data", samples)):
            member = tarfile.TarInfo(f"{stem}/{stem}{ending}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _unpack(data: bytes, name: str) -> tuple[bytes, bytes]:
    """Return the bytes of the one metadata file and the one dataset."""
    files: dict[str, bytes] = {}
    stem = None
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for number, member in enumerate(archive):
                path = PurePosixPath(member.name)
                if number >= _MAX_MEMBERS or path.is_absolute() or ".." in path.parts:
                    _refuse_members(name, f"member {number} {member.name!r:.80}")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse() or path.suffix not in (".sigmf-meta", ".sigmf-data"):
                    _refuse_members(name, f"member {member.name!r:.80}")
                if path.suffix in files or stem not in (None, path.with_suffix("")):
                    _refuse_members(name, f"a further member {member.name!r:.80}")
                stem = path.with_suffix("")
                content = archive.extractfile(member)
                files[path.suffix] = b"" if content is None else content.read()
                if len(files[path.suffix]) != member.size:
                    _refuse_members(name, f"{len(files[path.suffix])} of {member.size} bytes of {member.name!r:.80}")
    except InvalidRecording:
        raise
    except Exception as error:  # tarfile lets more than TarError through for hostile headers
        raise InvalidRecording(
            f"{name}: {len(data)} bytes that are no whole tar ({error!s:.80}), expected a SigMF archive"
        ) from None
    if len(files) != 2:
        _refuse_members(name, f"only {', '.join(files) or 'nothing'}")
    return files[".sigmf-meta"], files[".sigmf-data"]


def _refuse_members(name: str, found: str) -> NoReturn:
    raise InvalidRecording(
        f"{name}: archive holds {found}, expected one .sigmf-meta and one .sigmf-data of the same name and no others"
    )


def _parse_metadata(raw: bytes, name: str) -> dict[str, Any]:
    """Return metadata of one single-channel capture, valid under the schema and without annotations."""
    from sigmf import SigMFFile  # slow to load, and only this format needs it

    try:
        metadata = parse_strict_json(raw)
    except ValueError as error:
        raise InvalidRecording(
            f"{name}: metadata are no strict JSON ({error!s:.120}), expected SigMF metadata"
        ) from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("global"), dict):
        raise InvalidRecording(f"{name}: metadata without a 'global' object, expected SigMF metadata")
    described = metadata["global"]
    if "core:dataset" in described or described.get("core:metadata_only"):
        raise InvalidRecording(
            f"{name}: core:dataset {described.get('core:dataset')!r:.80}, expected the samples inside the archive"
        )
    metadata["annotations"] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an undeclared extension is no reason to refuse samples
        try:
            SigMFFile(metadata=metadata).validate()
        except Exception as error:  # jsonschema, KeyError, TypeError: whatever hostile metadata provoke
            reason = str(getattr(error, "message", error))
            raise InvalidRecording(f"{name}: metadata break the SigMF schema: {reason:.160}") from None
    captures = metadata["captures"]
    if described.get("core:num_channels", 1) != 1:
        raise InvalidRecording(f"{name}: {described['core:num_channels']} channels, expected 1")
    if len(captures) != 1 or captures[0].get("core:sample_start") != 0:
        raise InvalidRecording(f"{name}: {len(captures)} captures, expected one that starts at sample 0")
    if described.get("core:trailing_bytes", 0) or captures[0].get("core:header_bytes", 0):
        raise InvalidRecording(f"{name}: header or trailing bytes among the samples, expected samples only")
    return metadata


def _count_samples(described: dict[str, Any], num_bytes: int, name: str) -> int:
    datatype = described.get("core:datatype")
    if datatype not in SAMPLE_BYTES:
        raise InvalidRecording(f"{name}: core:datatype {datatype!r:.40}, expected one of {', '.join(SAMPLE_BYTES)}")
    num_samples, remainder = divmod(num_bytes, SAMPLE_BYTES[datatype])
    if num_samples == 0 or remainder:
        raise InvalidRecording(
            f"{name}: {num_bytes} bytes of samples, expected whole samples of {SAMPLE_BYTES[datatype]} bytes each "
            f"({datatype})"
        )
    return num_samples


def _parse_start(text: str | None, name: str) -> tuple[int | None, float | None]:
    """Return ns since 1970-01-01 UTC and the resolution of the statement as one sigma in seconds."""
    if text is None:
        return None, None
    match = _DATETIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        seconds = int(datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise InvalidRecording(
            f"{name}: core:datetime {text!r:.40}, expected a time such as 2026-01-31T12:00:00.123456789Z"
        ) from None
    digits = match[2] or ""
    sigma_s = max(10.0 ** -len(digits), 1e-9) / 12**0.5  # a rounded number is wrong by a uniform error of one step
    return seconds * 10**9 + int(digits[:9].ljust(9, "0")), sigma_s


def _read_samples(metadata: dict[str, Any], raw: bytes, name: str) -> NDArray[np.complex64]:
    from sigmf import SigMFFile

    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")
        reader = SigMFFile(metadata=metadata)
        reader.set_data_file(data_buffer=io.BytesIO(raw), skip_checksum=True)  # compared by the caller
        samples = np.asarray(reader.read_samples())
    if samples.dtype != np.complex64 or samples.ndim != 1:
        raise InvalidRecording(f"{name}: found {samples.dtype} {samples.shape}, expected complex samples (N,)")
    refuse_infinite(samples, name)
    return samples
