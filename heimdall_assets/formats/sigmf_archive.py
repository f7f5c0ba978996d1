"""SigMF archives: one tar or zip, maybe compressed, that holds one recording's metadata and samples.

Belongs here: which members make a recording, packing files that lie side by side. Does not belong here: expansion
(``archives``), what the metadata say (``sigmf``). Source: SigMF specification 1.2, "SigMF Archives", "Collections".
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.archives import list_members, refuse_members
from heimdall_assets.formats.strict_json import parse_strict_json

META, DATA, COLLECTION = ".sigmf-meta", ".sigmf-data", ".sigmf-collection"
ARCHIVES = (".sigmf", ".sigmf.gz", ".sigmf.xz", ".sigmf.bz2", ".sigmf.zip")


def unpack_sigmf(data: bytes, name: str) -> tuple[bytes, bytes]:
    """Return the bytes of the one metadata file and the one dataset.

    Raises:
        InvalidRecording: no such archive, cut off, or it holds anything but one recording.
    """
    files: dict[str, bytes] = {}
    members = list_members(data, name)
    for path, content in members:
        if path.name.endswith(COLLECTION):
            refuse_members(name, f"member {str(path)!r:.80}")
        kind = META if path.name.endswith(META) else DATA
        if kind in files:
            refuse_members(name, f"a further member {str(path)!r:.80}")
        files[kind] = content
    if len(files) != 2:
        refuse_members(name, f"only {', '.join(files) or 'nothing'}")
    names = {str(path.parent): path.name for path, _ in members}
    if len(names) != 1:
        refuse_members(name, f"a further member {str(members[1][0])!r:.80}")
    metadata = next(content for path, content in members if path.name.endswith(META))
    _check_names([path.name for path, _ in members], metadata, name)
    return files[META], files[DATA]


def _check_names(found: list[str], metadata: bytes, name: str) -> None:
    """Check that the samples have the name that their metadata say."""
    meta = next(member for member in found if member.endswith(META))
    samples = next(member for member in found if not member.endswith(META))
    (expected,) = list_datasets(meta, metadata, of=name)
    if samples != expected:
        refuse_members(name, f"a further member {samples!r:.80}")


def pack_sigmf(meta_name: str, metadata: bytes, others: Mapping[str, bytes]) -> bytes:
    """Return the archive (tar) of metadata and dataset that lie side by side: their own bytes, the same every time.

    Names of any length that a file system holds fit: longer ones than a plain tar's stand in a pax header.
    """
    stem = meta_name.removesuffix(META)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member_name, content in ((meta_name, metadata), *others.items()):
            member = tarfile.TarInfo(f"{stem}/{member_name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def parse_object(raw: bytes, name: str) -> dict[str, Any]:
    """Return metadata as strict JSON with a ``global`` object.

    Raises:
        InvalidRecording: they are none.
    """
    try:
        metadata = parse_strict_json(raw)
    except ValueError as error:
        raise InvalidRecording(
            f"{name}: metadata are no strict JSON ({error!s:.120}), expected SigMF metadata"
        ) from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("global"), dict):
        raise InvalidRecording(f"{name}: metadata without a 'global' object, expected SigMF metadata")
    return metadata


def list_datasets(meta_name: str, metadata: bytes, of: str | None = None) -> list[str]:
    """Return the name of the file that holds the samples, beside the metadata file ``meta_name``.

    Raises:
        InvalidRecording: the metadata are none, name a file elsewhere, or say that there are no samples.
    """
    name = of or meta_name
    described = parse_object(metadata, name)["global"]
    dataset = described.get("core:dataset")
    if dataset is None:
        if described.get("core:metadata_only"):
            raise InvalidRecording(f"{name}: core:metadata_only, expected a recording with its samples")
        return [meta_name.removesuffix(META) + DATA]
    if not isinstance(dataset, str) or PurePosixPath(dataset).name != dataset or "\\" in dataset:
        raise InvalidRecording(f"{name}: core:dataset {dataset!r:.80}, expected the name of a file in the same folder")
    return [dataset]


def list_streams(data: bytes, name: str) -> dict[str, str]:
    """Return name of the metadata file -> its SHA-512, for each recording of a ``.sigmf-collection``.

    Raises:
        InvalidRecording: no such file, no recordings, or names that lead elsewhere.
    """
    try:
        listed = parse_strict_json(data)["collection"]["core:streams"]
        streams = {f"{stream['name']}{META}": str(stream["hash"]) for stream in listed}
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRecording(
            f"{name}: no SigMF collection ({error!r:.80}), expected core:streams with name and hash"
        ) from None
    for stream in streams:
        if PurePosixPath(stream).name != stream or "\\" in stream:
            raise InvalidRecording(
                f"{name}: stream {stream!r:.80}, expected the name of a recording in the same folder"
            )
    if not streams:
        raise InvalidRecording(f"{name}: no streams, expected at least one recording")
    return streams
