"""Inspection: what a file is, what it holds, and what is missing to import it, as the command to type.

Belongs here: looking at one file without a home, recordings above all. Does not belong here: tables
(``table_inspection``), importing (``files``), drawing (``evaluation.figures.recording_picture``).
"""

import shlex
from pathlib import Path
from typing import Any

from heimdall_assets.errors import HeimdallError, InvalidSetting
from heimdall_assets.formats import FORMATS, Stated
from heimdall_assets.formats.guessing import guess_coding
from heimdall_assets.formats.interface import Format
from heimdall_assets.physical import Recording
from heimdall_assets.pipeline.intake.handed_in import Handed, Told, find_format, read_recording, tell_file
from heimdall_assets.pipeline.intake.inspected import Inspection
from heimdall_assets.pipeline.intake.strange_files import name_strange
from heimdall_assets.pipeline.intake.table_inspection import inspect_table
from heimdall_assets.pipeline.intake.table_trials import HEAD_BYTES
from heimdall_assets.signals.iq import check_recording
from heimdall_assets.specs import RecordingSpec

_OPTIONS = {
    "sample_rate_hz": "--rate-hz RATE",
    "start_unix_ns": "--start TIME",
    "frequency_hz": "--frequency-hz HZ",
}
_HEAD_BYTES = 1 << 16
_MAX_LISTED_BYTES = 64_000_000
_TOO_LONG = (
    f"longer than the {_MAX_LISTED_BYTES} bytes of such a file that are looked at here; heimdall import rss-table "
    "reads it all the same"
)


def inspect_file(path: Path, stated: Stated, format_name: str | None = None) -> Inspection:
    """Return what a file is and holds; whatever is wrong with it stands in ``problem``, nothing is raised for it.

    Args:
        path: any file.
        stated: what its owner says of it.
        format_name: how it is written, where its owner knows; None: it tells, or its bytes are guessed from.

    Raises:
        InvalidSetting: no format is called ``format_name``.
    """
    if format_name is not None:
        find_format(path, format_name)  # a wrong name is the asker's mistake, not the file's
    try:
        name, is_guess = (format_name, False) if format_name is not None else _name_format(path)
        if is_guess and (other := _inspect_other(path)) is not None:
            return other
        if name is None:
            return Inspection(path, "no recording that is known here", _size(path), problem=_say_unknown(path))
        told = tell_file(Handed(path), stated, name, is_complete=False)
    except HeimdallError as error:
        return Inspection(path, "no file that can be read", problem=str(error))
    return _look_inside(path, told, is_guess)


def _name_format(path: Path) -> tuple[str | None, bool]:
    """Return the format that a file tells, or that its bytes look like, and whether it is a guess."""
    try:
        return find_format(path).name, False
    except InvalidSetting:
        with path.open("rb") as stream:
            return guess_coding(stream.read(_HEAD_BYTES)), True


def _inspect_other(path: Path) -> Inspection | None:
    """Return what a file is that no format of recordings tells: a table, or what is not read here; None: neither."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        is_archive = head.startswith(b"PK") and size <= _MAX_LISTED_BYTES  # it lists its members at its end
        head_or_all = head + stream.read() if is_archive else head
        strange = name_strange(head_or_all, is_whole=len(head_or_all) >= size)
    if strange is not None:
        return Inspection(path, strange[0], _size(path), problem=f"{path.name}: {strange[1]}")
    if head.startswith(b"PAR1"):  # it says at its end what it holds
        if size > _MAX_LISTED_BYTES:
            return Inspection(path, "table, Parquet", _size(path), problem=f"{path.name}: {_TOO_LONG}")
        head = path.read_bytes()
    return inspect_table(path, head, is_cut=size > len(head))


def _size(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size}


def _say_unknown(path: Path) -> str:
    titles = "; ".join([*sorted(known.title for known in FORMATS.values()), "a table of received levels"])
    return f"{path.name}: neither first bytes nor name nor the look of its samples tell what it is, expected {titles}"


def _look_inside(path: Path, told: Told, is_guess: bool) -> Inspection:
    found, spec = told.format, RecordingSpec()
    title = f"looks like {found.title}; its name does not say so" if is_guess else found.title
    known = told.stated.or_else(told.file_name.stated)
    missing = {name for name in found.must_state if getattr(known, name) is None}
    facts: dict[str, Any] = _size(path)
    recording = None
    if "sample_rate_hz" not in missing:
        try:
            recording = told.decode(read_recording(told, spec), spec)
            facts |= _describe(recording) | check_recording(recording, spec, name=path.name)
        except HeimdallError as error:
            return Inspection(path, title, facts, problem=str(error), recording=recording)
        missing |= {name for name, value in _list_needed(recording).items() if value is None}
    command, lacks = _build_command(path, told, recording, missing)
    return Inspection(path, title, facts, lacks, command, None, recording)


def _list_needed(recording: Recording) -> dict[str, Any]:
    return {"start_unix_ns": recording.start_unix_ns, "frequency_hz": recording.centre_frequency_hz}


def _describe(recording: Recording) -> dict[str, Any]:
    place = recording.position
    return {
        "start_unix_ns": recording.start_unix_ns,
        "start_sigma_s": recording.timing_sigma_s,
        "frequency_hz": recording.centre_frequency_hz,
        "position": None if place is None else [place.latitude, place.longitude, place.altitude_m],
        **recording.attributes,
    }


def _build_command(path: Path, told: Told, recording: Recording | None, missing: set[str]) -> tuple[str, list[str]]:
    """Return the command that imports the file, and a line for each thing that only its owner can say."""
    found, lacks = told.format, []
    words = ["heimdall import", found.command, "--session NAME --source TRANSMITTER,LAT,LON"]
    station = told.handed.station or told.file_name.station
    if told.position is None and (recording is None or recording.position is None):
        words.append(f"--receiver {station or 'CODE'},LAT,LON")
        lacks.append("where its receiver stands: --receiver CODE,LAT,LON")
    if found.clock_class is None and told.clock_class is None:
        words.append("--clock CLOCK")
        lacks.append("how it was timed: --clock gnss_calibrated, gnss, ntp or none (none: no delays)")
    for name, option in _OPTIONS.items():
        if name in missing:
            words.append(option)
            lacks.append(f"{option.partition(' ')[0]}: the file does not say it")
    words += _repeat_stated(told.stated, found)
    file = shlex.quote(str(path))
    words.append(file if station else f"--recording CODE={file}")
    return " ".join(words), lacks


def _repeat_stated(stated: Stated, found: Format) -> list[str]:
    """Return the options that say again what was said when the file was inspected."""
    options = {"sample_rate_hz": "--rate-hz", "frequency_hz": "--frequency-hz", "full_scale": "--full-scale"}
    said = {option: getattr(stated, name) for name, option in options.items() if name in found.may_state}
    return [f"{option} {value:.12g}" for option, value in said.items() if value is not None]
