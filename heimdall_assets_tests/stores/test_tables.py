"""Tables: the same rows are the same bytes, and come back as they went in."""

import subprocess
import sys
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.domain import APPROVED_COLUMNS
from heimdall_assets.errors import CorruptObject, InvalidTable
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.tables import decode_table, encode_table, read_columns


def make_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": pd.array(["a", None, "ü"], dtype="string"),
            "plain": ["x", None, "z"],
            "large": pd.array([2**62 + 1, None, -(2**63)], dtype="Int64"),
            "small": np.array([1, 2, 3], dtype=np.int64),
            "float": [1.5, np.nan, -0.0],
            "single": np.array([0.1, 0.2, np.nan], dtype=np.float32),
            "flag": [True, False, True],
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "time": pd.to_datetime(["2020-01-01T00:00:00.000001Z", None, "1999-12-31T23:59:59.5Z"]).astype(
                "datetime64[us, UTC]"
            ),
        }
    )


def test_columns_are_read_without_a_row() -> None:
    assert read_columns(encode_table(make_table())) == {
        "text": "string",
        "plain": "string",
        "large": "int64",
        "small": "int64",
        "float": "double",
        "single": "float",
        "flag": "bool",
        "maybe": "bool",
        "time": "timestamp[us, tz=UTC]",
    }
    assert list(read_columns(encode_table(make_table().head(0)))) == list(make_table())


def test_a_table_comes_back_as_it_went() -> None:
    table = make_table()
    pd.testing.assert_frame_equal(decode_table(encode_table(table)), table)
    pd.testing.assert_frame_equal(decode_table(encode_table(table.iloc[:0])), table.iloc[:0])


def test_an_empty_snapshot_keeps_its_dtypes() -> None:
    table = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in APPROVED_COLUMNS.items()})
    assert decode_table(encode_table(table)).dtypes.astype(str).to_dict() == table.dtypes.astype(str).to_dict()


def test_the_index_and_how_the_table_was_made_do_not_matter() -> None:
    table = make_table()
    shuffled = table.sample(frac=1, random_state=1)
    again = shuffled.sort_index()
    again.index = pd.Index([7, 8, 9])
    assert encode_table(again) == encode_table(table)
    assert encode_table(shuffled.iloc[::-1]) != encode_table(table)


def test_two_processes_make_the_same_bytes() -> None:
    program = (
        "from heimdall_assets_tests.stores.test_tables import make_table\n"
        "from heimdall_assets.stores.objects.tables import encode_table\n"
        "from heimdall_assets.manifests import compute_digest\n"
        "print(compute_digest(encode_table(make_table())))"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == compute_digest(encode_table(make_table()))


@given(
    st.lists(
        st.tuples(st.floats(), st.integers(-(2**63), 2**63 - 1) | st.none(), st.text(max_size=5) | st.none()),
        max_size=20,
    )
)
@settings(max_examples=50, deadline=None)
def test_every_table_comes_back(rows: list[tuple[float, int | None, str | None]]) -> None:
    table = pd.DataFrame(
        {
            "f": pd.Series([row[0] for row in rows], dtype="float64"),
            "i": pd.array([row[1] for row in rows], dtype="Int64"),
            "s": pd.array([_without_surrogates(row[2]) for row in rows], dtype="string"),
        }
    )
    pd.testing.assert_frame_equal(decode_table(encode_table(table)), table, check_exact=True)


def _without_surrogates(text: str | None) -> str | None:
    return text if text is None else text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    "table", [pd.DataFrame({"a": [1, "x"]}), pd.DataFrame({1: [1]}), pd.DataFrame([[1, 2]], columns=["a", "a"])]
)
def test_tables_without_one_meaning_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(InvalidTable, match="table column"):
        encode_table(table)


@given(st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=80, deadline=None)
def test_damaged_bytes_are_refused_or_still_a_table(position: int, value: int) -> None:
    data = bytearray(encode_table(make_table()))
    data[position % len(data)] = value
    with suppress(CorruptObject):
        assert isinstance(decode_table(bytes(data)), pd.DataFrame)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", b"\x00" * 100, b"not a table at all" * 10])
def test_what_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptObject, match="no table"):
        read_columns(data)
    with pytest.raises(CorruptObject, match="no table"):
        decode_table(data)
