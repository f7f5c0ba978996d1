"""File options: what files cannot say, said on the command line and read one way by every command that takes files."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.domain import Altitude, ClockClass, Latitude, Longitude, Position, Source, check_name
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.fields import read_bounds
from heimdall_assets.pipeline.intake.identities import make_source

if TYPE_CHECKING:
    from heimdall_assets.pipeline.intake.files import Stated

Command = Callable[..., None]


class SourceType(click.ParamType[Source]):
    """``NAME,LAT,LON[,MARGIN_M]``: a transmitter and the one-sigma doubt about its position."""

    name = "NAME,LAT,LON[,MARGIN_M]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Source:
        name, latitude, longitude, margin = (*_split(value, 3, 4, "--source"), "0")[:4]
        position = parse_position(latitude, longitude, f"--source {name}")
        return make_source(name, position, error_margin_m=parse_number(margin, f"--source {name} margin"))


class ReceiverType(click.ParamType[tuple[str, Position]]):
    """``CODE,LAT,LON[,ALT_M]``: a receiver; CODE is the station part of its file's name."""

    name = "CODE,LAT,LON[,ALT_M]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Position]:
        code, latitude, longitude, altitude = (*_split(value, 3, 4, "--receiver"), "0")[:4]
        return check_name(code, "receiver"), parse_position(latitude, longitude, f"--receiver {code}", altitude)


rate_option = click.option("--rate-hz", type=float, help="Sample rate of .npy files.")
start_option = click.option("--start", help="Time of the first sample of .npy files, ISO 8601 with zone.")
frequency_option = click.option("--frequency-hz", type=float, help="Radio frequency of files that do not say it.")
clock_option = click.option(
    "--clock",
    type=click.Choice([str(clock) for clock in ClockClass]),
    default="none",
    show_default=True,
    help="How .npy and SigMF recordings were timed.",
)


def receiver_option(required: bool) -> Callable[[Command], Command]:
    """Return the option ``--receiver``, which may be repeated."""
    return click.option(
        "--receiver", "receivers", type=ReceiverType(), multiple=True, required=required, help="A receiver's position."
    )


def read_stated(rate_hz: float | None, start: str | None, frequency_hz: float | None) -> "Stated":
    """Return what ``--rate-hz``, ``--start`` and ``--frequency-hz`` say.

    Raises:
        InvalidSetting: ``start`` is no time with a zone.
    """
    from heimdall_assets.pipeline.intake.files import Stated

    return Stated(rate_hz, None if start is None else parse_start(start), frequency_hz)


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
    """Return an ISO 8601 time with zone as ns since 1970-01-01 UTC, down to the nanosecond where it says so.

    Raises:
        InvalidSetting: it is no such time.
    """
    import pandas as pd

    try:
        stamp = pd.Timestamp(text)
        if pd.isna(stamp):
            raise ValueError
        if stamp.tzinfo is None:
            raise InvalidSetting(f"--start {text!r}: found no time zone, expected one, such as a final Z")
        return int(stamp.tz_convert("UTC").as_unit("ns").value)
    except (ValueError, OverflowError):  # no time, or one that 64 bits cannot count
        raise InvalidSetting(
            f"--start {text!r:.60}: expected an ISO 8601 time of 1970 to 2225 such as 2026-11-20T10:00:00Z"
        ) from None


def _split(value: str, fewest: int, most: int, option: str) -> list[str]:
    parts = [part.strip() for part in value.split(",")]
    if not fewest <= len(parts) <= most:
        raise InvalidSetting(f"{option} {value!r}: found {len(parts)} parts, expected {fewest} to {most} with commas")
    return parts
