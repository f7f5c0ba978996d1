"""Frozen tables: rows of a DataFrame as plain JSON, columns named once, so that 10^5 rows stay readable and small."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from heimdall_assets.manifests import MAX_INTEGER

FrozenTable = dict[str, list[Any]]
"""``{"columns": [name, ...], "rows": [[value, ...], ...]}``, JSON values, None for missing."""


def freeze_table(table: pd.DataFrame, columns: Sequence[str]) -> FrozenTable:
    """Return ``columns`` of ``table``; those it lacks are None in each row; times are ISO 8601 text."""
    parts = [
        [_to_json(value) for value in table[name].tolist()] if name in table.columns else [None] * len(table)
        for name in columns
    ]
    return {"columns": list(columns), "rows": [list(row) for row in zip(*parts, strict=True)]}


def freeze_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> FrozenTable:
    """Return ``columns`` of dictionaries in their order."""
    return {"columns": list(columns), "rows": [[_to_json(row.get(name)) for name in columns] for row in rows]}


def iterate_rows(table: FrozenTable) -> Iterator[dict[str, Any]]:
    """Yield each row as column -> value."""
    columns = table["columns"]
    for row in table["rows"]:
        yield dict(zip(columns, row, strict=True))


def index_rows(table: FrozenTable, key: str) -> dict[Any, dict[str, Any]]:
    """Return value of ``key`` -> its row."""
    return {row[key]: row for row in iterate_rows(table)}


def _to_json(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return str(value)  # nanoseconds since 1970: readers of JSON outside Python would round them
    if isinstance(value, bool | int | str):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else str(value)
