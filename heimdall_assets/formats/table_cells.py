"""Cells of a foreign CSV to checked columns: each refusal names the row and the column.

Belongs here: text to numbers, levels, coordinates and times. Does not belong here: which columns there are
(``rss_table``).
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.domain import Latitude, Longitude
from heimdall_assets.errors import InvalidTable
from heimdall_assets.fields import read_bounds

NOT_HEARD_DB = -101.0
"""Level that stands for 'not heard', as does an empty cell: below the weakest level of the POWDER table."""

ABSENT_COORDINATES_DEG = (-1.0, 0.0)
"""What a moving receiver's table holds where it had no position; none of its receivers drives on these lines."""

MIN_LEVEL_DB, MAX_LEVEL_DB = -250.0, 150.0
"""Levels that receivers show: a published table that holds others holds something else in that column."""

_LATITUDE, _LONGITUDE = read_bounds(Latitude), read_bounds(Longitude)
MISSING = ("", "nan", "NaN", "NA")
_MAX_TABLE_BYTES = 1_000_000_000
_FIRST_YEAR, _LAST_YEAR = 1980, 2200


def read_columns(data: bytes, name: str) -> tuple[dict[str, Sequence[str]], int]:
    """Return column name -> cells, and the number of rows below the header.

    Raises:
        InvalidTable: no CSV in UTF-8, no rows, a column twice, or a row of another length than the header.
    """
    if len(data) > _MAX_TABLE_BYTES:
        raise InvalidTable(f"{name}: {len(data)} bytes, expected at most {_MAX_TABLE_BYTES}")
    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidTable(f"{name}: no CSV in UTF-8 ({error!s:.100})") from None
    lines = [line for line in lines if line]
    if len(lines) < 2:
        raise InvalidTable(f"{name}: {len(lines)} lines, expected a header and at least one row")
    header = lines[0]
    for column, times in pd.Series(header, dtype=object).value_counts().items():
        if times > 1:
            raise InvalidTable(f"{name}: column {column!r:.60} is there {times} times, expected once")
    for row, line in enumerate(lines[1:], start=1):
        if len(line) != len(header):
            raise InvalidTable(f"{name}: row {row} has {len(line)} columns, expected {len(header)} as the header")
    return dict(zip(header, zip(*lines[1:], strict=True), strict=True)), len(lines) - 1


class Cells:
    """Columns of text turned into checked arrays of R rows; ``InvalidTable`` names the first bad row and its column.

    Args:
        columns: name -> R cells.
        num_rows: R.
        name: what to call the table in an error.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], num_rows: int, name: str) -> None:
        self.columns, self.num_rows, self.name = columns, num_rows, name

    def refuse(self, bad: NDArray[np.bool_], column: str, expected: str) -> None:
        """Check that no row of ``bad``, bool (R,), is marked.

        Raises:
            InvalidTable: one is; the message names the first, its cell, and what was ``expected``.
        """
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InvalidTable(
                f"{self.name}: row {row + 1}, column {column}: found {self.columns[column][row]!r:.60}, "
                f"expected {expected}"
            )

    def numbers(self, column: str) -> NDArray[np.float64]:
        """Return a column as float64 (R,); NaN where the cell is empty; text and infinity raise."""
        text = self.columns[column]
        values = np.array([parse_number(cell) for cell in text], dtype=np.float64)
        missing = np.array([cell in MISSING for cell in text])
        self.refuse(~missing & ~np.isfinite(values), column, "a finite number")
        return values

    def levels(self, column: str) -> NDArray[np.float64]:
        """Return a column of levels in dB, float64 (R,); NaN: not heard. Levels no receiver shows raise."""
        level_db = self.numbers(column)
        level_db[level_db == NOT_HEARD_DB] = np.nan
        wrong = (level_db < MIN_LEVEL_DB) | (level_db > MAX_LEVEL_DB)
        self.refuse(wrong, column, f"a level of {MIN_LEVEL_DB:g} to {MAX_LEVEL_DB:g} dB, {NOT_HEARD_DB:g} or nothing")
        return level_db

    def coordinates(
        self, latitude_column: str, longitude_column: str, may_be_absent: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return latitude and longitude in degrees, each float64 (R,); NaN: absent, which raises unless it may be."""
        latitude, longitude = self.numbers(latitude_column), self.numbers(longitude_column)
        absent = np.isnan(latitude) | np.isnan(longitude)
        absent |= np.isin(latitude, ABSENT_COORDINATES_DEG) | np.isin(longitude, ABSENT_COORDINATES_DEG)
        if not may_be_absent:
            self.refuse(absent, latitude_column, f"a latitude, with a longitude in column {longitude_column}")
        latitude[absent] = longitude[absent] = np.nan
        self.refuse(~absent & ~_LATITUDE.hold(latitude), latitude_column, f"a latitude {_LATITUDE} degrees")
        self.refuse(~absent & ~_LONGITUDE.hold(longitude), longitude_column, f"a longitude {_LONGITUDE} degrees")
        return latitude, longitude

    def times(self, column: str) -> NDArray[np.datetime64]:
        """Return a column of times as datetime64[us] (R,), UTC; a cell that is no time of 1980 to 2200 raises."""
        # one by one: pandas.to_datetime gives a time without a zone the zone of the row before it
        times = np.array([_parse_time(cell) for cell in self.columns[column]], dtype="datetime64[us]")
        self.refuse(np.isnat(times), column, "a time such as 2022-11-23 13:24:40 (UTC)")
        return times


def _parse_time(text: str) -> datetime | None:
    """Return the UTC time that ``text`` writes, without its zone; None where it is none."""
    try:
        time = datetime.fromisoformat(text)
        time = time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return time if _FIRST_YEAR <= time.year <= _LAST_YEAR else None


def parse_number(text: str) -> float:
    """Return the number that ``text`` writes in full; NaN where it is none."""
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan
