"""Times of a foreign table to UTC: ISO 8601, a stated form, or seconds to nanoseconds since 1970.

Belongs here: what a cell says of time, and that a time without a zone is asked about. Does not belong here: other
columns.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.tables.cells import Cells, parse_number

_FIRST_YEAR, _LAST_YEAR = 1980, 2200
_FIRST_S = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_LAST_S = datetime(_LAST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_EPOCH_UNITS_S = (1.0, 1e-3, 1e-6, 1e-9)
"""Units in which time since 1970 is counted: between 1980 and 2200 no number of one can be one of another."""


def load_zone(name: str) -> ZoneInfo:
    """Return the time zone of that name.

    Raises:
        InvalidSetting: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidSetting(f"time zone {name!r:.60}: expected a name such as UTC or Europe/Rome") from None


def read_times(
    cells: Cells, column: str, zone: ZoneInfo | None, form: str | None
) -> tuple[NDArray[np.datetime64], NDArray[np.bool_], bool]:
    """Return times as datetime64[us] (R,) in UTC, which of them their zone has twice, and whether a zone is missing.

    Args:
        cells: the table.
        column: its column of times.
        zone: of times that carry none; None: unknown, and such times are read as UTC beside the third answer.
        form: how times are written, for ``datetime.strptime``; None: ISO 8601, or a count since 1970.

    Raises:
        InvalidTable: a cell is no time of 1980 to 2200, or one that ``zone`` skipped.
    """
    unit_s = None if form else _find_epoch_unit(cells.columns[column])
    if unit_s is not None:
        counted = cells.numbers(column)
        seconds = counted * unit_s
        known = (seconds >= _FIRST_S) & (seconds < _LAST_S)
        cells.refuse(~known, column, f"a time of {_FIRST_YEAR} to {_LAST_YEAR} since 1970, in {unit_s:g} s as row 1")
        microseconds = np.rint(counted * (unit_s / 1e-6)).astype(np.int64)
        return microseconds.view("datetime64[us]"), np.zeros(cells.num_rows, dtype=bool), False
    # one by one: pandas.to_datetime gives a time without a zone the zone of the row before it
    text = [cell.strip() for cell in cells.columns[column]]
    parsed = {cell: _parse_time(cell, form) for cell in dict.fromkeys(text)}  # a transmission has a row a receiver
    bare = any(time is not None and time.tzinfo is None for time in parsed.values())
    home = zone or ZoneInfo("UTC")
    once = {cell: None if time is None else _place(time, home) for cell, time in parsed.items()}
    placed = [once[cell] for cell in text]
    skipped = np.array([time is not None and time[0] is None for time in placed])
    cells.refuse(skipped, column, f"a time that {zone} has: clocks went over it")
    utc = np.array([None if time is None else time[0] for time in placed], dtype="datetime64[us]")
    expected = f"a time of the form {form}" if form else "a time such as 2022-11-23 13:24:40, or --time-format"
    cells.refuse(np.isnat(utc), column, expected)
    return utc, np.array([time is not None and time[1] for time in placed]), bare and zone is None


def _find_epoch_unit(text: Sequence[str]) -> float | None:
    """Return the unit in s that the first cell counts in; None: it is no count since 1970."""
    number = parse_number(text[0].strip().replace(",", "."))
    units = [unit_s for unit_s in _EPOCH_UNITS_S if _FIRST_S <= number * unit_s < _LAST_S]
    return units[0] if units and math.isfinite(number) else None


def _parse_time(text: str, form: str | None) -> datetime | None:
    """Return the time that ``text`` writes; None where it is none, or one that no zone turns into 1980 to 2200."""
    try:
        time = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)
    except ValueError:
        return None
    return time if _FIRST_YEAR <= time.year <= _LAST_YEAR else None


def _place(time: datetime, zone: ZoneInfo) -> tuple[datetime | None, bool]:
    """Return a time in UTC without its zone, None where its zone skipped it, and whether its zone has it twice."""
    if time.tzinfo is not None:
        return time.astimezone(UTC).replace(tzinfo=None), False
    early, late = (time.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early == late:
        return early.replace(tzinfo=None), False
    is_there = early.astimezone(zone).replace(tzinfo=None, fold=0) == time
    return (early.replace(tzinfo=None), True) if is_there else (None, False)
