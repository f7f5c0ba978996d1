"""Long tables of levels, arrivals or bearings: one row a receiver and transmission, as gateways and loggers write them.

Belongs here: rows gathered to transmissions. Rows are of one transmission where a column of sessions says so, else
where time, place and source are the same. Receivers stand where the receiver list or columns of the table say. Does not
belong here: tables with a column a receiver (``wide_levels``).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.domain import Position
from heimdall_assets.tables.cells import Cells, Choice
from heimdall_assets.tables.claim import LevelUnit, TableClaim, check_claim
from heimdall_assets.tables.level_table import (
    HAD_TWICE,
    NO_SOURCE_POSITION,
    LevelTable,
    RowFacts,
    ask_for_places,
    find_repeats,
    read_row_facts,
)
from heimdall_assets.tables.level_values import LevelReader
from heimdall_assets.tables.observed import Observed, read_observed
from heimdall_assets.tables.questions import raise_questions
from heimdall_assets.tables.receivers import place_receivers, read_places, read_receivers

NOT_HEARD = "not heard"
NOTHING_OBSERVED = "neither an arrival nor a bearing nor a level"
NO_RECEIVER_POSITION = "no position of the receiver"
SAME_RECEIVER = "a receiver that an earlier row of the transmission has"
SAME_RECEIVER_OTHERWISE = "a receiver that an earlier row of the transmission has with another level"

_LONGEST = np.timedelta64(60, "s")
"""Rows further apart are of no one transmission, whatever their session says."""

_LONGEST_WAY_NS = 1_000_000_000
"""Seven times around the earth: what is later than another arrival by more has another clock, or is another signal."""

_LARGEST_SNR_DB = 200.0
"""More than from a kilowatt at one end to the thermal noise of 1 Hz at the other, either way."""

_SAME_DEG = 1e-6
"""Positions that differ by less (0.1 m) are one."""


def decode_long(
    cells: Cells, columns: dict[str, str], receivers: Mapping[str, Position | None], claim: TableClaim
) -> LevelTable:
    """Return the table's rows that hold ``claim.where``, gathered to transmissions; every row is checked.

    Args:
        cells: the table.
        columns: role -> column; that of the receiver is among them, and one of level, arrival or bearing.
        receivers: as ``decode_receivers`` gives them; empty where the table's columns say the positions.
        claim: what is said of the table.

    Raises:
        InvalidTable: a cell is no number, no time or out of range (the error names row and column), a receiver stands
            nowhere, rows of one session contradict each other, something must be said first, or no row is left.
    """
    check_claim(claim, ())
    observed, questions, taken = (None, [], []) if claim.observed is None else read_observed(cells, columns, claim)
    facts = read_row_facts(cells, columns, claim, observed)
    names, receiver = read_receivers(cells, columns["receiver"])
    reader = _make_level_reader(cells, columns, claim, facts, names, receiver)
    latitude, longitude = read_places(cells, columns, claim)
    fixed = [position for position in receivers.values() if position is not None]
    raise_questions(
        facts.questions
        + questions
        + ([] if reader is None else reader.find_questions(cells.name))
        + ask_for_places(
            [
                (columns.get("receiver_latitude", ""), latitude, longitude),
                (columns.get("latitude", ""), facts.latitude, facts.longitude),
            ],
            fixed,
        ),
        cells.name,
    )
    level_db = np.full(cells.num_rows, np.nan) if reader is None else reader.read_level_db(cells.name)
    positions = place_receivers(cells, columns, names, receiver, receivers, latitude, longitude)
    moves = np.array([position is None for position in positions])[receiver]
    content = pd.DataFrame({"level": level_db} | ({} if observed is None else vars(observed)))
    content = content.assign(receiver_latitude=latitude, receiver_longitude=longitude)
    rows, left_out = _choose(cells, columns, claim, facts, content, receiver, moves & np.isnan(latitude))
    transmission, first = _gather(cells, columns, facts, rows)
    if observed is not None:
        _refuse_late(cells, columns, observed, rows, transmission)
    extra = [column for column in cells.columns if column not in columns.values()]
    shared, own = _split_attributes(cells, extra, rows, transmission)
    snr_db = _read_snr(cells, columns)[rows]
    kept = [f"columns kept as attributes: {', '.join(extra):.200}"] if extra else []
    return LevelTable(
        row=first + 1,
        timestamp=pd.Series(facts.timestamp[rows]).groupby(transmission).min().to_numpy().astype("datetime64[us]"),
        source_latitude=facts.latitude[first],
        source_longitude=facts.longitude[first],
        frequency_hz=facts.frequency_hz[first],
        session=[cells.columns[columns["session"]][row] for row in first] if "session" in columns else None,
        source=[cells.columns[columns["source"]][row] for row in first] if "source" in columns else None,
        attributes=shared,
        receivers=names,
        positions=positions,
        heard_row=transmission,
        heard_receiver=receiver[rows],
        level_db=level_db[rows],
        snr_db=snr_db,
        receiver_latitude=np.where(moves, latitude, np.nan)[rows],
        receiver_longitude=np.where(moves, longitude, np.nan)[rows],
        heard_timestamp=facts.timestamp[rows],
        heard_attributes=own,
        left_out=left_out,
        taken_as=[*([] if reader is None else [reader.describe()]), *taken, *facts.taken_as, *kept],
        observed=None if observed is None else observed.take(rows),
    )


def _make_level_reader(
    cells: Cells,
    columns: dict[str, str],
    claim: TableClaim,
    facts: RowFacts,
    names: list[str],
    receiver: NDArray[np.int64],
) -> LevelReader | None:
    """Return what reads the table's levels; None: it has no column of them."""
    if "level" not in columns:
        return None
    value = cells.numbers(columns["level"], claim.not_heard, "a level, or --not-heard with it")
    unit = claim.unit or (LevelUnit.DBM if "dbm" in columns["level"].lower() else None)
    transmissions = _list_keys(cells, columns, facts, np.arange(cells.num_rows)).drop_duplicates()
    is_full = cells.num_rows >= len(transmissions) * len(names)
    return LevelReader(value, receiver, names, claim, unit, is_full)


