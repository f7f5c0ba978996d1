"""Tables for people: the first rows of a DataFrame, and what its columns are, as metadata that Dagster's page draws."""

from typing import TYPE_CHECKING

import dagster as dg

from heimdall_assets.domain import SNAPSHOT

if TYPE_CHECKING:
    import pandas as pd


def preview(table: "pd.DataFrame", num_rows: int = 20) -> dg.TableMetadataValue:
    """Return the first rows of ``table``, every cell a string, a number or empty."""
    import pandas as pd

    head = table.head(num_rows)
    records = [
        dg.TableRecord(
            {
                name: "" if pd.isna(value) else _plain(value)
                for name, value in zip(map(str, row), row.values(), strict=True)
            }
        )
        for row in head.to_dict("records")
    ]
    columns = [dg.TableColumn(name=str(name), type=str(dtype)) for name, dtype in table.dtypes.items()]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def describe_snapshot(table: "pd.DataFrame") -> dg.TableSchema:
    """Return the columns of a snapshot, each with its type, unit, bounds and whether it may be missing."""
    columns = [
        dg.TableColumn(
            name=field.snapshot,
            type=field.dtype,
            description=field.describe(),
            constraints=dg.TableColumnConstraints(nullable=field.is_optional and not field.is_place),
        )
        for field in SNAPSHOT
        if field.snapshot in table
    ]
    return dg.TableSchema(columns=columns)


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
