import json

import numpy as np
import pytest
from hypothesis import given, settings

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidTable
from heimdall_assets.formats.rss_table import decode_receivers, decode_rss_table
from heimdall_assets_tests.formats.recordings import damage

RECEIVERS = json.dumps(
    {
        "roof": {"latitude": 40.76, "longitude": -111.84},
        "bus-1": None,
        "hill": {"latitude": 40.77, "longitude": -111.83},
    }
).encode()
HEADER = "timestamp,bus-1_rss,bus-1_x,bus-1_y,roof,hill,tx_x_coord,tx_y_coord,test_grid,test_note"
ROWS = [
    "2022-11-23 13:24:40,-101.0,-1.0,-1.0,-70.25,-101,40.765,-111.835,0,a",
    "2022-11-23 13:24:44,-80.5,40.761,-111.841,,-90,40.766,-111.836,1.0,",
    "2022-11-23T06:24:48-07:00,-81,0.0,0.0,-60,-101.0,40.767,-111.837,0.5,b",
]
TABLE = "\n".join([HEADER, *ROWS]).encode()


def decode(table: bytes = TABLE, **changes):
    return decode_rss_table(table, decode_receivers(RECEIVERS, name="r.json"), name="t.csv", **changes)


def test_columns_are_found_from_the_receiver_list():
    table = decode()
    assert table.receivers == ["roof", "bus-1", "hill"]
    assert table.positions == [
        Position(latitude=40.76, longitude=-111.84),
        None,
        Position(latitude=40.77, longitude=-111.83),
    ]
    nan = np.nan
    np.testing.assert_array_equal(table.level_db, [[-70.25, nan, nan], [nan, -80.5, -90.0], [-60.0, -81.0, nan]])
    np.testing.assert_array_equal(table.receiver_latitude[:, 1], [nan, 40.761, nan])
    np.testing.assert_array_equal(table.receiver_longitude[:, 1], [nan, -111.841, nan])
    np.testing.assert_array_equal(table.source_latitude, [40.765, 40.766, 40.767])
    assert table.attributes == {"test_grid": [0, 1, 0.5], "test_note": ["a", None, "b"]}


def test_times_without_a_zone_are_utc_and_others_become_it():
    expected = ["2022-11-23T13:24:40", "2022-11-23T13:24:44", "2022-11-23T13:24:48"]
    np.testing.assert_array_equal(decode().timestamp, np.array(expected, "datetime64[us]"))


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({}, [1, 2, 3]),
        ({"test_grid": "1"}, [2]),
        ({"test_grid": "0.0"}, [1]),
        ({"test_note": "b", "test_grid": "5e-1"}, [3]),
        ({"roof": ""}, [2]),
        ({"tx_x_coord": "40.7650"}, [1]),
    ],
)
def test_rows_are_chosen_by_number_or_text(where, rows):
    table = decode(where=where)
    assert table.row.tolist() == rows
    assert len(table.level_db) == len(table.attributes["test_grid"]) == len(table) == len(rows)


def test_levels_keep_every_digit():
    level = -95.69567954000047
    assert decode(TABLE.replace(b"-70.25", repr(level).encode())).level_db[0, 0] == level


def test_a_byte_order_mark_and_carriage_returns_do_not_matter():
    windows = b"\xef\xbb\xbf" + TABLE.replace(b"\n", b"\r\n") + b"\r\n"
    np.testing.assert_array_equal(decode(windows).level_db, decode().level_db)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (b"-70.25", b"loud", "row 1, column roof: found 'loud', expected a finite number"),
        (b"-70.25", b"inf", "row 1, column roof: found 'inf', expected a finite number"),
        (b"-70.25", b"-7_0", "row 1, column roof: found '-7_0', expected a finite number"),
        (b"-70.25", b"-999", "row 1, column roof: found '-999', expected a level"),
        (b"-80.5,40.761", b"-80.5,91", "row 2, column bus-1_x: found '91', expected a latitude"),
        (b"40.766,-111.836", b"40.766,-200", "row 2, column tx_y_coord: found '-200', expected a longitude"),
        (b"40.766,-111.836", b",-111.836", "row 2, column tx_x_coord: found '', expected a latitude"),
        (b"40.766,-111.836", b"-1,-1", "row 2, column tx_x_coord: found '-1', expected a latitude"),
        (b"2022-11-23 13:24:44", b"noon", "row 2, column timestamp: found 'noon', expected a time"),
        (b"2022-11-23 13:24:44", b"", "row 2, column timestamp: found '', expected a time"),
        (b"2022-11-23 13:24:44", b"1822-11-23", "row 2, column timestamp: found '1822-11-23', expected a time"),
        (b",test_note", b",test_grid", "column 'test_grid' is there 2 times"),
        (b",roof,", b",attic,", "no column 'roof'"),
        (b"bus-1_y", b"bus-1_z", "no column 'bus-1_y'"),
        (b",test_note", b",cellar", "column 'cellar' belongs to no receiver"),
        (b",0.5,b", b",0.5", "row 3 has 9 columns, expected 10"),
        (b",0.5,b", b",0.5,b,c", "row 3 has 11 columns, expected 10"),
        (b",0.5,b", b',0.5,"b', "no CSV in UTF-8"),
        (b",0.5,b", b",0.5,\xff", "no CSV in UTF-8"),
        (ROWS[1].encode(), ROWS[0].encode(), "row 2 has time and position of row 1"),
    ],
)
def test_what_is_wrong_is_named_by_row_and_column(old, new, found):
    assert old in TABLE
    with pytest.raises(InvalidTable, match=rf"^t\.csv: {found}") as refusal:
        decode(TABLE.replace(old, new))
    assert "\n" not in str(refusal.value)