def _refuse_late(
    cells: Cells,
    columns: dict[str, str],
    observed: Observed,
    rows: NDArray[np.int64],
    transmission: NDArray[np.int64],
) -> None:
    """Check that no arrival is later than another of its session by more than a wave is on its way.

    Raises:
        InvalidTable: one is: clocks that are apart by seconds, or days, tell no distance.
    """
    unix_ns = observed.arrival_unix_ns[rows]
    there = unix_ns > 0
    earliest = np.full(int(transmission.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, transmission[there], unix_ns[there])
    late = np.zeros(cells.num_rows, dtype=bool)
    late[rows] = there & (unix_ns - earliest[transmission] > _LONGEST_WAY_NS)
    expected = f"an arrival within {_LONGEST_WAY_NS / 1e9:g} s of the first of its session: no way is longer"
    cells.refuse(late, columns.get("arrival", ""), expected)


def _read_snr(cells: Cells, columns: dict[str, str]) -> NDArray[np.float64]:
    """Return the SNR that each row says, in dB; NaN: none."""
    if "snr" not in columns:
        return np.full(cells.num_rows, np.nan)
    snr_db = cells.numbers(columns["snr"])
    cells.refuse(np.abs(snr_db) > _LARGEST_SNR_DB, columns["snr"], f"at most {_LARGEST_SNR_DB:g} dB of SNR")
    return snr_db


def _choose(
    cells: Cells,
    columns: dict[str, str],
    claim: TableClaim,
    facts: RowFacts,
    content: pd.DataFrame,
    receiver: NDArray[np.int64],
    unplaced: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the rows that are taken, and how many of those asked for are not, by reason.

    Args:
        cells, columns, claim, facts, receiver: as in ``decode_long``.
        content: level, arrival, bearing and receiver's place of each row; NaN: none.
        unplaced: bool (R,), the row's receiver moves and says no position.

    Raises:
        InvalidTable: a receiver has two different arrivals, bearings or places in one session, or no row is left.
    """
    choice = Choice(cells.name, cells.choose_rows(dict(claim.where)))
    said = claim.observed
    if said is None or said.needs_truth:
        choice.leave_out(np.isnan(facts.latitude), NO_SOURCE_POSITION)
    choice.leave_out(facts.had_twice, HAD_TWICE)
    kinds = [name for name in ("level", "arrival_sigma_s", "bearing_deg") if name in content]
    heard = [content[name].notna().to_numpy() for name in kinds]
    choice.leave_out(~np.logical_or.reduce(heard), NOT_HEARD if said is None else NOTHING_OBSERVED)
    choice.leave_out(unplaced, NO_RECEIVER_POSITION)
    rows = np.flatnonzero(choice.chosen)
    keys = _list_keys(cells, columns, facts, rows)
    keys["receiver"] = receiver[rows]
    same, other = (np.zeros(len(choice.chosen), dtype=bool) for _ in range(2))
    same[rows], other[rows] = find_repeats(keys, content.iloc[rows].reset_index(drop=True))
    if said is not None:
        cells.refuse(other, columns["receiver"], "one row a receiver and session: an earlier one says otherwise")
    choice.leave_out(same, SAME_RECEIVER)
    choice.leave_out(other, SAME_RECEIVER_OTHERWISE)
    choice.refuse_nothing()
    return np.flatnonzero(choice.chosen).astype(np.int64), choice.left_out


def _list_keys(cells: Cells, columns: dict[str, str], facts: RowFacts, rows: NDArray[np.int64]) -> pd.DataFrame:
    """Return what tells the transmission of each of ``rows`` from others; a table that tells none apart is one."""
    if "session" in columns:
        return pd.DataFrame({"session": np.array(cells.columns[columns["session"]], dtype=object)[rows]})
    if not {"time", "latitude"} <= columns.keys():
        return pd.DataFrame({"session": np.zeros(len(rows), dtype=np.int64)})
    keys = {"time": facts.timestamp[rows], "latitude": facts.latitude[rows], "longitude": facts.longitude[rows]}
    if "source" in columns:
        keys["source"] = np.array(cells.columns[columns["source"]], dtype=object)[rows]
    return pd.DataFrame(keys)


def _gather(
    cells: Cells, columns: dict[str, str], facts: RowFacts, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which transmission each of ``rows`` is of, in order of their first rows, and those first rows.

    Raises:
        InvalidTable: rows of one session differ in place, frequency or source, or lie too far apart in time.
    """
    keys = _list_keys(cells, columns, facts, rows)
    transmission = keys.groupby(list(keys.columns), sort=False).ngroup().to_numpy().astype(np.int64)
    first = rows[np.unique(transmission, return_index=True)[1]]
    away = np.zeros(cells.num_rows, dtype=bool)
    for values, column in ((facts.latitude, "latitude"), (facts.longitude, "longitude")):
        away[rows] = np.abs(values[rows] - values[first][transmission]) > _SAME_DEG
        cells.refuse(away, columns.get(column, ""), "the place that the first row of its session has")
    away[rows] = facts.frequency_hz[rows] != facts.frequency_hz[first][transmission]
    frequency = next((columns[role] for role in columns if role.startswith("frequency_")), columns.get("time", ""))
    cells.refuse(away, frequency, "the frequency that the first row of its transmission has")
    away[rows] = np.abs(facts.timestamp[rows] - facts.timestamp[first][transmission]) > _LONGEST
    time_column = columns.get("time", columns.get("arrival", ""))
    cells.refuse(away, time_column, f"a time within {_LONGEST} of the first row of its session")
    if "source" in columns:
        named = np.array(cells.columns[columns["source"]], dtype=object)
        away[rows] = named[rows] != named[first][transmission]
        cells.refuse(away, columns["source"], "the source that the first row of its session has")
    return transmission, first


def _split_attributes(
    cells: Cells, extra: list[str], rows: NDArray[np.int64], transmission: NDArray[np.int64]
) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """Return columns that are the same in all rows of every transmission, by transmission, and the others by row."""
    shared: dict[str, list[Any]] = {}
    own: list[dict[str, Any]] = [{} for _ in rows]
    first = np.unique(transmission, return_index=True)[1]
    for column in extra:
        text = np.array(cells.columns[column], dtype=object)[rows]
        if (text == text[first][transmission]).all():
            shared[column] = [cells.parse_value(column, int(rows[index])) for index in first]
        else:
            for index, row in enumerate(rows.tolist()):
                own[index][column] = cells.parse_value(column, row)
    return shared, own
