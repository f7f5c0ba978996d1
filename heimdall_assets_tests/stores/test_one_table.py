"""A database of one table that belongs to somebody else: read as the field's tables, and not one byte of it changed."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from heimdall_assets.cli import main
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import HeimdallError, InvalidInput, InvalidSetting, Refused, StorageError
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.raw.stated_receivers import EXAMPLE, MAX_RECEIVERS, Statement
from heimdall_assets_tests.servers import PostgresServer
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.one_table import (
    add_rows,
    list_reasons,
    make_one_table,
    open_one_table,
    write_receivers,
)

A, B, C, D = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abcd")
TIME = "2024-05-17 12:00:00+02:00"
ROWS = [
    (A, 1, 45.1, 8.1, 145.5, 12.5, TIME, TIME, True),
    (A, 2, 45.1, 8.1, 145.5, -3.0, TIME, TIME, True),
    (A, 3, 45.1, 8.1, 145.5, 1.0, TIME, TIME, False),
    (B, 1, 45.2, 8.2, 433.92, 9.0, TIME, TIME, False),
    (B, 2, 45.2, 8.2, 433.92, 9.0, TIME, TIME, None),
]
RECEIVERS = {
    "1": {"latitude": 45.0, "longitude": 8.0, "altitude_m": 250.0, "iq_sample_rate_hz": 24000},
    "2": {"latitude": 45.1, "longitude": 8, "clock_class": "gnss", "iq_sample_rate_hz": 12000},
    "3": {"latitude": 44.9, "longitude": 8.3},
}


@pytest.fixture
def receivers(quick_path: Path) -> str:
    (quick_path / "said").mkdir()
    return write_receivers(quick_path / "said" / "receivers.json", RECEIVERS)


@pytest.fixture(params=["", "heimdall"], ids=["public", "in a schema"])
def schema(request: pytest.FixtureRequest, empty_url: str) -> str:
    if request.param and "postgresql" not in empty_url:
        pytest.skip("SQLite has no schemas")
    return str(request.param)


def read_bytes(url: str) -> dict[str, bytes] | list[object]:
    """Everything that a database holds: its files, or its tables and their rows with the transactions that wrote."""
    if url.startswith("sqlite"):
        folder = Path(url.removeprefix("sqlite:///")).parent
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT relname, relfilenode FROM pg_class ORDER BY 1")).all()
        names = connection.execute(text("SELECT schemaname, tablename FROM pg_tables WHERE tablename = 'measurements'"))
        rows = [
            row
            for where, name in names
            for row in connection.execute(text(f"SELECT xmin, ctid, t.* FROM {where}.{name} t"))
        ]
    engine.dispose()
    return [*map(tuple, found), *map(tuple, rows)]


def test_its_rows_are_the_fields_rows_and_none_of_its_bytes_changes(empty_url: str, schema: str, receivers: str):
    make_one_table(empty_url, ROWS, schema)
    before = read_bytes(empty_url)
    store = open_one_table(empty_url, receivers)
    snapshot = store.read_approved(DatasetSpec())
    assert snapshot.rows["measurement_id"].tolist() == [f"{A}/1", f"{A}/2"]
    first, second = snapshot.rows.iloc[0], snapshot.rows.iloc[1]
    assert (first["session_id"], first["station_id"], first["station_name"]) == (A, "1", "1")
    assert (first["source_latitude"], first["source_longitude"]) == (45.1, 8.1)
    assert (first["receiver_latitude"], first["receiver_longitude"], first["receiver_altitude_m"]) == (45.0, 8.0, 250.0)
    assert (first["frequency_hz"], first["snr_db"]) == (145_500_000.0, 12.5)
    assert str(first["timestamp"]) == str(first["session_start"]) == "2024-05-17 10:00:00+00:00"
    assert (first["iq_data_location"], first["iq_data_format"]) == (f"sessions/{A}/websdr_1.npy", "npy")
    assert (first["iq_sample_rate_hz"], second["iq_sample_rate_hz"]) == (24000.0, 12000.0)
    assert (first["clock_class"], second["clock_class"]) == ("none", "gnss")
    assert (first["origin"], first["campaign"]) == ("measured", "field")
    assert list_reasons(store) == {
        f"{A}/3": "approved: found a row that is not, in a session with one that is, expected true"
    }
    assert snapshot.num_undecided == {"pending": 2}
    assert [(row["id"], row["approval_status"], row["num_measurements"]) for row in store.list_sessions()] == [
        (A, "approved", 3),
        (B, "pending", 2),
    ]
    assert store.find_session(A)["source"]["latitude"] == 45.1
    assert len(store.read_session_rows(B)) == 2
    assert [station["name"] for station in store.list_stations()] == ["1", "2", "3"]
    assert len(store.list_sources()) == 2
    assert store.list_approval_events() == store.check_ledger() == []
    for write in (lambda: store.add(make_batch()), lambda: store.decide([B], ApprovalStatus.APPROVED, "ada", "heard")):
        with pytest.raises(Refused, match="never written; import into a database of your own"):
            write()
    store.close()
    assert read_bytes(empty_url) == before


def test_what_was_never_written_into_the_file_is_not_written_into_it_by_a_reader(quick_path: Path, receivers: str):
    """Whoever closes a SQLite file last writes its log into it, if it opened it to write: a reader must not."""
    path = quick_path / "theirs.db"
    if os.fork() == 0:  # a writer that is killed leaves its log
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        names = "session_id, websdr_id, latitude, longitude, frequency_mhz, snr_db, timestamp, created_at, approved"
        connection.execute(f"CREATE TABLE measurements ({names})")
        connection.execute("INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", ROWS[0])
        connection.commit()
        os._exit(0)
    os.wait()
    log = path.with_name("theirs.db-wal")
    before = path.read_bytes(), log.read_bytes()
    assert len(before[1]) > 1000
    store = open_one_table(f"sqlite:///{path}", receivers)
    assert len(store.read_approved(DatasetSpec()).rows) == 1
    store.close()
    assert (path.read_bytes(), log.read_bytes()) == before


def test_rows_that_contradict_each_other_or_say_nothing_are_left_out_with_a_reason(empty_url: str, receivers: str):
    rows = [
        (A, 1, 45.1, 8.1, 145.5, 12.5, TIME, TIME, True),
        (A, 2, 45.1, 8.2, 145.5, 12.5, TIME, TIME, True),
        (A, 3, 47.0, 9.0, 145.5, 12.5, TIME, TIME, False),  # not approved: has no say
        (B, 1, 45.1, 8.1, 145.5, None, TIME, None, True),
        (B, 7, 45.1, 8.1, 145.5, 1.0, TIME, None, True),
        (B, 2, 45.1, 8.1, -1.0, 1.0, TIME, None, True),
        (B, None, 45.1, 8.1, 145.5, 1.0, TIME, None, True),
        (None, 1, 45.1, 8.1, 145.5, 1.0, TIME, None, True),
        (D, 1, 45.1, 8.1, 145.5, 1.0, TIME, None, False),
        (D, 2, 45.1, 8.3, 145.5, 1.0, TIME, None, False),
        (C, 1, 145.1, 8.1, 145.5, 1.0, TIME, None, True),
        (C, 2, 145.1, 8.1, 145.5, 1.0, TIME, None, True),
    ]
    make_one_table(empty_url, rows)
    store = open_one_table(empty_url, receivers)
    places = "latitude, longitude: found 2 places in the rows of one session, expected one, the transmitter's"
    assert list_reasons(store) == {
        f"{A}/1": places,
        f"{A}/2": places,
        f"{A}/3": "approved: found a row that is not, in a session with one that is, expected true",
        f"{B}/7": "station_id: found '7', expected a station of HEIMDALL_RECEIVERS",
        f"{B}/2": "frequency_hz: found -1000000.0, expected a number above 0 to 3e+11",
        f"{B}/": "station_id: found nothing, expected a text",
        "/1": "session_id: found '', expected a text",
        f"{C}/1": "source_latitude: found 145.1, expected a number from -90 to 90",
        f"{C}/2": "source_latitude: found 145.1, expected a number from -90 to 90",
    }
    assert store.read_approved(DatasetSpec()).rows["measurement_id"].tolist() == [f"{B}/1"]
    assert len(store.read_session(D).rows) == 0  # nobody can say where its transmitter stood
    store.close()


@pytest.mark.parametrize("key", ["", None], ids=["empty", "null"])
def test_rows_that_say_no_session_are_no_session_and_counted(empty_url: str, receivers: str, key: str | None):
    nameless = [(key, one, 45.1, 8.1, 145.5, 1.0, TIME, None, True) for one in (1, 2)]
    make_one_table(empty_url, [*ROWS, *nameless], key="TEXT")
    store = open_one_table(empty_url, receivers)
    assert [row["id"] for row in store.list_sessions()] == [A, B]
    assert [row["id"] for row in store.list_sessions(approval_status=ApprovalStatus.APPROVED)] == [A]
    assert store.count_sessions() == {"field": {"approved": 1, "pending": 1}}
    assert store.count_nameless() == 2
    assert {list_reasons(store)[f"/{one}"] for one in (1, 2)} == {"session_id: found '', expected a text"}
    store.close()
    places = {"DATABASE_URL": empty_url, "RECEIVERS": receivers, "HOME": f"{receivers}.d"}
    environment = {f"HEIMDALL_{name}": value for name, value in places.items()}
    listed = CliRunner().invoke(main, ["sessions", "list"], env=environment)
    assert "2 sessions" in listed.stdout
    assert listed.stderr == "left out: 2 measurements of no session (session_id is empty)\n"


def test_a_receiver_twice_in_a_session_is_left_out_both_times(empty_url: str, receivers: str):
    make_one_table(empty_url, [ROWS[0], ROWS[0], ROWS[1]])
    store = open_one_table(empty_url, receivers)
    assert list(list_reasons(store)) == [f"{A}/1"]
    assert "found 1 2 times in a session, expected once" in list_reasons(store)[f"{A}/1"]
    store.close()


def test_a_new_approval_another_place_and_another_statement_are_another_database(empty_url: str, receivers: str):
    make_one_table(empty_url, ROWS)
    store = open_one_table(empty_url, receivers)
    seen = [store.compute_fingerprint(DatasetSpec())]
    add_rows(empty_url, [(B, 3, 45.2, 8.2, 433.92, 9.0, TIME, TIME, False)])
    assert store.compute_fingerprint(DatasetSpec()) == seen[0]  # nothing that anybody approved
    add_rows(empty_url, [(C, 3, 45.2, 8.2, 433.92, 9.0, TIME, TIME, True)])
    seen.append(store.compute_fingerprint(DatasetSpec()))
    engine = create_engine(empty_url)
    for change in (
        f"UPDATE measurements SET approved = true WHERE session_id = '{A}'",
        f"UPDATE measurements SET latitude = 45.3 WHERE session_id = '{A}'",
        f"UPDATE measurements SET latitude = 46.9 WHERE session_id = '{A}' AND websdr_id = 2",
        f"UPDATE measurements SET snr_db = 1.5 WHERE session_id = '{A}' AND websdr_id = 2",
        f"UPDATE measurements SET frequency_mhz = 434.1 WHERE session_id = '{A}' AND websdr_id = 2",
    ):
        with engine.begin() as connection:
            connection.execute(text(change))
        seen.append(store.compute_fingerprint(DatasetSpec()))
    engine.dispose()
    store.close()
    write_receivers(Path(receivers), {**RECEIVERS, "3": {"latitude": 44.8, "longitude": 8.3}})
    moved = open_one_table(empty_url, receivers)
    seen.append(moved.compute_fingerprint(DatasetSpec()))
    moved.close()
    assert len(set(seen)) == len(seen) == 8


# --- times and what else is asked for


def refuse(url: str, receivers: str = "", time_zone: str = "") -> str:
    """Return the one line in which opening ends."""
    with pytest.raises(HeimdallError) as caught:
        open_one_table(url, receivers, time_zone)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TEXT"])
def test_times_without_a_zone_are_asked_about_and_read_as_is_answered(empty_url: str, receivers: str, kind: str):
    make_one_table(empty_url, [(A, 1, 45.1, 8.1, 145.5, 1, "2024-05-17 12:00:00", None, True)], time=kind)
    said = refuse(empty_url, receivers)
    assert "times of measurements carry no zone (found '2024-05-17 12:00:00')" in said
    assert "HEIMDALL_TIME_ZONE: UTC, or an offset such as +01:00" in said
    for zone, expected in (("UTC", "12:00:00"), ("+02:00", "10:00:00"), ("-05:30", "17:30:00")):
        store = open_one_table(empty_url, receivers, zone)
        row = store.read_approved(DatasetSpec()).rows.iloc[0]
        assert str(row["timestamp"]) == str(row["session_start"]) == f"2024-05-17 {expected}+00:00"
        store.close()


def test_a_time_that_says_its_zone_keeps_it_whatever_is_stated(empty_url: str, receivers: str):
    times = ["2024-05-17T12:00:00Z", "2024-05-17 14:00:00+02", "2024-05-17 14:00:00+0200", "2024-05-17T06:30:00-05:30"]
    rows = [(f"{at}", 1, 45.1, 8.1, 145.5, 1, time, None, True) for at, time in enumerate(times)]
    make_one_table(empty_url, rows, time="TEXT", key="TEXT")
    for zone in ("", "-09:00"):
        store = open_one_table(empty_url, receivers, zone)
        found = {str(time) for time in store.read_approved(DatasetSpec()).rows["timestamp"]}
        assert found == {"2024-05-17 12:00:00+00:00"}
        store.close()


@pytest.mark.parametrize("zone", ["Europe/Rome", "+25:00", "1", "utc"])
def test_a_zone_that_has_an_hour_twice_is_none(quick_path: Path, receivers: str, zone: str):
    url = f"sqlite:///{quick_path / 'x.db'}"
    make_one_table(url, ROWS)
    with pytest.raises(InvalidSetting, match=r"HEIMDALL_TIME_ZONE: found .* expected UTC, or an offset"):
        open_one_table(url, receivers, zone)


def test_receivers_that_nobody_states_are_asked_for_by_the_names_that_the_table_has(empty_url: str):
    make_one_table(empty_url, ROWS)
    assert refuse(empty_url).endswith(
        "its one table measurements does not say where receivers stand (found 1, 2, 3); expected "
        f"HEIMDALL_RECEIVERS=FILE, JSON such as {EXAMPLE}"
    )


def test_the_example_in_the_messages_is_a_list_of_receivers(quick_path: Path):
    path = quick_path / "receivers.json"
    path.write_text(EXAMPLE)
    assert Statement(str(path)).read_receivers()["1"].iq_sample_rate_hz == 24_000.0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("[]", "found [], expected a JSON object of receivers, 1 to 10000, such as"),
        ("{}", "found {}, expected a JSON object of receivers, 1 to 10000, such as"),
        ("{", "expected a JSON object of receivers, 1 to 10000, such as"),
        ("[" * 100_000, "expected a JSON object of receivers, 1 to 10000, such as"),
        ('{"1": null}', "receiver 1: found None, expected latitude and longitude; such as"),
        ('{"1": [45, 8]}', "receiver 1: found [45, 8], expected latitude and longitude; such as"),
        (
            '{"1": {"latitude": 91, "longitude": 8}}',
            "receiver 1: latitude: found 91, expected a number from -90 to 90;",
        ),
        (
            '{"1": {"latitude": "45", "longitude": 8}}',
            "receiver 1: latitude: found '45', expected a number from -90 to",
        ),
        (
            '{"1": {"latitude": NaN, "longitude": 8}}',
            "receiver 1: latitude: found nan, expected a number from -90 to 90",
        ),
        ('{"1": {"latitude": 45}}', "receiver 1: longitude: found none, expected a number from -180 to 180; such as"),
        (
            '{"1": {"latitude": 45, "longitude": 8, "clock_class": "sundial"}}',
            "receiver 1: clock_class: found 'sundial', expected 'gnss_calibrated', 'gnss', 'ntp',",
        ),
        (
            '{"1": {"latitude": 45, "longitude": 8, "rate": 1}}',
            "receiver 1: rate: found what is not read, expected one of latitude, longitude, altitude_m, clock_class,",
        ),
        (
            '{"1": {"latitude": 45, "longitude": 8, "iq_sample_rate_hz": 0}}',
            "receiver 1: iq_sample_rate_hz: found 0, expected a number above 0 to 1e+09; such as",
        ),
        ('{"1": {"latitude": 45, "longitude": 8}, "1": {"latitude": 45, "longitude": 9}}', "'1' is there twice"),
        ('{"../x": {"latitude": 45, "longitude": 8}}', "receiver name '../x'"),
    ],
)
def test_a_list_of_receivers_that_is_none_is_one_line(quick_path: Path, said: str, expected: str):
    path = quick_path / "receivers.json"
    path.write_text(said)
    with pytest.raises(InvalidInput) as caught:
        Statement(str(path)).read_receivers()
    assert str(caught.value).startswith(f"HEIMDALL_RECEIVERS: {path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_as_many_receivers_as_may_be_listed_are_read(empty_url: str, quick_path: Path):
    make_one_table(empty_url, ROWS)
    many = {str(number): {"latitude": 45.0, "longitude": number / 100} for number in range(MAX_RECEIVERS)}
    (quick_path / "said").mkdir()
    store = open_one_table(empty_url, write_receivers(quick_path / "said" / "r.json", many))
    assert len(store.read_approved(DatasetSpec()).rows) == 2
    assert len(store.list_stations()) == MAX_RECEIVERS
    store.close()


# --- shapes that are none


def test_a_column_that_is_missing_is_named(empty_url: str, receivers: str):
    make_one_table(empty_url, ROWS)
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE measurements RENAME COLUMN approved TO okay"))
    engine.dispose()
    assert "table measurements lacks approved; expected session_id, websdr_id, latitude" in refuse(empty_url, receivers)


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ({"real": "TEXT"}, "column latitude of measurements is TEXT, expected a number"),
        ({"flag": "TEXT"}, "column approved of measurements is TEXT, expected a boolean, or 0 and 1"),
        ({"time": "BIGINT"}, "column timestamp of measurements is BIGINT, expected a timestamp"),
    ],
)
def test_a_column_of_a_type_that_it_cannot_have_is_named(
    postgres_url: str, receivers: str, types: dict[str, str], expected: str
):
    make_one_table(postgres_url, [], **types)
    with pytest.raises(StorageError, match=expected):
        open_one_table(postgres_url, receivers)


@pytest.mark.parametrize("types", [{"id": "TEXT"}, {"key": "TEXT", "real": "NUMERIC"}, {"flag": "INTEGER"}])
def test_numbers_texts_and_flags_of_several_types_are_read_alike(empty_url: str, receivers: str, types: dict[str, str]):
    rows = [(*row[:8], int(bool(row[8])) if "flag" in types else row[8]) for row in ROWS]
    rows = [(row[0], str(row[1]), *row[2:]) for row in rows] if "id" in types else rows
    make_one_table(empty_url, rows, **types)
    store = open_one_table(empty_url, receivers)
    found = store.read_approved(DatasetSpec()).rows
    assert found["measurement_id"].tolist() == [f"{A}/1", f"{A}/2"]
    assert found[["frequency_hz", "source_latitude", "snr_db"]].to_numpy().tolist() == [
        [145_500_000.0, 45.1, 12.5],
        [145_500_000.0, 45.1, -3.0],
    ]
    store.close()


def test_a_number_that_is_written_as_text_is_not_taken_for_one(quick_path: Path, receivers: str):
    url = f"sqlite:///{quick_path / 'x.db'}"
    make_one_table(url, [(A, 1, 45.1, 8.1, "145.5 MHz", 1, TIME, None, True)], real="")
    store = open_one_table(url, receivers)
    assert "found '145.5 MHz (text)', expected a number" in list_reasons(store)[f"{A}/1"]
    store.close()
