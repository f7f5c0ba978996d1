"""Bytes of foreign files to words of this project: one module a format, one typed refusal for whatever is wrong.

Belongs here: decoding and everything a format itself must promise. Does not belong here: opening files
(``intake.files``, ``stores.objects``), whether a signal is any good (``signals.iq``).
"""

import importlib
import pkgutil

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.interface import MAX_START_DIFFERENCE_NS, NOTHING_STATED, Format, Stated
from heimdall_assets.physical import Recording


def _gather() -> dict[str, Format]:
    """Return name -> format: every record in ``FORMATS`` of every module of this room."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {known.name: known for module in modules for known in getattr(module, "FORMATS", ())}


FORMATS = _gather()
"""Name in ``iq_data_format`` -> format. A module that offers ``FORMATS`` is found; nothing else names it."""


def tell_format(name: str, head: bytes) -> Format | None:
    """Return the format that a file's first bytes (``HEAD_BYTES``) or else the end of its name tell; None: neither."""
    for known in FORMATS.values():
        if known.recognises(head):
            return known
    fitting = [known for known in FORMATS.values() if known.fits(name)]
    lengths = [max(len(end) for end in known.endings if name.lower().endswith(end)) for known in fitting]
    return fitting[lengths.index(max(lengths))] if fitting else None


def decode_recording(
    data: bytes,
    format_name: str,
    *,
    name: str,
    stated: Stated = NOTHING_STATED,
    max_samples: int | None = None,
) -> Recording:
    """Return the recording that ``data`` holds: complex64 samples, full scale 1.0, with their time axis.

    Args:
        data: the whole file.
        format_name: how it is written, one of ``FORMATS``.
        name: what to call it in an error; for KiwiSDR the file's name, which carries the date.
        stated: what its row says: taken over where the file says nothing, else compared.
        max_samples: longer recordings are refused before anything is allocated; None: than its bytes could hold.

    Raises:
        InvalidRecording: the bytes are not what they claim, or contradict ``stated``.
    """
    if format_name not in FORMATS:
        raise InvalidRecording(f"{name}: format {format_name!r:.40}, expected one of {', '.join(sorted(FORMATS))}")
    most = len(data) if max_samples is None else max_samples
    recording = FORMATS[format_name].decode(data, name, stated, most)
    if stated.start_unix_ns is not None and recording.start_unix_ns is not None:
        difference_ns = recording.start_unix_ns - stated.start_unix_ns
        if abs(difference_ns) > MAX_START_DIFFERENCE_NS:
            raise InvalidRecording(
                f"{name}: first sample {difference_ns / 1e6:.3f} ms after the time that its row states, expected at "
                f"most {MAX_START_DIFFERENCE_NS / 1e6:g} ms of difference"
            )
    return recording


__all__ = ["FORMATS", "Format", "Stated", "decode_recording", "tell_format"]
