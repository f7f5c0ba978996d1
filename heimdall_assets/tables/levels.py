"""Tables of levels, arrivals and bearings, whichever shape they have: bytes to transmissions and who heard them how.

Belongs here: choosing between the wide and the long form. Does not belong here: either of them.
"""

from collections.abc import Mapping

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidTable
from heimdall_assets.tables.cells import Cells
from heimdall_assets.tables.claim import LONG_ROLES, TableClaim, find_columns
from heimdall_assets.tables.level_table import LevelTable
from heimdall_assets.tables.long_levels import decode_long
from heimdall_assets.tables.text import TextTable, decode_text_table
from heimdall_assets.tables.wide_levels import decode_wide


def decode_levels(data: bytes, receivers: Mapping[str, Position | None], *, name: str, claim: TableClaim) -> LevelTable:
    """Return what a table of received levels says: CSV, JSON lines or Parquet, a column or a row a receiver.

    A table with columns for receiver and level has a row a receiver and transmission; any other one has a column for
    each receiver of the list.

    Args:
        data: the whole file.
        receivers: name -> position; None: it moves. May be empty where the table itself says the positions.
        name: what to call the table in an error.
        claim: what is said beside it.

    Raises:
        InvalidTable: the table cannot be read, contradicts itself or what is said of it, or leaves open what must be
            known: the one line says what was found, and the option that answers.
    """
    return understand_levels(decode_text_table(data, name), receivers, claim)


def understand_levels(table: TextTable, receivers: Mapping[str, Position | None], claim: TableClaim) -> LevelTable:
    """Return what a table that is decoded already says of levels (see ``decode_levels``).

    Raises:
        InvalidTable: as ``decode_levels``.
    """
    name, cells = table.name, Cells(table)
    columns = find_columns(list(cells.columns), claim, name)
    is_stated = "receiver" in claim.columns or "level" in claim.columns
    if {"receiver", "level"} <= columns.keys():
        return decode_long(cells, columns, receivers, claim)
    if is_stated:
        missing = "level" if "receiver" in columns else "receiver"
        raise InvalidTable(f"{name}: no column for {missing}, expected --column {missing}=NAME beside the other")
    if not receivers:
        raise InvalidTable(
            f"{name}: found no columns receiver and level, expected them (--column receiver=NAME --column level=NAME), "
            "or --receivers with a list whose receivers have a column each"
        )
    wide = {role: column for role, column in columns.items() if role not in LONG_ROLES}
    return decode_wide(cells, wide, receivers, claim)


def decode_observed(
    data: bytes, receivers: Mapping[str, Position | None], *, name: str, claim: TableClaim
) -> LevelTable:
    """Return what a table of arrival times or bearings says: CSV, JSON lines or Parquet, a row a receiver and session.

    Args:
        data: the whole file.
        receivers: name -> position; None: it moves. May be empty where the table itself says the positions.
        name: what to call the table in an error.
        claim: what is said beside it, of arrivals and bearings too. Where these need no truth, a table without a
            column of sessions may be one session.

    Raises:
        InvalidTable: as ``decode_levels``; or there is no column for receiver or session.
    """
    return understand_observed(decode_text_table(data, name), receivers, claim)


def understand_observed(table: TextTable, receivers: Mapping[str, Position | None], claim: TableClaim) -> LevelTable:
    """Return what a table that is decoded already says of arrivals or bearings (see ``decode_observed``).

    Raises:
        InvalidTable: as ``decode_observed``.
    """
    assert claim.observed is not None
    name, cells = table.name, Cells(table)
    columns = find_columns(list(cells.columns), claim, name)
    for role in ("receiver", "session") if claim.observed.needs_truth else ("receiver",):
        if role not in columns:
            raise InvalidTable(
                f"{name}: no column for the {role} of each row, expected --column {role}=NAME with one of "
                f"{', '.join(cells.columns):.200}"
            )
    return decode_long(cells, columns, receivers, claim)
