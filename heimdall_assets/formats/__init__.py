"""Bytes of foreign files to words of this project: one module a format, one typed refusal for whatever is wrong.

Belongs here: decoding and everything a format itself must promise. Does not belong here: opening files
(``intake.files``, ``stores.objects``), whether a signal is any good (``signals.iq``).
"""

from heimdall_assets.domain import IqFormat, Recording
from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.kiwisdr import decode_kiwisdr
from heimdall_assets.formats.npy import decode_npy
from heimdall_assets.formats.sigmf import decode_sigmf
from heimdall_assets.specs import RecordingSpec

MAX_START_DIFFERENCE_NS = 1_000_000
"""A row and its file agree about the first sample's time within this; another estimator may differ by microseconds."""

_DEFAULT_MAX_SAMPLES: int = RecordingSpec().max_samples


def decode_recording(
    data: bytes,
    iq_format: IqFormat,
    *,
    name: str,
    sample_rate_hz: float | None = None,
    start_unix_ns: int | None = None,
    max_samples: int = _DEFAULT_MAX_SAMPLES,
) -> Recording:
    """Return the recording that ``data`` holds: complex64 samples, full scale 1.0, with their time axis.

    Args:
        data: the whole file.
        iq_format: how it is written.
        name: what to call it in an error; for KiwiSDR the file's name, which carries the date.
        sample_rate_hz: the rate its row states; ``.npy`` files carry none themselves.
        start_unix_ns: time of the first sample as its row states it; taken over by ``.npy``, compared with what the
            other formats say.
        max_samples: longer recordings are refused before anything is allocated.

    Raises:
        InvalidRecording: the bytes are not what they claim, or contradict ``start_unix_ns``.
    """
    if iq_format == IqFormat.NPY:
        return decode_npy(
            data, name=name, sample_rate_hz=sample_rate_hz, start_unix_ns=start_unix_ns, max_samples=max_samples
        )
    if iq_format == IqFormat.KIWISDR_WAV:
        recording = decode_kiwisdr(data, name=name, start_unix_ns=start_unix_ns, max_samples=max_samples)
    elif iq_format == IqFormat.SIGMF:
        recording = decode_sigmf(data, name=name, max_samples=max_samples)
    else:
        raise InvalidRecording(f"{name}: format {iq_format!r}, expected one of {', '.join(IqFormat)}")
    if start_unix_ns is not None and recording.start_unix_ns is not None:
        difference_ns = recording.start_unix_ns - start_unix_ns
        if abs(difference_ns) > MAX_START_DIFFERENCE_NS:
            raise InvalidRecording(
                f"{name}: first sample {difference_ns / 1e6:.3f} ms after the time that its row states, expected at "
                f"most {MAX_START_DIFFERENCE_NS / 1e6:g} ms of difference"
            )
    return recording


__all__ = ["MAX_START_DIFFERENCE_NS", "decode_kiwisdr", "decode_npy", "decode_recording", "decode_sigmf"]
