"""A table of levels as it is understood: transmissions, and which receiver heard each how strongly.

Belongs here: the one form that wide and long tables become, and what both are read by. Does not belong here: their own
shapes (``wide_levels``, ``long_levels``), ids and rows of the database (``intake.level_table``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidTable
from heimdall_assets.tables.cells import Cells
from heimdall_assets.tables.claim import TableClaim
from heimdall_assets.tables.observed import Observed
from heimdall_assets.tables.questions import Question
from heimdall_assets.tables.times import load_zone, read_times

NO_SOURCE_POSITION = "no position of the source"
REPEATED = "time and position of an earlier row"
REPEATED_OTHERWISE = "time and position of an earlier row, but other levels"
HAD_TWICE = "a time that its zone has twice, when clocks go back"
"""Reasons for which a row is left out, and counted."""

_LOWEST_HZ, _HIGHEST_HZ = 3e3, 300e9
"""Radio frequencies (ITU Radio Regulations, article 2.1); a number below is most likely in another unit."""

_FAR_DEG = 5.0
"""Whole degrees this far from all else in a table are no place in it: nobody's receivers stand 500 km apart so."""

_MAX_NAMED = 3

Degrees = NDArray[np.float64]


@dataclass(frozen=True)
class LevelTable:
    """R transmissions and M levels of C receivers.

    Attributes:
        row: int64 (R,), number of the (first) row in its file, the first after the header is 1.
        timestamp: datetime64[us] (R,), UTC.
        source_latitude, source_longitude: float64 (R,), degrees.
        frequency_hz: float64 (R,).
        session, source: R names each; None: the table names none.
        attributes: column -> R values, int, float or text; None: empty cell. Beside them, by these names,
            ``not_heard`` and ``heard_without_position`` where the table's form tells them.
        receivers: C names.
        positions: C fixed positions; None: the receiver moves.
        heard_row, heard_receiver: int64 (M,), indices of transmission and receiver.
        level_db: float64 (M,); NaN: none beside an arrival or a bearing.
        snr_db: float64 (M,); NaN: not said.
        receiver_latitude, receiver_longitude: float64 (M,), degrees, of moving receivers; NaN: fixed.
        heard_timestamp: datetime64[us] (M,), UTC.
        heard_attributes: M dictionaries of columns that differ between the receivers of one transmission.
        left_out: reason -> number of rows.
        taken_as: what was believed of the table, a phrase each.
        observed: arrivals and bearings (M,); None: the table has levels alone.
    """

    row: NDArray[np.int64]
    timestamp: NDArray[np.datetime64]
    source_latitude: NDArray[np.float64]
    source_longitude: NDArray[np.float64]
    frequency_hz: NDArray[np.float64]
    session: list[str] | None
    source: list[str] | None
    attributes: dict[str, list[Any]]
    receivers: list[str]
    positions: list[Position | None]
    heard_row: NDArray[np.int64]
    heard_receiver: NDArray[np.int64]
    level_db: NDArray[np.float64]
    snr_db: NDArray[np.float64]
    receiver_latitude: NDArray[np.float64]
    receiver_longitude: NDArray[np.float64]
    heard_timestamp: NDArray[np.datetime64]
    heard_attributes: list[dict[str, Any]]
    left_out: dict[str, int] = field(default_factory=dict)
    taken_as: list[str] = field(default_factory=list)
    observed: Observed | None = None

    def __len__(self) -> int:
        return len(self.row)

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``values`` (M,) of the levels as float64 (R, C); NaN: not heard."""
        out = np.full((len(self.row), len(self.receivers)), np.nan)
        out[self.heard_row, self.heard_receiver] = values
        return out


@dataclass(frozen=True)
class RowFacts:
    """What each of R rows says of its transmission, and what must be asked about it.

    Attributes:
        timestamp, latitude, longitude, frequency_hz: (R,); a position may be NaN, a frequency that nobody said too.
        had_twice: bool (R,), times that their zone has twice.
        questions: what must be said before the rows can be believed.
        taken_as: what was believed.
    """

    timestamp: NDArray[np.datetime64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    frequency_hz: NDArray[np.float64]
    had_twice: NDArray[np.bool_]
    questions: list[Question]
    taken_as: list[str]


def read_row_facts(
    cells: Cells, columns: dict[str, str], claim: TableClaim, observed: Observed | None = None
) -> RowFacts:
    """Return time, place and frequency of each row.

    Arrivals of every row are times too, where no column is: microseconds are enough to tell transmissions by.

    Raises:
        InvalidTable: there is no column for time or place, or a cell that is none.
    """
    by_arrival = "time" not in columns and observed is not None and bool((observed.arrival_unix_ns > 0).all())
    may_lack = {"time"} if by_arrival else set()
    if claim.observed is not None and not claim.observed.needs_truth and not {"latitude", "longitude"} & columns.keys():
        may_lack |= {"latitude", "longitude"}
    for role in ("time", "latitude", "longitude"):
        if role not in columns and role not in may_lack:
            raise InvalidTable(
                f"{cells.name}: no column for the {role} of each row, expected --column {role}=NAME with one of "
                f"{', '.join(cells.columns):.200}"
            )
    zone = None if claim.time_zone is None else load_zone(claim.time_zone)
    if by_arrival and observed is not None:
        timestamp = (observed.arrival_unix_ns // 1000).view("datetime64[us]")
        had_twice, lacks_zone = np.zeros(cells.num_rows, dtype=bool), False
    else:
        timestamp, had_twice, lacks_zone = read_times(cells, columns["time"], zone, claim.time_format)
    if "latitude" in columns:
        latitude, longitude = cells.coordinates(columns["latitude"], columns["longitude"], claim.no_position)
    else:
        latitude, longitude = (np.full(cells.num_rows, np.nan) for _ in range(2))
    frequency_hz, said = _read_frequency(cells, columns, claim)
    zone_text = f"times carry no zone ({columns.get('time', ''):.40}): say --time-zone UTC, or whose they are"
    questions = [Question(zone_text, "--time-zone ZONE", {"time_zone": "UTC"})] * lacks_zone
    if not said:
        hz_text = "no column gives the frequency: say --frequency-hz, or --column frequency_hz=NAME (or _mhz)"
        questions.append(Question(hz_text, "--frequency-hz HZ", {"frequency_hz": _LOWEST_HZ}))
    taken_as = [] if zone is None else [f"times without a zone as {zone.key}"]
    return RowFacts(timestamp, latitude, longitude, frequency_hz, had_twice, questions, taken_as)


def _read_frequency(cells: Cells, columns: dict[str, str], claim: TableClaim) -> tuple[NDArray[np.float64], bool]:
    """Return the frequency of each row in Hz, NaN where nobody says it, and whether anybody does."""
    roles = [role for role in ("frequency_hz", "frequency_khz", "frequency_mhz") if role in columns]
    if len(roles) + (claim.frequency_hz is not None) > 1:
        said = [f"column {columns[role]:.60}" for role in roles] + ["--frequency-hz"] * (claim.frequency_hz is not None)
        raise InvalidTable(f"{cells.name}: found the frequency in {' and '.join(said)}, expected one of them")
    if claim.frequency_hz is not None:
        if not _LOWEST_HZ <= claim.frequency_hz <= _HIGHEST_HZ:
            raise InvalidTable(
                f"{cells.name}: --frequency-hz {claim.frequency_hz:g}, expected {_LOWEST_HZ:g} to {_HIGHEST_HZ:g} Hz"
            )
        return np.full(cells.num_rows, claim.frequency_hz), True
    if not roles:
        return np.full(cells.num_rows, np.nan), False
    scale = {"frequency_hz": 1.0, "frequency_khz": 1e3, "frequency_mhz": 1e6}[roles[0]]
    frequency_hz = np.round(cells.numbers(columns[roles[0]]) * scale, 6)
    wrong = ~((frequency_hz >= _LOWEST_HZ) & (frequency_hz <= _HIGHEST_HZ))
    unit = roles[0].rpartition("_")[2]
    cells.refuse(
        wrong, columns[roles[0]], f"a radio frequency, {_LOWEST_HZ / scale:g} to {_HIGHEST_HZ / scale:g} {unit}"
    )
    return frequency_hz, True


def ask_for_places(places: Sequence[tuple[str, Degrees, Degrees]], known: Sequence[Position]) -> list[Question]:
    """Return one question where whole degrees stand far from every other place: they may stand for "no position".

    Args:
        places: column, and the latitudes and longitudes in degrees that stand there, float64 (R,); NaN: none.
        known: places that are certain.
    """
    latitude = np.concatenate([north for _, north, _ in places])
    longitude = np.concatenate([east for _, _, east in places])
    whole = (latitude == np.rint(latitude)) & (longitude == np.rint(longitude))
    sure = np.isfinite(latitude) & ~whole
    north = np.concatenate([latitude[sure], [place.latitude for place in known]])
    east = np.concatenate([longitude[sure], [place.longitude for place in known]])
    if not whole.any() or not len(north):
        return []
    away_north, away_east = latitude - np.median(north), longitude - np.median(east)
    away_east = ((away_east + 180.0) % 360.0 - 180.0) * np.cos(np.radians(np.median(north)))
    far = whole & (np.hypot(away_north, away_east) > _FAR_DEG)
    if not far.any():
        return []
    values = np.unique(np.concatenate([latitude[far], longitude[far]]))
    options = " ".join(f"--no-position {value + 0.0:g}" for value in values[:_MAX_NAMED])
    columns = [column for (column, _, _), own in zip(places, np.split(far, len(places)), strict=True) if own.any()]
    more = f" and {len(columns) - 1} more" if len(columns) > 1 else ""
    text = (
        f"{columns[0]:.40}{more} {'hold' if more else 'holds'} whole degrees in {100.0 * far.mean():.3g} % of cells, "
        f"far from all else: say {options} if that means no position"
    )
    return [Question(text, options, {"no_position": tuple(float(value) for value in values[:_MAX_NAMED])})]


def find_repeats(keys: pd.DataFrame, content: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows repeat the keys of an earlier one, with the same content and with another; bool (R,) each."""
    repeats = keys.duplicated().to_numpy()
    same = pd.concat([keys, content], axis=1).duplicated().to_numpy()
    return repeats & same, repeats & ~same
