"""Wide tables of levels: one row a transmission, one column a fixed receiver, three columns a moving one.

Belongs here: columns found from the receiver list. A receiver with coordinates is fixed and has one column of its own
name; one with ``null`` moves and has ``NAME_rss``, ``NAME_x`` (latitude) and ``NAME_y`` (longitude). Every other column
is kept as an attribute of its session. Does not belong here: tables with a row a receiver (``long_levels``).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidTable
from heimdall_assets.tables.cells import Cells, Choice
from heimdall_assets.tables.claim import TableClaim, check_claim, rename_column
from heimdall_assets.tables.level_table import (
    HAD_TWICE,
    NO_SOURCE_POSITION,
    REPEATED,
    REPEATED_OTHERWISE,
    LevelTable,
    RowFacts,
    ask_for_places,
    find_repeats,
    read_row_facts,
)
from heimdall_assets.tables.level_values import LevelReader
from heimdall_assets.tables.questions import raise_questions

TAKEN_NAMES = ("not_heard", "heard_without_position")


def decode_wide(
    cells: Cells, columns: dict[str, str], receivers: Mapping[str, Position | None], claim: TableClaim
) -> LevelTable:
    """Return the table's rows that hold ``claim.where``; every row is checked, chosen or not.

    Args:
        cells: the table.
        columns: role -> column.
        receivers: as ``decode_receivers`` gives them.
        claim: what is said of the table.

    Raises:
        InvalidTable: a column is missing, a cell is no number, no time or out of range (the error names row and
            column), something must be said first, or no row is left.
    """
    place = _Receivers(cells, receivers, claim)
    facts = read_row_facts(cells, columns, claim)
    value, latitude, longitude = place.read(cells, claim)
    num_rows, num_receivers = value.shape
    receiver = np.tile(np.arange(num_receivers), num_rows)
    reader = LevelReader(value.ravel(), receiver, list(receivers), claim, claim.unit, is_full=True)
    fixed = [position for position in receivers.values() if position is not None]
    questions = facts.questions + reader.find_questions(cells.name)
    places = [(name, latitude[:, index], longitude[:, index]) for index, name in enumerate(receivers)]
    questions += ask_for_places([*places, (columns["latitude"], facts.latitude, facts.longitude)], fixed)
    raise_questions(questions, cells.name)
    level_db = reader.read_level_db(cells.name).reshape(value.shape)
    chosen, left_out = _choose(cells, columns, facts, level_db, claim)
    moves = np.array([position is None for position in receivers.values()])
    heard = np.isfinite(level_db[chosen])
    placed = heard & (~moves | np.isfinite(latitude[chosen]))
    row, column = np.nonzero(placed)
    extra = place.list_extra(cells, columns)
    names = np.array(list(receivers), dtype=object)
    attributes: dict[str, list[Any]] = {key: [cells.parse_value(key, row) for row in chosen] for key in extra}
    attributes["not_heard"] = [names[~row & ~moves].tolist() for row in heard]
    attributes["heard_without_position"] = [names[row].tolist() or None for row in heard & ~placed]
    kept = [f"columns kept as attributes: {', '.join(extra):.200}"] if extra else []
    return LevelTable(
        row=chosen + 1,
        timestamp=facts.timestamp[chosen],
        source_latitude=facts.latitude[chosen],
        source_longitude=facts.longitude[chosen],
        frequency_hz=facts.frequency_hz[chosen],
        session=_take(cells, columns.get("session"), chosen),
        source=_take(cells, columns.get("source"), chosen),
        attributes=attributes,
        receivers=list(receivers),
        positions=list(receivers.values()),
        heard_row=row.astype(np.int64),
        heard_receiver=column.astype(np.int64),
        level_db=level_db[chosen][placed],
        snr_db=np.full(len(row), np.nan),
        receiver_latitude=latitude[chosen][placed],
        receiver_longitude=longitude[chosen][placed],
        heard_timestamp=facts.timestamp[chosen][row],
        heard_attributes=[{}] * len(row),
        left_out=left_out,
        taken_as=[reader.describe(), *facts.taken_as, *kept],
    )


class _Receivers:
    """The columns of R receivers, found in the header or stated."""

    def __init__(self, cells: Cells, receivers: Mapping[str, Position | None], claim: TableClaim) -> None:
        header = list(cells.columns)
        expected = {
            name: [name] if position is not None else [f"{name}_{part}" for part in ("rss", "x", "y")]
            for name, position in receivers.items()
        }
        check_claim(claim, [column for own in expected.values() for column in own])
        self.columns = {
            name: [rename_column(column, header, claim, cells.name) for column in own] for name, own in expected.items()
        }

    def read(
        self, cells: Cells, claim: TableClaim
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return levels as they stand, latitudes and longitudes, float64 (rows, R) each; NaN: none."""
        value = np.full((cells.num_rows, len(self.columns)), np.nan)
        latitude, longitude = value.copy(), value.copy()
        for index, (level, *place) in enumerate(self.columns.values()):
            value[:, index] = cells.numbers(level, claim.not_heard, "a level, or --not-heard with it")
            if place:
                latitude[:, index], longitude[:, index] = cells.coordinates(place[0], place[1], claim.no_position)
        return value, latitude, longitude

    def list_extra(self, cells: Cells, columns: dict[str, str]) -> list[str]:
        """Return the columns that are neither of a receiver nor of the row itself."""
        used = {column for own in self.columns.values() for column in own} | set(columns.values())
        extra = [column for column in cells.columns if column not in used]
        for column in extra:
            if column in TAKEN_NAMES:
                raise InvalidTable(
                    f"{cells.name}: column {column!r}, expected another name: it is kept for our own list"
                )
        return extra


def _choose(
    cells: Cells, columns: dict[str, str], facts: RowFacts, level_db: NDArray[np.float64], claim: TableClaim
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the rows that are taken, and how many of those asked for are not, by reason."""
    choice = Choice(cells.name, cells.choose_rows(dict(claim.where)))
    choice.leave_out(np.isnan(facts.latitude), NO_SOURCE_POSITION)
    choice.leave_out(facts.had_twice, HAD_TWICE)
    rows = np.flatnonzero(choice.chosen)
    keys = {"time": facts.timestamp[rows], "latitude": facts.latitude[rows], "longitude": facts.longitude[rows]}
    for role in ("session", "source"):
        if role in columns:
            keys[role] = np.array(cells.columns[columns[role]], dtype=object)[rows]
    same, other = (np.zeros(len(choice.chosen), dtype=bool) for _ in range(2))
    same[rows], other[rows] = find_repeats(pd.DataFrame(keys), pd.DataFrame(level_db[rows]))
    choice.leave_out(same, REPEATED)
    choice.leave_out(other, REPEATED_OTHERWISE)
    choice.refuse_nothing()
    if "session" in columns:
        names = pd.Series(cells.columns[columns["session"]], dtype=object)
        cells.refuse(
            choice.chosen & names[choice.chosen].duplicated().reindex(names.index, fill_value=False).to_numpy(),
            columns["session"],
            "a name for each transmission, which an earlier row has; or --column session= for none",
        )
    return np.flatnonzero(choice.chosen).astype(np.int64), choice.left_out


def _take(cells: Cells, column: str | None, rows: NDArray[np.int64]) -> list[str] | None:
    return None if column is None else [cells.columns[column][row] for row in rows]
