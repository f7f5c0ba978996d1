"""Space of a search: which settings are tried with which values, written as one line a setting.

Belongs here: the lines and what they mean. Does not belong here: whether a setting is there and takes such a value
(``specs``), drawing values (``pipeline.searching``).

``TrainingSpec.batch_size=32|64|128`` tries these values, ``TrainingSpec.learning_rate=log(1e-4,1e-2)`` draws between
two ends evenly in the logarithm, ``ModelSpec.dropout=uniform(0,0.3)`` evenly; both ends count.
"""

import json
import math
import re
from dataclasses import dataclass
from itertools import product
from typing import Any

Value = bool | int | float | str | None

_RANGE = re.compile(r"(log|uniform)\(([^,()]+),([^,()]+)\)")
_EXPECTED = "expected Spec.field=a|b|c, Spec.field=log(low,high) or Spec.field=uniform(low,high)"


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched.

    Attributes:
        spec: name of its spec.
        field: name of the setting.
        values: those to try; empty: a range.
        low: smallest of a range.
        high: largest of a range.
        is_log: whether a range is drawn from evenly in the logarithm.
    """

    spec: str
    field: str
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False

    @property
    def name(self) -> str:
        """The setting as people write it."""
        return f"{self.spec}.{self.field}"

    @property
    def tried(self) -> tuple[Value, ...]:
        """The values that decide whether the setting takes all of them."""
        return self.values or (self.low, self.high)


def parse_dimension(line: str) -> Dimension:
    """Return what one line says.

    Raises:
        ValueError: it says nothing that can be searched; the message is one line.

    Examples:
        >>> parse_dimension("TrainingSpec.batch_size=32|64").values
        (32, 64)
        >>> parse_dimension("TrainingSpec.learning_rate=log(1e-4,1e-2)").high
        0.01
    """
    name, is_said, told = line.partition("=")
    spec, dot, field = name.strip().partition(".")
    told = told.strip()
    if not (is_said and dot and spec and field and told):
        raise ValueError(f"found {line!r:.80}, {_EXPECTED}")
    found = _RANGE.fullmatch(told.replace(" ", ""))
    if found is not None:
        return _parse_range(line, spec, field, found)
    if "(" in told:
        raise ValueError(f"found {line!r:.80}, {_EXPECTED}")
    values = tuple(_parse_value(part.strip()) for part in told.split("|"))
    if len({json.dumps(value) for value in values}) < len(values):
        raise ValueError(f"{name}: found a value twice in {told!r:.80}, expected each once")
    return Dimension(spec, field, values)


def _parse_range(line: str, spec: str, field: str, found: re.Match[str]) -> Dimension:
    try:
        low, high = float(found[2]), float(found[3])
    except ValueError:
        raise ValueError(f"found {line!r:.80}, {_EXPECTED}") from None
    is_log = found[1] == "log"
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (is_log and low <= 0):
        ends = "0 < low < high" if is_log else "low < high"
        raise ValueError(f"{spec}.{field}: found {found[1]}({low:g},{high:g}), expected {ends}")
    return Dimension(spec, field, (), low, high, is_log)


def _parse_value(text: str) -> Value:
    """Return a number, true, false or null as such, anything else as the text it is."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str | None) else text


def list_grid(dimensions: list[Dimension]) -> list[dict[str, Value]]:
    """Return every point of a grid, the last setting changing fastest.

    Examples:
        >>> list_grid([parse_dimension("A.x=1|2"), parse_dimension("A.y=3|4")])[1]
        {'A.x': 1, 'A.y': 4}
    """
    names = [one.name for one in dimensions]
    return [dict(zip(names, values, strict=True)) for values in product(*(one.values for one in dimensions))]
