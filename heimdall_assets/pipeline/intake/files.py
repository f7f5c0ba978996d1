"""Files of strangers to pending sessions: everything is decoded and checked first, then stored, then one transaction.

Belongs here: one function for each kind of import. Does not belong here: formats (``formats``), what the files of a
session must have in common (``iq_session``), rows at rest (``database.additions``), decisions about sessions.

One bad file refuses its whole import: nothing is half added. An import is idempotent: the same files add nothing twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heimdall_assets.domain import ClockClass, IqFormat, Position
from heimdall_assets.errors import InvalidRecording, InvalidSetting, InvalidTable
from heimdall_assets.formats.kiwisdr import parse_kiwisdr, parse_kiwisdr_name
from heimdall_assets.formats.npy import decode_npy
from heimdall_assets.formats.rss_table import decode_receivers, decode_rss_table
from heimdall_assets.formats.sigmf import decode_sigmf, pack_sigmf
from heimdall_assets.pipeline.intake.iq_session import (
    Decoded,
    SessionClaim,
    add_iq_session,
    read_bounded,
    read_recording,
)
from heimdall_assets.pipeline.intake.level_table import (
    DEFAULT_ERROR_MARGIN_M,
    DEFAULT_FREQUENCY_HZ,
    DEFAULT_SOURCE_TYPE,
    build_rss_batch,
)
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.database.measurements import ImportReport, MeasurementStore
from heimdall_assets.stores.objects.folder import ObjectStore

_DEFAULTS = RecordingSpec()


@dataclass(frozen=True)
class Stated:
    """What is said beside files that cannot say it themselves; None: nothing is said.

    Attributes:
        sample_rate_hz: rate of all files.
        start_unix_ns: time of the first sample of all files, ns since 1970-01-01 UTC.
        frequency_hz: radio frequency of 0 Hz baseband.
    """

    sample_rate_hz: float | None = None
    start_unix_ns: int | None = None
    frequency_hz: float | None = None


def import_kiwisdr(
    measurements: MeasurementStore,
    objects: ObjectStore,
    claim: SessionClaim,
    files: Sequence[Path],
    spec: RecordingSpec = _DEFAULTS,
) -> ImportReport:
    """Return the report of one pending session made of GNSS-stamped KiwiSDR files, stored as they are.

    Args:
        measurements: where the rows go.
        objects: where the files go.
        claim: the session; a station's code is the station part of a file's name, and its clock is GNSS by format.
        files: one file a receiver, such as ``20171127T104156Z_77500_F1JEK_iq.wav``.
        spec: limits of a usable recording.

    Raises:
        InvalidRecording: a file that cannot be read, timed or used, twice the same station, an unknown code, or files
            that do not overlap in time. Nothing is added.
    """

    def decode(data: bytes, path: Path) -> Decoded:
        named = parse_kiwisdr_name(path.name)
        recording, axis = parse_kiwisdr(data, name=path.name, max_samples=spec.max_samples)
        attributes = {
            "num_fresh_stamps": axis.num_fresh,
            "num_stale_blocks_left_out": axis.num_stale_blocks,
        }
        return Decoded(named.station, recording, named.centre_frequency_hz, attributes)

    for path in files:  # all names before the first of many megabytes is read
        _check_station(parse_kiwisdr_name(Path(path).name).station, claim.receivers, Path(path).name)
    timed = replace(claim, clock_class=ClockClass.GNSS)
    return add_iq_session(measurements, objects, timed, IqFormat.KIWISDR_WAV, files, decode, spec)


def import_npy(
    measurements: MeasurementStore,
    objects: ObjectStore,
    claim: SessionClaim,
    files: Sequence[Path],
    stated: Stated,
    spec: RecordingSpec = _DEFAULTS,
) -> ImportReport:
    """Return the report of one pending session made of ``.npy`` files, stored as they are.

    A file belongs to the station that its name without ending is, or that follows ``websdr_`` or the last underscore.

    Args:
        measurements: where the rows go.
        objects: where the files go.
        claim: the session.
        files: one file a receiver.
        stated: rate, start and frequency, which the files cannot say.
        spec: limits of a usable recording.

    Raises:
        InvalidSetting: rate, start or frequency is not stated.
        InvalidRecording: a file that cannot be read or used, twice the same station, or an unknown one; nothing is
            added.
    """
    rate_hz, frequency_hz = stated.sample_rate_hz, stated.frequency_hz
    if rate_hz is None or stated.start_unix_ns is None or frequency_hz is None:
        names = {"sample rate": rate_hz, "start": stated.start_unix_ns, "frequency": frequency_hz}
        missing = " and ".join(name for name, value in names.items() if value is None)
        raise InvalidSetting(f"{_name_first(files)}: found no {missing}, expected it stated: a .npy file carries none")

    def decode(data: bytes, path: Path) -> Decoded:
        recording = decode_npy(
            data,
            name=path.name,
            sample_rate_hz=rate_hz,
            start_unix_ns=stated.start_unix_ns,
            max_samples=spec.max_samples,
        )
        return Decoded(_find_station(path, claim.receivers), recording, frequency_hz, {})

    for path in files:
        _find_station(Path(path), claim.receivers)
    return add_iq_session(measurements, objects, claim, IqFormat.NPY, files, decode, spec)


def import_sigmf(
    measurements: MeasurementStore,
    objects: ObjectStore,
    claim: SessionClaim,
    files: Sequence[Path],
    stated: Stated = Stated(),
    spec: RecordingSpec = _DEFAULTS,
) -> ImportReport:
    """Return the report of one pending session made of SigMF recordings.

    Archives (``.sigmf``) are stored as they are; a ``.sigmf-meta`` with its ``.sigmf-data`` beside it is packed into an
    archive that holds the bytes of both. A file belongs to the station that its name says, as for ``import_npy``.

    Args:
        measurements: where the rows go.
        objects: where the archives go.
        claim: the session.
        files: one archive or ``.sigmf-meta`` a receiver; the ``.sigmf-data`` beside it may be listed too.
        stated: the frequency of recordings that do not say it.
        spec: limits of a usable recording.

    Raises:
        InvalidRecording: a file that cannot be read, timed or used, twice the same station, an unknown one, or files
            that do not overlap in time. Nothing is added.
    """

    def decode(data: bytes, path: Path) -> Decoded:
        recording = decode_sigmf(data, name=path.name, max_samples=spec.max_samples)
        said_hz = recording.centre_frequency_hz
        frequency_hz = said_hz if said_hz is not None else stated.frequency_hz
        if frequency_hz is None:
            raise InvalidRecording(f"{path.name}: no core:frequency, expected one, or a frequency given for the import")
        return Decoded(_find_station(path, claim.receivers), recording, frequency_hz, {})

    paths = _select_sigmf(files)
    for path in paths:
        _find_station(path, claim.receivers)
    return add_iq_session(measurements, objects, claim, IqFormat.SIGMF, paths, decode, spec, read=_read_sigmf)


def import_recordings(
    measurements: MeasurementStore, objects: ObjectStore, claim: SessionClaim, files: Sequence[Path], stated: Stated
) -> ImportReport:
    """Return the report of one pending session made of recordings whose kind their names tell.

    Args:
        measurements: where the rows go.
        objects: where the files go.
        claim: the session.
        files: all ``.wav`` (KiwiSDR), all SigMF or all ``.npy``.
        stated: what they cannot say themselves, and nothing else.

    Raises:
        InvalidSetting: files of several kinds or of another one; something is stated that they say themselves, or
            nothing where they cannot.
        InvalidRecording: as for the kind.
    """
    kinds = {Path(path).suffix.removesuffix("-meta").removesuffix("-data") for path in files}
    if kinds == {".npy"}:
        return import_npy(measurements, objects, claim, files, stated)
    if kinds == {".sigmf"}:
        _refuse_stated(files, {"sample rate": stated.sample_rate_hz, "start": stated.start_unix_ns})
        return import_sigmf(measurements, objects, claim, files, stated)
    if kinds == {".wav"}:
        clock = None if claim.clock_class is ClockClass.NONE else claim.clock_class
        said = {"sample rate": stated.sample_rate_hz, "start": stated.start_unix_ns, "frequency": stated.frequency_hz}
        _refuse_stated(files, said | {"clock": clock})
        return import_kiwisdr(measurements, objects, claim, files)
    found = ", ".join(sorted(kind or "no ending" for kind in kinds))
    raise InvalidSetting(f"files: found {found}, expected all .wav (KiwiSDR), all .sigmf or all .npy")


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
        table: CSV with one row a transmission (see ``formats.rss_table``).
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


def _name_first(files: Sequence[Path]) -> str:
    return Path(files[0]).name if files else "files"


def _refuse_stated(files: Sequence[Path], stated: Mapping[str, object]) -> None:
    for name, value in stated.items():
        if value is not None:
            raise InvalidSetting(
                f"{_name_first(files)}: found a stated {name} {value}, expected none: the file says it"
            )


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
        return read_recording(path, spec)
    samples = read_recording(path.with_suffix(".sigmf-data"), spec)
    return pack_sigmf(read_recording(path, spec), samples, stem=path.stem)


def _read_table(path: Path) -> bytes:
    return read_bounded(path, 1_000_000_000, InvalidTable)
