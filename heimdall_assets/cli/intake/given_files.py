"""Given files: one session of the database, or recordings or a table that are in none, as commands that locate take it.

Belongs here: what the words and options after such a command mean. Does not belong here: single options
(``file_options``, ``reference_options``), the commands.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.cli.intake.file_options import (
    Command,
    clock_option,
    collect_receivers,
    format_option,
    frequency_option,
    full_scale_option,
    rate_option,
    read_stated,
    receiver_option,
    recording_option,
    start_option,
)
from heimdall_assets.cli.intake.reference_options import reference_options, take_reference
from heimdall_assets.cli.intake.tables import TABLE_ENDINGS, is_table, observed_options, read_claim
from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidSetting, NotFound
from heimdall_assets.physical import ClockClass
from heimdall_assets.stores.objects.regular_files import check_regular_file

if TYPE_CHECKING:
    from heimdall_assets.formats import Stated
    from heimdall_assets.pipeline.intake.handed_in import Handed
    from heimdall_assets.pipeline.intake.reference_timing import ReferenceClaim
    from heimdall_assets.tables.claim import TableClaim

_ENDINGS = "a file that ends in " + ", ".join(TABLE_ENDINGS)


def file_options(command: Command) -> Command:
    """Return ``command`` with every option about files that are in no database."""
    options = (
        receiver_option,
        recording_option,
        rate_option,
        start_option,
        frequency_option,
        full_scale_option,
        clock_option,
        format_option,
        reference_options,
        observed_options(without=["frequency_hz", "clock"]),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class GivenFiles:
    """Recordings of one transmission, and what is said of them."""

    files: "list[Path | Handed]"
    receivers: dict[str, Position]
    stated: "Stated"
    clock_class: ClockClass
    format_name: str | None
    reference: "ReferenceClaim | None"

    def hand_on(self) -> dict[str, Any]:
        """Return what whoever locates recordings takes of them (``pipeline.prediction.files``), by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class GivenTable:
    """A table of arrivals or bearings, and what is said of it."""

    table: Path
    receiver_list: Path | None
    claim: "TableClaim"
    clock_class: ClockClass


def take_given(
    command: str,
    recordings: tuple[str, ...],
    receivers: tuple[tuple[str, Position], ...],
    named: "tuple[Handed, ...]",
    clock: str,
    format_name: str | None,
    receiver_list: Path | None,
    **said: Any,
) -> str | GivenFiles | GivenTable:
    """Return what the words after a command mean: a session's id or name, files, or a table.

    Raises:
        NotFound: several words, of which one is no file, or a table that is none.
        InvalidInput: a pipe, a device or a socket, or several words of which one is a folder.
        InvalidSetting: no word, or options about what was not given.
    """
    reference, frequency_hz = take_reference(said), said.pop("frequency_hz")
    of_files = {name: said.pop(name) for name in ("rate_hz", "start", "full_scale")}
    is_of_table = receiver_list is not None or any(value not in (None, ()) for value in said.values())
    paths = [Path(name) for name in recordings]
    if len(paths) == 1 and not named and is_table(paths[0]):
        _check_there(paths[0], "table")
        if receivers or format_name or reference or any(value is not None for value in of_files.values()):
            raise InvalidSetting(f"table {paths[0]}: found options about recordings, expected those about tables")
        claim = read_claim(**said, frequency_hz=frequency_hz, needs_truth=False)
        return GivenTable(paths[0], receiver_list, claim, ClockClass(clock))
    if is_of_table:
        raise InvalidSetting(f"{command}: found options about a table, expected none, or {_ENDINGS}")
    stated = read_stated(**of_files, frequency_hz=frequency_hz)
    if named or len(paths) > 1 or (paths and paths[0].exists() and not paths[0].is_dir()):
        for path in paths:
            _check_there(path, "file")
        placed = collect_receivers(receivers)
        return GivenFiles([*paths, *named], placed, stated, ClockClass(clock), format_name, reference)
    if not paths:
        raise InvalidSetting(f"{command}: found neither session nor files, expected one session, recordings or a table")
    if receivers or stated.list_said() or clock != "none" or format_name or reference:
        raise InvalidSetting(f"session {recordings[0]}: found options about files, expected none or files that exist")
    return recordings[0]


def _check_there(path: Path, what: str) -> None:
    check_regular_file(path, f"{what} {path}")
    if not path.exists():
        raise NotFound(f"{what} {path}: there is none; expected one session, recordings or a table")
