"""Wide tables of levels: a row a transmission, a column a receiver."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidSetting, InvalidTable
from heimdall_assets.tables.claim import TableClaim
from heimdall_assets.tables.level_table import LevelTable
from heimdall_assets.tables.levels import decode_levels
from heimdall_assets.tables.receiver_list import decode_receivers
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


CLAIM = TableClaim(not_heard=["-101"], no_position=[-1.0, 0.0], time_zone="UTC", frequency_hz=462.7e6)
POWDER = CLAIM
"""What the publisher of that table says of it, in words beside it."""


def decode(table: bytes = TABLE, **said) -> LevelTable:
    return decode_levels(table, decode_receivers(RECEIVERS, name="r.json"), name="t.csv", claim=replace(CLAIM, **said))


def test_columns_are_found_from_the_receiver_list():
    table = decode()
    assert table.receivers == ["roof", "bus-1", "hill"]
    assert table.positions == [
        Position(latitude=40.76, longitude=-111.84),
        None,
        Position(latitude=40.77, longitude=-111.83),
    ]
    nan = np.nan
    np.testing.assert_array_equal(
        table.spread(table.level_db), [[-70.25, nan, nan], [nan, -80.5, -90.0], [-60.0, nan, nan]]
    )
    np.testing.assert_array_equal(table.spread(table.receiver_latitude)[:, 1], [nan, 40.761, nan])
    np.testing.assert_array_equal(table.spread(table.receiver_longitude)[:, 1], [nan, -111.841, nan])
    assert table.attributes["not_heard"] == [["hill"], ["roof"], ["hill"]]
    assert table.attributes["heard_without_position"] == [None, None, ["bus-1"]]
    np.testing.assert_array_equal(table.source_latitude, [40.765, 40.766, 40.767])
    assert table.attributes["test_grid"] == [0, 1, 0.5]
    assert table.attributes["test_note"] == ["a", None, "b"]


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
    assert len(table.spread(table.level_db)) == len(table.attributes["test_grid"]) == len(table) == len(rows)


def test_columns_have_any_name():
    header = HEADER.replace("tx_x_coord", "breite").replace("roof", "GW/1").replace("timestamp", "when")
    said = {"columns": {"latitude": "breite", "roof": "GW/1", "time": "when"}}
    renamed = decode(TABLE.replace(HEADER.encode(), header.encode()), **said)
    np.testing.assert_array_equal(renamed.level_db, decode().level_db)
    np.testing.assert_array_equal(renamed.source_latitude, decode().source_latitude)
    with pytest.raises(InvalidTable, match=r"no column 'breit', expected one for latitude .*did you mean 'breite'"):
        decode(TABLE.replace(HEADER.encode(), header.encode()), **{"columns": said["columns"] | {"latitude": "breit"}})
    with pytest.raises(InvalidSetting, match=r"--column latitud: expected one of .*did you mean latitude"):
        decode(columns={"latitud": "tx_x_coord"})


def test_names_of_sources_and_sessions_are_taken_where_there_are_columns_for_them():
    table = decode(columns={"source": "test_note", "session": "test_grid"}, where={"tx_x_coord": "40.765"})
    assert (table.source, table.session) == (["a"], ["0"])
    assert set(table.attributes) == {"not_heard", "heard_without_position"}


def test_a_session_that_two_rows_name_is_refused_where_rows_are_transmissions():
    with pytest.raises(InvalidTable, match=r"row 2, column test_grid: found '0', expected a name for each"):
        decode(TABLE.replace(b",1.0,", b",0,"), columns={"session": "test_grid"})


def test_rows_that_repeat_are_left_out_and_counted():
    again = TABLE + b"\n" + ROWS[0].encode() + b"\n" + ROWS[1].replace("-90", "-91").encode()
    table = decode(again)
    assert table.row.tolist() == [1, 2, 3]
    assert table.left_out == {
        "time and position of an earlier row": 1,
        "time and position of an earlier row, but other levels": 1,
    }


@pytest.mark.parametrize("nowhere", [b",", b"-1,-1", b"0.0,0.0"])
def test_rows_without_a_source_are_left_out_and_counted(nowhere):
    table = decode(TABLE.replace(b"40.766,-111.836", nowhere))
    assert table.row.tolist() == [1, 3]
    assert table.left_out == {"no position of the source": 1}


def test_a_table_of_which_nothing_is_left_is_refused():
    with pytest.raises(InvalidTable, match=r"no row left \(1: no position of the source\)"):
        decode(TABLE.replace(b"40.766,-111.836", b","), where={"test_grid": "1"})


def test_a_table_in_which_nobody_heard_anything_is_one_of_silence():
    silent = TABLE.replace(b"-70.25", b"").replace(b"-80.5", b"").replace(b"-90", b"").replace(b"-60", b"")
    table = decode(silent.replace(b"-81,", b","))
    assert (len(table), len(table.level_db)) == (3, 0)
    assert table.attributes["not_heard"] == [["roof", "hill"]] * 3


def test_coordinates_that_stand_for_none_are_asked_for():
    with pytest.raises(InvalidTable, match=r"bus-1 holds whole degrees in .*: say --no-position -1 --no-position 0 if"):
        decode(no_position=())
    placed = TABLE.replace(b"-1.0,-1.0", b",").replace(b"0.0,0.0", b"40.7,-111.8")
    assert len(decode(placed, no_position=()).level_db) == len(decode().level_db) + 1
    far = TABLE.replace(b"40.766,-111.836", b"0,0").replace(b"-1.0,-1.0", b",").replace(b"0.0,0.0", b",")
    with pytest.raises(InvalidTable, match=r"tx_x_coord holds whole degrees .* say --no-position 0 if"):
        decode(far, no_position=())


def test_everything_that_must_be_said_is_asked_in_one_line():
    with pytest.raises(InvalidTable) as refusal:
        decode(not_heard=(), time_zone=None, frequency_hz=None)
    for option in ("--not-heard -101", "--level -101", "--time-zone UTC", "--frequency-hz", "frequency_hz=NAME"):
        assert option in str(refusal.value)


@pytest.mark.parametrize(
    ("role", "cell", "hertz"), [("hz", b"868100000", 868.1e6), ("khz", b"868100", 868.1e6), ("mhz", b"868.1", 868.1e6)]
)
def test_a_column_may_say_the_frequency(role, cell, hertz):
    table = TABLE.replace(b"test_note", b"f").replace(b",0,a\n", b",0,%b\n" % cell)
    table = table.replace(b",1.0,\n", b",1.0,%b\n" % cell).replace(b",0.5,b", b",0.5,%b" % cell)
    np.testing.assert_array_equal(
        decode(table, columns={f"frequency_{role}": "f"}, frequency_hz=None).frequency_hz, hertz
    )
    with pytest.raises(InvalidTable, match=r"found the frequency in column f and --frequency-hz"):
        decode(table, columns={f"frequency_{role}": "f"})
    if role == "mhz":
        with pytest.raises(InvalidTable, match=r"row 1, column f: found '868\.1', expected a radio frequency, 3000 to"):
            decode(table, columns={"frequency_hz": "f"}, frequency_hz=None)


@pytest.mark.parametrize("frequency_hz", [462.7, 0.0, -1.0, float("nan"), 1e12])
def test_a_frequency_that_no_radio_uses_is_refused(frequency_hz):
    with pytest.raises(InvalidTable, match=r"--frequency-hz .*, expected 3000 to 3e\+11 Hz"):
        decode(frequency_hz=frequency_hz)


def test_every_other_column_is_kept_as_it_means_itself():
    table = TABLE.replace(b"test_note", b"device")
    for old, new in ((b",0,a", b",0,00123"), (b",1.0,\n", b",1.0,1e5\n"), (b",0.5,b", b",0.5,-2.5")):
        table = table.replace(old, new)
    assert decode(table).attributes["device"] == ["00123", "1e5", -2.5]


def test_levels_keep_every_digit():
    level = -95.69567954000047
    assert decode(TABLE.replace(b"-70.25", repr(level).encode())).level_db[0] == level


def test_a_byte_order_mark_and_carriage_returns_do_not_matter():
    windows = b"\xef\xbb\xbf" + TABLE.replace(b"\n", b"\r\n") + b"\r\n"
    np.testing.assert_array_equal(decode(windows).level_db, decode().level_db)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (b"-70.25", b"loud", "row 1, column roof: found 'loud', expected a level, or --not-heard"),
        (b"-70.25", b"inf", "row 1, column roof: found 'inf', expected a level, or --not-heard"),
        (b"-70.25", b"-7_0", "row 1, column roof: found '-7_0', expected a level, or --not-heard"),
        (b"-70.25", b"-999", "-999 stands in 11.1 % of cells .roof.: say --not-heard -999 if"),
        (b"-80.5,40.761", b"-80.5,91", "row 2, column bus-1_x: found '91', expected a latitude"),
        (b"40.766,-111.836", b"40.766,-200", "row 2, column tx_y_coord: found '-200', expected a longitude"),
        (b"2022-11-23 13:24:44", b"noon", "row 2, column timestamp: found 'noon', expected a time"),
        (b"2022-11-23 13:24:44", b"", "row 2, column timestamp: found '', expected a time"),
        (b"2022-11-23 13:24:44", b"1822-11-23", "row 2, column timestamp: found '1822-11-23', expected a time"),
        (b",test_note", b",test_grid", "column 'test_grid' is there 2 times"),
        (b",roof,", b",attic,", "no column 'roof'"),
        (b"bus-1_y", b"bus-1_z", "no column 'bus-1_y'"),
        (b",test_note", b",not_heard", "column 'not_heard', expected another name"),
        (b",0.5,b", b",0.5", "row 3 has 9 columns, expected 10"),
        (b",0.5,b", b",0.5,b,c", "row 3 has 11 columns, expected 10"),
        (b",0.5,b", b',0.5,"b', "no CSV in UTF-8"),
        (b",0.5,b", b",0.5,\xff", "no CSV in UTF-8"),
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
    [(b"", "empty"), (HEADER.encode(), "1 lines"), (b"\n\n", "empty"), (b"a,b\n1,2", "no column 'roof'")],
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
        (b'{"a": {"latitude": 91, "longitude": 1}}', "receiver a: latitude: found"),
        (b'{"a": {"latitude": "1", "longitude": 1}}', "receiver a: latitude: found"),
        (b'{"a": {"latitude": 1}}', "receiver a: longitude: found none"),
        (b'{"a": {"latitude": 1, "longitude": 1, "mast": 3}}', "receiver a: mast: found"),
        (b'{"a": 3}', "receiver a: found 3, expected latitude and longitude; such as"),
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
    assert np.isfinite(table.level_db).all()


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
    data = (folder / "single_tx.csv").read_bytes()
    table = decode_levels(data, receivers, name="single_tx.csv", claim=POWDER)
    assert len(table) == 4039
    assert len(receivers) == 40
    assert sum(position is None for position in receivers.values()) == 11
    unplaced = sum(len(names or []) for names in table.attributes["heard_without_position"])
    assert (len(table.level_db) + unplaced, unplaced) == (94_205, 47)
    flags = ("test_random", "test_grid", "test_driving", "test_november", "test_indoor")
    assert [sum(table.attributes[name]) for name in flags] == [647, 541, 261, 351, 89]
    with pytest.raises(InvalidTable, match=r"-101 stands in 41\.7 % .*--not-heard -101 .*--no-position -1"):
        decode_levels(data, receivers, name="single_tx.csv", claim=replace(POWDER, not_heard=(), no_position=()))
