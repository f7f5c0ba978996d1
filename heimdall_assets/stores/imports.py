"""Files of strangers to pending sessions: everything is decoded and checked first, then stored, then one transaction.

Belongs here: one function for each kind of import, and what they share. Does not belong here: formats (``readers``),
rows at rest (``measurements``), decisions about sessions. One bad file refuses its whole import: nothing is half added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from heimdall_assets.errors import InvalidInput, InvalidRecording, InvalidTable, NotFound
from heimdall_assets.manifests import BINARY_MEDIA_TYPE, NPY_MEDIA_TYPE, compute_digest
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.identities import compute_id, make_station
from heimdall_assets.stores.measurements import ImportReport, MeasurementStore
from heimdall_assets.stores.objects import ObjectStore
from heimdall_assets.stores.readers.kiwisdr import parse_kiwisdr, parse_kiwisdr_name
from heimdall_assets.stores.readers.npy import decode_npy
from heimdall_assets.stores.readers.rss_table import decode_receivers, decode_rss_table
from heimdall_assets.stores.readers.sigmf import decode_sigmf, pack_sigmf
from heimdall_assets.stores.rss_batch import (
    DEFAULT_ERROR_MARGIN_M,
    DEFAULT_FREQUENCY_HZ,
    DEFAULT_SOURCE_TYPE,
    build_rss_batch,
)

WAV_MEDIA_TYPE = "audio/vnd.wave"
_BYTES_A_SAMPLE = 32  # of the most spacious format, with its headers: bounds a file's size by the longest recording
_HEAD_BYTES = 8_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Part:
    """One receiver's file of a session, decoded and checked; its bytes are read again when they are stored."""

    path: Path
    station: str
    digest: str
    iq_format: IqFormat
    sample_rate_hz: float
    num_samples: int
    start_unix_ns: int
    frequency_hz: float
    attributes: dict[str, Any]

    @property
    def end_unix_ns(self) -> int:
        return self.start_unix_ns + round(self.num_samples / self.sample_rate_hz * 1e9)


@dataclass(frozen=True)
class _Decoded:
    station: str
    recording: Recording
    frequency_hz: float
    attributes: dict[str, Any]


def import_kiwisdr(
    measurements: MeasurementStore,
    objects: ObjectStore,
    *,
    session_name: str,
    source: Source,
    receivers: Mapping[str, Position],
    files: Sequence[Path],
    campaign: str,
    recording_spec: RecordingSpec | None = None,
) -> ImportReport:
    """Return the report of one pending session made of GNSS-stamped KiwiSDR files, stored as they are.

    Args:
        measurements: where the rows go.
        objects: where the files go.
        session_name: name of the session; with ``campaign`` its identity.
        source: the transmitter (see ``identities.make_source``).
        receivers: station code -> position; the code is the station part of a file's name.
        files: one file a receiver, such as ``20171127T104156Z_77500_F1JEK_iq.wav``.
        campaign: the campaign that the session belongs to.
        recording_spec: limits of a usable recording.

    Raises:
        InvalidRecording: a file that cannot be read, timed or used, twice the same station, an unknown code, or files
            that do not overlap in time. Nothing is added.
    """
    spec = recording_spec or RecordingSpec()  # type: ignore[call-arg]

    def decode(data: bytes, path: Path) -> _Decoded:
        named = parse_kiwisdr_name(path.name)
        recording, axis = parse_kiwisdr(data, name=path.name, max_samples=spec.max_samples)
        attributes = {
            "num_fresh_stamps": axis.num_fresh,
            "num_stale_blocks_left_out": axis.num_stale_blocks,
        }
        return _Decoded(named.station, recording, named.centre_frequency_hz, attributes)

    for path in files:  # all names before the first of many megabytes is read
        _check_station(parse_kiwisdr_name(Path(path).name).station, receivers, Path(path).name)
    parts = [_examine(Path(path), IqFormat.KIWISDR_WAV, decode, _read_file, spec) for path in files]
    return _add_session(
        measurements, objects, session_name, source, receivers, parts, campaign, ClockClass.GNSS, spec, _read_file
    )


def import_npy(
    measurements: MeasurementStore,
    objects: ObjectStore,
    *,
    session_name: str,
    source: Source,
    receivers: Mapping[str, Position],
    files: Sequence[Path],
    campaign: str,
    sample_rate_hz: float,
    start_unix_ns: int,
    frequency_hz: float,
    clock_class: ClockClass = ClockClass.NONE,
    recording_spec: RecordingSpec | None = None,
) -> ImportReport:
    """Return the report of one pending session made of ``.npy`` files, stored as they are.

    A file belongs to the station that its name without ending is, or that follows ``websdr_`` or the last underscore.

    Args:
        measurements: where the rows go.
        objects: where the files go.
        session_name: name of the session; with ``campaign`` its identity.
        source: the transmitter.
        receivers: station code -> position.
        files: one file a receiver.
        campaign: the campaign that the session belongs to.
        sample_rate_hz: rate of all files, which cannot say it themselves.
        start_unix_ns: time of the first sample of all files, ns since 1970-01-01 UTC.
        frequency_hz: radio frequency of 0 Hz baseband.
        clock_class: how the receivers were timed; ``none`` gives no delays.
        recording_spec: limits of a usable recording.

    Raises:
        InvalidRecording: a file that cannot be read or used, twice the same station, or an unknown one; nothing is
            added.
    """
    spec = recording_spec or RecordingSpec()  # type: ignore[call-arg]

    def decode(data: bytes, path: Path) -> _Decoded:
        recording = decode_npy(
            data,
            name=path.name,
            sample_rate_hz=sample_rate_hz,
            start_unix_ns=start_unix_ns,
            max_samples=spec.max_samples,
        )
        return _Decoded(_find_station(path, receivers), recording, frequency_hz, {})

    for path in files:
        _find_station(Path(path), receivers)
    parts = [_examine(Path(path), IqFormat.NPY, decode, _read_file, spec) for path in files]
    return _add_session(
        measurements, objects, session_name, source, receivers, parts, campaign, clock_class, spec, _read_file
    )


def import_sigmf(
    measurements: MeasurementStore,
    objects: ObjectStore,
    *,
    session_name: str,
    source: Source,
    receivers: Mapping[str, Position],
    files: Sequence[Path],
    campaign: str,
    frequency_hz: float | None = None,
    clock_class: ClockClass = ClockClass.NONE,
    recording_spec: RecordingSpec | None = None,
) -> ImportReport:
    """Return the report of one pending session made of SigMF recordings.

    Archives (``.sigmf``) are stored as they are; a ``.sigmf-meta`` with its ``.sigmf-data`` beside it is packed into an
    archive that holds the bytes of both. A file belongs to the station that its name says, as for ``import_npy``.

    Args:
        measurements: where the rows go.
        objects: where the archives go.
        session_name: name of the session; with ``campaign`` its identity.
        source: the transmitter.
        receivers: station code -> position.
        files: one archive or ``.sigmf-meta`` a receiver; the ``.sigmf-data`` beside it may be listed too.
        campaign: the campaign that the session belongs to.
        frequency_hz: radio frequency of recordings that do not say it.
        clock_class: how the receivers were timed; ``none`` gives no delays.
        recording_spec: limits of a usable recording.

    Raises:
        InvalidRecording: a file that cannot be read, timed or used, twice the same station, an unknown one, or files
            that do not overlap in time. Nothing is added.
    """
    spec = recording_spec or RecordingSpec()  # type: ignore[call-arg]

    def decode(data: bytes, path: Path) -> _Decoded:
        recording = decode_sigmf(data, name=path.name, max_samples=spec.max_samples)
        frequency = recording.centre_frequency_hz if recording.centre_frequency_hz is not None else frequency_hz
        if frequency is None:
            raise InvalidRecording(f"{path.name}: no core:frequency, expected one, or a frequency given for the import")
        return _Decoded(_find_station(path, receivers), recording, frequency, {})

    paths = _select_sigmf(files)
    for path in paths:
        _find_station(path, receivers)
    parts = [_examine(path, IqFormat.SIGMF, decode, _read_sigmf, spec) for path in paths]
    return _add_session(
        measurements, objects, session_name, source, receivers, parts, campaign, clock_class, spec, _read_sigmf
    )


