"""Columns of a table at rest as Python values, without pandas, which takes a second to load.

Belongs here: reading some columns of all rows. Does not belong here: looking for rows (``tables``).
"""

from collections.abc import Sequence
from typing import Any

from heimdall_assets.errors import CorruptObject


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
