"""Columns of a table at rest: few of many, the first row of each key, the rows of one, as pandas reads them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import CorruptObject
from heimdall_assets.stores.objects.columns import find_columns, read_first_rows, read_values
from heimdall_assets.stores.objects.tables import encode_table

KEYS = st.lists(st.sampled_from(["a", "b", "ä", "night 3", None]), min_size=1, max_size=30)


def make_table(keys: list[str | None]) -> pd.DataFrame:
    count = len(keys)
    return pd.DataFrame(
        {
            "key": pd.array(keys, dtype="string"),
            "name": pd.array([None if place % 4 == 3 else f"Name {place}" for place in range(count)], dtype="string"),
            "number": pd.array([None if place % 5 == 4 else place for place in range(count)], dtype="Int64"),
            "level": np.linspace(-1.5, 2.0, count),
            "time": pd.to_datetime(np.arange(count) * 1_000_001, unit="us", utc=True).astype("datetime64[us, UTC]"),
        }
    )


@settings(deadline=None)
@given(keys=KEYS)
def test_first_rows_are_those_of_pandas(keys: list[str | None]):
    table = make_table(keys)
    rows = read_first_rows(encode_table(table), "key", ("name", "number", "level", "time", "absent"))
    expected = table.dropna(subset=["key"]).drop_duplicates("key")
    assert rows.num_rows == len(expected)
    assert rows.list_values("key") == expected["key"].tolist()
    assert rows.list_values("absent") == [None] * len(expected)
    found = rows.take(range(rows.num_rows))
    for row, (_, told) in zip(found, expected.iterrows(), strict=True):
        assert row["count"] == keys.count(row["key"])
        assert row["name"] == (None if pd.isna(told["name"]) else told["name"])
        assert row["number"] == (None if pd.isna(told["number"]) else told["number"])
        assert row["level"] == told["level"]
        assert row["time"] == told["time"].value // 1000
    if rows.num_rows:
        assert rows.take([rows.num_rows - 1])[0] == found[-1]


@settings(deadline=None)
@given(keys=KEYS)
def test_rows_of_one_key_are_those_of_pandas(keys: list[str | None]):
    table = make_table(keys)
    found = find_columns(encode_table(table), ("key", "level", "absent"), "key", "a")
    expected = table[(table["key"] == "a").fillna(False)]
    assert [row["level"] for row in found] == expected["level"].tolist()
    assert all((row["key"], row["absent"]) == ("a", None) for row in found)


def test_values_are_read_without_the_other_columns():
    table = make_table(["a", None, "b"])
    assert read_values(encode_table(table), ("number", "absent", "key")) == {
        "number": [0, 1, 2], "absent": [None] * 3, "key": ["a", None, "b"]
    }  # fmt: skip


def test_words_are_found_in_either_case_and_as_they_stand():
    rows = read_first_rows(encode_table(make_table(["a", "b", "ä", "night 3"])), "key", ("name",))
    assert rows.find(("key",), "NIGHT").tolist() == [3]
    assert rows.find(("key", "name"), "name 1").tolist() == [1]
    assert rows.find(("key",), "Ä").tolist() == [2]
    assert rows.find(("key",), ".").tolist() == []
    assert rows.find(("key", "name"), "").tolist() == [0, 1, 2, 3]


def test_what_is_no_table_is_refused():
    whole = encode_table(make_table(["a", "b"]))
    for data in (b"", b"no table", whole[:-9], whole[: len(whole) // 2]):
        with pytest.raises(CorruptObject, match="found"):
            read_values(data, ("key",))
        with pytest.raises(CorruptObject, match="found"):
            read_first_rows(data, "key", ())
        with pytest.raises(CorruptObject, match="found"):
            find_columns(data, ("key",), "key", "a")
    with pytest.raises(CorruptObject, match="found no column other"):
        read_first_rows(whole, "other", ())
    with pytest.raises(CorruptObject, match="expected Parquet with other"):
        find_columns(whole, ("key",), "other", "a")


def test_a_table_without_rows_has_no_first_ones():
    empty = encode_table(make_table(["a"]).head(0))
    rows = read_first_rows(empty, "key", ("name",))
    assert (rows.num_rows, rows.take([]), rows.find(("key",), "a").tolist()) == (0, [], [])
    assert find_columns(empty, ("key",), "key", "a") == []