def import_rss_table(
    measurements: MeasurementStore,
    *,
    table: Path,
    receivers: Path,
    campaign: str,
    where: Mapping[str, str] | None = None,
    frequency_hz: float = DEFAULT_FREQUENCY_HZ,
    error_margin_m: float = DEFAULT_ERROR_MARGIN_M,
    source_type: str = DEFAULT_SOURCE_TYPE,
) -> ImportReport:
    """Return the report of one pending session for each chosen row of a table of received levels.

    Args:
        measurements: where the rows go.
        table: CSV with one row a transmission (see ``readers.rss_table``).
        receivers: JSON with the receivers' positions, null for moving ones.
        campaign: the campaign that the sessions belong to; part of their identity.
        where: column -> value that a row must hold to be imported.
        frequency_hz: what was transmitted on; the table does not say. Default: the 462.7 MHz that the publisher states.
        error_margin_m: one-sigma error of the transmitter's position. Default: a handheld's GNSS receiver.
        source_type: what kind of transmitters these are.

    Raises:
        InvalidTable: the table or the receiver list is not what it should be; nothing is added.
    """
    table, receivers = Path(table), Path(receivers)
    listed = decode_receivers(_read_table(receivers), name=receivers.name)
    rows = decode_rss_table(_read_table(table), listed, name=table.name, where=where)
    batch = build_rss_batch(
        rows,
        campaign=campaign,
        frequency_hz=frequency_hz,
        error_margin_m=error_margin_m,
        source_type=source_type,
    )
    return measurements.add(batch)


_Reader = Callable[[Path, RecordingSpec], bytes]


def _examine(
    path: Path,
    iq_format: IqFormat,
    decode: Callable[[bytes, Path], _Decoded],
    read: _Reader,
    spec: RecordingSpec,
) -> _Part:
    data = read(path, spec)
    decoded = decode(data, path)
    recording = decoded.recording
    facts = check_recording(recording, spec, name=path.name)
    if recording.start_unix_ns is None:
        raise InvalidRecording(f"{path.name}: does not say when it starts, expected a time (core:datetime)")
    facts = {name: facts[name] for name in ("rms_dbfs", "peak_dbfs", "dc_dbfs", "clipped_fraction", "zero_fraction")}
    return _Part(
        path=path,
        station=decoded.station,
        digest=compute_digest(data),
        iq_format=iq_format,
        sample_rate_hz=recording.sample_rate_hz,
        num_samples=len(recording.samples),
        start_unix_ns=recording.start_unix_ns,
        frequency_hz=decoded.frequency_hz,
        attributes={
            "file_name": path.name,
            "timing_sigma_s": recording.timing_sigma_s,
            **facts,
            **decoded.attributes,
        },
    )


def _add_session(
    measurements: MeasurementStore,
    objects: ObjectStore,
    session_name: str,
    source: Source,
    receivers: Mapping[str, Position],
    parts: Sequence[_Part],
    campaign: str,
    clock_class: ClockClass,
    spec: RecordingSpec,
    read: _Reader,
) -> ImportReport:
    check_name(session_name, "session")
    check_name(campaign, "campaign")
    _check_parts(parts, spec, session_name)
    session = Session(
        id=compute_id("session", campaign, session_name),
        name=session_name,
        source_id=source.id,
        campaign=campaign,
        origin=Origin.MEASURED,
        start=_to_datetime(min(part.start_unix_ns for part in parts)),
        end=_to_datetime(max(part.end_unix_ns for part in parts)),
    )
    stations = [make_station(part.station, receivers[part.station], clock_class) for part in parts]
    batch = ImportBatch(
        stations=stations,
        sources=[source],
        sessions=[session],
        measurements=[
            _build_measurement(part, station, session) for part, station in zip(parts, stations, strict=True)
        ],
    )
    for part in parts:
        _store(part, objects, read(part.path, spec))
    return measurements.add(batch)


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


