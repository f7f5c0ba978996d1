"""``heimdall import``: recordings and tables of others become pending sessions."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from heimdall_assets.cli.output import json_option, write_json
from heimdall_assets.domain import ClockClass, Position, Source
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.stores.identities import make_source
from heimdall_assets.stores.rss_batch import DEFAULT_ERROR_MARGIN_M, DEFAULT_FREQUENCY_HZ

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
CLOCKS = [str(clock) for clock in ClockClass]


class SourceType(click.ParamType):
    """``NAME,LAT,LON[,MARGIN_M]``: a transmitter and the one-sigma doubt about its position."""

    name = "NAME,LAT,LON[,MARGIN_M]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Source:
        name, latitude, longitude, margin = (*_split(value, 3, 4, "--source"), "0")[:4]
        position = parse_position(latitude, longitude, f"--source {name}")
        return make_source(name, position, error_margin_m=parse_number(margin, f"--source {name} margin"))


class ReceiverType(click.ParamType):
    """``CODE,LAT,LON[,ALT_M]``: a receiver; CODE is the station part of its file's name."""

    name = "CODE,LAT,LON[,ALT_M]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Position]:
        code, latitude, longitude, altitude = (*_split(value, 3, 4, "--receiver"), "0")[:4]
        return code, parse_position(latitude, longitude, f"--receiver {code}", altitude)


def _split(value: str, fewest: int, most: int, option: str) -> list[str]:
    parts = [part.strip() for part in value.split(",")]
    if not fewest <= len(parts) <= most:
        raise InvalidSetting(f"{option} {value!r}: found {len(parts)} parts, expected {fewest} to {most} with commas")
    return parts


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
    """Return a position from text.

    Raises:
        InvalidSetting: a part is no number, or out of range.
    """
    values = {"latitude": latitude, "longitude": longitude, "altitude_m": altitude}
    numbers = {name: parse_number(text, f"{what} {name}") for name, text in values.items()}
    try:
        return Position(**numbers)
    except ValueError:
        found = f"{latitude}, {longitude}, {altitude} m"
        raise InvalidSetting(
            f"{what}: found {found}, expected latitude -90 to 90, longitude -180 to 180, altitude -500 to 100000 m"
        ) from None


def collect_receivers(given: tuple[tuple[str, Position], ...]) -> dict[str, Position]:
    """Return code -> position.

    Raises:
        InvalidSetting: a code stands twice.
    """
    receivers = dict(given)
    if len(receivers) != len(given):
        raise InvalidSetting("--receiver: found a code twice, expected one position each")
    return receivers


def parse_start(text: str) -> int:
    """Return an ISO 8601 time with zone as ns since 1970-01-01 UTC, down to the nanosecond where it says so.

    Raises:
        InvalidSetting: it is no such time.
    """
    import pandas as pd

    try:
        stamp = pd.Timestamp(text)
    except ValueError:
        raise InvalidSetting(f"--start {text!r}: expected an ISO 8601 time such as 2026-11-20T10:00:00Z") from None
    if stamp is pd.NaT or stamp.tzinfo is None:
        raise InvalidSetting(f"--start {text!r}: found no time zone, expected one, such as a final Z")
    return int(stamp.tz_convert("UTC").value)


def _write_report(report: Any, as_json: bool) -> None:
    described = dataclasses.asdict(report)
    if as_json:
        write_json(described)
        return
    click.echo(", ".join(f"{value} {name.removeprefix('num_').replace('_', ' ')}" for name, value in described.items()))
    click.echo("They are pending: heimdall sessions approve ... --by NAME --reason TEXT")


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        json_option,
        click.option("--campaign", default="field", show_default=True, help="Campaign the sessions belong to."),
        click.option(
            "--receiver", "receivers", type=ReceiverType(), multiple=True, required=True, help="A receiver's position."
        ),
        click.option("--source", type=SourceType(), required=True, help="The transmitter."),
        click.option("--session", "session_name", required=True, help="Name of the new session."),
        click.argument("files", nargs=-1, required=True, type=FILE),
    ):
        command = option(command)
    return command


@click.group("import")
def importing() -> None:
    """Add recordings or tables as pending sessions."""


@importing.command()
@_common
def kiwisdr(
    files: tuple[Path, ...],
    session_name: str,
    source: Source,
    receivers: tuple[tuple[str, Position], ...],
    campaign: str,
    as_json: bool,
) -> None:
    """Add one session of GNSS-stamped KiwiSDR IQ recordings (wav), one file a receiver."""
    from heimdall_assets.stores.imports import import_kiwisdr

    stores = read_places().open_stores()
    report = import_kiwisdr(
        stores.measurements,
        stores.objects,
        session_name=session_name,
        source=source,
        receivers=collect_receivers(receivers),
        files=files,
        campaign=campaign,
    )
    _write_report(report, as_json)


@importing.command()
@_common
@click.option("--frequency-hz", type=float, help="Radio frequency of recordings that do not say it.")
@click.option("--clock", type=click.Choice(CLOCKS), default="none", show_default=True, help="How they were timed.")
def sigmf(
    files: tuple[Path, ...],
    session_name: str,
    source: Source,
    receivers: tuple[tuple[str, Position], ...],
    campaign: str,
    as_json: bool,
    frequency_hz: float | None,
    clock: str,
) -> None:
    """Add one session of SigMF recordings (.sigmf, or .sigmf-meta with .sigmf-data beside it)."""
    from heimdall_assets.stores.imports import import_sigmf

    stores = read_places().open_stores()
    report = import_sigmf(
        stores.measurements,
        stores.objects,
        session_name=session_name,
        source=source,
        receivers=collect_receivers(receivers),
        files=files,
        campaign=campaign,
        frequency_hz=frequency_hz,
        clock_class=ClockClass(clock),
    )
    _write_report(report, as_json)


@importing.command()
@_common
@click.option("--rate-hz", type=float, required=True, help="Sample rate.")
@click.option("--start", required=True, help="Time of the first sample, ISO 8601 with zone.")
@click.option("--frequency-hz", type=float, required=True, help="Radio frequency of 0 Hz baseband.")
@click.option("--clock", type=click.Choice(CLOCKS), default="none", show_default=True, help="How they were timed.")
def npy(
    files: tuple[Path, ...],
    session_name: str,
    source: Source,
    receivers: tuple[tuple[str, Position], ...],
    campaign: str,
    as_json: bool,
    rate_hz: float,
    start: str,
    frequency_hz: float,
    clock: str,
) -> None:
    """Add one session of NumPy recordings (.npy: complex64, complex128 or int16 pairs), one file a receiver."""
    from heimdall_assets.stores.imports import import_npy

    stores = read_places().open_stores()
    report = import_npy(
        stores.measurements,
        stores.objects,
        session_name=session_name,
        source=source,
        receivers=collect_receivers(receivers),
        files=files,
        campaign=campaign,
        sample_rate_hz=rate_hz,
        start_unix_ns=parse_start(start),
        frequency_hz=frequency_hz,
        clock_class=ClockClass(clock),
    )
    _write_report(report, as_json)


@importing.command("rss-table")
@click.argument("table", type=FILE)
@click.option(
    "--receivers", type=FILE, required=True, help="JSON: receiver -> latitude and longitude, or null if moving."
)
@click.option("--where", "conditions", multiple=True, metavar="COLUMN=VALUE", help="Only rows that hold this.")
@click.option("--campaign", default="field", show_default=True, help="Campaign the sessions belong to.")
@click.option("--frequency-hz", type=float, default=DEFAULT_FREQUENCY_HZ, show_default=True)
@click.option("--margin-m", type=float, default=DEFAULT_ERROR_MARGIN_M, show_default=True, help="Doubt of truth.")
@json_option
def rss_table(
    table: Path,
    receivers: Path,
    conditions: tuple[str, ...],
    campaign: str,
    frequency_hz: float,
    margin_m: float,
    as_json: bool,
) -> None:
    """Add one session per row of a table of received levels (CSV)."""
    from heimdall_assets.stores.imports import import_rss_table

    where = {}
    for condition in conditions:
        column, found, value = condition.partition("=")
        if not found:
            raise InvalidSetting(f"--where {condition!r}: expected COLUMN=VALUE")
        where[column] = value
    report = import_rss_table(
        read_places().open_stores().measurements,
        table=table,
        receivers=receivers,
        campaign=campaign,
        where=where,
        frequency_hz=frequency_hz,
        error_margin_m=margin_m,
    )
    _write_report(report, as_json)
