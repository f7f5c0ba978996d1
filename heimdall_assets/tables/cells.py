"""Cells of a foreign table to checked columns: each refusal names the row and the column.

Belongs here: text to numbers and coordinates. Does not belong here: times (``times``), what levels can be
believed (``level_values``), which columns there are.
"""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import Latitude, Longitude
from heimdall_assets.errors import InvalidTable
from heimdall_assets.fields import read_bounds
from heimdall_assets.tables.text import TextTable

MISSING = ("", "nan", "NaN", "NA")

_LATITUDE, _LONGITUDE = read_bounds(Latitude), read_bounds(Longitude)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+(e-?\d+)?)?")
"""A number that is written as one: no plus, no leading zero, nothing that an identifier may look like."""


class Choice:
    """Rows of a table that are taken, bool (R,), and how many of those asked for are not, by reason."""

    def __init__(self, name: str, chosen: NDArray[np.bool_]) -> None:
        self.name, self.chosen = name, chosen
        self.left_out: dict[str, int] = {}

    def leave_out(self, bad: NDArray[np.bool_], reason: str) -> None:
        """Take none of the rows ``bad``, bool (R,); those taken so far are counted under ``reason``."""
        if number := int((self.chosen & bad).sum()):
            self.left_out[reason] = number
        self.chosen &= ~bad

    def refuse_nothing(self) -> None:
        """Check that a row is left.

        Raises:
            InvalidTable: none is; the message says why each was left out.
        """
        if not self.chosen.any():
            reasons = "; ".join(f"{number}: {reason}" for reason, number in self.left_out.items())
            raise InvalidTable(f"{self.name}: no row left ({reasons}), expected at least one")


class Cells:
    """Columns of text turned into checked arrays of R rows; ``InvalidTable`` names the first bad row and its column.

    Args:
        table: R rows of text.
    """

    def __init__(self, table: TextTable) -> None:
        self.columns, self.num_rows, self.name = table.columns, table.num_rows, table.name
        self._delimiter = table.delimiter

    def refuse(self, bad: NDArray[np.bool_], column: str, expected: str) -> None:
        """Check that no row of ``bad``, bool (R,), is marked.

        Raises:
            InvalidTable: one is; the message names the first, its cell, and what was ``expected``.
        """
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InvalidTable(
                f"{self.name}: row {row + 1}, column {column:.60}: found {self.columns[column][row]!r:.60}, "
                f"expected {expected}"
            )

    def numbers(
        self, column: str, missing: Iterable[str] = (), expected: str = "a finite number"
    ) -> NDArray[np.float64]:
        """Return a column as float64 (R,); NaN where nothing stands; text and infinity raise.

        A comma is a decimal comma wherever it can be nothing else: where commas separate the cells too, numbers that
        might be thousands are refused.

        Args:
            column: its name.
            missing: what stands for nothing beside ``MISSING``; a number means every writing of it.
            expected: what the error asks for.
        """
        text = [cell.strip() for cell in self.columns[column]]
        with_comma = np.array(["," in cell and _DECIMAL_COMMA.fullmatch(cell) is not None for cell in text])
        if with_comma.any():
            pointed = np.array(["." in cell and math.isfinite(parse_number(cell)) for cell in text])
            self.refuse(with_comma & pointed.any(), column, "a decimal point, as in other rows of this column")
            is_unclear = self._delimiter == "," and all(_THOUSANDS.fullmatch(cell) for cell in text if "," in cell)
            self.refuse(with_comma & is_unclear, column, "a number that tells decimals from thousands")
            text = [cell.replace(",", ".") if comma else cell for cell, comma in zip(text, with_comma, strict=True)]
        values = np.array([parse_number(cell) for cell in text], dtype=np.float64)
        words = {*MISSING, *missing}
        numbers = [number for number in map(parse_number, missing) if not math.isnan(number)]
        absent = np.array([cell in words for cell in text]) | np.isin(values, numbers)
        self.refuse(~absent & ~np.isfinite(values), column, expected)
        values[absent] = np.nan
        return values

    def coordinates(
        self, latitude_column: str, longitude_column: str, no_position: Sequence[float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return latitude and longitude in degrees, each float64 (R,); both are NaN where there is no position.

        Args:
            latitude_column, longitude_column: their names.
            no_position: numbers that stand for "no position" in either.
        """
        missing = [f"{value!r}" for value in no_position]
        latitude, longitude = self.numbers(latitude_column, missing), self.numbers(longitude_column, missing)
        if no_position:
            absent = np.isnan(latitude) | np.isnan(longitude)
            latitude[absent] = longitude[absent] = np.nan
        half = np.isnan(latitude) != np.isnan(longitude)
        self.refuse(half & np.isnan(latitude), latitude_column, f"a latitude, as {longitude_column} has a longitude")
        self.refuse(half, longitude_column, f"a longitude, as {latitude_column} has a latitude")
        known = ~np.isnan(latitude)
        self.refuse(known & ~_LATITUDE.hold(latitude), latitude_column, f"a latitude {_LATITUDE} degrees")
        self.refuse(known & ~_LONGITUDE.hold(longitude), longitude_column, f"a longitude {_LONGITUDE} degrees")
        return latitude, longitude

    def choose_rows(self, where: dict[str, str]) -> NDArray[np.bool_]:
        """Return the rows, bool (R,), whose columns hold the given values; numbers compare as numbers."""
        chosen = np.ones(self.num_rows, dtype=bool)
        for column, value in where.items():
            if column not in self.columns:
                raise InvalidTable(
                    f"{self.name}: no column {column!r:.60} to choose rows by, expected one of the header"
                )
            number = parse_number(value)  # NaN, which equals nothing, where it is none
            chosen &= np.array([cell == value or parse_number(cell) == number for cell in self.columns[column]])
        if not chosen.any():
            wanted = ", ".join(f"{column}={value}" for column, value in where.items())
            raise InvalidTable(f"{self.name}: no row with {wanted:.200}, expected at least one")
        return chosen

    def parse_value(self, column: str, row: int) -> int | float | str | None:
        """Return a cell as it means itself: None for nothing, a number where it is written as one, else text."""
        text = self.columns[column][row]
        if text in MISSING:
            return None
        comma = self._delimiter != "," and _DECIMAL_COMMA.fullmatch(text) is not None
        plain = text.replace(",", ".") if comma else text
        if not _PLAIN_NUMBER.fullmatch(plain):
            return text
        number = parse_number(plain)
        if not math.isfinite(number):
            return text
        return int(number) if number.is_integer() and abs(number) < 2**53 else number


def parse_number(text: str) -> float:
    """Return the number that ``text`` writes in full; NaN where it is none."""
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan
