"""Tables for people: the first rows of a DataFrame, and what its columns are, as metadata that Dagster's page draws."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from heimdall_assets.defs.figures import INLINE_LENGTH
from heimdall_assets.domain import SNAPSHOT

if TYPE_CHECKING:
    import pandas as pd

MAX_CELL = 32
"""Characters of a cell that are shown."""
ID_LENGTH = 8
"""Characters of an identifier that are shown: enough to find it."""
IDS = ("first", "second")
"""Columns of identifiers whose name does not say so."""


def preview(table: "pd.DataFrame", columns: Sequence[str], num_rows: int = 6) -> dg.MarkdownMetadataValue:
    """Return the first rows of ``table`` as Markdown, as many as the page shows without a click.

    Args:
        columns: those that a person needs, in the order in which they are read.
        num_rows: at most so many rows.
    """
    import pandas as pd

    limits = [ID_LENGTH if name in IDS or name.endswith("_id") else MAX_CELL for name in columns]
    rows = [
        [shorten("" if pd.isna(value) else value, limit) for value, limit in zip(row, limits, strict=True)]
        for row in table.head(num_rows)[list(columns)].itertuples(index=False)
    ]
    return render_table(columns, rows, len(table)) if rows else dg.MetadataValue.md("none")


def render_table(columns: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> dg.MarkdownMetadataValue:
    """Return as many of ``rows`` as Markdown as the page shows without a click, and of how many they are."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for count, row in enumerate(rows):
        line = f"| {' | '.join(row)} |"
        if len("\n".join([*lines, line, _tell_count(count + 1, total)])) >= INLINE_LENGTH:
            break
        lines.append(line)
    return dg.MetadataValue.md("\n".join([*lines, _tell_count(len(lines) - 2, total)]))


def _tell_count(shown: int, total: int) -> str:
    return f"\n{shown} of {total} rows" if shown < total else ""


def render_facts(facts: Mapping[str, Any]) -> dg.MarkdownMetadataValue:
    """Return facts as a table of two columns: what does not change from run to run is no curve."""
    rows = [[name.removeprefix("num_").replace("_", " "), shorten(value)] for name, value in facts.items()]
    return render_table(["fact", "value"], rows, len(rows))


def shorten(value: object, limit: int = MAX_CELL) -> str:
    """Return a value fit for a cell: some figures of a number, the first ``limit`` characters of a text.

    Examples:
        >>> shorten(0.123456789), shorten(145.5e6), shorten(None), shorten(True), shorten("a | b")
        ('0.12346', '145,500,000', 'none', 'yes', 'a / b')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e12 else f"{value:.5g}"
    text = str(value).replace("|", "/").replace("\n", " ").removesuffix("+00:00")
    return text if len(text) <= limit else f"{text[:limit]}…"


def describe_snapshot() -> dg.TableSchema:
    """Return the columns of a snapshot, each with its type, unit, bounds and whether it may be missing."""
    columns = [
        dg.TableColumn(
            name=field.snapshot,
            type=field.dtype,
            description=field.describe(),
            constraints=dg.TableColumnConstraints(nullable=field.is_optional and not field.is_place),
        )
        for field in SNAPSHOT
        if field.snapshot
    ]
    return dg.TableSchema(columns=columns)
