"""Long tables of levels: a row a receiver and transmission, as gateways write them."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidTable
from heimdall_assets.tables.claim import TableClaim
from heimdall_assets.tables.level_table import LevelTable
from heimdall_assets.tables.levels import decode_levels
from heimdall_assets_tests.formats.recordings import damage

ROWS = [
    {"id": "m1", "at": "2026-11-20T10:00:00.100Z", "gw": "G1", "rssi": -91, "lsnr": 7.5, "sf": 9, "mast": 12},
    {"id": "m1", "at": "2026-11-20T10:00:00.000Z", "gw": "G2", "rssi": -113, "lsnr": -2.0, "sf": 9, "mast": 30},
    {"id": "m2", "at": "2026-11-20T10:01:00Z", "gw": "G1", "rssi": -98, "lsnr": 3.25, "sf": 12, "mast": 12},
    {"id": "m1", "at": "2026-11-20T10:00:00.200Z", "gw": "G3", "rssi": -120, "lsnr": -9.0, "sf": 9, "mast": 8},
]
PLACES = {"m1": (51.2010, 4.4010), "m2": (51.2050, 4.4110)}
GATEWAYS = {
    "G1": Position(latitude=51.20, longitude=4.40),
    "G2": Position(latitude=51.22, longitude=4.40),
    "G3": None,
}
CLAIM = TableClaim(
    columns={"session": "id", "time": "at", "receiver": "gw", "level": "rssi", "snr": "lsnr", "frequency_mhz": "mhz"}
)


def make_rows(**changes) -> list[dict]:
    rows = [dict(row, lat=PLACES[row["id"]][0], lon=PLACES[row["id"]][1], mhz=868.1) for row in ROWS]
    for row in rows:
        place = GATEWAYS[row["gw"]]
        row["glat"], row["glon"] = (51.3, 4.5) if place is None else (place.latitude, place.longitude)
    for key, value in changes.items():
        number, _, column = key.partition("_")
        rows[int(number.removeprefix("row"))][column] = value
    return rows


PLACED = {**CLAIM.columns, "receiver_latitude": "glat", "receiver_longitude": "glon"}


def decode(rows: list[dict], receivers=None, **said) -> LevelTable:
    data = "\n".join(json.dumps(row) for row in rows).encode()
    claim = replace(CLAIM, columns=PLACED) if receivers is None else CLAIM
    return decode_levels(data, receivers or {}, name="t", claim=replace(claim, **said))


def test_rows_of_one_message_become_one_transmission():
    table = decode(make_rows())
    assert table.session == ["m1", "m2"]
    times = np.array(["2026-11-20T10:00:00", "2026-11-20T10:01:00"], "datetime64[us]")
    np.testing.assert_array_equal(table.timestamp, times)
    np.testing.assert_array_equal(table.source_latitude, [51.2010, 51.2050])
    np.testing.assert_array_equal(table.frequency_hz, [868.1e6] * 2)
    nan = np.nan
    np.testing.assert_array_equal(table.spread(table.level_db), [[-91, -113, -120], [-98, nan, nan]])
    np.testing.assert_array_equal(table.spread(table.snr_db), [[7.5, -2.0, -9.0], [3.25, nan, nan]])
    heard = table.heard_timestamp - table.timestamp[table.heard_row]
    np.testing.assert_array_equal(heard, np.array([100, 0, 0, 200], "timedelta64[ms]"))


def test_what_all_receivers_say_is_of_the_session_and_what_differs_of_the_measurement():
    table = decode(make_rows())
    assert table.attributes == {"sf": [9, 12]}
    assert table.heard_attributes == [{"mast": 12}, {"mast": 30}, {"mast": 12}, {"mast": 8}]


def test_receivers_stand_where_the_list_says_or_the_columns_do():
    assert decode(make_rows()).positions == [*list(GATEWAYS.values())[:2], Position(latitude=51.3, longitude=4.5)]
    listed = {**GATEWAYS, "G3": Position(latitude=51.18, longitude=4.36)}
    rows = [{key: value for key, value in row.items() if key not in ("glat", "glon")} for row in make_rows()]
    assert decode(rows, listed).positions == list(listed.values())
    with pytest.raises(InvalidTable, match=r"row 4, column gw: found 'G3', expected a receiver of --receivers, or col"):
        decode(rows, {name: place for name, place in listed.items() if name != "G3"})


def test_a_receiver_whose_place_differs_between_rows_moves():
    table = decode(make_rows(row2_glat=51.2003))
    assert table.positions[0] is None
    latitude = table.spread(table.receiver_latitude)
    np.testing.assert_array_equal(latitude[:, 0], [51.20, 51.2003])
    assert np.isnan(latitude[:, 1:]).all()
    lost = decode(make_rows(row0_glat=None, row0_glon=None), {**GATEWAYS, "G1": None}, columns=PLACED)
    assert lost.left_out == {"no position of the receiver": 1}


def test_without_a_session_rows_of_one_time_and_place_are_one_transmission():
    rows = make_rows(row0_at="2026-11-20T10:00:00Z", row3_at="2026-11-20T10:00:00Z")
    columns = {role: column for role, column in PLACED.items() if role != "session"}
    table = decode(rows, columns=columns)
    assert table.session is None
    assert table.heard_row.tolist() == [0, 0, 1, 0]
    assert table.attributes["id"] == ["m1", "m2"]


def test_rows_that_repeat_or_heard_nothing_are_left_out_and_counted():
    rows = [*make_rows(), make_rows()[0], make_rows(row1_rssi=-112)[1], make_rows(row2_rssi=None)[2]]
    table = decode(rows)
    assert len(table.level_db) == 4
    assert table.left_out == {
        "not heard": 1,
        "a receiver that an earlier row of the transmission has": 1,
        "a receiver that an earlier row of the transmission has with another level": 1,
    }


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"row1_lat": 51.3}, r"row 2, column lat: found '51\.3', expected the place that the first row of its session"),
        (
            {"row3_at": "2026-11-20T11:00:00Z"},
            r"row 4, column at: .* within 60 seconds of the first row",
        ),
        ({"row1_mhz": 867.9}, r"row 2, column mhz: found '867\.9', expected the frequency that the first row"),
        ({"row1_lsnr": 5e3}, r"row 2, column lsnr: found '5000\.0', expected at most 200 dB of SNR"),
        ({"row1_gw": "../G"}, r"row 2, column gw: found '\.\./G', expected the name of a receiver"),
        ({"row1_rssi": "loud"}, r"row 2, column rssi: found 'loud', expected a level, or --not-heard"),
        ({"row1_glon": None}, r"row 2, column glon: found '', expected a longitude, as glat has a latitude"),
        ({"row1_rssi": 100}, r"100 stands in 25 % of cells \(G2\): say --not-heard 100 if"),
        ({"row1_at": "2026-11-20T10:00:00"}, r"times carry no zone \(at\): say --time-zone UTC"),
        ({"row1_glat": 0.0, "row1_glon": 0.0}, r"glat holds whole degrees .* say --no-position 0 if"),
    ],
)
def test_what_is_wrong_is_named(changes, found):
    with pytest.raises(InvalidTable, match=found):
        decode(make_rows(**changes))


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"receiver": "gw", "level": ""}, "no column for level, expected --column level=NAME"),
        ({"receiver": "", "level": "rssi"}, "no column for receiver, expected --column receiver=NAME"),
        ({"receiver": "", "level": ""}, "no column for receiver, expected --column receiver=NAME"),
        ({"receiver_longitude": ""}, "found a column for receiver_latitude alone"),
        ({"time": ""}, "no column for the time of each row, expected --column time=NAME"),
    ],
)
def test_a_column_that_is_missing_is_asked_for(columns, found):
    with pytest.raises(InvalidTable, match=found):
        decode(make_rows(), columns={**PLACED, **columns})


def test_a_table_without_any_receivers_is_refused():
    with pytest.raises(InvalidTable, match="found no columns receiver and level, expected them"):
        decode_levels(b"time,lat,lon,A\n1795168800,51.2,4.4,-70\n", {}, name="t", claim=TableClaim())


def test_csv_and_parquet_of_the_same_rows_say_the_same():
    frame = pd.DataFrame(make_rows())
    text, file = io.StringIO(), io.BytesIO()
    frame.to_csv(text, index=False, sep=";", decimal=",")
    frame.to_parquet(file)
    expected = decode(make_rows())
    for data in (text.getvalue().encode(), file.getvalue()):
        table = decode_levels(data, {}, name="t", claim=replace(CLAIM, columns=PLACED))
        for name in ("level_db", "snr_db", "timestamp", "source_latitude", "frequency_hz", "heard_row"):
            np.testing.assert_array_equal(getattr(table, name), getattr(expected, name))
        assert (table.positions, table.attributes) == (expected.positions, expected.attributes)


def test_a_header_that_says_dbm_is_believed():
    rows = [{("level_dbm" if key == "rssi" else key): value for key, value in row.items()} for row in make_rows()]
    rows[0]["level_dbm"] = 3.0
    columns = {**PLACED, "level": "level_dbm"}
    with pytest.raises(InvalidTable, match=r"3 stands in 25 % of cells"):  # 91 dB above all others
        decode(rows, columns=columns)
    rows[0]["level_dbm"] = -60.0
    assert decode(rows, columns=columns).taken_as[0] == "levels in dbm, as said"


@settings(max_examples=100, deadline=None)
@given(damage("\n".join(json.dumps(row) for row in make_rows()).encode()))
def test_damage_is_refused_or_harmless(data):
    try:
        table = decode_levels(data, {}, name="t", claim=replace(CLAIM, columns=PLACED))
    except InvalidTable:
        return
    assert np.isfinite(table.level_db).all()
    assert np.isfinite(table.source_latitude).all()
