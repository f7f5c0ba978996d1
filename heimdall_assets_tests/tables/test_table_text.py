"""Tables as text, whoever wrote them: csv, json, pandas and pyarrow write what is read here."""

import csv
import io
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidSetting, InvalidTable
from heimdall_assets.tables.cells import Cells
from heimdall_assets.tables.text import TextTable, decode_text_table
from heimdall_assets.tables.times import load_zone, read_times

ROWS = [["time", "lat", "A b"], ["2026-11-20 10:00:00", "51.25", "-70"], ["2026-11-20 10:00:01", "51.5", ""]]


def write_csv(rows: list[list[str]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


def as_json_lines(table: bytes) -> bytes:
    """A CSV as one JSON object a line, empty cells left out."""
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    return "\n".join(json.dumps({key: value for key, value in row.items() if value}) for row in rows).encode()


def as_parquet(table: bytes) -> bytes:
    """A CSV as pandas understands it, as Parquet."""
    file = io.BytesIO()
    pd.read_csv(io.BytesIO(table)).to_parquet(file)
    return file.getvalue()


def make_cells(delimiter: str = ",", **columns: list[str]) -> Cells:
    return Cells(TextTable("t", dict(columns), len(next(iter(columns.values()))), delimiter))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_separates_cells_is_found_out(delimiter):
    table = decode_text_table(write_csv(ROWS, delimiter), "t")
    assert [table.columns[name] for name in ROWS[0]] == [tuple(cells) for cells in zip(*ROWS[1:], strict=True)]
    assert (table.num_rows, table.delimiter) == (2, delimiter)


def test_a_spreadsheet_may_say_what_separates_cells():
    assert decode_text_table(b"sep=~\r\n" + write_csv(ROWS, "~"), "t").columns["lat"] == ("51.25", "51.5")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (write_csv(ROWS, ":"), r"one column 'time:lat:A b', expected several, separated by commas, semicolons, tabs"),
        (
            write_csv([*ROWS, ["1", "2"]], ";"),
            r"row 3 has 2 columns, expected 3 as the header, which is separated by semi",
        ),
        (b"", "empty, expected a header"),
        (b",".join(b"c%d" % at for at in range(20_001)) + b"\n1", "20001 columns, expected at most 20000"),
        (json.dumps({f"c{at}": 1 for at in range(20_001)}).encode(), "20001 columns, expected at most 20000"),
        (b"\xff\xfe" + "a,b\n1,2".encode("utf-16-le"), r"text in UTF-16, expected UTF-8; .*iconv -f UTF-16"),
        ("a,b\n1,2".encode("utf-16-le"), "text in UTF-16, expected UTF-8"),
        ("a,b\n1,2".encode("utf-16-be"), "text in UTF-16, expected UTF-8"),
        ("\ufeffa,b\n1,2".encode("utf-32-le"), "text in UTF-32, expected UTF-8"),
        (b"a,a\n1,2", "column 'a' is there 2 times"),
        (b'{"a": 1}\n[1]', "line 2: list, expected a JSON object a line"),
        (b'[{"a": 1}]', r"a JSON array, expected a JSON object a line; jq -c '\.\[\]' FILE > NEW"),
        (b'{\n  "a": 1,\n  "b": 2\n}', r"a JSON object over many lines, expected one a line; jq -c \. FILE > NEW"),
        (
            b'{"a": [1]}',
            r"line 1, 'a': found a list \(nested\), expected text.*jq -c 'del\(\.a\)' FILE > NEW leaves it",
        ),
        (b'{"a": [{"b": 1}]}', r"line 1, 'a': found a list \(nested\).*\. as \$row \| \.a\[\] \| \. \+ \(\$row"),
        (b'{"a": {"b": 1}}', r"line 1, 'a': found an object \(nested\).*jq -c '\. \+ \.a \| del\(\.a\)'"),
        (b'{"a b": {"b": 1}}', r"line 1, 'a b': found an object \(nested\), expected text, a number or a time$"),
        (b'{"a": 1', "line 1: .*, expected a JSON object a line"),
        (b'{"a": NaN}', "line 1: NaN is no JSON number"),
        (b"PAR1 and no more", "no Parquet that can be read"),
        (as_parquet(b"a,b\n1,2")[:-9], "no Parquet that can be read"),
    ],
)
def test_what_is_no_table_is_refused(data, found):
    with pytest.raises(InvalidTable, match=rf"^t: {found}"):
        decode_text_table(data, "t")