def test_a_row_that_is_not_chosen_is_checked_too():
    with pytest.raises(InvalidTable, match="row 1, column roof"):
        decode(TABLE.replace(b"-70.25", b"loud"), where={"test_grid": "1"})


@pytest.mark.parametrize(
    ("table", "found"),
    [(b"", "0 lines"), (HEADER.encode(), "1 lines"), (b"\n\n", "0 lines"), (b"a,b\n1,2", "no column 'timestamp'")],
)
def test_a_table_without_rows_is_refused(table, found):
    with pytest.raises(InvalidTable, match=rf"t\.csv: {found}"):
        decode(table)


@pytest.mark.parametrize(
    ("where", "found"),
    [({"test_grid": "7"}, "no row with test_grid=7"), ({"nothing": "1"}, "no column 'nothing' to choose rows by")],
)
def test_a_choice_that_leaves_nothing_is_refused(where, found):
    with pytest.raises(InvalidTable, match=found):
        decode(where=where)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "no strict|expected a JSON object"),
        (b"[]", "expected a JSON object"),
        (b"{}", "1 to 10000 receivers"),
        (b'{"a": null, "a": null}', "duplicate key 'a'"),
        (b'{"a": {"latitude": NaN, "longitude": 1}}', "NaN is no JSON number"),
        (b'{"a": {"latitude": 91, "longitude": 1}}', "receiver a, latitude"),
        (b'{"a": {"latitude": "1", "longitude": 1}}', "receiver a, latitude"),
        (b'{"a": {"latitude": 1}}', "receiver a, longitude"),
        (b'{"a": {"latitude": 1, "longitude": 1, "mast": 3}}', "receiver a, mast"),
        (b'{"a": 3}', "receiver a, position"),
        (b'{"../a": null}', "receiver name '../a'"),
        (b'{"": null}', "receiver name ''"),
        (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "nested deeper than 4"),
    ],
)
def test_a_receiver_list_that_is_none_is_refused(data, found):
    with pytest.raises(InvalidTable, match=rf"^r\.json: .*({found})"):
        decode_receivers(data, name="r.json")


@settings(max_examples=200, deadline=None)
@given(damage(TABLE))
def test_damage_to_the_table_is_refused_or_harmless(data):
    try:
        table = decode(data)
    except InvalidTable:
        return
    assert np.isfinite(table.source_latitude).all()
    assert not np.isinf(table.level_db).any()


@settings(max_examples=200, deadline=None)
@given(damage(RECEIVERS))
def test_damage_to_the_receiver_list_is_refused_or_harmless(data):
    try:
        receivers = decode_receivers(data, name="r.json")
    except InvalidTable:
        return
    assert all(position is None or isinstance(position, Position) for position in receivers.values())


def test_the_real_table_has_its_known_size(shared_data):
    folder = shared_data / "powder_rss"
    receivers = decode_receivers((folder / "receivers.json").read_bytes(), name="receivers.json")
    table = decode_rss_table((folder / "single_tx.csv").read_bytes(), receivers, name="single_tx.csv")
    assert len(table) == 4039
    assert len(receivers) == 40
    assert sum(position is None for position in receivers.values()) == 11
    assert int(np.isfinite(table.level_db).sum()) == 94_205
    assert {name: sum(values) for name, values in table.attributes.items()} == {
        "test_random": 647,
        "test_grid": 541,
        "test_driving": 261,
        "test_november": 351,
        "test_indoor": 89,
    }
