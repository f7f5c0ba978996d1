"""The IQ files of one session: each decoded and checked, all of them of the same transmission, then stored and added.

Belongs here: what every import of IQ files shares, whatever their format. Does not belong here: formats (``formats``),
which file belongs to which station (``intake.files``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heimdall_assets.domain import (
    ClockClass,
    ImportBatch,
    IqFormat,
    Measurement,
    Origin,
    Position,
    Recording,
    Session,
    Source,
    Station,
    check_name,
)
from heimdall_assets.errors import InvalidInput, InvalidRecording, NotFound
from heimdall_assets.manifests import BINARY_MEDIA_TYPE, NPY_MEDIA_TYPE, compute_digest
from heimdall_assets.pipeline.intake.identities import compute_id, make_station
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.database.measurements import ImportReport, MeasurementStore
from heimdall_assets.stores.objects.folder import ObjectStore

MEDIA_TYPES = {
    IqFormat.NPY: NPY_MEDIA_TYPE,
    IqFormat.SIGMF: BINARY_MEDIA_TYPE,
    IqFormat.KIWISDR_WAV: "audio/vnd.wave",
}
MAX_UNIX_NS = 2**63 - 2**60
"""Ends in the year 2225: a time and the end of its recording fit a 64-bit column."""

_BYTES_A_SAMPLE = 32  # of the most spacious format, with its headers: bounds a file's size by the longest recording
_HEAD_BYTES = 8_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SessionClaim:
    """What whoever imports says about a session.

    Attributes:
        name: of the session; with ``campaign`` its identity.
        source: the transmitter (see ``identities.make_source``).
        campaign: the campaign that the session belongs to.
        receivers: station code -> position.
        clock_class: how the receivers were timed; ``none`` gives no delays.
    """

    name: str
    source: Source
    campaign: str
    receivers: Mapping[str, Position]
    clock_class: ClockClass = ClockClass.NONE


@dataclass(frozen=True)
class Decoded:
    """One file's recording, the station that made it, and what else is worth keeping about it."""

    station: str
    recording: Recording
    frequency_hz: float
    attributes: dict[str, Any]


@dataclass(frozen=True)
class _Part:
    """A decoded and checked file without its samples; its bytes are read again when they are stored."""

    path: Path
    station: str
    digest: str
    sample_rate_hz: float
    num_samples: int
    start_unix_ns: int
    frequency_hz: float
    attributes: dict[str, Any]

    @property
    def end_unix_ns(self) -> int:
        return self.start_unix_ns + round(self.num_samples / self.sample_rate_hz * 1e9)


def read_bounded(path: Path, max_bytes: int, error: type[InvalidInput]) -> bytes:
    """Return the bytes of a plain file of at most ``max_bytes``; a device or pipe would never end.

    Raises:
        NotFound: there is no such file.
        InvalidInput: of type ``error``: it is longer, or the system refuses to read it.
    """
    try:
        if not path.is_file():
            raise NotFound(f"{path}: found no file, expected one to import")
        if path.stat().st_size > max_bytes:
            raise error(f"{path.name}: {path.stat().st_size} bytes, expected at most {max_bytes}")
        return path.read_bytes()
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror})") from None


def read_recording(path: Path, spec: RecordingSpec) -> bytes:
    """Return the bytes of a file that may hold the longest recording allowed, but no more."""
    return read_bounded(path, spec.max_samples * _BYTES_A_SAMPLE + _HEAD_BYTES, InvalidRecording)


def add_iq_session(
    measurements: MeasurementStore,
    objects: ObjectStore,
    claim: SessionClaim,
    iq_format: IqFormat,
    files: Sequence[Path],
    decode: Callable[[bytes, Path], Decoded],
    spec: RecordingSpec,
    read: Callable[[Path, RecordingSpec], bytes] = read_recording,
) -> ImportReport:
    """Return the report of one pending session made of ``files``.

    Raises:
        InvalidIdentifier: the session's or campaign's name is none.
        InvalidRecording: there are no files, or one is unusable, untimed, of a station that has one already, or of
            another time than the first one. Nothing is added.
    """
    check_name(claim.name, "session")
    check_name(claim.campaign, "campaign")
    parts = [_examine(Path(path), read(Path(path), spec), decode, spec) for path in files]
    _check_parts(parts, spec, claim.name)
    batch = _build_batch(claim, iq_format, parts)
    for part in parts:
        data = read(part.path, spec)
        if compute_digest(data) != part.digest:
            raise InvalidRecording(f"{part.path.name}: changed while it was imported, expected the bytes just checked")
        objects.put_bytes(data, MEDIA_TYPES[iq_format])
    return measurements.add(batch)


