"""Bytes of a foreign table to columns of text: delimited text, JSON lines or Parquet, told from the bytes alone.

Belongs here: which kind a table is, how its cells are separated, and that each row is whole. Does not belong here: what
a cell means (``cells``).
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heimdall_assets.errors import InvalidTable
from heimdall_assets.formats.strict_json import parse_strict_json

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_TABLE_BYTES = 1_000_000_000
_MAX_LINE_BYTES = 1_000_000
_MAX_CELLS, _FEWEST_CELLS, _CELLS_A_BYTE = 20_000_000, 1_000_000, 20
"""Of Parquet and JSON lines, whose cells need not take a byte each: a small file may claim any number of them."""

_MAX_COLUMNS = 20_000
"""Three for each receiver of more than anybody has."""

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_STATED_DELIMITER = re.compile(r"sep=(.)\r?\n")
"""What spreadsheets write as the first line of a table of theirs."""


@dataclass(frozen=True)
class TextTable:
    """C columns of R cells of text.

    Attributes:
        name: what to call it in an error.
        columns: name -> R cells; an empty one: nothing.
        num_rows: R.
        delimiter: what stood between its cells; empty: nothing did.
        kind: how it is written, for people.
    """

    name: str
    columns: dict[str, Sequence[str]]
    num_rows: int
    delimiter: str = ""
    kind: str = ""


def decode_text_table(data: bytes, name: str) -> TextTable:
    """Return the table that ``data`` holds.

    Raises:
        InvalidTable: it is none of the three kinds, has no rows, one column or a column twice, or a row of another
            length than the header.
    """
    if len(data) > _MAX_TABLE_BYTES:
        raise InvalidTable(f"{name}: {len(data)} bytes, expected at most {_MAX_TABLE_BYTES}")
    if not data.strip():
        raise InvalidTable(f"{name}: empty, expected a header and at least one row")
    if data.startswith(b"PAR1"):
        return _decode_parquet(data, name)
    _refuse_utf_16(data, name)
    if data.lstrip().startswith((b"{", b"[")):
        return _decode_json_lines(data, name)
    return _decode_delimited(data, name)


def _refuse_utf_16(data: bytes, name: str) -> None:
    """Check that text is not in UTF-16 or UTF-32, as spreadsheets save it: a byte order mark, or every other byte 0."""
    head = data[:1000]
    zeros = max(head[0::2].count(0), head[1::2].count(0))
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(head) >= 8 and zeros > 0.4 * len(head)):
        kind = "UTF-32" if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) else "UTF-16"
        raise InvalidTable(
            f"{name}: text in {kind}, expected UTF-8; save it as CSV UTF-8, or iconv -f {kind} -t UTF-8 FILE > NEW"
        )


def _refuse_other_json(data: bytes, name: str) -> None:
    """Check that JSON is one object a line: neither an array of them nor one object over many lines."""
    first = data.lstrip().partition(b"\n")[0].strip()
    if first.startswith(b"["):
        raise InvalidTable(f"{name}: a JSON array, expected a JSON object a line; jq -c '.[]' FILE > NEW")
    if first == b"{":
        raise InvalidTable(f"{name}: a JSON object over many lines, expected one a line; jq -c . FILE > NEW")


def _decode_delimited(data: bytes, name: str) -> TextTable:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidTable(f"{name}: no CSV in UTF-8 ({error!s:.100})") from None
    stated = _STATED_DELIMITER.match(text)
    text = text[stated.end() :] if stated else text
    widths = {each: _count_columns(text, each) for each in ([stated[1]] if stated else _DELIMITERS)}
    delimiter = max(widths, key=widths.__getitem__)
    if widths[delimiter] == 1:
        first = text.partition("\n")[0].strip()
        raise InvalidTable(
            f"{name}: one column {first!r:.60}, expected several, separated by {', '.join(_DELIMITERS.values())}"
        )
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if line]
    except (csv.Error, TypeError, ValueError) as error:
        raise InvalidTable(f"{name}: no CSV in UTF-8 ({error!s:.100})") from None
    if len(lines) < 2:
        raise InvalidTable(f"{name}: {len(lines)} lines, expected a header and at least one row")
    header = lines[0]
    _check_header(header, name)
    separated = _DELIMITERS.get(delimiter, repr(delimiter))
    for row, line in enumerate(lines[1:], start=1):
        if len(line) != len(header):
            raise InvalidTable(
                f"{name}: row {row} has {len(line)} columns, expected {len(header)} as the header, which is separated "
                f"by {separated}"
            )
    columns: dict[str, Sequence[str]] = dict(zip(header, zip(*lines[1:], strict=True), strict=True))
    return TextTable(name, columns, len(lines) - 1, delimiter, f"CSV separated by {separated}")


def _count_columns(text: str, delimiter: str) -> int:
    """Return how many columns the first line has, separated so; 0 where it cannot be."""
    try:
        return len(next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), []))
    except (csv.Error, TypeError, ValueError):  # a line too long for a cell, or nothing that separates
        return 0


def _check_header(header: Sequence[str], name: str) -> None:
    if len(header) > _MAX_COLUMNS:
        raise InvalidTable(f"{name}: {len(header)} columns, expected at most {_MAX_COLUMNS}")
    for column, times in pd.Series(list(header), dtype=object).value_counts().items():
        if times > 1:
            raise InvalidTable(f"{name}: column {column!r:.60} is there {times} times, expected once")


def _decode_json_lines(data: bytes, name: str) -> TextTable:
    _refuse_other_json(data, name)
    columns: dict[str, list[str]] = {}
    num_rows = 0
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parse_strict_json(line, max_bytes=_MAX_LINE_BYTES, max_depth=3)
        except ValueError as error:
            raise InvalidTable(f"{name}: line {number}: {error!s:.100}, expected a JSON object a line") from None
        if not isinstance(row, dict):
            raise InvalidTable(f"{name}: line {number}: {type(row).__name__}, expected a JSON object a line")
        for column in row.keys() - columns.keys():
            columns[column] = [""] * num_rows
        _check_size(num_rows, len(columns), len(data), name)
        for column, cells in columns.items():
            cells.append(_write_cell(row.get(column), f"{name}: line {number}, {column!r:.60}"))
        num_rows += 1
    _check_header(list(columns), name)
    return TextTable(name, dict(sorted(columns.items())), num_rows, kind="JSON lines")


def _decode_parquet(data: bytes, name: str) -> TextTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        texts = [field.name for field in file.schema_arrow if str(field.type) in ("string", "large_string")]
        # A text that repeats stays one: else a small file could claim any amount of it.
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        _check_size(file.metadata.num_rows, file.metadata.num_columns, len(data), name)
        table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidTable(f"{name}: no Parquet that can be read ({reason:.100})") from None
    if not table.num_rows:
        raise InvalidTable(f"{name}: no rows, expected at least one")
    _check_header(table.column_names, name)
    cells: dict[str, Sequence[str]] = {
        column: _list_cells(table.column(index), f"{name}: column {column!r:.60}")
        for index, column in enumerate(table.column_names)
    }
    return TextTable(name, cells, table.num_rows, kind="Parquet")


def _list_cells(column: "pa.ChunkedArray", place: str) -> list[str]:
    """Return the cells of a column as text; equal cells are one object, however many a small file claims."""
    import pyarrow as pa

    cells: list[str] = []
    for chunk in column.chunks:
        try:
            packed = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
        except pa.ArrowNotImplementedError:  # lists and the like, which are refused one by one
            cells += [_write_cell(value, place) for value in chunk.to_pylist()]
            continue
        texts = [*(_write_cell(value, place) for value in packed.dictionary.to_pylist()), ""]
        which = packed.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
        cells += np.array(texts, dtype=object)[which].tolist()
    return cells


def _check_size(num_rows: int, num_columns: int, num_bytes: int, name: str) -> None:
    most = min(_FEWEST_CELLS + _CELLS_A_BYTE * num_bytes, _MAX_CELLS)
    if num_rows * num_columns > most:
        raise InvalidTable(
            f"{name}: {num_rows * num_columns} cells in {num_bytes} bytes, expected at most {most} in so small a file"
        )


def _write_cell(value: Any, place: str) -> str:
    """Return the text of one typed cell, which ``float`` and ``fromisoformat`` give back exactly."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, dict | list):
        kind = "an object" if isinstance(value, dict) else "a list"
        raise InvalidTable(
            f"{place}: found {kind} (nested), expected text, a number or a time{_say_how_to_flatten(value, place)}"
        )
    raise InvalidTable(f"{place}: found {type(value).__name__}, expected text, a number or a time")


def _say_how_to_flatten(value: dict[str, Any] | list[Any], place: str) -> str:
    """Return what makes rows without nesting of JSON lines, where that can be told; empty: it cannot."""
    key = place.rpartition(", ")[2].strip("'")
    if not key.isidentifier() or not key.isascii():
        return ""
    if isinstance(value, dict):
        return f"; jq -c '. + .{key} | del(.{key})' FILE > NEW takes its parts as columns"
    if value and all(isinstance(one, dict) for one in value):
        return f"; jq -c '. as $row | .{key}[] | . + ($row | del(.{key}))' FILE > NEW makes a row of each"
    return f"; jq -c 'del(.{key})' FILE > NEW leaves it out"
