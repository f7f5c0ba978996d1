"""Raw rows: which row has which of the values that a database gave, and each column for all rows.

Belongs here: columns that many rows share, rows that are chosen. Does not belong here: what a value is
(``columns``), what it should be (``rules``).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.stores.database.raw.columns import Gathered, Mask, Places, RawColumn

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Mask", "Places", "RawRows"]

_Array = TypeVar("_Array", bound=Any)


class RawRows:
    """Columns as the database gave them, each also as numbers, texts or times; NaN or None where it cannot be one.

    Many rows may share what they hang on, and texts: such a value is kept, and judged, once, and taken where its rows
    are.
    """

    def __init__(self, columns: Mapping[str, Gathered], num_rows: int):
        """Keep columns, name -> values as read, one for each of the ``num_rows`` rows."""
        self._columns: dict[str, RawColumn] = {}
        self._places: dict[str, Places | None] = {}
        self.num_rows = num_rows
        for name, gathered in columns.items():
            values, self._places[name] = gathered.list_shared()
            self._columns[name] = RawColumn(values)

    def leave_empty(self, names: Collection[str]) -> None:
        """Take in columns in which every row reads as NULL."""
        places = np.zeros(self.num_rows, dtype=np.int64)
        for name in names:
            self._columns[name], self._places[name] = RawColumn([None]), places

    def hang_on(self, other: "RawRows", places: Places) -> None:
        """Take in the columns of other rows.

        Args:
            places: int64 (N,), for each row its place among ``other``; -1: none, which reads as NULL.
        """
        for name in other.names:
            self._columns[name] = RawColumn([*other.values(name), None])
            self._places[name] = places

    def choose(self, rows: NDArray[np.int64]) -> "RawRows":
        """Return these rows alone, in this order; what was found out about their values is known there too."""
        chosen = RawRows({}, len(rows))
        shared = {id(places): places for places in self._places.values() if places is not None}
        composed = {key: places[rows] for key, places in shared.items()}
        for name, column in self._columns.items():
            places = self._places[name]
            chosen._columns[name] = column
            chosen._places[name] = rows if places is None else composed[id(places)]
        return chosen

    @property
    def names(self) -> list[str]:
        """The columns that were read."""
        return list(self._columns)

    def has(self, name: str) -> bool:
        """Return whether such a column was read."""
        return name in self._columns

    def value(self, name: str, row: int) -> Any:
        """Return one value as read."""
        places = self._places[name]
        return self._columns[name].values[row if places is None else places[row]]

    def values(self, name: str) -> list[Any]:
        """Return the values as read, one a row."""
        column, places = self._columns[name].values, self._places[name]
        return column if places is None else [column[place] for place in places.tolist()]

    def nulls(self, name: str) -> Mask:
        """Return where the column is NULL, bool (N,)."""
        return self._take(name, self._columns[name].nulls)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return the column as float64 (N,); NaN where it is NULL or no number."""
        return self._take(name, self._columns[name].numbers)

    def integers(self, name: str) -> "pd.arrays.IntegerArray":
        """Return the column as Int64 (N,), exact to the last digit; NA where it is NULL or no integer of 64 bits."""
        return self._take(name, self._columns[name].integers)

    def flags(self, name: str) -> "pd.arrays.BooleanArray":
        """Return the column as boolean (N,); NA where it is NULL or neither true nor false."""
        return self._take(name, self._columns[name].flags)

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return the column as objects (N,): str, or None where it is NULL or no text."""
        return self._take(name, self._columns[name].texts)

    def strings(self, name: str) -> "pd.api.extensions.ExtensionArray":
        """Return the column as pandas strings (N,); NA where it is NULL or no text."""
        return self._take(name, self._columns[name].strings)

    def times(self, name: str) -> "pd.arrays.DatetimeArray":
        """Return the column as datetime64[us, UTC] (N,); NaT where it is NULL or no time."""
        return self._take(name, self._columns[name].times)

    def ranks(self, name: str) -> Places:
        """Return the place of each text in the order of all, int64 (N,): the same for the same; last what is none."""
        return self._take(name, self._columns[name].ranks)

    def test(self, name: str, judge: Callable[[str | None], bool]) -> Mask:
        """Return what ``judge`` says of each text, bool (N,); it is asked once of what many rows share."""
        return self._take(name, self._columns[name].test(judge))

    def find(self, name: str, among: Sequence[Any]) -> Places:
        """Return the place of each value among others, int64 (N,); -1 where it is none of them."""
        return self._take(name, self._columns[name].find({value: place for place, value in enumerate(among)}))

    def _take(self, name: str, values: _Array) -> _Array:
        places = self._places[name]
        taken: _Array = values if places is None else values[places]
        return taken
