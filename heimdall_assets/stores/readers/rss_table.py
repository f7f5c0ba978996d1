"""Tables of received levels: one row a transmission, one column a fixed receiver, three columns a moving one.

Belongs here: a CSV and its receiver list to checked arrays. Does not belong here: ids and rows of the database
(``imports``). Columns are found from the receiver list: a receiver with coordinates is fixed and has one column of its
own name; one with ``null`` moves and has ``NAME_rss``, ``NAME_x`` (latitude) and ``NAME_y`` (longitude).
"""

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from heimdall_assets.domain import Position, check_name
from heimdall_assets.errors import InvalidIdentifier, InvalidTable
from heimdall_assets.stores.readers.strict_json import parse_strict_json

NOT_HEARD_DB = -101.0
"""Level that stands for 'not heard', as does an empty cell. Source: the POWDER data set's own description."""

ABSENT_COORDINATES_DEG = (-1.0, 0.0)
"""What a moving receiver's table holds where it had no position; none of its receivers drives on these lines."""

MIN_LEVEL_DB, MAX_LEVEL_DB = -250.0, 150.0
_MISSING = ("", "nan", "NaN", "NA")
_MAX_TABLE_BYTES = 1_000_000_000
_MAX_RECEIVERS = 10_000
_FIRST_YEAR, _LAST_YEAR = 1980, 2200


@dataclass(frozen=True)
class RssTable:
    """Checked columns of R rows and C receivers.

    Attributes:
        row: int64 (R,), number of the row in its file, the first after the header is 1.
        timestamp: datetime64[us] (R,), UTC.
        source_latitude, source_longitude: float64 (R,), degrees.
        receivers: C names.
        positions: C fixed positions; None: the receiver moves.
        level_db: float64 (R, C); NaN: not heard.
        receiver_latitude, receiver_longitude: float64 (R, C), degrees, of moving receivers; NaN: fixed or absent.
        attributes: publisher's own columns (``test_*``) -> R values, int, float or text; None: empty cell.
    """

    row: NDArray[np.int64]
    timestamp: NDArray[np.datetime64]
    source_latitude: NDArray[np.float64]
    source_longitude: NDArray[np.float64]
    receivers: list[str]
    positions: list[Position | None]
    level_db: NDArray[np.float64]
    receiver_latitude: NDArray[np.float64]
    receiver_longitude: NDArray[np.float64]
    attributes: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.row)


