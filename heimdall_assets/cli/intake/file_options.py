"""File options: what files cannot say, said on the command line and read one way by every command that takes files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.domain import (
    Altitude,
    Frequency,
    FullScale,
    Latitude,
    Longitude,
    Position,
    SampleRate,
    Source,
    check_name,
)
from heimdall_assets.errors import InvalidSetting, NotFound
from heimdall_assets.fields import read_bounds
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.identities import RECEIVER_MARGIN_M, make_source
from heimdall_assets.stores.objects.regular_files import check_regular_file

if TYPE_CHECKING:
    from heimdall_assets.formats.interface import Stated
    from heimdall_assets.pipeline.intake.handed_in import Handed

Command = Callable[..., None]


class FileType(click.Path):
    """A file that is there: one that can be read to its end, and twice."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        check_regular_file(path)
        return path


FILE = FileType(exists=True, dir_okay=False, path_type=Path)


class SourceType(click.ParamType[Source]):
    """``NAME,LAT,LON[,MARGIN_M]``: a transmitter and the one-sigma doubt about its position."""

    name = "NAME,LAT,LON[,MARGIN_M]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Source:
        name, latitude, longitude, margin = (*split_parts(value, 3, 4, "--source"), "0")[:4]
        position = parse_position(latitude, longitude, f"--source {name}")
        return make_source(name, position, error_margin_m=parse_number(margin, f"--source {name} margin"))


class ReceiverType(click.ParamType[tuple[str, Position]]):
    """``CODE,LAT,LON[,ALT_M]``: a receiver; CODE is the station part of its file's name."""

    name = "CODE,LAT,LON[,ALT_M]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Position]:
        code, latitude, longitude, altitude = (*split_parts(value, 3, 4, "--receiver"), "0")[:4]
        return check_name(code, "receiver"), parse_position(latitude, longitude, f"--receiver {code}", altitude)


class RecordingType(click.ParamType["Handed"]):
    """``CODE=FILE[#CHANNEL]``: a file, whatever its name, and the receiver that made it."""

    name = "CODE=FILE[#CHANNEL]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Handed":
        from heimdall_assets.pipeline.intake.handed_in import Handed

        code, found, text = value.partition("=")
        if not found:
            raise InvalidSetting(
                f"--recording {value!r:.80}: expected CODE=FILE, or CODE=FILE#2 for its second channel"
            )
        path, mark, number = text.rpartition("#")
        if not mark or not number.isdecimal():
            path, number = text, ""
        channel = int(number) if number else None
        check_regular_file(Path(path), f"--recording {code}: {path}")
        if not Path(path).exists():
            raise NotFound(f"--recording {code}: found no file {path}, expected a recording")
        return Handed(Path(path), check_name(code, "receiver"), channel)


rate_option = click.option("--rate-hz", type=float, help="Sample rate of files that do not say it.")
start_option = click.option(
    "--start", help="Time of the first sample of files that do not say it, the same of all: ISO 8601 with zone."
)
frequency_option = click.option("--frequency-hz", type=float, help="Radio frequency of files that do not say it.")
full_scale_option = click.option("--full-scale", type=float, help="Full scale of floating samples that is not 1.0.")
clock_option = click.option(
    "--clock",
    type=click.Choice([str(clock) for clock in ClockClass]),
    default="none",
    show_default=True,
    help="How recordings were timed whose format does not say it.",
)
margin_option = click.option(
    "--receiver-margin-m",
    type=float,
    default=RECEIVER_MARGIN_M,
    show_default=True,
    help="By how much a file's own position may differ from --receiver.",
)
receiver_option = click.option(
    "--receiver", "receivers", type=ReceiverType(), multiple=True, help="A receiver's position, if its file has none."
)
recording_option = click.option(
    "--recording", "named", type=RecordingType(), multiple=True, help="A file whose name does not tell its receiver."
)
waiver_option = click.option(
    "--waive-truth", "waiver", metavar="REASON", help="Why a transmitter is there although who heard it contradicts it."
)
format_option = click.option("--format", "format_name", help="How all files are written, where they do not tell it.")

STATED_OPTIONS = {
    "sample_rate_hz": rate_option,
    "start_unix_ns": start_option,
    "frequency_hz": frequency_option,
    "full_scale": full_scale_option,
}
"""What may be said beside a recording -> the option that says it."""


def read_stated(
    rate_hz: float | None = None,
    start: str | None = None,
    frequency_hz: float | None = None,
    full_scale: float | None = None,
) -> "Stated":
    """Return what ``--rate-hz``, ``--start``, ``--frequency-hz`` and ``--full-scale`` say.

    Raises:
        InvalidSetting: ``start`` is no time with a zone, or a number is out of range.
    """
    from heimdall_assets.formats.interface import Stated

    for option, value, of in (
        ("--rate-hz", rate_hz, SampleRate),
        ("--frequency-hz", frequency_hz, Frequency),
        ("--full-scale", full_scale, FullScale),
    ):
        if value is not None and not read_bounds(of).hold(value):
            raise InvalidSetting(f"{option}: found {value:g}, expected {read_bounds(of)}")
    return Stated(
        sample_rate_hz=rate_hz,
        start_unix_ns=None if start is None else parse_start(start),
        frequency_hz=frequency_hz,
        full_scale=full_scale,
    )


def collect_receivers(given: tuple[tuple[str, Position], ...]) -> dict[str, Position]:
    """Return code -> position.

    Raises:
        InvalidSetting: a code stands twice.
    """
    receivers = dict(given)
    if len(receivers) != len(given):
        codes = [code for code, _ in given]
        twice = next(code for code in codes if codes.count(code) > 1)
        raise InvalidSetting(f"--receiver {twice}: found it twice, expected one position each")
    return receivers


def parse_number(text: str, what: str) -> float:
    """Return ``text`` as a number.

    Raises:
        InvalidSetting: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise InvalidSetting(f"{what}: found {text!r}, expected a number") from None


def parse_position(latitude: str, longitude: str, what: str, altitude: str = "0") -> Position:
    """Return a position from text, degrees and metres above sea level.

    Raises:
        InvalidSetting: a part is no number, or out of range.
    """
    values = {"latitude": latitude, "longitude": longitude, "altitude_m": altitude}
    numbers = {name: parse_number(text, f"{what} {name}") for name, text in values.items()}
    try:
        return Position(**numbers)
    except ValueError:
        found = f"{latitude}, {longitude}, {altitude} m"
        bounds = {"latitude": Latitude, "longitude": Longitude, "altitude in m": Altitude}
        expected = ", ".join(f"{name} {read_bounds(of)}" for name, of in bounds.items())
        raise InvalidSetting(f"{what}: found {found}, expected {expected}") from None


def parse_start(text: str) -> int:
    """Return an ISO 8601 time with zone as ns since 1970-01-01 UTC, to the nanosecond where it says so.

    It is the start of all files, so what it leaves open shifts all of them alike and no delay between them.

    Raises:
        InvalidSetting: it is no such time.
    """
    from heimdall_assets.formats.written_times import parse_time

    try:
        return parse_time(text).unix_ns
    except ValueError as error:
        if str(error) == "no time zone":
            raise InvalidSetting(f"--start {text!r}: found no time zone, expected one, such as a final Z") from None
        raise InvalidSetting(
            f"--start {text!r:.60}: expected an ISO 8601 time of 1970 to 2225 such as 2026-11-20T10:00:00Z"
        ) from None


def split_parts(value: str, fewest: int, most: int, option: str) -> list[str]:
    """Return what stands between the commas of an option.

    Raises:
        InvalidSetting: it is too much or too little.
    """
    parts = [part.strip() for part in value.split(",")]
    if not fewest <= len(parts) <= most:
        raise InvalidSetting(f"{option} {value!r}: found {len(parts)} parts, expected {fewest} to {most} with commas")
    return parts
