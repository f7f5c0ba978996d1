"""IQ recordings of SDR#, HDSDR, SDRuno, SDR++ and their like: WAVE with two channels, I and Q.

Belongs here: RIFF chunks, the ``auxi`` chunk, and what these programs write into names. Does not belong here: KiwiSDR
files with GNSS stamps (``kiwisdr``). Sources: Microsoft, Multimedia Programming Interface 1.0 (RIFF WAVE); RFSPACE,
SpectraVue user guide, "auxi" chunk: two SYSTEMTIME, then centre frequency as uint32.

Such programs know the time to the millisecond at best, and by the computer's clock: what that is worth, the station's
clock class and ``timing_sigma_s`` say.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np

from heimdall_assets.errors import InvalidRecording
from heimdall_assets.formats.interface import (
    NOTHING_STATED,
    FileName,
    Format,
    Stated,
    take_frequency_hz,
    take_rate_hz,
    take_start,
)
from heimdall_assets.formats.samples import Coding, convert_samples, count_samples, parse_coding
from heimdall_assets.formats.written_times import WrittenTime, parse_time
from heimdall_assets.physical import Recording

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
_CODINGS = {(PCM, 8): "cu8", (PCM, 16): "ci16_le", (PCM, 32): "ci32_le", (FLOAT, 32): "cf32_le", (FLOAT, 64): "cf64_le"}
_MAX_CHUNKS = 64
_BYTES_24 = 3

# SDRSharp_20261120_100000Z_145500000Hz_IQ.wav, HDSDR_20261120_100000Z_145500kHz_RF.wav, SDRuno_..._145500kHz.wav
_NAMED_UTC = re.compile(
    r"(?:(?P<station>.+)_)?(?:SDRSharp|SDR#|HDSDR|SDRuno|SDRconnect_IQ)_(\d{8})_(\d{6})Z?_(\d{1,12})(k?)Hz.*\.wav", re.I
)
_HAS_ZONE = re.compile(r"_\d{8}_\d{6}Z_")
# baseband_145500000Hz_10-00-00_20-11-2026.wav: the frequency; its time is the computer's own, of a zone unsaid
_NAMED_SDRPP = re.compile(r"(?:(?P<station>.+)_)?baseband_(\d{1,12})Hz_\d\d-\d\d-\d\d_\d\d-\d\d-\d{4}\.wav")


@dataclass(frozen=True)
class _Wave:
    """Chunks of a file: how samples are written, their bytes, and the ``auxi`` chunk; None: it has none."""

    coding: Coding | None  # None: 24 bit, which no NumPy type has
    rate_hz: int
    samples: memoryview
    auxi: bytes | None


def decode_iq_wav(data: bytes, name: str, stated: Stated = NOTHING_STATED, max_samples: int = 200_000_000) -> Recording:
    """Return the samples of a two-channel WAVE file, with rate, start and frequency as its chunks state them.

    Args:
        data: the whole file.
        name: what to call it in an error.
        stated: start and frequency, where the file has no ``auxi`` chunk.
        max_samples: longer recordings are refused before anything is allocated.

    Raises:
        InvalidRecording: no such file, sizes that lie, another coding or number of channels, GNSS stamps, or a chunk
            that contradicts ``stated``.
    """
    wave = _parse_wave(data, name)
    width = 2 * _BYTES_24 if wave.coding is None else wave.coding.num_bytes
    coding = parse_coding("ci32_le") if wave.coding is None else wave.coding
    if len(wave.samples) % width:
        raise InvalidRecording(f"{name}: {len(wave.samples)} bytes of samples, expected whole samples of {width} bytes")
    num_samples = len(wave.samples) // width
    if num_samples > max_samples:
        raise InvalidRecording(f"{name}: {num_samples} samples, expected at most {max_samples}")
    if wave.coding is None:
        raw = _widen(wave.samples)
    else:
        count_samples(len(wave.samples), coding, 1, name)
        raw = np.frombuffer(wave.samples, dtype=coding.component).reshape(-1, 2)
    time, frequency_hz = _parse_auxi(wave.auxi, name)
    said_ns, said_s = (None, None) if time is None else (time.middle_unix_ns, time.sigma_s)
    start_unix_ns, sigma_s = take_start(said_ns, said_s, stated, name)
    return Recording(
        samples=convert_samples(raw, coding, name, stated.full_scale),
        sample_rate_hz=take_rate_hz(float(wave.rate_hz), stated, name),
        start_unix_ns=start_unix_ns,
        timing_sigma_s=sigma_s,
        centre_frequency_hz=take_frequency_hz(frequency_hz, stated, name),
        largest_component=coding.largest if wave.coding is not None else 1.0 - 2.0**-23,
    )


def _parse_wave(data: bytes, name: str) -> _Wave:
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise InvalidRecording(f"{name}: {len(data)} bytes that are no RIFF/WAVE file, expected an IQ recording")
    claimed = int.from_bytes(data[4:8], "little") + 8
    if claimed not in (len(data), len(data) - 1):  # some writers do not count the byte that pads an odd chunk
        raise InvalidRecording(f"{name}: {len(data)} bytes, expected {claimed} as its RIFF header claims")
    chunks: dict[bytes, memoryview] = {}
    place, view = 12, memoryview(data)
    while place + 8 <= len(data):
        kind, size = bytes(view[place : place + 4]), int.from_bytes(view[place + 4 : place + 8], "little")
        if kind == b"kiwi":
            raise InvalidRecording(
                f"{name}: GNSS stamps (chunk 'kiwi'), expected to be read as kiwisdr, which uses them"
            )
        if place + 8 + size > len(data):
            raise InvalidRecording(
                f"{name}: chunk {kind!r} of {size} bytes, expected at most the {len(data) - place - 8} that follow"
            )
        if kind in chunks or len(chunks) >= _MAX_CHUNKS:
            raise InvalidRecording(f"{name}: a further chunk {kind!r}, expected each once")
        chunks[kind] = view[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    for kind in (b"fmt ", b"data"):
        if kind not in chunks:
            raise InvalidRecording(f"{name}: no chunk {kind.decode()!r}, expected 'fmt ' and 'data' of an IQ recording")
    coding, rate_hz = _parse_header(bytes(chunks[b"fmt "]), name)
    if not len(chunks[b"data"]):
        raise InvalidRecording(f"{name}: no samples, expected I and Q")
    auxi = chunks.get(b"auxi")
    return _Wave(coding, rate_hz, chunks[b"data"], None if auxi is None else bytes(auxi))


def _parse_header(header: bytes, name: str) -> tuple[Coding | None, int]:
    """Return how samples are written, None for 24 bit, and the rate."""
    if len(header) < 16:
        raise InvalidRecording(f"{name}: chunk 'fmt ' of {len(header)} bytes, expected at least 16")
    kind, num_channels, rate_hz, _, align, bits = struct.unpack("<HHIIHH", header[:16])
    if kind == EXTENSIBLE and len(header) >= 26:
        kind = int.from_bytes(header[24:26], "little")
    is_known = (kind, bits) in _CODINGS or (kind, bits) == (PCM, 24)
    if not is_known or num_channels != 2 or rate_hz == 0 or align != bits // 4:
        raise InvalidRecording(
            f"{name}: coding {kind}, {num_channels} channels, {bits} bit at {rate_hz} Hz, expected 2 channels (I, Q) "
            "of 8, 16, 24 or 32 bit PCM (1) or floats (3)"
        )
    return (None if bits == 24 else parse_coding(_CODINGS[kind, bits])), rate_hz


def _widen(data: memoryview) -> np.ndarray:
    """Return 24-bit integers as the upper bits of 32-bit ones, int32 (N, 2)."""
    wide = np.zeros((len(data) // _BYTES_24, 4), dtype=np.uint8)
    wide[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, _BYTES_24)
    return wide.view("<i4").reshape(-1, 2)


def _parse_auxi(auxi: bytes | None, name: str) -> tuple[WrittenTime | None, float | None]:
    """Return when the first sample was taken, and the centre frequency; None: the chunk does not say it.

    A chunk that begins as text holds XML (newer SDR#): nothing is taken from it.
    """
    if auxi is None or len(auxi) < 36 or auxi[:1] == b"<":
        return None, None
    year, month, _, day, hour, minute, second, ms = struct.unpack("<8H", auxi[:16])
    frequency_hz = float(int.from_bytes(auxi[32:36], "little"))
    time = None
    if year:
        text = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
        try:
            # Some programs fill in whole seconds only: three zeros are no milliseconds.
            time = parse_time(f"{text}.{ms:03d}Z" if ms else f"{text}Z")
        except ValueError:
            raise InvalidRecording(
                f"{name}: chunk 'auxi' starts at {text}.{ms}, expected a time of 1970 to 2225"
            ) from None
    return time, frequency_hz or None


def read_wav_name(name: str) -> FileName:
    """Return what the names of these programs say: frequency, and the start where they name its zone (UTC, ``Z``)."""
    if match := _NAMED_SDRPP.fullmatch(name):
        return FileName(match["station"], Stated(frequency_hz=float(match[2])))
    match = _NAMED_UTC.fullmatch(name)
    if match is None:
        return FileName()
    frequency_hz = float(match[4]) * (1000.0 if match[5] else 1.0)
    if not _HAS_ZONE.search(name):
        return FileName(match["station"], Stated(frequency_hz=frequency_hz))
    try:
        start = parse_time(f"{match[2]}T{match[3]}Z")
    except ValueError:
        return FileName()
    said = Stated(start_unix_ns=start.middle_unix_ns, start_sigma_s=start.sigma_s, frequency_hz=frequency_hz)
    return FileName(match["station"], said)


FORMATS = (
    Format(
        name="iq-wav",
        command="wav",
        title="IQ recording of SDR#, HDSDR, SDRuno, SDR++ (.wav, two channels)",
        endings=(".wav",),
        media_type="audio/vnd.wave",
        decode=decode_iq_wav,
        may_state=frozenset({"start_unix_ns", "frequency_hz", "full_scale"}),
        read_name=read_wav_name,
        recognises=lambda head: head[:4] == b"RIFF" and head[8:12] == b"WAVE" and head[36:40] != b"kiwi",
    ),
)
