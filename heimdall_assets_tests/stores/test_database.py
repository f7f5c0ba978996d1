"""Databases: upgraded once whoever comes first, ours or the field's, on SQLite and PostgreSQL alike."""

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from heimdall_assets.domain import FIELDS, ApprovalStatus
from heimdall_assets.errors import InvalidSetting, NotFound, Refused, StorageError
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.rules import SaidRule
from heimdall_assets.stores.database.schema import FIELD_TABLES, LEDGERS, SCHEMA, metadata
from heimdall_assets.stores.database.shape import REVISION, VERSION_TABLE
from heimdall_assets_tests.servers import PostgresServer
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.processes import run_at_once


def test_migrations_make_exactly_the_schema(database_url: str) -> None:
    database = Database(database_url)
    schema = SCHEMA if "postgresql" in database_url else None
    with database.engine.connect() as connection:
        found = inspect(connection)
        names = set(found.get_table_names(schema=schema))
        assert names == {table.name for table in metadata.tables.values()} | {VERSION_TABLE}
        for table in metadata.tables.values():
            columns = {column["name"]: column for column in found.get_columns(table.name, schema=schema)}
            assert set(columns) == set(table.columns.keys())
            for column in table.columns:
                real = columns[column.name]
                assert real["nullable"] == column.nullable, column
                expected = str(column.type.compile(connection.dialect)).partition(" WITH")[0]
                assert str(real["type"].compile(connection.dialect)).partition(" WITH")[0] == expected, column
            keys = {
                (key["constrained_columns"][0], key["referred_table"])
                for key in found.get_foreign_keys(table.name, schema)
            }
            assert keys == {(key.parent.name, key.column.table.name) for key in table.foreign_keys}
            assert {index["name"] for index in found.get_indexes(table.name, schema)} >= {
                index.name for index in table.indexes
            }
        assert found.get_view_names(schema=schema) == ["approved_measurements"]
    database.close()


def read_steps() -> Config:
    config = Config()
    config.set_main_option("script_location", "heimdall_assets.stores.database:migrations")
    config.set_main_option("path_separator", "os")
    return config


def test_the_newest_migration_is_the_one_that_every_database_must_have(store: MeasurementStore) -> None:
    assert ScriptDirectory.from_config(read_steps()).get_current_head() == REVISION
    assert store.database.shape.revision == REVISION


def test_each_column_names_the_migration_that_brought_it(quick_path: Path) -> None:
    engine = create_engine(f"sqlite:///{quick_path / 'steps.db'}")
    known: dict[str, set[str]] = {table: set() for table in FIELD_TABLES}
    for step in reversed(list(ScriptDirectory.from_config(read_steps()).walk_revisions())):
        with engine.begin() as connection:
            config = read_steps()
            config.attributes["connection"] = connection
            command.upgrade(config, step.revision)
            found = {table: {column["name"] for column in inspect(connection).get_columns(table)} for table in known}
        for table in known:
            told = {field.name for field in FIELDS[table] if (field.since or "0001") == step.revision}
            assert found[table] - known[table] == told, (table, step.revision)
        known = found
    engine.dispose()


def test_an_upgraded_database_opens_while_somebody_writes(store: MeasurementStore, database_url: str) -> None:
    with store.database.writing():
        other = MeasurementStore(database_url)
        other.upgrade()
        assert other.list_sessions() == []
        other.close()


def test_upgrading_twice_changes_nothing(store: MeasurementStore) -> None:
    store.add(make_batch())
    store.upgrade()
    assert len(store.list_sessions()) == 3


def upgrade(url: str) -> None:
    MeasurementStore(url).upgrade()


def test_processes_that_upgrade_at_once_make_one_database(empty_url: str) -> None:
    run_at_once(upgrade, *[(empty_url,)] * 3)
    store = MeasurementStore(empty_url)
    assert store.list_sessions() == []
    store.close()


def test_a_database_of_a_newer_version_is_refused(store: MeasurementStore, database_url: str) -> None:
    prefix = "heimdall." if "postgresql" in database_url else ""
    with store.engine.begin() as connection:
        connection.execute(text(f"UPDATE {prefix}{VERSION_TABLE} SET version_num = '9999'"))
    said = (
        f"found schema revision 9999, but this version .* knows revisions up to {REVISION}: install the newer version"
    )
    for read_only in (False, True):  # what it holds may mean something else
        refused = MeasurementStore(database_url, read_only=read_only)
        for ask in (refused.upgrade, refused.list_sessions):
            with pytest.raises(StorageError, match=said) as caught:
                ask()
            assert "\n" not in str(caught.value)
        refused.close()


