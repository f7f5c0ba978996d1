"""Files handed in: which format each has, what lies beside it, which station made it, and what is said of it.

Belongs here: from paths to bytes with everything that is known about them. Does not belong here: decoding
(``formats``), what the files of one session must have in common (``iq_session``).

What whoever imports says counts before a sidecar, a sidecar before the file's name; a file's own word is compared with
the first two, and counts before its name, which is often rounded.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heimdall_assets.domain import Position, check_name
from heimdall_assets.errors import InvalidIdentifier, InvalidRecording, InvalidSetting
from heimdall_assets.formats import FORMATS, tell_format
from heimdall_assets.formats.interface import HEAD_BYTES, WORDS, Collection, FileName, Format, Stated
from heimdall_assets.physical import ClockClass, Recording
from heimdall_assets.pipeline.intake.layout import NOTHING_LAID_OUT, Layout
from heimdall_assets.pipeline.intake.sidecars import SIDECAR, parse_layout, parse_sidecar, read_bounded, read_sidecar
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.objects.regular_files import check_regular_file

_BYTES_A_SAMPLE = 32  # of the most spacious format, with its headers: bounds a file's size by the longest recording
_HEAD_BYTES = 8_000_000


@dataclass(frozen=True)
class Handed:
    """One file as it is handed in.

    Attributes:
        path: of the file.
        station: whose recording it is; None: sidecar, name or place say it.
        channel: which of its channels, from 1; None: it has one.
    """

    path: Path
    station: str | None = None
    channel: int | None = None


@dataclass(frozen=True)
class Told:
    """What is known of a file before it is decoded.

    Attributes:
        handed: the file.
        format: how it is written.
        stated: what is said of it, by whoever imports or by its sidecar.
        file_name: what its name says.
        position: where its sidecar says that the receiver stood; None: it does not.
        clock_class: how it was timed, as its format or its sidecar says; None: whoever imports says it.
        layout: which part of it holds what, as its sidecar says.
    """

    handed: Handed
    format: Format
    stated: Stated
    file_name: FileName
    position: Position | None
    clock_class: ClockClass | None
    layout: Layout = NOTHING_LAID_OUT

    def decode(self, data: bytes, spec: RecordingSpec) -> Recording:
        """Return the recording of the file's bytes, its gaps filled by what the file's name says.

        Raises:
            InvalidRecording: as the format's ``decode``.
        """
        named = self.file_name.stated
        rate_hz = self.stated.sample_rate_hz if self.stated.sample_rate_hz is not None else named.sample_rate_hz
        stated = replace(self.stated, sample_rate_hz=rate_hz)
        recording = self.format.decode(data, self.handed.path.name, stated, spec.max_samples)
        if recording.start_unix_ns is None and named.start_unix_ns is not None:
            recording = replace(recording, start_unix_ns=named.start_unix_ns, timing_sigma_s=named.start_sigma_s)
        if recording.centre_frequency_hz is None:
            recording = replace(recording, centre_frequency_hz=named.frequency_hz)
        return recording

    def tell(self, recording: Recording) -> Stated:
        """Return what of ``recording`` its bytes alone do not say: a row must keep it to decode them again."""
        beside = self.stated.or_else(self.file_name.stated)
        # A file that says its start says its sigma too: what a name has of it, to the second, is not the recording's.
        is_told_beside = beside.start_unix_ns == recording.start_unix_ns
        return replace(beside, start_sigma_s=beside.start_sigma_s if is_told_beside else None)


def read_recording(told: Told, spec: RecordingSpec) -> bytes:
    """Return the bytes of a file, those of several parts packed into one.

    Raises:
        NotFound: the file or a part of it is not there.
        InvalidRecording: it is longer than the longest recording allowed, or cannot be read.
    """
    path, parts = told.handed.path, told.format.parts
    max_bytes = spec.max_samples * _BYTES_A_SAMPLE + _HEAD_BYTES
    data = read_bounded(path, max_bytes, InvalidRecording)
    if parts is None or not path.name.endswith(parts.main):
        return data
    others = {
        name: read_bounded(path.with_name(name), max_bytes, InvalidRecording)
        for name in parts.list_others(path.name, data)
    }
    return parts.pack(path.name, data, others)


def list_read(told: Told) -> list[Path]:
    """Return every file that a recording is read from: its own, its other parts, what stands beside it.

    Raises:
        NotFound: its own file is not there.
        InvalidRecording: that cannot be read, or does not name its parts.
    """
    path, parts = told.handed.path, told.format.parts
    beside = path.with_name(path.name + SIDECAR)
    found = [path, beside] if beside.exists() else [path]
    if parts is not None and path.name.endswith(parts.main):
        named = parts.list_others(path.name, read_bounded(path, _HEAD_BYTES, InvalidRecording))
        found += [path.with_name(name) for name in named]
    return found


def find_format(path: Path, name: str | None = None) -> Format:
    """Return the format of a file: the one that is named, or that its first bytes or the end of its name tell.

    Raises:
        InvalidSetting: no format is called ``name``, or none is told.
        InvalidRecording: the file cannot be read, or is no regular file.
    """
    if name is not None:
        by_command = {known.command: known for known in FORMATS.values()} | FORMATS
        if name not in by_command:
            raise InvalidSetting(
                f"format {name!r:.40}: expected one of {', '.join(sorted({f.command for f in FORMATS.values()}))}"
            )
        return by_command[name]
    check_regular_file(path, error=InvalidRecording)
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as cause:
        raise InvalidRecording(f"{path}: cannot be read ({cause.strerror})") from None
    found = tell_format(path.name, head)
    if found is None:
        endings = sorted({ending for known in FORMATS.values() for ending in known.endings})
        raise InvalidSetting(
            f"{path.name}: neither its first bytes nor its name tell its format, expected a name that ends in one of "
            f"{', '.join(endings)}, or the format named"
        )
    return found


def gather_files(handed: Sequence[Handed], stated: Stated, format_name: str | None = None) -> list[Told]:
    """Return what is known of each file; collections give their recordings, a part counts with its main file.

    Args:
        handed: the files.
        stated: what whoever imports says of all of them; a start is that of all, to the nanosecond.
        format_name: how all are written; None: each tells it.

    Raises:
        InvalidSetting: a format that is not told, or something is stated that files of it say themselves, or nothing
            where they cannot.
        InvalidRecording: a sidecar or a collection is not what it should be, or a part comes without its main file.
    """
    return [tell_file(one, stated, format_name) for one in _expand(handed)]


def _expand(handed: Sequence[Handed]) -> list[Handed]:
    """Return each recording once: members in place of a collection, nothing for a part beside its main file."""
    listed: list[Handed] = []
    names = {one.path for one in handed}
    for one in handed:
        known = [found.collection for found in FORMATS.values() if found.collection is not None]
        collection = next((found for found in known if one.path.name.endswith(found.ending)), None)
        if collection is not None:
            listed += _list_members(one.path, collection)
            continue
        parts = next((f.parts for f in FORMATS.values() if f.parts and one.path.name.endswith(f.parts.other)), None)
        if parts is None:
            listed.append(one)
        elif one.path.with_name(one.path.name.removesuffix(parts.other) + parts.main) not in names:
            raise InvalidRecording(f"{one.path.name}: without its {parts.main}, expected the metadata file named")
    return listed


def _list_members(path: Path, collection: Collection) -> list[Handed]:
    """Return the recordings that a collection lists, their metadata compared with its hashes."""
    members = []
    for name, digest in collection.list_members(read_bounded(path, _HEAD_BYTES, InvalidRecording), path.name).items():
        member = path.with_name(name)
        if hashlib.sha512(read_bounded(member, _HEAD_BYTES, InvalidRecording)).hexdigest() != digest.lower():
            raise InvalidRecording(
                f"{name}: does not match its hash in {path.name}, expected the bytes that were hashed"
            )
        members.append(Handed(member))
    return members


def tell_file(
    handed: Handed, stated: Stated, format_name: str | None, is_complete: bool = True, is_lenient: bool = False
) -> Told:
    """Return what is known of one file before it is decoded.

    Args:
        handed: the file.
        stated: what whoever imports says of it.
        format_name: how it is written; None: it tells.
        is_complete: whether everything that no file of its format says must be said by now.
        is_lenient: whether what is stated although files of its format say it is left out rather than refused: it was
            said of another file.

    Raises:
        InvalidSetting: as ``gather_files``.
        InvalidRecording: its sidecar is not what it should be.
    """
    path = handed.path
    found = find_format(path, format_name)
    sidecar = read_sidecar(path)
    if is_lenient:
        stated = replace(stated, **{name: None for name in stated.list_said() if name not in found.may_state})
    said = replace(stated, channel=handed.channel)
    if sidecar is not None:
        said = said.or_else(parse_sidecar(sidecar, path))
    file_name = found.read_name(path.name)
    _check_allowed(said, found, path.name)
    if is_complete:
        _check_complete(said.or_else(file_name.stated), found, path.name)
    clock, position = (sidecar.clock_class, sidecar.position) if sidecar is not None else (None, None)
    if found.clock_class is not None and clock is not None:
        raise InvalidSetting(f"{path.name}: found a stated clock {clock}, expected none: the file says it")
    station = handed.station or (sidecar.station if sidecar is not None else None)
    layout = parse_layout(sidecar, path) if sidecar is not None else NOTHING_LAID_OUT
    return Told(replace(handed, station=station), found, said, file_name, position, found.clock_class or clock, layout)


def _check_allowed(said: Stated, found: Format, name: str) -> None:
    for attribute in said.list_said():
        if attribute != "start_sigma_s" and attribute not in found.may_state:
            value = getattr(said, attribute)
            raise InvalidSetting(f"{name}: found a stated {WORDS[attribute]} {value}, expected none: the file says it")


def _check_complete(known: Stated, found: Format, name: str) -> None:
    needed = [name for name in WORDS if name in found.must_state]
    missing = [WORDS[attribute] for attribute in needed if getattr(known, attribute) is None]
    if missing:
        raise InvalidSetting(
            f"{name}: found no {' and '.join(missing)}, expected it stated: a file of this format ({found.command}) "
            "carries none"
        )


def find_station(told: Told, receivers: Mapping[str, Position], has_place: bool) -> str:
    """Return the code of the station that made a file: as handed in, as its name says, or as a receiver is called.

    Args:
        told: the file.
        receivers: station code -> position, as stated.
        has_place: whether the file or its sidecar says where it was made: then its station needs no stated one.

    Raises:
        InvalidRecording: no station is named, or one without a position.
    """
    path = told.handed.path
    if told.handed.station is not None:
        station = told.handed.station
    elif told.file_name.station is not None and (has_place or told.file_name.station in receivers):
        station = told.file_name.station
    else:
        stem = told.format.strip_ending(path.name)
        candidates = [stem, stem.removeprefix("websdr_"), stem.rpartition("_")[2]]
        otherwise = told.file_name.station or (stem if has_place else "")
        station = next((code for code in candidates if code in receivers), otherwise)
    if station in receivers:
        return station
    listed = ", ".join(sorted(receivers))
    if not station:
        expected = f"one of {listed}" if receivers else "it said (--recording CODE=FILE and --receiver CODE,LAT,LON)"
        raise InvalidRecording(f"{path.name}: names no known station, expected {expected}")
    if not has_place:
        expected = f"one of {listed}" if receivers else f"--receiver {station},LAT,LON"
        raise InvalidRecording(f"{path.name}: no position for station {station}, expected {expected}")
    try:
        return check_name(station, "station")
    except InvalidIdentifier:
        raise InvalidRecording(f"{path.name}: names no station, expected it said (--recording CODE=FILE)") from None
