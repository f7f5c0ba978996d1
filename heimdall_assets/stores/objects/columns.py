"""Columns of a table at rest as Python values, without pandas, which takes a second to load.

Belongs here: reading some columns of all rows, of the first row of each session, of the rows of one. Does not belong
here: looking for rows by many values (``tables``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import CorruptObject

if TYPE_CHECKING:
    import pyarrow as pa


def read_values(data: bytes, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Return column -> its values, as many as there are rows; those of a column that the table lacks are None.

    Args:
        data: the bytes of a table.
        columns: of texts and integers.

    Raises:
        CorruptObject: the bytes are no table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        table = file.read([name for name in columns if name in file.schema_arrow.names], use_threads=False)
        held = {name: table.column(name).to_pylist() for name in table.column_names}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptObject(
            f"table: found {len(data)} bytes that are no table ({error!s:.200}), expected Parquet"
        ) from error
    return {name: held.get(name, [None] * table.num_rows) for name in columns}


class FirstRows:
    """The first row of each value of a key, in the order of the table; columns stay as Arrow holds them.

    Attributes:
        num_rows: N, values of the key.
        counts: rows of the table with each, int64 (N,).
    """

    def __init__(self, table: "pa.Table", counts: NDArray[np.int64]):
        self._table = table
        self.counts = counts
        self.num_rows = int(table.num_rows)

    def list_values(self, name: str) -> list[Any]:
        """Return a column as N Python values; times as microseconds since 1970, None where one is missing."""
        return _list_plain(self._table.column(name))

    def find(self, names: Sequence[str], words: str) -> NDArray[np.int64]:
        """Return the places, ascending, where one of some columns of texts holds ``words``, in either case."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = np.zeros(self.num_rows, dtype=bool)
        for name in names:
            column = self._table.column(name).cast(pa.string())
            holds = pc.match_substring(column, words, ignore_case=True)
            found |= holds.fill_null(False).to_numpy().astype(bool)
        return np.flatnonzero(found)

    def take(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows at some places, column -> value as ``list_values`` gives them, with ``count``."""
        import pyarrow as pa

        chosen = self._table.take(pa.array(places, type=pa.int64()))
        columns = {name: _list_plain(chosen.column(name)) for name in chosen.column_names}
        counts = self.counts[list(places)].tolist()
        return [
            {**{name: values[row] for name, values in columns.items()}, "count": counts[row]}
            for row in range(len(places))
        ]


def read_first_rows(data: bytes, key: str, columns: Sequence[str]) -> FirstRows:
    """Return the first row of each value of ``key``, without the rows for which it is missing.

    Args:
        data: the bytes of a table.
        key: a column of texts.
        columns: of texts, numbers and times; those that the table lacks are missing in every row.

    Raises:
        CorruptObject: the bytes are no table, or lack the key.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [key, *(name for name in columns if name != key)]
    try:
        schema = pq.read_schema(pa.BufferReader(data))
        texts = [name for name in wanted if name in schema.names and pa.types.is_string(schema.field(name).type)]
        if key not in texts:
            raise CorruptObject(f"table: found no column {key} of texts, expected one")
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        table = file.read([name for name in wanted if name in schema.names])  # by all cores: somebody waits for a page
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise CorruptObject(
            f"table: found {len(data)} bytes that are no table ({error!s:.200}), expected Parquet"
        ) from error
    codes = table.column(key).combine_chunks()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    numbers = codes.indices.fill_null(len(codes.dictionary)).to_numpy(zero_copy_only=False)
    first = np.full(len(codes.dictionary) + 1, -1, dtype=np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]  # the last that is written stays: the first row of each
    counts = np.bincount(numbers, minlength=len(first)).astype(np.int64)
    known = np.flatnonzero(first[:-1] >= 0)  # the place after all values is that of rows without one
    order = known[np.argsort(first[known])]
    rows = table.take(pa.array(first[order], type=pa.int64()))
    for name in wanted:
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, pa.string()))
    return FirstRows(rows, counts[order])


def find_columns(data: bytes, columns: Sequence[str], key: str, value: str) -> list[dict[str, Any]]:
    """Return columns of the rows in which ``key`` is ``value``, times as microseconds since 1970.

    Raises:
        CorruptObject: the bytes are no table, or lack a column.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=[key])
        picked = [name for name in columns if name in file.schema_arrow.names and name != key]
        held = file.read([key], use_threads=False).column(key).cast(pa.string())
        # NumPy's, for Arrow's own indices_nonzero ends the process where a column has no rows.
        places = pa.array(np.flatnonzero(pc.equal(held, value).fill_null(False).to_numpy()), type=pa.int64())
        rows: dict[str, list[Any]] = {key: [value] * len(places)}
        for name in picked:  # one by one: of a column only these rows stay in memory
            rows[name] = _list_plain(file.read([name], use_threads=False).column(name).take(places))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptObject(
            f"table: found {len(data)} bytes that are no table ({error!s:.200}), expected Parquet with {key}"
        ) from error
    return [{name: rows[name][row] if name in rows else None for name in columns} for row in range(len(places))]


def _list_plain(column: Any) -> list[Any]:
    """Return a column as Python values; Arrow's own way with times would load pandas."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values