def test_an_empty_database_says_that_it_is_empty(empty_url: str) -> None:
    with pytest.raises(StorageError, match="found no tables"):
        MeasurementStore(empty_url).list_sessions()


@pytest.mark.parametrize("ledger", LEDGERS)
def test_the_database_itself_refuses_to_change_a_ledger(
    store: MeasurementStore, database_url: str, ledger: str
) -> None:
    is_postgresql = "postgresql" in database_url
    fill_ledgers(store, is_postgresql)
    name = f"heimdall.{ledger}" if is_postgresql else ledger
    changes = [f"UPDATE {name} SET id = id", f"DELETE FROM {name}"]
    for change in [*changes, f"TRUNCATE {name}"] if is_postgresql else changes:
        with pytest.raises(DBAPIError, match="append-only"), store.engine.begin() as connection:
            connection.execute(text(change))
    assert store.check_ledger() == []


@pytest.mark.parametrize("ledger", LEDGERS)
def test_a_ledger_row_cannot_be_replaced_on_sqlite(quick_path: Path, ledger: str) -> None:
    store = MeasurementStore(f"sqlite:///{quick_path / 'h.db'}")
    store.upgrade()
    fill_ledgers(store, is_postgresql=False)
    with pytest.raises(DBAPIError, match="append-only"), store.engine.begin() as connection:
        connection.execute(text(f"INSERT OR REPLACE INTO {ledger} SELECT * FROM {ledger} LIMIT 1"))


def fill_ledgers(store: MeasurementStore, is_postgresql: bool) -> None:
    batch = make_batch()
    store.add(batch)
    store.decide([batch.sessions[0].id], ApprovalStatus.APPROVED, "ada", "heard clearly")
    from heimdall_assets.stores.releases.opening import open_releases

    releases = open_releases(Path("/nowhere"), store)
    version = releases.reserve_version("major", "results/a")
    prefix = "heimdall." if is_postgresql else ""
    with store.engine.begin() as connection:
        columns = "published_at = allocated_at, files = '{}', record = '{}'"
        connection.execute(text(f"UPDATE {prefix}model_releases SET {columns}"))
    releases.set_alias("champion", version, "ada", "best so far")
    releases.change_rule(SaidRule("shadow", version), 0, "ada", "beside it")
    releases.make_service_key("bob", 1, "ada", "he asked")


# --- databases that are not ours


