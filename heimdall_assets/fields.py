"""Fields: the table of every column that is imported, judged, frozen and shown, one row each.

A row is an attribute of a noun of ``domain``: its type says what it is, its ``Bounds`` and whether it may be missing;
``Stored`` says where else it appears. Schema, row rules, snapshot, checks and provenance follow from the rows.
Does not belong here: the nouns (``domain``), what is made of the rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Le
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ValidationError

_DTYPES: dict[type, str] = {
    float: "float64",
    int: "Int64",
    bool: "boolean",
    datetime: "datetime64[us, UTC]",
    str: "string",
    dict: "string",  # canonical JSON
}
_PYDANTIC_SAYS = "Input should be "
_UNITS = {
    "_hz": "Hz",
    "_db": "dB",
    "_dbm": "dBm",
    "_m": "m",
    "_deg": "degrees",
    "_s": "s",
    "_ns": "ns",
    "latitude": "degrees",
    "longitude": "degrees",
}
"""How the name of an attribute ends -> its unit."""


@dataclass(frozen=True)
class Bounds(GroupedMetadata):
    """The numbers that can be believed: from ``low``, or above it, to ``high``. Nouns refuse others by them."""

    low: float
    high: float
    above: bool = False

    def __iter__(self) -> Iterator[BaseMetadata]:
        yield Gt(self.low) if self.above else Ge(self.low)
        yield Le(self.high)

    def hold(self, numbers: ArrayLike) -> NDArray[np.bool_]:
        """Return where ``numbers``, of any shape, lie within; NaN lies nowhere.

        Examples:
            >>> Bounds(0.0, 300e9, above=True).hold([0.0, 145.5e6, float("nan")]).tolist()
            [False, True, False]
        """
        values = np.asarray(numbers, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            return ((values > self.low) if self.above else (values >= self.low)) & (values <= self.high)

    def __str__(self) -> str:
        return f"{'above' if self.above else 'from'} {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Stored:
    """Where an attribute appears beside its noun.

    Attributes:
        name: its column in the database, where that has another name; of a position: what the columns of its parts
            begin with.
        snapshot: its column in the snapshot of approved measurements, and with it in checks and provenance; True: by
            its own name; False: not there; of a position: what the columns of its parts begin with.
        read_as: what the query of the snapshot and the reasons call it, where it is judged without being kept, or kept
            under another name.
        refers_to: the table whose row its value names.
        stand_in: what a database of the field that lacks the column says.
        since: the migration that brought it; it is kept in a snapshot only where some row has a value, so that what was
            frozen before it came stays the same bytes. None: there from the first.
        note: what the name does not say.
    """

    name: str = ""
    snapshot: str | bool = False
    read_as: str = ""
    refers_to: str = ""
    stand_in: str | None = None
    since: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Field:
    """One row of the table: a column of the database, and where it goes from there (see ``Stored``).

    Attributes:
        table: of the database.
        path: the attributes that lead to it from its noun: one, or two for a part of a position.
        kind: float, int, bool, str, datetime, dict or an enumeration of texts.
        is_optional: its noun may lack it.
        fill: the number that NULL stands for; None: NULL stays missing.
        bounds: None: not a number, or an integer of any size.
        max_length: of a text; None: any.
    """

    table: str
    path: tuple[str, ...]
    name: str
    kind: type[Any]
    is_optional: bool
    fill: float | None
    bounds: Bounds | None
    max_length: int | None
    snapshot: str
    read_as: str
    refers_to: str
    stand_in: str | None
    since: str | None
    note: str

    @property
    def is_place(self) -> bool:
        """Whether it is part of a position."""
        return len(self.path) > 1

    @property
    def may_be_null(self) -> bool:
        """Whether the database may hold NULL: positions of sources and stations can be unknown there."""
        return self.is_optional or self.is_place

    @property
    def choices(self) -> list[str]:
        """The texts of an enumeration; empty: it is none."""
        return [str(choice) for choice in self.kind] if issubclass(self.kind, StrEnum) else []

    @property
    def dtype(self) -> str:
        """The pandas dtype of its column in the snapshot."""
        return _DTYPES[str if self.choices else self.kind]

    @property
    def unit(self) -> str:
        """The unit that stands in the attribute's name; empty: a number without one, or none."""
        if self.kind not in (float, int):
            return ""
        return next((unit for ending, unit in _UNITS.items() if self.path[-1].endswith(ending)), "")

    def describe(self) -> str:
        """Return unit, bounds, choices and note in one line."""
        said = [self.unit, str(self.bounds or ""), " or ".join(self.choices), self.note]
        return ", ".join(part for part in said if part)


def read_bounds(annotation: Any) -> Bounds:
    """Return the bounds of an annotated number such as ``domain.Latitude``.

    Raises:
        TypeError: it has none.
    """
    said = _unwrap(annotation)[2]
    for item in said:
        if isinstance(item, Bounds):
            return item
    raise TypeError(f"{annotation}: found no Bounds, expected Annotated[float, Bounds(...)]")


