"""SigMF recordings (``.sigmf``): what their metadata say, validated by the ``sigmf`` library, and the samples.

Belongs here: what that library accepts and this project must not. Does not belong here: members of an archive
(``sigmf_archive``), captures (``sigmf_captures``), codings of samples (``samples``). Source: SigMF specification 1.2.
"""

import hashlib
import warnings
from typing import Any

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.interface import (
    NOTHING_STATED,
    Collection,
    Format,
    Parts,
    Stated,
    take_frequency_hz,
    take_rate_hz,
    take_start,
)
from heimdall_assets.formats.samples import Coding, convert_samples, parse_coding
from heimdall_assets.formats.sigmf_archive import (
    ARCHIVES,
    COLLECTION,
    DATA,
    META,
    list_datasets,
    list_streams,
    pack_sigmf,
    parse_object,
    unpack_sigmf,
)
from heimdall_assets.formats.sigmf_captures import (
    Capture,
    find_frequency_hz,
    find_longest,
    find_place,
    find_start,
    list_captures,
    read_stretch,
)
from heimdall_assets.media_types import BINARY_MEDIA_TYPE
from heimdall_assets.physical import Recording

_MAX_CAPTURES = 3_000
"""An hour of them, one a second, is not a recording of one transmission."""


def decode_sigmf(data: bytes, name: str, stated: Stated = NOTHING_STATED, max_samples: int = 200_000_000) -> Recording:
    """Return the samples of a SigMF archive, with rate, start, frequency and place as its metadata state them.

    Captures that follow each other without a gap at one frequency are one recording; of several such stretches the
    longest counts, and ``attributes`` count what is left out. ``timing_sigma_s`` is what the digits of the stated
    ``core:datetime`` say; the clock behind it is the station's matter. Annotations are not looked at.

    Args:
        data: the whole archive: tar, zip, or a tar compressed by gzip, xz or bzip2.
        name: what to call it in an error.
        stated: what the metadata may leave out, and which channel is meant.
        max_samples: longer recordings are refused before anything is allocated.

    Raises:
        InvalidRecording: the archive holds anything but one recording, its metadata are not strict JSON, break the
            SigMF schema, ask for an extension that is not known here, contradict themselves or ``stated``; or the
            samples are cut off, not finite, or do not match ``core:sha512``.
    """
    metadata_bytes, samples_bytes = unpack_sigmf(data, name)
    metadata = _parse_metadata(metadata_bytes, name)
    described = metadata["global"]
    coding, num_channels, channel = _find_coding(described, stated, name)
    rate_hz = take_rate_hz(described.get("core:sample_rate"), stated, name)
    _check_hash(described, samples_bytes, name)
    captures = list_captures(metadata, len(samples_bytes), coding.num_bytes * num_channels, coding, num_channels, name)
    num_samples = captures[-1].end
    if num_samples > max_samples:
        raise InvalidRecording(f"{name}: {num_samples} samples, expected at most {max_samples}")
    stretch = find_longest(captures, rate_hz)
    raw = read_stretch(samples_bytes, stretch, coding, num_channels, channel)
    start_unix_ns, sigma_s = take_start(*find_start(stretch, rate_hz), stated, name)
    return Recording(
        samples=convert_samples(raw, coding, name, stated.full_scale),
        sample_rate_hz=rate_hz,
        start_unix_ns=start_unix_ns,
        timing_sigma_s=sigma_s,
        centre_frequency_hz=take_frequency_hz(find_frequency_hz(stretch), stated, name),
        position=find_place(stretch, described, name),
        largest_component=coding.largest,
        attributes=_describe(captures, stretch, coding, num_channels, channel),
    )


def _describe(
    captures: list[Capture], stretch: list[Capture], coding: Coding, num_channels: int, channel: int
) -> dict[str, Any]:
    """Return what else is worth keeping: only what is not as in the simplest recording."""
    told: dict[str, Any] = {}
    if len(captures) > 1:
        told["num_captures"] = len(captures)
    left_out = captures[-1].end - (stretch[-1].end - stretch[0].start)
    if left_out:
        told["num_samples_left_out"] = left_out
    if not coding.is_complex:
        told["analytic_signal"] = True
    if num_channels > 1:
        told["channel"] = channel
    return told


def _parse_metadata(raw: bytes, name: str) -> dict[str, Any]:
    """Return metadata that are valid under the schema, without annotations."""
    from sigmf import SigMFFile  # slow to load, and only this format needs it

    metadata = parse_object(raw, name)
    metadata["annotations"] = []
    captures = metadata.get("captures")
    if isinstance(captures, list) and len(captures) > _MAX_CAPTURES:  # each takes the schema 0.2 ms
        raise InvalidRecording(f"{name}: {len(captures)} captures, expected at most {_MAX_CAPTURES}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an undeclared extension is no reason to refuse samples
        try:
            SigMFFile(metadata=metadata).validate()
        except Exception as error:  # jsonschema, KeyError, TypeError: whatever hostile metadata provoke
            reason = str(getattr(error, "message", error))
            raise InvalidRecording(f"{name}: metadata break the SigMF schema: {reason:.160}") from None
    for extension in metadata["global"].get("core:extensions", []):
        if extension.get("optional") is False:
            raise InvalidRecording(
                f"{name}: core:extensions asks for {extension.get('name')!r:.60}, which is not known here; expected "
                "none, or optional: true"
            )
    return metadata


def _find_coding(described: dict[str, Any], stated: Stated, name: str) -> tuple[Coding, int, int]:
    """Return how samples are written, how many channels there are, and the one that is meant, from 1."""
    try:
        coding = parse_coding(str(described.get("core:datatype")))
    except ValueError as error:
        raise InvalidRecording(f"{name}: core:datatype {error!s}, expected one such as ci16_le or cu8") from None
    num_channels = int(described.get("core:num_channels", 1))
    if stated.channel is None and num_channels > 1:
        raise InvalidRecording(
            f"{name}: {num_channels} channels, expected it said which one (--recording CODE=FILE#1 to #{num_channels})"
        )
    channel = stated.channel or 1
    if channel > num_channels:
        raise InvalidRecording(f"{name}: channel {channel} stated, expected 1 to {num_channels}")
    return coding, num_channels, channel


def _check_hash(described: dict[str, Any], samples: bytes, name: str) -> None:
    claimed = described.get("core:sha512")
    if claimed is not None and claimed.lower() != hashlib.sha512(samples).hexdigest():
        raise InvalidRecording(f"{name}: samples do not match core:sha512, expected the bytes that were hashed")


FORMATS = (
    Format(
        name="sigmf",
        command="sigmf",
        title="SigMF recording (.sigmf, .sigmf-meta with its dataset, .sigmf-collection)",
        endings=(*ARCHIVES, META, COLLECTION),
        media_type=BINARY_MEDIA_TYPE,
        decode=decode_sigmf,
        may_state=frozenset({"sample_rate_hz", "start_unix_ns", "frequency_hz", "full_scale", "channel"}),
        parts=Parts(main=META, other=DATA, list_others=list_datasets, pack=pack_sigmf),
        collection=Collection(ending=COLLECTION, list_members=list_streams),
    ),
)
