"""Tables for people: the first rows of a DataFrame as metadata that Dagster's page draws."""

from typing import TYPE_CHECKING

import dagster as dg

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


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
