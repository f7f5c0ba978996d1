"""Raw columns: the values of one column as a database gave them, and what of them is a number, a text or a time.

Belongs here: conversions that never raise, each made once and of each value once, however many rows share it. Does not
belong here: which row has which value (``rows``), what a value should be (``rules``).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from operator import is_
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

_TEXTS = frozenset({str, NoneType})


class RawColumn:
    """Values as read, V of them; NaN, NA, NaT or None where one cannot be what is asked for."""

    def __init__(self, values: list[Any]):
        self.values = values

    @cached_property
    def nulls(self) -> Mask:
        """Where it is NULL, bool (V,)."""
        return np.fromiter(map(is_, self.values, repeat(None)), dtype=bool, count=len(self.values))

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """As float64 (V,)."""
        try:
            return np.array(self.values, dtype=np.float64)
        except (TypeError, ValueError, ArithmeticError):  # one of them is no number: one by one
            return np.array([_to_float(value) for value in self.values], dtype=np.float64)

    @cached_property
    def integers(self) -> "pd.arrays.IntegerArray":
        """As Int64 (V,), exact to the last digit; NA where it is no integer of 64 bits."""
        import pandas as pd

        try:
            numbers = np.array([0 if value is None else value for value in self.values])
        except ValueError:  # one of them is no number
            numbers = np.empty(0)
        if numbers.dtype == np.int64 and numbers.shape == (len(self.values),):
            return pd.arrays.IntegerArray(numbers, self.nulls.copy())
        found: pd.arrays.IntegerArray = pd.array([_to_integer(value) for value in self.values], dtype="Int64")
        return found

    @cached_property
    def flags(self) -> "pd.arrays.BooleanArray":
        """As boolean (V,); NA where it is neither true nor false."""
        import pandas as pd

        return pd.arrays.BooleanArray(self.numbers == 1, ~np.isin(self.numbers, (0, 1)))

    @cached_property
    def texts(self) -> NDArray[np.object_]:
        """As objects (V,): str, or None."""
        texts = np.empty(len(self.values), dtype=object)
        is_text = set(map(type, self.values)) <= _TEXTS
        texts[:] = self.values if is_text else [value if isinstance(value, str) else None for value in self.values]
        return texts

    @cached_property
    def strings(self) -> "pd.api.extensions.ExtensionArray":
        """As pandas strings (V,)."""
        import pandas as pd

        return pd.array(self.texts, dtype="string")

    @cached_property
    def times(self) -> "pd.arrays.DatetimeArray":
        """As datetime64[us, UTC] (V,)."""
        import pandas as pd

        texts = pd.Series(self.texts, dtype=object)
        times = pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce").astype("datetime64[us, UTC]")
        found: pd.arrays.DatetimeArray = times.array
        return found

    @cached_property
    def ranks(self) -> Places:
        """The place of each text among all that there are, by code points, int64 (V,); last what is no text."""
        known = {text: rank for rank, text in enumerate(sorted({text for text in self.texts if text is not None}))}
        return np.fromiter((known.get(text, len(known)) for text in self.texts), dtype=np.int64, count=len(self.texts))

    def test(self, judge: Callable[[str | None], bool]) -> Mask:
        """Return what ``judge`` says of each text, bool (V,)."""
        return np.fromiter(map(judge, self.texts), dtype=bool, count=len(self.texts))

    def find(self, known: Mapping[Hashable, int]) -> Places:
        """Return what is known of each value, int64 (V,); -1: nothing."""
        return np.fromiter((known.get(value, -1) for value in self.values), dtype=np.int64, count=len(self.values))


class Gathered:
    """A column as it comes, part by part: texts that many rows share, and NULL, are kept once.

    A column that holds anything else stays as it is, for of other things equal ones need not be the same (1, 1.0,
    true); so does one whose texts are seldom the same.
    """

    def __init__(self) -> None:
        self._known: _Numbered | None = _Numbered()
        self._rows: list[Any] = []  # while texts are known: the place of each; else values

    def __len__(self) -> int:
        return len(self._rows)

    def extend(self, values: Sequence[Any]) -> None:
        """Take in the values of more rows."""
        if self._known is not None and not set(map(type, values)) <= _TEXTS:
            self._spread()
        if self._known is None:
            self._rows.extend(values)
            return
        self._rows.extend(map(self._known.__getitem__, values))
        if 2 * len(self._known) > len(self._rows):
            self._spread()

    def list_rows(self) -> list[Any]:
        """Return the value of each row."""
        self._spread()
        return self._rows

    def list_shared(self) -> tuple[list[Any], Places | None]:
        """Return what is kept once and for each row its place; or the value of each row, and None."""
        if self._known is None:
            return self._rows, None
        return list(self._known), np.array(self._rows, dtype=np.int64)

    def _spread(self) -> None:
        if self._known is not None:
            distinct, self._known = list(self._known), None
            self._rows = [distinct[place] for place in self._rows]


class _Numbered(dict[str | None, int]):
    """Texts in the order in which they were first asked for, each with its number."""

    def __missing__(self, text: str | None) -> int:
        self[text] = number = len(self)
        return number


def gather(values: Sequence[Any]) -> Gathered:
    """Return a column of ``values``."""
    column = Gathered()
    column.extend(values)
    return column


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
