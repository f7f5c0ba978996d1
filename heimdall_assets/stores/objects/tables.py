"""Tables as bytes: Parquet whose bytes depend on the rows alone; cumulative indexes; rows as plain records.

Belongs here: the one way a data frame rests in the object store. Does not belong here: what its columns mean. pandas is
loaded when a table is made or read, not when this module is: whoever only names tables does not wait for it.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import CorruptObject, HeimdallError, InvalidTable, OutOfReach
from heimdall_assets.manifests import Artifact
from heimdall_assets.media_types import PARQUET_MEDIA_TYPE
from heimdall_assets.stores.objects.interface import ObjectStore

if TYPE_CHECKING:
    import pandas as pd

_DTYPES_KEY = b"heimdall.dtypes"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS_AT_ONCE = 1 << 14
"""Of a table in which rows are looked for: 100 000 rows of a few texts are tens of megabytes."""


def encode_table(table: "pd.DataFrame") -> bytes:
    """Return ``table`` as Parquet: no index, fixed compression, no version, time or place of who made it.

    Equal columns, dtypes and rows in equal order give equal bytes under one version of pyarrow.

    Raises:
        InvalidTable: a column's name is no string or its values have no common type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, dtypes = {}, {}
    for name in table.columns:
        if not isinstance(name, str) or not table.columns.is_unique:
            raise InvalidTable(f"table column {name!r}: expected a name that is a string and used once")
        dtypes[name] = str(table[name].dtype)
        try:
            columns[name] = _encode_column(table[name])
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise InvalidTable(f"table column {name}: found values without a common type ({error})") from error
    # Arrow's own note about pandas would hold library versions: only the dtypes are kept.
    metadata = {_DTYPES_KEY: json.dumps(dtypes, sort_keys=True).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns).replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        compression_level=3,
        version="2.6",
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _encode_column(column: "pd.Series") -> Any:
    """Return a column as Arrow's array."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if isinstance(column.array, pd.arrays.StringArray):  # as pandas does, which looks for missing ones first: as slow
        return pa.array(np.asarray(column.array, dtype=object), type=pa.string(), from_pandas=True)
    return pa.array(column, from_pandas=True)


def decode_table(data: bytes) -> "pd.DataFrame":
    """Return the data frame that ``encode_table`` gave ``data`` for, dtypes included.

    Raises:
        CorruptObject: the bytes are no such table.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        arrow = pq.read_table(pa.BufferReader(data))
        dtypes = json.loads((arrow.schema.metadata or {}).get(_DTYPES_KEY, b"{}"))
        table = pd.DataFrame({name: arrow.column(name).to_pandas() for name in arrow.column_names})
        for name, dtype in dtypes.items():
            if str(table[name].dtype) != dtype:
                table[name] = _restore(arrow.column(name), table[name], dtype)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptObject(
            f"table: found {len(data)} bytes that are no table ({error!s:.200}), expected Parquet"
        ) from error
    return table


def read_columns(data: bytes) -> dict[str, str]:
    """Return the columns of a table in their order -> their type in Arrow's words; no row is read.

    Raises:
        CorruptObject: the bytes are no table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise CorruptObject(
            f"table: found {len(data)} bytes that are no table ({error!s:.200}), expected Parquet"
        ) from error
    return {field.name: str(field.type) for field in schema}


def artifact_of_table(objects: ObjectStore, table: "pd.DataFrame") -> Artifact:
    """Store ``table`` as Parquet and return where it rests."""
    return objects.put_bytes(encode_table(table), PARQUET_MEDIA_TYPE)


def load_table(objects: ObjectStore, artifact: Artifact) -> "pd.DataFrame":
    """Return the table at rest behind ``artifact``."""
    return decode_table(objects.read_bytes(artifact.digest))


@dataclass(frozen=True, eq=False)
class Index:
    """A cumulative index as it was read: its reference, the digest of its table, the table."""

    name: str
    digest: str
    table: "pd.DataFrame"


def read_index(objects: ObjectStore, name: str) -> Index | None:
    """Return the cumulative index behind reference ``name``, or None where there is none or it is damaged.

    Whoever takes parts from it says so (``computing.note_cache``).

    Raises:
        OutOfReach: nobody can say which.
    """
    try:
        digest = objects.read_reference(name)
        if digest is None or not objects.renew_reference(name):
            return None
        return Index(name, digest, decode_table(objects.read_bytes(digest)))
    except OutOfReach:
        raise
    except HeimdallError:
        return None


def write_index(objects: ObjectStore, name: str, table: "pd.DataFrame") -> None:
    """Store ``table`` and let reference ``name`` point at it.

    Raises:
        StorageError: it could not be stored; the index before still stands.
    """
    objects.write_reference(name, artifact_of_table(objects, table).digest)


def list_records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return each row as column -> value."""
    return [{str(name): value for name, value in record.items()} for record in table.to_dict("records")]


def nullable(value: Any) -> Any:
    """Return one cell, None where it is missing."""
    import pandas as pd

    return None if pd.isna(value) else value


def _restore(arrow: Any, column: "pd.Series", dtype: Any) -> "pd.Series":
    import pandas as pd

    if dtype[:1] in "IU":
        # Through float64 a large integer beside a null would lose its last digits.
        return pd.Series(arrow.to_pylist(), dtype=dtype)
    return column.astype(dtype)
