"""Tables of received levels: one row a transmission, one column a fixed receiver, three columns a moving one.

Belongs here: a CSV and its receiver list to checked arrays. Does not belong here: ids and rows of the database
(``intake.files``). Columns are found from the receiver list: a receiver with coordinates is fixed and has one column of
its own name; one with ``null`` moves and has ``NAME_rss``, ``NAME_x`` (latitude) and ``NAME_y`` (longitude).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from heimdall_assets.domain import Position, check_name
from heimdall_assets.errors import InvalidIdentifier, InvalidTable
from heimdall_assets.formats.strict_json import parse_strict_json
from heimdall_assets.formats.table_cells import MISSING, Cells, parse_number, read_columns

_MAX_RECEIVERS = 10_000


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
    columns, num_rows = read_columns(data, name)
    _check_columns(columns, receivers, name)
    table = Cells(columns, num_rows, name)
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
        number = parse_number(value)  # NaN, which equals nothing, where it is none
        chosen &= np.array([cell == value or parse_number(cell) == number for cell in columns[column]])
    if not chosen.any():
        wanted = ", ".join(f"{column}={value}" for column, value in where.items())
        raise InvalidTable(f"{name}: no row with {wanted}, expected at least one")
    return np.flatnonzero(chosen).astype(np.int64)


def _parse_values(text: Sequence[str], chosen: NDArray[np.int64]) -> list[Any]:
    """Return whole numbers as int, other numbers as float, empty cells as None, all else as it stands."""
    return [_parse_value(text[row]) for row in chosen]


def _parse_value(text: str) -> int | float | str | None:
    if text in MISSING:
        return None
    number = parse_number(text)
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
