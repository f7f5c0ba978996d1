"""``heimdall import``: recordings and tables of others become pending sessions."""

import dataclasses
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.file_options import (
    Command,
    SourceType,
    clock_option,
    collect_receivers,
    frequency_option,
    rate_option,
    read_stated,
    receiver_option,
    start_option,
)
from heimdall_assets.cli.homes import begin_home
from heimdall_assets.cli.output import json_option, write_json
from heimdall_assets.cli.progress import show_progress
from heimdall_assets.counts import say_count
from heimdall_assets.domain import ClockClass, Position, Source
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.pipeline.intake.level_table import DEFAULT_ERROR_MARGIN_M, DEFAULT_FREQUENCY_HZ

if TYPE_CHECKING:
    from heimdall_assets.pipeline.intake.iq_session import SessionClaim
    from heimdall_assets.stores.database.measurements import ImportReport

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

campaign_option = click.option(
    "--campaign", default="field", show_default=True, help="Campaign the sessions belong to."
)


def _write_report(report: "ImportReport", pending: str, as_json: bool) -> None:
    """Print what was added; ``pending`` is how `heimdall sessions approve` names it."""
    described = dataclasses.asdict(report)
    if as_json:
        write_json(described)
        return
    unchanged = described.pop("num_unchanged")
    nouns = {name: name.removeprefix("num_").removesuffix("s") for name in described}
    added = ", ".join(say_count(count, nouns[name]) for name, count in described.items())
    known = f"; {say_count(unchanged, 'row')} there before, unchanged" if unchanged else ""
    click.echo(f"added: {added}{known}")
    if report.num_sessions:
        click.echo(f"Nothing is learned from them until: heimdall sessions approve {pending} --by NAME --reason TEXT")


def _session_command(
    *options: Callable[[Command], Command],
) -> Callable[[Callable[..., "ImportReport"]], click.Command]:
    """Return what makes a command of ``run(claim, files, **values of the further options)``.

    Every import of IQ recordings makes one session, of which the same things are said.
    """

    def decorate(run: Callable[..., "ImportReport"]) -> click.Command:
        @wraps(run)
        def command(
            session_name: str,
            source: Source,
            receivers: tuple[tuple[str, Position], ...],
            campaign: str,
            files: tuple[Path, ...],
            as_json: bool,
            clock: str = "none",
            **stated: Any,
        ) -> None:
            from heimdall_assets.pipeline.intake.iq_session import SessionClaim

            claim = SessionClaim(session_name, source, campaign, collect_receivers(receivers), ClockClass(clock))
            with show_progress(f"Importing {say_count(len(files), 'file')}"):
                report = run(claim, files, **stated)
            _write_report(report, session_name, as_json)

        made: Command = command
        added: tuple[Callable[[Command], Command], ...] = (
            json_option,
            *options,
            campaign_option,
            receiver_option(required=True),
            click.option("--source", type=SourceType(), required=True, help="The transmitter."),
            click.option("--session", "session_name", required=True, help="Name of the new session."),
            click.argument("files", nargs=-1, required=True, type=FILE),
        )
        for option in added:
            made = option(made)
        return importing.command()(made)

    return decorate


@click.group("import")
def importing() -> None:
    """Add recordings or tables as pending sessions."""


@_session_command()
def kiwisdr(claim: "SessionClaim", files: tuple[Path, ...]) -> "ImportReport":
    """Add one session of GNSS-stamped KiwiSDR IQ recordings (wav), one file a receiver."""
    from heimdall_assets.pipeline.intake.files import import_kiwisdr

    stores = begin_home()[1]
    return import_kiwisdr(stores.measurements, stores.objects, claim, files)


@_session_command(clock_option, frequency_option)
def sigmf(claim: "SessionClaim", files: tuple[Path, ...], frequency_hz: float | None) -> "ImportReport":
    """Add one session of SigMF recordings (.sigmf, or .sigmf-meta with .sigmf-data beside it)."""
    from heimdall_assets.pipeline.intake.files import import_sigmf

    stated, stores = read_stated(None, None, frequency_hz), begin_home()[1]
    return import_sigmf(stores.measurements, stores.objects, claim, files, stated)


@_session_command(clock_option, frequency_option, start_option, rate_option)
def npy(
    claim: "SessionClaim",
    files: tuple[Path, ...],
    rate_hz: float | None,
    start: str | None,
    frequency_hz: float | None,
) -> "ImportReport":
    """Add one session of NumPy recordings (.npy: complex64, complex128 or int16 pairs), one file a receiver.

    Such a file says neither rate nor time nor frequency: --rate-hz, --start and --frequency-hz do.
    """
    from heimdall_assets.pipeline.intake.files import import_npy

    stated, stores = read_stated(rate_hz, start, frequency_hz), begin_home()[1]
    return import_npy(stores.measurements, stores.objects, claim, files, stated)


@importing.command("rss-table")
@click.argument("table", type=FILE)
@click.option(
    "--receivers", type=FILE, required=True, help="JSON: receiver -> latitude and longitude, or null if moving."
)
@click.option("--where", "conditions", multiple=True, metavar="COLUMN=VALUE", help="Only rows that hold this.")
@campaign_option
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
    from heimdall_assets.pipeline.intake.files import import_rss_table

    where = {}
    for condition in conditions:
        column, found, value = condition.partition("=")
        if not found:
            raise InvalidSetting(f"--where {condition!r}: expected COLUMN=VALUE")
        where[column] = value
    measurements = begin_home()[1].measurements
    with show_progress(f"Importing {table}"):
        report = import_rss_table(
            measurements,
            table=table,
            receivers=receivers,
            campaign=campaign,
            where=where,
            frequency_hz=frequency_hz,
            error_margin_m=margin_m,
        )
    _write_report(report, f"--campaign {campaign}", as_json)
