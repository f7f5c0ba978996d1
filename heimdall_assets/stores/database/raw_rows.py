"""Raw rows: columns as a database gave them, whatever is in them, and what of them is a number, a text or a time.

Belongs here: conversions that never raise. Does not belong here: what a value should be (``row_rules``).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


class RawRows:
    """Columns as the database gave them, each also as numbers, texts or times; NaN or None where it cannot be one.

    Many rows may share what they hang on: such a column is kept, and judged, as often as it was read, and taken where
    its rows are.
    """

    def __init__(self, columns: dict[str, list[Any]], num_rows: int, places: dict[str, Places] | None = None):
        """Keep columns.

        Args:
            columns: name -> values as read.
            num_rows: N, how many rows there are.
            places: name -> for each row the place of its value in the column, which ends with None for rows that hang
                on nothing; a column that is not there has a value a row.
        """
        self._columns = columns
        self._places = places or {}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._texts: dict[str, NDArray[np.object_]] = {}
        self._nulls: dict[str, Mask] = {}
        self.num_rows = num_rows

    def values(self, name: str) -> list[Any]:
        """Return the values as read, one a row."""
        column = self._columns[name]
        return [column[place] for place in self._places[name]] if name in self._places else column

    @property
    def names(self) -> list[str]:
        """The columns that were read."""
        return list(self._columns)

    def has(self, name: str) -> bool:
        """Return whether such a column was read."""
        return name in self._columns

    def nulls(self, name: str) -> Mask:
        """Return where the column is NULL, bool (N,)."""
        if name not in self._nulls:
            self._nulls[name] = self._take(name, np.array([value is None for value in self._columns[name]], dtype=bool))
        return self._nulls[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return the column as float64 (N,); NaN where it is NULL or no number."""
        if name not in self._numbers:
            column = self._columns[name]
            try:
                numbers = np.array(column, dtype=np.float64)
            except (TypeError, ValueError, ArithmeticError):  # one of them is no number: one by one
                numbers = np.array([_to_float(value) for value in column], dtype=np.float64)
            self._numbers[name] = self._take(name, numbers)
        return self._numbers[name]

    def integers(self, name: str) -> "pd.api.extensions.ExtensionArray":
        """Return the column as Int64 (N,), exact to the last digit; NA where it is NULL or no integer of 64 bits."""
        import pandas as pd

        column = self._columns[name]
        try:
            numbers = np.array([0 if value is None else value for value in column])
        except ValueError:  # one of them is no number
            numbers = np.empty(0)
        if numbers.dtype == np.int64 and numbers.shape == (len(column),):
            return pd.arrays.IntegerArray(self._take(name, numbers), self.nulls(name).copy())
        return pd.array(
            self._take(name, np.array([_to_integer(value) for value in column], dtype=object)), dtype="Int64"
        )

    def flags(self, name: str) -> "pd.api.extensions.ExtensionArray":
        """Return the column as boolean (N,); NA where it is NULL or neither true nor false."""
        import pandas as pd

        numbers = self.numbers(name)
        return pd.arrays.BooleanArray(numbers == 1, ~np.isin(numbers, (0, 1)))

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return the column as objects (N,): str, or None where it is NULL or no text."""
        if name not in self._texts:
            self._texts[name] = self._take(name, self._read_texts(name))
        return self._texts[name]

    def test(self, name: str, judge: Callable[[str | None], bool]) -> Mask:
        """Return what ``judge`` says of each text, bool (N,); it is asked once of what many rows share."""
        return self._take(name, np.array([judge(text) for text in self._read_texts(name)], dtype=bool))

    def times(self, name: str) -> "pd.Series[Any]":
        """Return the column as datetime64[us, UTC] (N,); NaT where it is NULL or no time."""
        import pandas as pd

        texts = pd.Series(self._read_texts(name), dtype=object)
        times = pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce").astype("datetime64[us, UTC]")
        return times.iloc[self._places[name]].reset_index(drop=True) if name in self._places else times

    def _read_texts(self, name: str) -> NDArray[np.object_]:
        texts = np.empty(len(self._columns[name]), dtype=object)
        texts[:] = [value if isinstance(value, str) else None for value in self._columns[name]]
        return texts

    def _take(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        return values[self._places[name]] if name in self._places else values


def _to_float(value: Any) -> float:
    try:
        return float("nan") if value is None or isinstance(value, bytes) else float(value)
    except (TypeError, ValueError, ArithmeticError):
        return float("nan")


def _to_integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        try:
            value = int(value) if value == int(value) else None
        except (TypeError, ValueError, OverflowError, ArithmeticError):
            return None
    return value if value is not None and -(2**63) <= value < 2**63 else None
