"""``heimdall import rss-table`` and ``observations``: a table of levels, arrivals or bearings becomes pending sessions.

Belongs here: what people must be able to say of a table, one option each. Does not belong here: recordings
(``importing``), what a table means.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.intake.file_options import FILE, Command, parse_number, waiver_option
from heimdall_assets.cli.intake.report import campaign_option, write_table_report
from heimdall_assets.cli.terminal.homes import begin_home
from heimdall_assets.cli.terminal.output import json_option
from heimdall_assets.cli.terminal.progress import show_progress
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.level_table import DEFAULT_ERROR_MARGIN_M

if TYPE_CHECKING:
    from heimdall_assets.tables.claim import TableClaim

UNITS = ("dbm", "db", "rssi", "mw")
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
NORTHS = ("true", "magnetic")
ANGLES = ("degrees", "radians")


Options = dict[str, Callable[[Command], Command]]

_COLUMN_OPTIONS: Options = {
    "receiver_list": click.option(
        "--receivers", "receiver_list", type=FILE, help="JSON: receiver -> latitude and longitude, or null if moving."
    ),
    "columns": click.option(
        "--column", "columns", multiple=True, metavar="WHAT=COLUMN", help="Which column is what, such as latitude=lat."
    ),
    "no_position": click.option(
        "--no-position", multiple=True, metavar="VALUE", help="A coordinate that means 'no position'."
    ),
    "frequency_hz": click.option("--frequency-hz", type=float, help="Radio frequency, where no column says it."),
    "time_zone": click.option("--time-zone", metavar="ZONE", help="Of times that carry none: UTC, Europe/Rome, ..."),
    "time_format": click.option(
        "--time-format", metavar="FORM", help="How times are written, if not in ISO 8601: %d.%m.%Y %H:%M:%S, ..."
    ),
    "conditions": click.option(
        "--where", "conditions", multiple=True, metavar="COLUMN=VALUE", help="Only rows that hold this."
    ),
}
"""What may be said of any table: name of the parameter -> option."""

_LEVEL_OPTIONS: Options = {
    "not_heard": click.option(
        "--not-heard", multiple=True, metavar="VALUE", help="What means 'not heard', beside empty cells."
    ),
    "real_levels": click.option(
        "--level", "real_levels", multiple=True, metavar="VALUE", help="A level, though it looks like a code."
    ),
    "unit": click.option("--unit", type=click.Choice(UNITS), help="Of the levels.  [asked for where they do not tell]"),
    "db_per_unit": click.option("--db-per-unit", type=float, help="With --unit rssi: dB a unit."),
}

_OBSERVED_OPTIONS: Options = {
    "arrival_sigma_ns": click.option(
        "--arrival-sigma-ns", type=float, help="One-sigma error of every arrival, where no column says it."
    ),
    "bearing_sigma_deg": click.option(
        "--bearing-sigma-deg", type=float, help="One-sigma error of every bearing, where no column says it."
    ),
    "north": click.option(
        "--north", type=click.Choice(NORTHS), help="Which north bearings count from.  [asked for with bearings]"
    ),
    "declination_deg": click.option(
        "--declination-deg", type=float, help="With --north magnetic: how far east of true north it lies."
    ),
    "bearings_in": click.option(
        "--bearings-in", type=click.Choice(ANGLES), help="Their unit.  [degrees; asked for where they look otherwise]"
    ),
    "clock": click.option(
        "--clock",
        type=click.Choice([str(known) for known in ClockClass]),
        default="none",
        show_default=True,
        help="Whose error adds to the sigma of arrivals; none: that is all of it.",
    ),
}


def observed_options(without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Return a decorator that gives a command what may be said of a table of arrivals or bearings.

    Args:
        without: parameters that the command has of its own.
    """
    options = _COLUMN_OPTIONS | _LEVEL_OPTIONS | _OBSERVED_OPTIONS
    return _combine([option for name, option in options.items() if name not in without])


def _combine(options: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_SESSION_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    campaign_option,
    click.option("--margin-m", type=float, default=DEFAULT_ERROR_MARGIN_M, show_default=True, help="Doubt of truth."),
    waiver_option,
    json_option,
)


def _import_table(
    table: Path,
    receiver_list: Path | None,
    campaign: str,
    margin_m: float,
    waiver: str | None,
    as_json: bool,
    **said: Any,
) -> None:
    """Add one session per transmission of a table of received levels (CSV, JSON lines, Parquet).

    The table has a column for each receiver of --receivers, or columns `receiver` and `level`. What it does not say
    is asked for, in one line with the options that answer; nothing is assumed.
    """
    from heimdall_assets.pipeline.intake.level_files import import_levels

    clock = ClockClass(said.pop("clock", "none"))
    claim = read_claim(**said)
    measurements = begin_home()[1].measurements
    with show_progress(f"Importing {table}"):
        found = import_levels(
            measurements,
            table=table,
            receivers=receiver_list,
            campaign=campaign,
            claim=claim,
            error_margin_m=margin_m,
            waiver=waiver,
            clock_class=clock,
        )
    write_table_report(found, f"--campaign {campaign}", as_json)


def _import_observed(table: Path, **said: Any) -> None:
    """Add one session per transmission of a table of arrival times or bearings (CSV, JSON lines, Parquet).

    The table has a row a receiver and session: columns `session`, `receiver`, `latitude` and `longitude` of the
    transmitter, `arrival` (seconds to nanoseconds since 1970, or ISO 8601) or `bearing` (degrees), and the one-sigma
    error of each, which an option may say for all. What it does not say is asked for; nothing is assumed.
    """
    _import_table(table, **said)


_TABLE_ARGUMENT = click.argument("table", type=FILE)
_OF_LEVELS = _combine([*_COLUMN_OPTIONS.values(), *_LEVEL_OPTIONS.values()])

rss_table = click.command("rss-table")(_combine([_TABLE_ARGUMENT, _OF_LEVELS, *_SESSION_OPTIONS])(_import_table))
observed_table = click.command("observations")(
    _combine([_TABLE_ARGUMENT, observed_options(), *_SESSION_OPTIONS])(_import_observed)
)


def read_claim(
    *,
    columns: tuple[str, ...],
    no_position: tuple[str, ...],
    frequency_hz: float | None,
    time_zone: str | None,
    time_format: str | None,
    conditions: tuple[str, ...],
    not_heard: tuple[str, ...],
    real_levels: tuple[str, ...],
    unit: str | None,
    db_per_unit: float | None,
    needs_truth: bool = True,
    **observed: Any,
) -> "TableClaim":
    """Return what options say of a table; of arrivals and bearings too, where a command has options for them.

    Raises:
        InvalidSetting: an option is not of its form.
    """
    from heimdall_assets.tables.claim import LevelUnit, ObservedClaim, TableClaim

    arrival_sigma_ns = observed.pop("arrival_sigma_ns", None)
    sigma_s = None if arrival_sigma_ns is None else arrival_sigma_ns * 1e-9
    return TableClaim(
        columns=_split_pairs(columns, "--column", "WHAT=COLUMN"),
        not_heard=not_heard,
        real_levels=[parse_number(value, "--level") for value in real_levels],
        no_position=[parse_number(value, "--no-position") for value in no_position],
        unit=None if unit is None else LevelUnit(unit),
        db_per_unit=db_per_unit,
        time_zone=time_zone,
        time_format=time_format,
        frequency_hz=frequency_hz,
        where=_split_pairs(conditions, "--where", "COLUMN=VALUE"),
        observed=ObservedClaim(sigma_s, needs_truth=needs_truth, **observed) if observed else None,
    )


def is_table(path: Path) -> bool:
    """Return whether a name ends as tables of arrivals or bearings do."""
    return path.suffix.lower() in TABLE_ENDINGS


def _split_pairs(given: tuple[str, ...], option: str, form: str) -> dict[str, str]:
    """Return what stands before -> what stands behind the first ``=`` of each."""
    pairs: dict[str, str] = {}
    for text in given:
        key, found, value = text.partition("=")
        if not found or not key:
            raise InvalidSetting(f"{option} {text!r:.100}: expected {form}")
        if pairs.setdefault(key, value) != value:
            raise InvalidSetting(f"{option} {key}: found {pairs[key]!r:.60} and {value!r:.60}, expected one of them")
    return pairs
