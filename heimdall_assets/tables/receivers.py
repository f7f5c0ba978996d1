"""Receivers of a long table: their names, and where they stand by the receiver list or by the table's own columns.

Belongs here: which receivers there are, which stand still, which move. Does not belong here: the list itself
(``receiver_list``), what they heard (``long_levels``).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.domain import Position, check_name
from heimdall_assets.errors import InvalidIdentifier, InvalidTable
from heimdall_assets.tables.cells import Cells
from heimdall_assets.tables.claim import TableClaim

_MOVED_DEG = 1e-6
"""A receiver whose positions differ by more (0.1 m) moves."""


def read_receivers(cells: Cells, column: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the receivers' names, sorted, and which of them each row is of, int64 (R,)."""
    names, index = np.unique(np.array(cells.columns[column], dtype=object).astype(str), return_inverse=True)
    for position, name in enumerate(names.tolist()):
        try:
            check_name(name, "receiver")
        except InvalidIdentifier:
            cells.refuse(index == position, column, "the name of a receiver: letters, digits, blanks, . _ + : -")
    return names.tolist(), index.astype(np.int64)


def read_places(
    cells: Cells, columns: dict[str, str], claim: TableClaim
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where each row says that its receiver stands, NaN where the table has no columns for it."""
    roles = [role for role in ("receiver_latitude", "receiver_longitude") if role in columns]
    if not roles:
        nothing = np.full(cells.num_rows, np.nan)
        return nothing, nothing.copy()
    if len(roles) == 1:
        raise InvalidTable(f"{cells.name}: found a column for {roles[0]} alone, expected latitude and longitude")
    return cells.coordinates(columns[roles[0]], columns["receiver_longitude"], claim.no_position)


def place_receivers(
    cells: Cells,
    columns: dict[str, str],
    names: list[str],
    receiver: NDArray[np.int64],
    receivers: Mapping[str, Position | None],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
) -> list[Position | None]:
    """Return the fixed position of each named receiver, from the list or its own rows; None: it moves."""
    places = pd.DataFrame({"receiver": receiver, "latitude": latitude, "longitude": longitude}).groupby("receiver")
    lowest, highest = places.min(), places.max()
    positions: list[Position | None] = []
    for index, name in enumerate(names):
        if name in receivers and receivers[name] is not None:
            positions.append(receivers[name])
            continue
        low, high = lowest.loc[index], highest.loc[index]
        is_placed = bool(np.isfinite(low.to_numpy()).all())
        if not is_placed:
            cells.refuse(
                receiver == index,
                columns["receiver"],
                "a receiver of --receivers, or columns for receiver_latitude and receiver_longitude",
            )
        stays = bool(((high - low).to_numpy() <= _MOVED_DEG).all()) and name not in receivers
        here = Position(latitude=float(low["latitude"]), longitude=float(low["longitude"]))
        positions.append(here if stays else None)
    return positions