def decode_receivers(data: bytes, *, name: str) -> dict[str, Position | None]:
    """Return receivers from JSON ``{NAME: {"latitude": ..., "longitude": ...} or null}``; None: it moves.

    Raises:
        InvalidTable: not strict JSON of that form, a name that is none, or coordinates out of range.
    """
    try:
        listed = parse_strict_json(data, max_depth=4)
    except ValueError as error:
        raise InvalidTable(f"{name}: {error!s:.120}, expected a JSON object of receivers") from None
    if not isinstance(listed, dict) or not 0 < len(listed) <= _MAX_RECEIVERS:
        raise InvalidTable(f"{name}: expected a JSON object of 1 to {_MAX_RECEIVERS} receivers")
    receivers: dict[str, Position | None] = {}
    for receiver, position in listed.items():
        try:
            check_name(receiver, "receiver")
            receivers[receiver] = None if position is None else Position.model_validate(position, strict=True)
        except InvalidIdentifier as error:
            raise InvalidTable(f"{name}: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "position"
            raise InvalidTable(
                f"{name}: receiver {receiver}, {place}: {first['msg']}, found {first['input']!r:.60}; expected "
                "latitude and longitude in degrees, or null for a moving receiver"
            ) from None
    return receivers


def decode_rss_table(
    data: bytes,
    receivers: Mapping[str, Position | None],
    *,
    name: str,
    where: Mapping[str, str] | None = None,
) -> RssTable:
    """Return the table's rows that hold ``where``; every row is checked, chosen or not.

    Args:
        data: CSV, UTF-8, with a header. Times without a zone are UTC.
        receivers: as ``decode_receivers`` gives them.
        name: what to call the table in an error.
        where: column -> value that a row must hold; numbers compare as numbers.

    Raises:
        InvalidTable: a column is missing, unknown or there twice; a row has another length, repeats time and position
            of another one, or holds what is no number, no time or out of range (the error names row and column); no
            row is left.
    """
    columns, num_rows = _read_columns(data, name)
    _check_columns(columns, receivers, name)
    table = _Cells(columns, num_rows, name)
    timestamp = table.times("timestamp")
    latitude, longitude = table.coordinates("tx_x_coord", "tx_y_coord")
    _check_unique(timestamp, latitude, longitude, name)
    level_db = np.full((num_rows, len(receivers)), np.nan)
    moving_latitude, moving_longitude = level_db.copy(), level_db.copy()
    for index, (receiver, position) in enumerate(receivers.items()):
        if position is None:
            level_db[:, index] = table.levels(f"{receiver}_rss")
            moving_latitude[:, index], moving_longitude[:, index] = table.coordinates(
                f"{receiver}_x", f"{receiver}_y", may_be_absent=True
            )
        else:
            level_db[:, index] = table.levels(receiver)
    chosen = _choose_rows(columns, num_rows, where or {}, name)
    return RssTable(
        row=chosen + 1,
        timestamp=timestamp[chosen],
        source_latitude=latitude[chosen],
        source_longitude=longitude[chosen],
        receivers=list(receivers),
        positions=list(receivers.values()),
        level_db=level_db[chosen],
        receiver_latitude=moving_latitude[chosen],
        receiver_longitude=moving_longitude[chosen],
        attributes={column: _parse_values(columns[column], chosen) for column in columns if _is_attribute(column)},
    )


class _Cells:
    """Columns of text turned into checked numbers, each refusal naming row and column."""

    def __init__(self, columns: Mapping[str, Sequence[str]], num_rows: int, name: str) -> None:
        self.columns, self.num_rows, self.name = columns, num_rows, name

    def refuse(self, bad: NDArray[np.bool_], column: str, expected: str) -> None:
        """Raise ``InvalidTable`` for the first bad row, if there is one."""
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InvalidTable(
                f"{self.name}: row {row + 1}, column {column}: found {self.columns[column][row]!r:.60}, "
                f"expected {expected}"
            )

    def numbers(self, column: str) -> NDArray[np.float64]:
        text = self.columns[column]
        values = np.array([_parse_number(cell) for cell in text], dtype=np.float64)
        missing = np.array([cell in _MISSING for cell in text])
        self.refuse(~missing & ~np.isfinite(values), column, "a finite number")
        return values

    def levels(self, column: str) -> NDArray[np.float64]:
        level_db = self.numbers(column)
        level_db[level_db == NOT_HEARD_DB] = np.nan
        wrong = (level_db < MIN_LEVEL_DB) | (level_db > MAX_LEVEL_DB)
        self.refuse(wrong, column, f"a level of {MIN_LEVEL_DB:g} to {MAX_LEVEL_DB:g} dB, {NOT_HEARD_DB:g} or nothing")
        return level_db

    def coordinates(
        self, latitude_column: str, longitude_column: str, may_be_absent: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        latitude, longitude = self.numbers(latitude_column), self.numbers(longitude_column)
        absent = np.isnan(latitude) | np.isnan(longitude)
        absent |= np.isin(latitude, ABSENT_COORDINATES_DEG) | np.isin(longitude, ABSENT_COORDINATES_DEG)
        if not may_be_absent:
            self.refuse(absent, latitude_column, f"a latitude, with a longitude in column {longitude_column}")
        latitude[absent] = longitude[absent] = np.nan
        self.refuse(np.abs(latitude) > 90.0, latitude_column, "a latitude of -90 to 90 degrees")
        self.refuse(np.abs(longitude) > 180.0, longitude_column, "a longitude of -180 to 180 degrees")
        return latitude, longitude

    def times(self, column: str) -> NDArray[np.datetime64]:
        # one by one: pandas.to_datetime gives a time without a zone the zone of the row before it
        times = np.array([_parse_time(cell) for cell in self.columns[column]], dtype="datetime64[us]")
        self.refuse(np.isnat(times), column, "a time such as 2022-11-23 13:24:40 (UTC)")
        return times


def _read_columns(data: bytes, name: str) -> tuple[dict[str, Sequence[str]], int]:
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


def _is_attribute(column: str) -> bool:
    return column.startswith("test_")


def _check_columns(columns: Mapping[str, Any], receivers: Mapping[str, Position | None], name: str) -> None:
    expected = ["timestamp", "tx_x_coord", "tx_y_coord"]
    for receiver, position in receivers.items():
        expected += [receiver] if position is not None else [f"{receiver}_{part}" for part in ("rss", "x", "y")]
    for column in expected:
        if column not in columns:
            raise InvalidTable(f"{name}: no column {column!r:.60}, expected one (for each receiver of the list)")
    for column in itertools.filterfalse(set(expected).__contains__, columns):
        if not _is_attribute(column):
            raise InvalidTable(
                f"{name}: column {column!r:.60} belongs to no receiver of the list, expected receivers, timestamp, "
                "tx_x_coord, tx_y_coord and test_* only"
            )


def _check_unique(
    timestamp: NDArray[np.datetime64],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    name: str,
) -> None:
    keys = pd.DataFrame({"timestamp": timestamp, "latitude": latitude, "longitude": longitude})
    repeats = np.flatnonzero(keys.duplicated().to_numpy())
    if len(repeats):
        first = int(np.flatnonzero((keys == keys.iloc[repeats[0]]).all(axis=1).to_numpy())[0])
        raise InvalidTable(
            f"{name}: row {repeats[0] + 1} has time and position of row {first + 1}, expected each transmission once"
        )


def _choose_rows(
    columns: Mapping[str, Sequence[str]], num_rows: int, where: Mapping[str, str], name: str
) -> NDArray[np.int64]:
    chosen = np.ones(num_rows, dtype=bool)
    for column, value in where.items():
        if column not in columns:
            raise InvalidTable(f"{name}: no column {column!r:.60} to choose rows by, expected one of the header")
        number = _parse_number(value)  # NaN, which equals nothing, where it is none
        chosen &= np.array([cell == value or _parse_number(cell) == number for cell in columns[column]])
    if not chosen.any():
        wanted = ", ".join(f"{column}={value}" for column, value in where.items())
        raise InvalidTable(f"{name}: no row with {wanted}, expected at least one")
    return np.flatnonzero(chosen).astype(np.int64)


def _parse_values(text: Sequence[str], chosen: NDArray[np.int64]) -> list[Any]:
    """Return whole numbers as int, other numbers as float, empty cells as None, all else as it stands."""
    return [_parse_value(text[row]) for row in chosen]


def _parse_value(text: str) -> int | float | str | None:
    if text in _MISSING:
        return None
    number = _parse_number(text)
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _parse_time(text: str) -> datetime | None:
    """Return the UTC time that ``text`` writes, without its zone; None where it is none."""
    try:
        time = datetime.fromisoformat(text)
        time = time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return time if _FIRST_YEAR <= time.year <= _LAST_YEAR else None


def _parse_number(text: str) -> float:
    """Return the number that ``text`` writes in full; NaN where it is none."""
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan
