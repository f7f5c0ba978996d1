"""Ten thousand approvals on PostgreSQL, in one call and from four processes at once: a whole ledger, few requests."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pandas as pd
import pytest
from sqlalchemy import event

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.rows import _to_iso
from heimdall_assets_tests.servers import PostgresServer
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.processes import run_at_once

NUM_SESSIONS = 10_000
APPROVED = ApprovalStatus.APPROVED
MAX_STATEMENTS = 32
"""Of one decision, however many sessions it is about: rows go in thousands."""


@pytest.fixture(scope="module")
def filled(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """Name of a database with the sessions, all of them pending, to copy."""
    name = postgres.create_database(postgres_template)
    store = MeasurementStore(postgres.url(name))
    batch = make_batch(NUM_SESSIONS, num_stations=0)
    source = batch.sources[0]
    sessions = [session.model_copy(update={"source_id": source.id}) for session in batch.sessions]
    store.add(replace(batch, sources=[source], sessions=sessions))
    store.close()
    yield name
    postgres.drop_database(name)


@pytest.fixture
def url(postgres: PostgresServer, filled: str) -> Iterator[str]:
    name = postgres.create_database(filled)
    yield postgres.url(name)
    postgres.drop_database(name)


def list_ids(store: MeasurementStore) -> list[str]:
    return [row["id"] for row in store.list_sessions()]


def check_approved_once(store: MeasurementStore) -> None:
    """Every session is approved by exactly one event, and the chain over all of them holds."""
    decided = Counter(row["recording_session_id"] for row in store.list_approval_events())
    assert decided == dict.fromkeys(list_ids(store), 1)
    assert store.count_sessions() == {"alps": {"approved": NUM_SESSIONS}}
    assert store.check_ledger() == []


def test_one_call_approves_them_all_once_in_few_statements(url: str):
    store = MeasurementStore(url)
    ids, statements = list_ids(store), []
    event.listen(store.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    assert store.resolve_sessions(ids) == ids
    assert len(statements) == 1
    assert store.decide(ids, APPROVED, "ada", "seen") == NUM_SESSIONS
    assert len(statements) < MAX_STATEMENTS
    check_approved_once(store)
    assert store.decide(ids, APPROVED, "ada", "seen") == 0
    check_approved_once(store)
    store.close()


def approve(url: str, ids: list[str], by: str) -> int:
    store = MeasurementStore(url)
    changed = store.decide(ids, APPROVED, by, "seen")
    store.close()
    return changed


def test_four_processes_at_once_approve_each_of_them_once(url: str):
    store = MeasurementStore(url)
    ids = list_ids(store)
    shares = [ids[start : start + 2500] for start in (0, 2000, 4000, 6000)]  # 500 of each are the next one's too
    changed = run_at_once(approve, *[(url, share, f"person {number}") for number, share in enumerate(shares)])
    assert sum(changed) == 8500
    assert sorted(changed)[-1] == 2500  # whoever came first
    assert store.check_ledger() == []
    last = approve(url, ids, "ada")
    assert last == NUM_SESSIONS - 8500
    check_approved_once(store)
    store.close()


def test_times_read_quickly_are_those_that_pandas_reads():
    days = ("1970-01-01", "2024-02-29", "2023-02-29", "2099-12-31", "1600-01-01")
    seconds = ("59", "00.123", "07.000001", "07.000000", "07.123456789")
    for day, second, zone in product(days, seconds, ("", "Z", "+00", "+05:30", "-14")):
        text = f"{day} 23:01:{second}{zone}"
        expected = pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce")
        assert _to_iso(text) == (text if pd.isna(expected) else expected.isoformat())