def test_json_lines_and_parquet_hold_the_cells_of_the_csv():
    table = write_csv([ROWS[0], *([row[0], row[1], row[2] or "nan"] for row in ROWS[1:])])
    expected = decode_text_table(table, "t").columns
    lines = decode_text_table(as_json_lines(table), "t").columns
    assert {name: tuple(cells) for name, cells in lines.items()} == expected
    parquet = Cells(decode_text_table(as_parquet(table), "t"))
    for name in ("lat", "A b"):
        np.testing.assert_array_equal(parquet.numbers(name), Cells(decode_text_table(table, "t")).numbers(name))


def test_typed_cells_of_parquet_become_text_that_says_the_same():
    when = datetime(2026, 11, 20, 10, 0, 0, 250_000, tzinfo=UTC)
    table = pa.table({"t": [when], "b": [True], "f": pa.array([0.1], pa.float32()), "n": [None], "i": [2**60]})
    file = io.BytesIO()
    pq.write_table(table, file)
    columns = decode_text_table(file.getvalue(), "t").columns
    assert columns == {
        "t": ["2026-11-20T10:00:00.250000+00:00"],
        "b": ["true"],
        "f": [repr(float(np.float32(0.1)))],
        "n": [""],
        "i": [str(2**60)],
    }


def test_a_small_file_that_claims_many_cells_is_refused_before_they_are_made():
    file = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array(np.zeros(4_000_000, np.int8))}), file)
    size = len(file.getvalue())
    assert size < 100_000
    with pytest.raises(
        InvalidTable, match=rf"4000000 cells in {size} bytes, expected at most {1_000_000 + 20 * size} in"
    ):
        decode_text_table(file.getvalue(), "t")


def test_a_long_text_that_repeats_costs_its_memory_once():
    """A megabyte, half a million times: 500 GB if each cell held its own."""
    repeated = pa.DictionaryArray.from_arrays(np.zeros(500_000, np.int32), ["x" * 1_000_000])
    file = io.BytesIO()
    pq.write_table(pa.table({"a": repeated}), file, store_schema=False)
    assert len(file.getvalue()) < 200_000
    cells = decode_text_table(file.getvalue(), "t").columns["a"]
    assert len(cells) == 500_000
    assert len({id(cell) for cell in cells}) <= 10


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_are_what_was_written_with_point_or_comma(numbers):
    plain = [f"{number:f}" for number in numbers]
    np.testing.assert_array_equal(make_cells(a=plain).numbers("a"), [float(text) for text in plain])
    comma = [text.replace(".", ",") for text in plain]
    np.testing.assert_array_equal(make_cells(";", a=comma).numbers("a"), [float(text) for text in plain])


@pytest.mark.parametrize(
    ("delimiter", "cells", "found"),
    [
        (";", ["51,25", "51.25"], r"row 1, column a: found '51,25', expected a decimal point, as in other rows"),
        (",", ["1,234", "2,345"], r"row 1, column a: found '1,234', expected a number that tells decimals from"),
        (";", ["1.234,5"], r"row 1, column a: found '1\.234,5', expected a finite number"),
        (";", ["868,100,000"], r"found '868,100,000', expected a finite number"),
    ],
)
def test_numbers_that_may_mean_two_things_are_refused(delimiter, cells, found):
    with pytest.raises(InvalidTable, match=found):
        make_cells(delimiter, a=cells).numbers("a")


EXPECTED = np.array(["2026-11-20T10:00:00", "2026-11-20T10:00:00.5"], "datetime64[us]")


@pytest.mark.parametrize(
    ("cells", "zone", "form"),
    [
        (["2026-11-20 10:00:00", "2026-11-20 10:00:00.5"], "UTC", None),
        (["2026-11-20T11:00:00+01:00", "2026-11-20T10:00:00.500Z"], None, None),
        (["2026-11-20 11:00:00", "2026-11-20 11:00:00.5"], "Europe/Rome", None),
        (["2026-11-20T10:00:00Z", "2026-11-20 11:00:00.5"], "Europe/Rome", None),
        (["1795168800", "1795168800.5"], None, None),
        (["1795168800000", "1795168800500"], None, None),
        (["1795168800000000", "1795168800500000"], None, None),
        (["1795168800000000000", "1795168800500000000"], None, None),
        (["1795168800,0", "1795168800,5"], None, None),
        (["20.11.2026 11:00:00,0", "20.11.2026 11:00:00,5"], "Europe/Rome", "%d.%m.%Y %H:%M:%S,%f"),
        (["20/11/26 10:00:00.0 +0000", "20/11/26 10:00:00.5 +0000"], None, "%d/%m/%y %H:%M:%S.%f %z"),
    ],
)
def test_times_become_utc_however_they_are_written(cells, zone, form):
    zone = None if zone is None else load_zone(zone)
    found, twice, lacks_zone = read_times(make_cells(a=cells), "a", zone, form)
    np.testing.assert_array_equal(found, EXPECTED)
    assert not twice.any()
    assert not lacks_zone


