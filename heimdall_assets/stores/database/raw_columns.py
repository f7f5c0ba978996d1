"""Raw columns: the values of one column as a database gave them, and what of them is a number, a text or a time.

Belongs here: conversions that never raise, each made once and of each value once, however many rows share it. Does not
belong here: which row has which value (``raw_rows``), what a value should be (``row_rules``).
"""

from collections.abc import Callable, Hashable, Mapping
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


def share_values(values: list[Any]) -> tuple[list[Any], Places | None]:
    """Return each text of a column once, and for each row the place of its own; so too where all is NULL.

    The column as it is, and None: it holds other things than texts, of which equal ones need not be the same (1, 1.0,
    true), or its texts are seldom the same.
    """
    if values.count(None) == len(values):
        return [None], np.zeros(len(values), dtype=np.int64)
    if not isinstance(values[0], str | None) or not set(map(type, values)) <= _TEXTS:
        return values, None
    distinct = list(dict.fromkeys(values))
    if 2 * len(distinct) > len(values):
        return values, None
    known = {text: place for place, text in enumerate(distinct)}
    return distinct, np.fromiter(map(known.__getitem__, values), dtype=np.int64, count=len(values))


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