def _build_measurement(part: _Part, station: Station, session: Session) -> Measurement:
    return Measurement(
        id=compute_id("measurement", session.id, station.id),
        session_id=session.id,
        station_id=station.id,
        timestamp=_to_datetime(part.start_unix_ns),
        frequency_hz=part.frequency_hz,
        iq_data_location=f"sha256:{part.digest}",
        iq_data_format=part.iq_format,
        iq_sample_rate_hz=part.sample_rate_hz,
        iq_samples_count=part.num_samples,
        iq_start_unix_ns=part.start_unix_ns,
        duration_s=part.num_samples / part.sample_rate_hz,
        attributes=part.attributes,
    )


def _store(part: _Part, objects: ObjectStore, data: bytes) -> None:
    if compute_digest(data) != part.digest:
        raise InvalidRecording(f"{part.path.name}: changed while it was imported, expected the bytes that were checked")
    media_type = {IqFormat.NPY: NPY_MEDIA_TYPE, IqFormat.KIWISDR_WAV: WAV_MEDIA_TYPE}
    objects.put_bytes(data, media_type.get(part.iq_format, BINARY_MEDIA_TYPE))


def _to_datetime(unix_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_ns // 1000)


def _check_station(station: str, receivers: Mapping[str, Position], name: str) -> None:
    if station not in receivers:
        raise InvalidRecording(f"{name}: no position for station {station}, expected one of {_list_names(receivers)}")


def _find_station(path: Path, receivers: Mapping[str, Position]) -> str:
    stem = path.name.removesuffix(path.suffix)
    for station in (stem, stem.removeprefix("websdr_"), stem.rpartition("_")[2]):
        if station in receivers:
            return station
    raise InvalidRecording(f"{path.name}: names no known station, expected one of {_list_names(receivers)}")


def _list_names(receivers: Mapping[str, Position]) -> str:
    return ", ".join(sorted(receivers)) or "at least one receiver"


def _select_sigmf(files: Sequence[Path]) -> list[Path]:
    """Return archives and metadata files; a dataset counts with the metadata beside it."""
    paths = [Path(path) for path in files]
    for path in paths:
        if path.suffix == ".sigmf-data" and path.with_suffix(".sigmf-meta") not in paths:
            raise InvalidRecording(f"{path.name}: without its .sigmf-meta, expected the metadata file named")
        if path.suffix not in (".sigmf", ".sigmf-meta", ".sigmf-data"):
            raise InvalidRecording(
                f"{path.name}: expected a .sigmf archive or a .sigmf-meta with .sigmf-data beside it"
            )
    return [path for path in paths if path.suffix != ".sigmf-data"]


def _read_sigmf(path: Path, spec: RecordingSpec) -> bytes:
    if path.suffix == ".sigmf":
        return _read_file(path, spec)
    samples = _read_file(path.with_suffix(".sigmf-data"), spec)
    return pack_sigmf(_read_file(path, spec), samples, stem=path.stem)


def _read_file(path: Path, spec: RecordingSpec) -> bytes:
    return _read_bounded(path, spec.max_samples * _BYTES_A_SAMPLE + _HEAD_BYTES, InvalidRecording)


def _read_table(path: Path) -> bytes:
    return _read_bounded(path, 1_000_000_000, InvalidTable)


def _read_bounded(path: Path, max_bytes: int, error: type[InvalidInput]) -> bytes:
    """Return the bytes of a plain file of at most ``max_bytes``; a device or pipe would never end."""
    try:
        if not path.is_file():
            raise NotFound(f"{path}: no such file")
        if path.stat().st_size > max_bytes:
            raise error(f"{path.name}: {path.stat().st_size} bytes, expected at most {max_bytes}")
        return path.read_bytes()
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror})") from None
