"""Snapshots beside plain rules: read and judged by columns, they are what each row alone comes to, to the byte."""

import random
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from heimdall_assets.domain import SNAPSHOT, ApprovalStatus
from heimdall_assets.fields import Field
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.raw.columns import gather
from heimdall_assets.stores.database.schema import CHOICE_LENGTH
from heimdall_assets.stores.objects.tables import encode_table
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.one_table import make_one_table, open_one_table, write_receivers
from heimdall_assets_tests.stores.plain_rules import read_plainly
from heimdall_assets_tests.stores.test_measurements import ids, run_sql

ROUNDS = 6
CHANGES = 25
"""Of a round: each puts one value into one column of one row."""

USUAL: dict[type, list[Any]] = {
    float: [0.0, -1.0, 1.0, 45.5, 179.0, 1e9, 1e300, 24000.0, 0.25],
    int: [0, 1, -5, 7, 2**62, -(2**62), 10**10 + 1],
    bool: [True, False],
    str: ["", "x", "npy", "a/b.npy", "../x", "sha256:" + "a" * 64, "sha256:" + "A" * 64, "s3://bucket/name"],
    dict: ["{}", "[1]", "", '{"a":1}', '{"a":NaN}', "no json"],
    datetime: ["2024-05-17 12:00:00", "9999-01-01 00:00:00", "1600-01-01 00:00:00"],
}
"""Values that both databases take."""

ANYTHING = ["loud", b"\x00\xff", b"", 1, 1.0, 1.5, -5, 2**62, float("inf"), "", "a\x00b", " 7 ", "[1]", "2024-05-17"]
"""What SQLite takes in any column."""

NO_NUMBERS = {float: ["NaN", "Infinity", "-Infinity"], datetime: ["infinity", "0044-03-15 12:00:00 BC"]}
"""What PostgreSQL takes beside the usual."""


def fill(store: MeasurementStore) -> None:
    """Add sessions that share their stations, some of them not approved, and one whose row claims what none decided."""
    batch = make_batch(num_sessions=90, num_stations=4)
    store.add(batch)
    store.decide(ids(batch)[:80], ApprovalStatus.APPROVED, "ada", "heard")
    store.decide(ids(batch)[5:8], ApprovalStatus.REJECTED, "ada", "not heard")
    run_sql(store, "UPDATE {p}recording_sessions SET approval_status = 'approved' WHERE id = :i", i=ids(batch)[6])
    run_sql(store, "UPDATE {p}recording_sessions SET approval_status = 'approved' WHERE id = :i", i=ids(batch)[85])


def draw_value(draw: random.Random, field: Field, is_sqlite: bool) -> Any:
    kind = str if field.choices else field.kind
    values = [*USUAL[kind], *field.choices]
    if field.may_be_null:
        values += [None, None]
    if not is_sqlite:
        most = field.max_length or (CHOICE_LENGTH if field.choices else 1000)
        values = [value for value in values if len(str(value)) <= most]
    return draw.choice(values + (ANYTHING if is_sqlite else NO_NUMBERS.get(kind, [])))


def change(store: MeasurementStore, draw: random.Random) -> None:
    """Put a value into a column of a row, mostly a measurement's, or let two measurements be of one station."""
    is_sqlite = store.engine.dialect.name == "sqlite"
    own = [field for field in SNAPSHOT if field.table != "approval_events" and field.name != "id"]
    field = draw.choice([field for field in own if field.table == "measurements"] if draw.random() < 0.7 else own)
    if field.refers_to:
        value: Any = draw.choice([row["id"] for row in store.list_stations()])
        if field.refers_to != "websdr_stations":
            return
    else:
        value = draw_value(draw, field, is_sqlite)
    rows = {"measurements": 360, "websdr_stations": 4}.get(field.table, 90)
    chosen = f"(SELECT id FROM {{p}}{field.table} ORDER BY id LIMIT 1 OFFSET {draw.randrange(rows)})"
    run_sql(store, f"UPDATE {{p}}{field.table} SET {field.name} = :value WHERE id = {chosen}", value=value)


def compare(store: MeasurementStore) -> tuple[int, int]:
    """Return how many rows are kept and left out, which are as the plain rules say."""
    snapshot = store.read_approved(DatasetSpec())
    rows, left_out = read_plainly(store)
    assert snapshot.left_out["reason"].tolist() == left_out["reason"].tolist()
    assert encode_table(snapshot.left_out) == encode_table(left_out)
    for name in rows:
        assert encode_table(snapshot.rows[[name]]) == encode_table(rows[[name]]), name
    assert encode_table(snapshot.rows) == encode_table(rows)
    return len(rows), len(left_out)


@pytest.mark.parametrize("seed", range(4))
def test_columns_come_to_what_each_row_alone_comes_to(store: MeasurementStore, seed: int) -> None:
    fill(store)
    assert compare(store) == (308, 8)
    draw, kept = random.Random(seed), []
    for _ in range(ROUNDS):
        for _ in range(CHANGES):
            change(store, draw)
        kept.append(compare(store))
    assert max(left_out for _, left_out in kept) > 20


def test_a_text_that_is_no_utf_8_is_read_as_everywhere_and_so_is_all_beside_it(quick_path: Path) -> None:
    store = MeasurementStore(f"sqlite:///{quick_path / 'h.db'}")
    store.upgrade()
    fill(store)
    before = store.compute_fingerprint(DatasetSpec())
    run_sql(store, "UPDATE websdr_stations SET name = CAST(x'61ff62' AS TEXT) WHERE name = 'station 3'")
    assert compare(store) == (308, 8)
    assert "a\ufffdb" in set(store.read_approved(DatasetSpec()).rows["station_name"])
    assert store.compute_fingerprint(DatasetSpec()) == before


def test_rows_that_hang_on_nothing_read_as_plainly_as_others(quick_path: Path) -> None:
    store = MeasurementStore(f"sqlite:///{quick_path / 'h.db'}")
    store.upgrade()
    fill(store)
    with sqlite3.connect(quick_path / "h.db") as connection:  # which checks no foreign keys
        connection.execute("DELETE FROM known_sources WHERE name LIKE 'source 1%'")
        connection.execute("DELETE FROM websdr_stations WHERE name = 'station 2'")
    connection.close()
    kept, left_out = compare(store)
    assert kept > 0
    assert left_out > 80


TIMES = ["2024-05-17 12:00:00+02:00", "2024-05-17T10:00:00Z"]


@pytest.mark.parametrize("seed", range(3))
def test_so_do_the_rows_of_a_database_of_one_table(empty_url: str, quick_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    places = [(45.1, 8.1), (45.2, 8.2), (None, 8.0), (91.0, 8.0)]
    rows = []
    for number in range(100):
        key, place = f"{number:08d}-0000-4000-8000-000000000000", draw.choice(places)
        for receiver in range(draw.randrange(1, 5)):
            there = draw.choice(places) if draw.random() < 0.05 else place
            level = draw.choice([12.5, -3.0, 1e9, None])
            rows.append((key, receiver, *there, draw.choice([145.5, 0.0]), level, draw.choice(TIMES), TIMES[0],
                         draw.random() < 0.8))  # fmt: skip
    make_one_table(empty_url, rows)
    stated = {str(name): {"latitude": 45.0, "longitude": 8.0 + name, "iq_sample_rate_hz": 24000} for name in (1, 2, 3)}
    (quick_path / "said").mkdir()
    store = open_one_table(empty_url, write_receivers(quick_path / "said" / "receivers.json", stated))
    kept, left_out = compare(store)
    assert kept > 0
    assert left_out > 0
    store.close()


@pytest.mark.parametrize(
    "values",
    [
        [], [None], [None] * 5, ["a", None, "a", None], ["a", "b"], ["a"] * 3 + [1], [1, 1.0, True, "1"], [b"a", "a"],
        ["a"] * 9 + list("bcdefghijklmnopq") + [None], [0.0, -0.0], [None, None, 1.5],
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_column_gives_back_what_it_took_in(values: list[Any], size: int) -> None:
    column = gather([])
    for first in range(0, len(values), size):
        column.extend(values[first : first + size])
    assert len(column) == len(values)
    kept, places = column.list_shared()
    shown = kept if places is None else [kept[place] for place in places]
    for found in (shown, column.list_rows()):
        assert [(type(value), repr(value)) for value in found] == [(type(value), repr(value)) for value in values]
    assert places is None or set(map(type, kept)) <= {str, type(None)}


def test_texts_that_many_rows_share_are_kept_once() -> None:
    kept, places = gather(["a", "b", None, "a", "b", None, "a"] * 9).list_shared()
    assert kept == ["a", "b", None]
    assert places is not None
    assert places.tolist() == [0, 1, 2, 0, 1, 2, 0] * 9