def _examine(path: Path, data: bytes, decode: Callable[[bytes, Path], Decoded], spec: RecordingSpec) -> _Part:
    decoded = decode(data, path)
    recording = decoded.recording
    facts = check_recording(recording, spec, name=path.name)
    if recording.start_unix_ns is None:
        raise InvalidRecording(f"{path.name}: does not say when it starts, expected a time (core:datetime)")
    if not 0 <= recording.start_unix_ns < MAX_UNIX_NS:
        raise InvalidRecording(
            f"{path.name}: starts {recording.start_unix_ns} ns after 1970, expected a time from 1970 to 2225"
        )
    kept = ("rms_dbfs", "peak_dbfs", "dc_dbfs", "clipped_fraction", "zero_fraction")
    return _Part(
        path=path,
        station=decoded.station,
        digest=compute_digest(data),
        sample_rate_hz=recording.sample_rate_hz,
        num_samples=len(recording.samples),
        start_unix_ns=recording.start_unix_ns,
        frequency_hz=decoded.frequency_hz,
        attributes={
            "file_name": path.name,
            "timing_sigma_s": recording.timing_sigma_s,
            **{name: facts[name] for name in kept},
            **decoded.attributes,
        },
    )


def _check_parts(parts: Sequence[_Part], spec: RecordingSpec, session_name: str) -> None:
    if not parts:
        raise InvalidRecording(f"session {session_name}: no files, expected at least one")
    seen: dict[str, _Part] = {}
    for part in parts:
        if part.station in seen:
            raise InvalidRecording(
                f"{part.path.name}: station {part.station} already has {seen[part.station].path.name}, expected one "
                "file a station"
            )
        seen[part.station] = part
    first = parts[0]
    for part in parts[1:]:
        common_s = (min(first.end_unix_ns, part.end_unix_ns) - max(first.start_unix_ns, part.start_unix_ns)) * 1e-9
        if common_s < spec.min_duration_s:
            raise InvalidRecording(
                f"{part.path.name}: overlaps {first.path.name} by {common_s:.3f} s, expected at least "
                f"{spec.min_duration_s:g} s of the same transmission"
            )


def _build_batch(claim: SessionClaim, iq_format: IqFormat, parts: Sequence[_Part]) -> ImportBatch:
    session = Session(
        id=compute_id("session", claim.campaign, claim.name),
        name=claim.name,
        source_id=claim.source.id,
        campaign=claim.campaign,
        origin=Origin.MEASURED,
        start=_to_datetime(min(part.start_unix_ns for part in parts)),
        end=_to_datetime(max(part.end_unix_ns for part in parts)),
    )
    stations = [make_station(part.station, claim.receivers[part.station], claim.clock_class) for part in parts]
    return ImportBatch(
        stations=stations,
        sources=[claim.source],
        sessions=[session],
        measurements=[
            _build_measurement(part, iq_format, station, session) for part, station in zip(parts, stations, strict=True)
        ],
    )


def _build_measurement(part: _Part, iq_format: IqFormat, station: Station, session: Session) -> Measurement:
    try:
        return Measurement(
            id=compute_id("measurement", session.id, station.id),
            session_id=session.id,
            station_id=station.id,
            timestamp=_to_datetime(part.start_unix_ns),
            frequency_hz=part.frequency_hz,
            iq_data_location=f"sha256:{part.digest}",
            iq_data_format=iq_format,
            iq_sample_rate_hz=part.sample_rate_hz,
            iq_samples_count=part.num_samples,
            iq_start_unix_ns=part.start_unix_ns,
            duration_s=part.num_samples / part.sample_rate_hz,
            attributes=part.attributes,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRecording(
            f"{part.path.name}: {first['loc'][0]} {first['input']!r:.60}, expected otherwise: {first['msg']}"
        ) from None


def _to_datetime(unix_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_ns // 1000)
