"""Tables of arrival times and bearings: no digit is lost, no sigma assumed, no north guessed."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heimdall_assets.domain import Position
from heimdall_assets.errors import InvalidSetting, InvalidTable
from heimdall_assets.tables.claim import ObservedClaim, TableClaim
from heimdall_assets.tables.level_table import LevelTable
from heimdall_assets.tables.levels import decode_observed

PLACES = {
    "G1": Position(latitude=51.20, longitude=4.40),
    "G2": Position(latitude=51.22, longitude=4.40),
    "G3": Position(latitude=51.20, longitude=4.44),
}
T0 = 1_795_168_800_123_456_789
ROWS = [
    {"session": "m1", "receiver": "G1", "arrival": str(T0), "arrival_sigma_ns": "60"},
    {"session": "m1", "receiver": "G2", "arrival": str(T0 + 4_321), "arrival_sigma_ns": "80"},
    {"session": "m1", "receiver": "G3", "arrival": "", "arrival_sigma_ns": ""},
    {"session": "m2", "receiver": "G1", "arrival": str(T0 + 60 * 10**9), "arrival_sigma_ns": "60"},
]
BEARINGS = [
    {"session": "m1", "receiver": "G1", "bearing": "359.5", "bearing_sigma_deg": "4"},
    {"session": "m1", "receiver": "G2", "bearing": "12.25", "bearing_sigma_deg": "2.5"},
]
SAID = TableClaim(frequency_hz=868.1e6, observed=ObservedClaim())
NORTH = replace(SAID, observed=ObservedClaim(north="true"))


def write(rows: list[dict[str, str]], delimiter: str = ";") -> bytes:
    rows = [{"time": "2026-11-20T10:00:00Z", "latitude": "51.201", "longitude": "4.401", **row} for row in rows]
    rows = [row | {"time": "2026-11-20T10:01:00Z"} if row["session"] == "m2" else row for row in rows]
    frame = pd.DataFrame(rows).fillna("")
    return frame.to_csv(index=False, sep=delimiter).encode()


def decode(rows: list[dict[str, str]], claim: TableClaim = SAID) -> LevelTable:
    return decode_observed(write(rows), PLACES, name="t", claim=claim)


def refuse(rows: list[dict[str, str]], found: str, claim: TableClaim = SAID) -> None:
    with pytest.raises(InvalidTable, match=found):
        decode(rows, claim)


def change(rows: list[dict[str, str]], number: int, **cells: str) -> list[dict[str, str]]:
    return [row | cells if index == number else dict(row) for index, row in enumerate(rows)]


def test_nanoseconds_since_1970_come_through_to_the_last_digit():
    table = decode(ROWS)
    assert table.observed is not None
    assert table.observed.arrival_unix_ns.tolist() == [T0, T0 + 4_321, T0 + 60 * 10**9]
    np.testing.assert_allclose(table.observed.arrival_sigma_s, [60e-9, 80e-9, 60e-9], rtol=1e-12)
    assert table.session == ["m1", "m2"]
    assert np.isnan(table.level_db).all()
    assert table.left_out == {"neither an arrival nor a bearing nor a level": 1}
    assert "arrivals in ns since 1970" in table.taken_as


@given(st.integers(0, 10**9 - 1), st.sampled_from(["s", "ms", "us", "ns", "iso"]))
def test_every_writing_of_a_time_gives_the_same_nanosecond(fraction_ns, unit):
    unix_ns = 1_795_168_800 * 10**9 + fraction_ns
    digits = {"s": 9, "ms": 6, "us": 3, "ns": 0}
    if unit == "iso":
        text = f"2026-11-20T10:00:00.{fraction_ns:09d}Z"
    else:
        whole, rest = divmod(unix_ns, 10 ** digits[unit])
        text = f"{whole}.{rest:0{digits[unit]}d}" if digits[unit] else str(unix_ns)
    row = {"session": "m1", "receiver": "G1", "arrival": text, "arrival_sigma_ns": "60"}
    assert decode([row]).observed.arrival_unix_ns.tolist() == [unix_ns]


def test_parquet_integers_and_json_numbers_are_read_alike():
    rows = [dict(row, time="2026-11-20T10:00:00Z", latitude=51.201, longitude=4.401) for row in ROWS[:2]]
    typed = [row | {"arrival": int(row["arrival"]), "arrival_sigma_ns": 70.0} for row in rows]
    buffer = io.BytesIO()
    pd.DataFrame(typed).to_parquet(buffer)
    for data in (buffer.getvalue(), "\n".join(map(json.dumps, typed)).encode()):
        table = decode_observed(data, PLACES, name="t", claim=SAID)
        assert table.observed.arrival_unix_ns.tolist() == [T0, T0 + 4_321]


def test_seconds_that_were_a_float_do_not_know_nanoseconds():
    rows = [dict(row, time="2026-11-20T10:00:00Z", latitude=51.201, longitude=4.401) for row in ROWS[:2]]
    floats = [row | {"arrival": int(row["arrival"]) / 1e9, "arrival_sigma_ns": 60.0} for row in rows]
    data = "\n".join(map(json.dumps, floats)).encode()
    with pytest.raises(InvalidTable, match=r"expected more digits: one step of 238.* ns leaves 6.9e-08 s open"):
        decode_observed(data, PLACES, name="t", claim=SAID)
    wide = "\n".join(json.dumps(row | {"arrival_sigma_ns": 500.0}) for row in floats).encode()
    found = decode_observed(wide, PLACES, name="t", claim=SAID).observed.arrival_unix_ns
    assert np.abs(found - np.array([T0, T0 + 4_321])).max() < 239


@pytest.mark.parametrize(("unit", "decimals"), [("s", 9), ("s", 12), ("ms", 7), ("ns", 0)])
def test_a_float_that_is_printed_with_more_digits_than_it_holds_knows_no_more(unit, decimals):
    unit_ns = {"s": 1e9, "ms": 1e6, "ns": 1.0}[unit]
    exact = [T0 + 123_456_789 + 7_654_321 * number for number in range(6)]
    rows = [ROWS[0] | {"session": f"m{number}", "arrival_sigma_ns": "60"} for number in range(6)]
    printed = [row | {"arrival": f"{float(one) / unit_ns:.{decimals}f}"} for row, one in zip(rows, exact, strict=True)]
    refuse(printed, r"expected more digits: one step of 2\d\d.* ns leaves .*e-08 s open")
    wide = [row | {"arrival_sigma_ns": "500"} for row in printed]
    assert np.abs(decode(wide).observed.arrival_unix_ns - np.array(exact)).max() < 512
    digits = {"s": 9, "ms": 6, "ns": 0}[unit]
    written = [
        row | {"arrival": f"{one // 10**digits}.{one % 10**digits:0{digits}d}" if digits else str(one)}
        for row, one in zip(rows, exact, strict=True)
    ]
    assert decode(written).observed.arrival_unix_ns.tolist() == exact


def test_fewer_digits_than_the_sigma_claims_are_refused_and_dropped_zeros_are_not():
    coarse = [row | {"arrival": "1795168800.123"} for row in ROWS[:1]]
    refuse(coarse, r"column arrival: found '1795168800.123', expected more digits: one step of 1e\+06 ns")
    mixed = [
        ROWS[0] | {"arrival": "1795168800.1234567890"},
        ROWS[1] | {"arrival": "1795168800.12"},
    ]
    assert decode(mixed).observed.arrival_unix_ns[1] == 1_795_168_800_120_000_000


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (
            {"arrival_sigma_ns": ""},
            "row 1, column arrival_sigma_ns: found '', expected the one-sigma error",
        ),
        ({"arrival_sigma_ns": "0.5"}, "column arrival_sigma_ns: found '0.5', expected the one-sigma error"),
        ({"arrival_sigma_ns": "0"}, "column arrival_sigma_ns: found '0', expected the one-sigma error"),
        ({"arrival_sigma_ns": "-60"}, "column arrival_sigma_ns: found '-60', expected the one-sigma error"),
        ({"arrival_sigma_ns": "2e9"}, "column arrival_sigma_ns: found '2e9', expected the one-sigma error"),
        (
            {"arrival": "soon"},
            "column arrival: found 'soon', expected an arrival of 1980 to 2200, s, ms,",
        ),
        ({"receiver": "G9"}, "column receiver: found 'G9', expected a receiver of --receivers, or columns"),
    ],
)
def test_a_cell_that_cannot_be_believed_is_named(cells, found):
    refuse(change(ROWS, 0, **cells), found)


def test_another_day_in_one_session_is_refused():
    rows = change(ROWS, 1, arrival=str(T0 + 86_400 * 10**9), time="2026-11-20T10:00:00Z")
    refuse(rows, f"row 2, column arrival: found '{T0 + 86_400 * 10**9}', expected an arrival within 1 s of the first")


def test_two_rows_of_one_receiver_that_differ_are_refused_and_repeats_counted():
    refuse([*ROWS, ROWS[0] | {"arrival": str(T0 + 5)}], "column receiver: found 'G1', expected one row a receiver")
    assert decode([*ROWS, ROWS[0]]).left_out["a receiver that an earlier row of the transmission has"] == 1


def test_sigmas_and_north_are_asked_for_and_said_once():
    bare = [{key: value for key, value in row.items() if "sigma" not in key} for row in ROWS]
    refuse(bare, "no column gives the one-sigma error of arrivals: say --arrival-sigma-ns")
    said = replace(SAID, observed=ObservedClaim(arrival_sigma_s=90e-9))
    np.testing.assert_allclose(decode(bare, said).observed.arrival_sigma_s, 90e-9)
    refuse(ROWS, "sigma of arrivals in column arrival_sigma_ns and --arrival-sigma-ns, expected one", said)
    for sigma_s in (0.0, -1e-9):
        refuse(bare, r"--arrival-sigma-ns .*, expected 1 to 1e\+09 ns", replace(SAID, observed=ObservedClaim(sigma_s)))
    refuse(BEARINGS, "bearings may count from either north: say --north true, or magnetic with --declination-deg")
    bare = [{key: value for key, value in row.items() if "sigma" not in key} for row in BEARINGS]
    refuse(bare, "no column gives the one-sigma error of bearings: say --bearing-sigma-deg", NORTH)
    for sigma_deg in (0.0, -2.0, 181.0):
        claim = replace(SAID, observed=ObservedClaim(bearing_sigma_deg=sigma_deg, north="true"))
        refuse(bare, "--bearing-sigma-deg .*, expected above 0 to 180 degrees", claim)


def test_bearings_from_magnetic_north_turn_by_the_declination():
    assert decode(BEARINGS, NORTH).observed.bearing_deg.tolist() == [359.5, 12.25]
    magnetic = replace(SAID, observed=ObservedClaim(north="magnetic", declination_deg=2.0))
    np.testing.assert_allclose(decode(BEARINGS, magnetic).observed.bearing_deg, [1.5, 14.25])
    assert "bearings from magnetic north, 2 degrees east of true north" in decode(BEARINGS, magnetic).taken_as
    for said in (ObservedClaim(north="magnetic"), ObservedClaim(north="true", declination_deg=2.0)):
        with pytest.raises(InvalidSetting, match="expected a declination with magnetic north, and none with another"):
            decode(BEARINGS, replace(SAID, observed=said))


@pytest.mark.parametrize("bearing", ["-0.5", "360.5"])
def test_a_bearing_beyond_the_circle_is_refused(bearing):
    found = f"column bearing: found '{bearing}', expected a bearing from 0 to 360 degrees"
    refuse(change(BEARINGS, 0, bearing=bearing), found, NORTH)


def test_bearings_that_look_like_radians_are_asked_about():
    true_deg = [10.0, 120.0, 359.5]
    rows = [
        {"session": "m1", "receiver": name, "bearing": f"{np.radians(bearing):.5f}", "bearing_sigma_deg": "4"}
        for name, bearing in zip(PLACES, true_deg, strict=True)
    ]
    refuse(rows, r"all bearings \(bearing\) lie within 0 to 6\.2832: say --bearings-in degrees, or radians", NORTH)

    def read(unit: str, of: list[dict[str, str]] = rows) -> np.ndarray:
        claim = replace(SAID, observed=ObservedClaim(north="true", bearings_in=unit))
        return decode(of, claim).observed.bearing_deg

    np.testing.assert_allclose(read("radians"), true_deg, atol=1e-3)
    assert read("degrees").max() < 6.3
    with pytest.raises(InvalidTable, match=r"found '12\.25', expected a bearing from 0 to 2 pi radians"):
        read("radians", BEARINGS[1:])


def test_a_receiver_at_two_places_in_one_session_is_refused():
    """Whichever of them was kept would be as confident as the other."""
    rows = [row | {"receiver_latitude": "52.0", "receiver_longitude": "5.0"} for row in ROWS]
    rows[1] |= {"receiver_latitude": "51.3"}
    twice = [*rows, rows[0] | {"receiver_latitude": "51.3", "receiver_longitude": "4.2"}]
    with pytest.raises(InvalidTable, match="column receiver: found 'G1', expected one row a receiver and session"):
        decode_observed(write(twice), {}, name="t", claim=SAID)


def test_decimal_commas_of_a_spreadsheet_are_read():
    commas = [{key: value.replace(".", ",") for key, value in row.items()} for row in BEARINGS]
    observed = decode(commas, NORTH).observed
    assert (observed.bearing_deg.tolist(), observed.bearing_sigma_deg.tolist()) == ([359.5, 12.25], [4.0, 2.5])


def test_what_a_table_must_have_is_asked_for_by_its_column():
    refuse([{"session": "m1", "receiver": "G1", "rssi": "-90"}], "no column for arrival or bearing, expected --column")
    unnamed = [{key: value for key, value in row.items() if key != "receiver"} for row in ROWS]
    refuse(unnamed, "no column for the receiver of each row")
    data = write(ROWS).replace(b"session", b"uplink")
    with pytest.raises(InvalidTable, match="no column for the session of each row"):
        decode_observed(data, PLACES, name="t", claim=SAID)


def test_levels_stand_beside_arrivals():
    rows = [row | {"level": str(-101.5 - number)} for number, row in enumerate(ROWS)]
    table = decode(rows)
    assert table.level_db.tolist() == [-101.5, -102.5, -103.5, -104.5]
    assert table.observed.has_arrival.tolist() == [True, True, False, True]


def test_a_table_of_an_unknown_transmitter_may_be_one_session():
    frame = pd.DataFrame(ROWS[:2]).drop(columns="session")
    claim = replace(SAID, observed=ObservedClaim(needs_truth=False))
    table = decode_observed(frame.to_csv(index=False).encode(), PLACES, name="t", claim=claim)
    assert len(table) == 1
    assert np.isnan(table.source_latitude).all()
    assert table.timestamp.tolist() == [pd.Timestamp(T0 // 1000, unit="us").to_pydatetime()]