def test_a_time_without_a_zone_is_asked_about():
    assert read_times(make_cells(a=["2026-11-20T10:00:00Z", "2026-11-20 10:00"]), "a", None, None)[2]


def test_hours_that_a_zone_has_twice_or_never():
    """Clocks in Rome went back at 01:00 UTC of 2026-10-25 and forward at 01:00 UTC of 2026-03-29 (EU 2000/84/EC)."""
    rome = load_zone("Europe/Rome")
    cells = make_cells(a=["2026-10-25 01:59:59", "2026-10-25 02:30:00", "2026-10-25 03:00:00"])
    found, twice, _ = read_times(cells, "a", rome, None)
    assert twice.tolist() == [False, True, False]
    # one second on the clock, and the hour that it shows twice
    assert found[2] - found[0] == np.timedelta64(2 * 3600 + 1, "s")
    with pytest.raises(InvalidTable, match=r"found '2026-03-29 02:30', expected a time that Europe/Rome has"):
        read_times(make_cells(a=["2026-03-29 02:30"]), "a", rome, None)


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["1795168800", "1795168800000"], r"row 2, column a: found '1795168800000', expected a time of 1980 to 2200"),
        (["20261120100000"], r"found '20261120100000', expected a time such as"),
        (["20.11.2026"], r"expected a time such as .*or --time-format"),
        ([""], r"found '', expected a time such as"),
    ],
)
def test_what_is_no_time_is_refused(cells, found):
    with pytest.raises(InvalidTable, match=found):
        read_times(make_cells(a=cells), "a", None, None)


@pytest.mark.parametrize("name", ["", "Rome", "../etc/passwd", "Europe", "\0"])
def test_a_zone_that_is_none_is_refused(name):
    with pytest.raises(InvalidSetting, match="expected a name such as UTC or Europe/Rome"):
        load_zone(name)


@pytest.mark.skipif(shutil.which("jq") is None, reason="found no jq, expected it installed")
@pytest.mark.parametrize(
    ("data", "columns"),
    [
        (b'{"a": {"b": 1}, "c": 2}\n{"a": {"b": 3}, "c": 4}', {"b": ["1", "3"], "c": ["2", "4"]}),
        (b'{"a": [{"b": 1}, {"b": 5}], "c": 2}', {"b": ["1", "5"], "c": ["2", "2"]}),
        (b'{"a": [1, 2], "c": 2, "d": 3}', {"c": ["2"], "d": ["3"]}),
        (b'[{"a": 1, "c": 2}, {"a": 3, "c": 4}]', {"a": ["1", "3"], "c": ["2", "4"]}),
        (b'{\n"a": 1,\n"c": 2\n}', {"a": ["1"], "c": ["2"]}),
    ],
)
def test_what_is_said_to_be_done_about_nesting_makes_a_table(tmp_path, data, columns):
    with pytest.raises(InvalidTable) as caught:
        decode_text_table(data, "t")
    (tmp_path / "FILE").write_bytes(data)
    command = re.search(r"jq -c .+ FILE > NEW", str(caught.value))
    assert command is not None
    subprocess.run(command[0], shell=True, cwd=tmp_path, check=True, timeout=20)
    assert decode_text_table((tmp_path / "NEW").read_bytes(), "t").columns == columns


def test_equal_cells_of_a_parquet_table_are_one_object_whatever_their_type():
    stream = io.BytesIO()
    times = pa.array([0] * 1000, pa.timestamp("us"))
    levels = pa.array([-70.5] * 999 + [None])
    pq.write_table(pa.table({"time": times, "level": levels, "name": ["a"] * 1000}), stream)
    columns = decode_text_table(stream.getvalue(), "t").columns
    assert columns["level"][-1] == ""
    assert [columns[name][0] for name in ("time", "level", "name")] == ["1970-01-01T00:00:00", "-70.5", "a"]
    assert all(len({id(cell) for cell in cells[:999]}) == 1 for cells in columns.values())
