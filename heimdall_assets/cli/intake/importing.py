"""``heimdall import``: recordings of others become pending sessions; tables do in ``tables``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.intake.file_options import (
    FILE,
    STATED_OPTIONS,
    Command,
    SourceType,
    clock_option,
    collect_receivers,
    format_option,
    margin_option,
    read_stated,
    receiver_option,
    recording_option,
    waiver_option,
)
from heimdall_assets.cli.intake.reference_options import reference_options, take_reference
from heimdall_assets.cli.intake.report import campaign_option, write_report
from heimdall_assets.cli.intake.tables import observed_table, rss_table
from heimdall_assets.cli.terminal.homes import begin_home
from heimdall_assets.cli.terminal.output import json_option
from heimdall_assets.cli.terminal.progress import show_progress
from heimdall_assets.counts import say_count
from heimdall_assets.domain import Position, Source
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.physical import ClockClass

if TYPE_CHECKING:
    from heimdall_assets.formats import Format
    from heimdall_assets.pipeline.intake.handed_in import Handed


def _build_command(name: str, about: str, options: Sequence[Callable[[Command], Command]]) -> click.Command:
    """Return the command that makes one session of recordings, all of the format ``name``; empty: each of its own."""

    def command(
        session_name: str,
        source: Source,
        receivers: tuple[tuple[str, Position], ...],
        campaign: str,
        files: tuple[Path, ...],
        named: "tuple[Handed, ...]",
        receiver_margin_m: float,
        waiver: str | None,
        as_json: bool,
        clock: str = "none",
        format_name: str | None = None,
        **stated: Any,
    ) -> None:
        from heimdall_assets.pipeline.intake.files import import_recordings
        from heimdall_assets.pipeline.intake.iq_session import SessionClaim

        if not files and not named:
            raise InvalidSetting("files: found none, expected recordings, or --recording CODE=FILE")
        reference = take_reference(stated)
        placed, said = collect_receivers(receivers), read_stated(**stated)
        claim = SessionClaim(
            session_name, source, campaign, placed, ClockClass(clock), receiver_margin_m, waiver, reference
        )
        stores = begin_home()[1]
        with show_progress(f"Importing {say_count(len(files) + len(named), 'file')}"):
            done = import_recordings(
                stores.measurements, stores.objects, claim, [*files, *named], said, format_name or name or None
            )
        write_report(done.report, done.remarks, session_name, as_json)

    made: Command = command
    added: tuple[Callable[[Command], Command], ...] = (
        json_option,
        *options,
        reference_options,
        margin_option,
        waiver_option,
        campaign_option,
        receiver_option,
        recording_option,
        click.option("--source", type=SourceType(), required=True, help="The transmitter."),
        click.option("--session", "session_name", required=True, help="Name of the new session."),
        click.argument("files", nargs=-1, type=FILE),
    )
    for option in added:
        made = option(made)
    return click.command(name or "recordings", help=about)(made)


class _Importing(click.Group):
    """A group with a command for each format of recordings; formats load only where one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "recordings", *_list_formats()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = super().get_command(ctx, cmd_name)
        if known is not None:
            return known
        if cmd_name == "recordings":
            about = "Add one session of recordings, each of any format that its first bytes or its name tell."
            return _build_command("", about, [clock_option, format_option, *STATED_OPTIONS.values()])
        found = _list_formats().get(cmd_name)
        if found is None:
            return None
        options = [option for what, option in STATED_OPTIONS.items() if what in found.may_state]
        clocks = [] if found.clock_class is not None else [clock_option]
        about = f"Add one session of recordings, one file a receiver: {found.title}."
        if found.must_state:
            needed = [words for what, words in _STATED_WORDS.items() if what in found.must_state]
            about += f"\n\nSuch a file says no {' nor '.join(needed)}: options do, or FILE.json beside each FILE."
        return _build_command(cmd_name, about, [*clocks, *options])


_STATED_WORDS = {"sample_rate_hz": "rate", "start_unix_ns": "time", "frequency_hz": "frequency"}


def _list_formats() -> "dict[str, Format]":
    from heimdall_assets.formats import FORMATS

    return {known.command: known for known in FORMATS.values()}


@click.group("import", cls=_Importing)
def importing() -> None:
    """Add recordings or tables as pending sessions."""


importing.add_command(rss_table)
importing.add_command(observed_table)
