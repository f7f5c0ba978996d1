"""Import reports: what every import says when it is done.

Belongs here: counts of what came in, and of what did not with its reason. Does not belong here: the imports
(``importing``, ``tables``).
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from heimdall_assets.cli.terminal.output import write_json, write_line, write_text
from heimdall_assets.counts import say_count

if TYPE_CHECKING:
    from heimdall_assets.pipeline.intake.level_files import TableImport
    from heimdall_assets.stores.database.measurements import ImportReport

campaign_option = click.option(
    "--campaign", default="field", show_default=True, help="Campaign the sessions belong to."
)


def write_report(report: "ImportReport", remarks: Sequence[str], pending: str, as_json: bool) -> None:
    """Print what was added and what is worth knowing; ``pending`` is how `heimdall sessions approve` names it."""
    if as_json:
        write_json(dataclasses.asdict(report) | {"remarks": list(remarks)})
        return
    for remark in remarks:
        write_line(remark)
    _write_counts(report)
    _write_next(report, pending)


def write_table_report(found: "TableImport", pending: str, as_json: bool) -> None:
    """Print what was added of a table, what its cells were taken for, and how many rows were left out for what.

    Args:
        found: what came in.
        pending: how `heimdall sessions approve` names what was added.
        as_json: as one JSON object.
    """
    if as_json:
        said = {"left_out": found.left_out, "taken_as": found.taken_as, "remarks": found.remarks}
        write_json(dataclasses.asdict(found.report) | said)
        return
    for remark in found.remarks:
        write_line(remark)
    _write_counts(found.report)
    for phrase in found.taken_as:
        write_text(f"taken as: {phrase}")
    for reason, number in found.left_out.items():
        write_text(f"left out: {say_count(number, 'row')}: {reason}")
    _write_next(found.report, pending)


def _write_counts(report: "ImportReport") -> None:
    described = dataclasses.asdict(report)
    unchanged = described.pop("num_unchanged")
    nouns = {name: name.removeprefix("num_").removesuffix("s") for name in described}
    added = ", ".join(say_count(count, nouns[name]) for name, count in described.items())
    known = f"; {say_count(unchanged, 'row')} there before, unchanged" if unchanged else ""
    write_text(f"added: {added}{known}")


def _write_next(report: "ImportReport", pending: str) -> None:
    if report.num_sessions:
        write_text(f"Nothing is learned from them until: heimdall sessions approve {pending} --by NAME --reason TEXT")