FIELD_SQL = """
CREATE TABLE {p}websdr_stations (id {uuid} PRIMARY KEY, name TEXT, url TEXT, latitude {real}, longitude {real},
    altitude_asl {real}, frequency_min_hz BIGINT, frequency_max_hz BIGINT, is_active BOOLEAN);
CREATE TABLE {p}known_sources (id {uuid} PRIMARY KEY, name TEXT, frequency_hz BIGINT, latitude {real}, longitude {real},
    power_dbm {real}, source_type TEXT, is_validated BOOLEAN, error_margin_meters {real});
CREATE TABLE {p}recording_sessions (id {uuid} PRIMARY KEY, known_source_id {uuid}, session_name TEXT,
    session_start {time}, session_end {time}, status TEXT, approval_status TEXT);
CREATE TABLE {p}measurements (id {uuid} PRIMARY KEY, recording_session_id {uuid}, websdr_station_id {uuid},
    timestamp {time}, frequency_hz BIGINT, signal_strength_db {real}, snr_db {real}, frequency_offset_hz {real},
    iq_data_location TEXT, iq_data_format TEXT, iq_sample_rate INTEGER, iq_samples_count INTEGER,
    duration_seconds {real});
INSERT INTO {p}websdr_stations VALUES ('{a}', 'Torino', NULL, 45.05, 7.66, 250, 1, 2, true);
INSERT INTO {p}known_sources VALUES ('{b}', 'beacon', 145500000, 45.1, 7.7, 37, 'beacon', true, 25);
INSERT INTO {p}recording_sessions VALUES
    ('{c}', '{b}', 'good', '2024-05-17 12:00:00', NULL, 'completed', 'approved'),
    ('{d}', '{b}', 'waits', '2024-05-17 12:05:00', NULL, 'completed', 'pending');
INSERT INTO {p}measurements VALUES
    ('{e}', '{c}', '{a}', '2024-05-17 12:00:00', 145500000, -70.5, 11, NULL,
        'sessions/c/websdr_a.npy', 'npy', 24000, 48000, 2),
    ('{f}', '{d}', '{a}', '2024-05-17 12:05:00', 145500000, -70.5, 11, NULL, NULL, NULL, NULL, NULL, NULL);
"""
IDS = {letter: f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abcdef"}


@pytest.fixture(params=["sqlite", "postgresql", "postgresql with the field's schema"])
def field_url(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[str]:
    is_postgresql = request.param != "sqlite"
    prefix = "heimdall." if "schema" in request.param else ""
    server = request.getfixturevalue("postgres") if is_postgresql else None
    name = server.create_database() if server else ""
    url = server.url(name) if server else f"sqlite:///{quick_path / 'field.db'}"
    types = (
        {"uuid": "UUID", "real": "NUMERIC", "time": "TIMESTAMPTZ"}
        if is_postgresql
        else {"uuid": "TEXT", "real": "REAL", "time": "DATETIME"}
    )
    options = {"connect_args": {"options": "-c timezone=utc"}} if is_postgresql else {}
    engine = create_engine(url, **options)
    with engine.begin() as connection:
        if prefix:
            connection.execute(text("CREATE SCHEMA heimdall"))
        for statement in FIELD_SQL.format(p=prefix, **types, **IDS).split(";"):
            if statement.strip():
                connection.execute(text(statement.replace(":", r"\:")))
    engine.dispose()
    yield url
    if server:
        server.drop_database(name)


def read_state(url: str) -> object:
    if url.startswith("sqlite"):
        folder = Path(url.removeprefix("sqlite:///")).parent
        return {path.name: path.read_bytes() for path in folder.iterdir()}
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT schemaname, tablename FROM pg_tables ORDER BY 1, 2")).all()
    engine.dispose()
    return rows


def test_a_database_of_the_field_is_read_as_it_is_and_left_so(field_url: str) -> None:
    before = read_state(field_url)
    store = MeasurementStore(field_url)
    store.upgrade()
    snapshot = store.read_approved(DatasetSpec())
    assert len(snapshot.left_out) == 0
    assert snapshot.num_undecided == {"pending": 1}
    row = snapshot.rows.iloc[0]
    assert (row["measurement_id"], row["session_id"], row["station_id"], row["source_id"]) == (
        IDS["e"],
        IDS["c"],
        IDS["a"],
        IDS["b"],
    )
    assert (row["receiver_latitude"], row["receiver_altitude_m"], row["source_longitude"]) == (45.05, 250.0, 7.7)
    assert (row["iq_samples_count"], row["iq_sample_rate_hz"], row["signal_strength_db"]) == (48000, 24000.0, -70.5)
    assert str(row["timestamp"]) == str(row["session_start"]) == "2024-05-17 12:00:00+00:00"
    assert (row["origin"], row["campaign"], row["clock_class"]) == ("measured", "field", "none")
    assert row[["approved_by", "approved_at", "approval_reason", "approval_event_id"]].isna().all()
    assert [session["session_name"] for session in store.list_sessions()] == ["good", "waits"]
    assert store.find_session("good")["measurements"][0]["id"] == IDS["e"]
    assert len(store.read_session_rows(IDS["d"])) == 1
    assert store.list_approval_events() == []
    assert store.check_ledger() == []
    assert store.compute_fingerprint(DatasetSpec()) == store.compute_fingerprint(DatasetSpec(campaigns=["field"]))
    for write in (
        lambda: store.add(make_batch()),
        lambda: store.decide([IDS["d"]], ApprovalStatus.APPROVED, "ada", "heard"),
    ):
        with pytest.raises(Refused, match="the field's own and is never written"):
            write()
    store.close()
    assert read_state(field_url) == before


def test_numbered_rows_and_enumerations_of_the_field_are_read(quick_path: Path, postgres: PostgresServer) -> None:
    name = postgres.create_database()
    for url, types in (
        (f"sqlite:///{quick_path / 'field.db'}", {"uuid": "INTEGER", "real": "REAL", "time": "TEXT"}),
        (postgres.url(name), {"uuid": "INTEGER", "real": "REAL", "time": "TIMESTAMP"}),
    ):
        numbers = dict(zip("abcdef", range(1, 7), strict=True))
        engine = create_engine(url)
        with engine.begin() as connection:
            for statement in FIELD_SQL.format(p="", **types, **numbers).split(";"):
                if statement.strip():
                    connection.execute(text(statement.replace(":", r"\:")))
            if "postgresql" in url:
                connection.execute(text("CREATE TYPE decision AS ENUM ('waiting', 'approved')"))
                connection.execute(text("UPDATE recording_sessions SET approval_status = 'waiting' WHERE id = 4"))
                change = "ALTER COLUMN approval_status TYPE decision USING approval_status\\:\\:decision"
                connection.execute(text(f"ALTER TABLE recording_sessions {change}"))
        engine.dispose()
        store = MeasurementStore(url)
        store.upgrade()
        snapshot = store.read_approved(DatasetSpec())
        assert snapshot.rows[["measurement_id", "session_id", "station_id", "source_id"]].to_numpy().tolist() == [
            ["5", "3", "1", "2"]
        ]
        assert sum(snapshot.num_undecided.values()) == 1
        assert store.find_session("3")["source"]["name"] == "beacon"
        assert len(store.read_session_rows("4")) == 1
        assert len(store.list_sessions(ApprovalStatus.REJECTED)) == 0
        assert len(store.compute_fingerprint(DatasetSpec())) == 64
        store.close()
    postgres.drop_database(name)


def test_a_missing_column_that_matters_is_named(field_url: str) -> None:
    engine = create_engine(field_url)
    is_in_schema = "postgresql" in field_url and "heimdall" in inspect(engine).get_schema_names()
    with engine.begin() as connection:
        table = "heimdall.known_sources" if is_in_schema else "known_sources"
        connection.execute(text(f"ALTER TABLE {table} RENAME COLUMN is_validated TO validated"))
    engine.dispose()
    with pytest.raises(StorageError, match="table known_sources lacks is_validated"):
        MeasurementStore(field_url).upgrade()


# --- addresses


def test_a_read_only_store_writes_nothing(store: MeasurementStore, database_url: str) -> None:
    store.add(make_batch())
    reader = MeasurementStore(database_url, read_only=True)
    reader.upgrade()
    assert len(reader.list_sessions()) == 3
    with pytest.raises(Refused, match="opened read-only"):
        reader.decide(["x"], ApprovalStatus.APPROVED, "ada", "heard")
    prefix = "heimdall." if "postgresql" in database_url else ""
    with pytest.raises(DBAPIError, match="read"), reader.engine.begin() as connection:
        connection.execute(text(f"UPDATE {prefix}known_sources SET name = 'x'"))
    reader.close()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://host/x", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg://h/x"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidSetting, match="database address"):
        MeasurementStore(url)


@pytest.mark.parametrize("option", ["password", "sslpassword", "passfile"])
def test_options_of_an_address_are_never_shown(option: str) -> None:
    database = Database(f"postgresql://ada@127.0.0.1:1/heimdall?{option}=canary&connect_timeout=1")
    with pytest.raises(StorageError) as caught:
        database.upgrade()
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert "postgresql+psycopg2://ada@127.0.0.1:1/heimdall?..." in str(caught.value)
    with pytest.raises(InvalidSetting) as refused:
        Database(f"oracle://ada:canary@db/x?{option}=canary")
    assert "canary" not in str(refused.value)


def test_passwords_are_never_shown(postgres: PostgresServer) -> None:
    wrong = postgres.url("postgres").replace(postgres.password, "s3cret-word")
    with pytest.raises(StorageError) as caught:
        MeasurementStore(wrong).upgrade()
    assert "s3cret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "password authentication failed" in str(caught.value)


def test_plain_postgresql_addresses_use_the_same_driver(postgres, postgres_template: str) -> None:  # type: ignore[no-untyped-def]
    url = postgres.url(postgres_template).replace("+psycopg2", "")
    store = MeasurementStore(url, read_only=True)
    assert store.list_sessions() == []
    store.close()


def test_a_file_that_is_no_database_is_one_line(quick_path: Path) -> None:
    (quick_path / "h.db").write_bytes(b"not a database at all, and long enough to look at" * 50)
    with pytest.raises(StorageError, match="not a database"):
        MeasurementStore(f"sqlite:///{quick_path / 'h.db'}").upgrade()
    with pytest.raises(NotFound, match="found no file"):
        MeasurementStore(f"sqlite:///{quick_path / 'absent.db'}", read_only=True).list_sessions()
    assert not (quick_path / "absent.db").exists()