def describe_invalid(error: ValidationError, noun: type[BaseModel]) -> str:
    """Return the first thing that is wrong with a noun as words: its attribute, what was found, what was expected.

    Examples:
        >>> from heimdall_assets.domain import Position
        >>> try:
        ...     Position(latitude=91.0, longitude=8.0)
        ... except ValidationError as error:
        ...     print(describe_invalid(error, Position))
        latitude: found 91.0, expected a number from -90 to 90
    """
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    fields, found = noun.model_fields, f"found {first['input']!r:.60}"
    if not name:
        return f"{found}, expected {' and '.join(known for known in fields if fields[known].is_required())}"
    if name not in fields:
        return f"{name}: found what is not read, expected one of {', '.join(fields)}"
    try:
        expected = f"a number {read_bounds(Annotated[(fields[name].annotation, *fields[name].metadata, None)])}"
    except TypeError:
        expected = first["msg"].removeprefix(_PYDANTIC_SAYS)
    return f"{name}: {'found none' if first['type'] == 'missing' else found}, expected {expected}"


def read_fields(table: str, noun: type[BaseModel]) -> tuple[Field, ...]:
    """Return a row for each attribute of ``noun``, three for a position, in their order.

    Raises:
        TypeError: a number without ``Bounds``, a type that no column has, or a later column that may not be missing.
    """
    return tuple(_read_fields(table, noun))


def _read_fields(table: str, noun: type[BaseModel]) -> Iterator[Field]:
    for name, info in noun.model_fields.items():
        kind, is_optional, said = _unwrap(info.annotation)
        said = [*said, *info.metadata]
        stored = next((item for item in said if isinstance(item, Stored)), Stored())
        if stored.since and not is_optional:
            raise TypeError(f"{noun.__name__}.{name}: came with {stored.since}, expected | None: older rows lack it")
        if issubclass(kind, BaseModel):
            for part in _read_fields(table, kind):
                yield _place_part(part, name, stored, is_optional)
            continue
        _check_kind(f"{noun.__name__}.{name}", kind, said)
        snapshot = name if stored.snapshot is True else stored.snapshot or ""
        yield Field(
            table=table,
            path=(name,),
            name=stored.name or name,
            kind=kind,
            is_optional=is_optional,
            fill=info.default if kind is float and isinstance(info.default, float) else None,
            bounds=next((item for item in said if isinstance(item, Bounds)), None),
            max_length=next((item.max_length for item in said if getattr(item, "max_length", None)), None),
            snapshot=snapshot,
            read_as=stored.read_as or snapshot,
            refers_to=stored.refers_to,
            stand_in=stored.stand_in,
            since=stored.since,
            note=stored.note,
        )


def _check_kind(what: str, kind: type[Any], said: list[Any]) -> None:
    if kind is float and not any(isinstance(item, Bounds) for item in said):
        raise TypeError(f"{what}: found a number without Bounds, expected Annotated[float, Bounds(...)]")
    if kind not in _DTYPES and not issubclass(kind, StrEnum):
        expected = ", ".join(known.__name__ for known in _DTYPES)
        raise TypeError(f"{what}: found {kind.__name__}, expected {expected} or StrEnum")


def _place_part(part: Field, name: str, stored: Stored, is_optional: bool) -> Field:
    """Return a part of the position ``name`` as a row of the noun that has this position."""
    own = part.path[0]
    snapshot = f"{stored.snapshot}{own}" if isinstance(stored.snapshot, str) and stored.snapshot else ""
    return replace(
        part,
        path=(name, own),
        name=f"{stored.name}{part.name}",
        is_optional=is_optional,
        snapshot=snapshot,
        read_as=f"{stored.read_as}{own}" if stored.read_as else snapshot,
        since=stored.since,
    )


def walk_fields(tables: Mapping[str, tuple[Field, ...]], table: str) -> Iterator[Field]:
    """Yield the rows of ``table``, each that names a row of another table followed by the rows of that one."""
    for field in tables[table]:
        yield field
        if field.refers_to:
            yield from walk_fields(tables, field.refers_to)


def _unwrap(annotation: Any) -> tuple[type[Any], bool, list[Any]]:
    """Return the plain type, whether None may stand for it, and what annotations say of it."""
    if get_origin(annotation) is Annotated:
        inner, *said = get_args(annotation)
        kind, is_optional, more = _unwrap(inner)
        return kind, is_optional, [*more, *said]
    if get_origin(annotation) in (Union, UnionType):
        choices = [choice for choice in get_args(annotation) if choice is not NoneType]
        if len(choices) != 1:
            raise TypeError(f"{annotation}: found several types, expected one, or one and None")
        kind, _, said = _unwrap(choices[0])
        return kind, True, said
    return get_origin(annotation) or annotation, False, []
