"""The log: everything that is decided or released is in it, once and in order, and no change of it goes unseen."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.manifests import encode_canonical_json
from heimdall_assets.merkle import compute_root, hash_leaf
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases.store import ReleaseStore
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.releasing import open_at, publish

LEDGERS = ("approval_events", "promotion_events", "serving_rule_events", "service_key_events", "log_entries")


@pytest.fixture
def releases(store: MeasurementStore, quick_path: Path) -> ReleaseStore:
    """Three approvals, a withdrawal, a release and its promotion."""
    batch = make_batch(num_sessions=3)
    names = [session.id for session in batch.sessions]
    store.add(batch)
    store.decide(names, ApprovalStatus.APPROVED, "ada", "heard")
    store.decide(names[:1], ApprovalStatus.REJECTED, "bob", "wrong place")
    opened = open_at(str(quick_path / "models"), store)
    opened.set_alias("champion", publish(opened), "ada", "the first")
    return opened


def run_sql(store: MeasurementStore, *statements: str, **values: object) -> None:
    """Run plain SQL on ours, its guards taken away, as somebody with the database's password could."""
    is_postgresql = store.engine.dialect.name == "postgresql"
    with store.engine.begin() as connection:
        for ledger in LEDGERS:
            if is_postgresql:
                connection.execute(text(f"ALTER TABLE heimdall.{ledger} DISABLE TRIGGER USER"))
            else:
                for change in ("update", "delete", "replace"):
                    connection.execute(text(f"DROP TRIGGER IF EXISTS {ledger}_no_{change}"))
        for statement in statements:
            connection.execute(text(statement.replace("{p}", "heimdall." if is_postgresql else "")), values)


def read_bodies(store: MeasurementStore) -> list[str]:
    prefix = "heimdall." if store.engine.dialect.name == "postgresql" else ""
    with store.engine.connect() as connection:
        return [row.body for row in connection.execute(text(f"SELECT body FROM {prefix}log_entries ORDER BY id"))]


def check(store: MeasurementStore, releases: ReleaseStore) -> list[str]:
    return [*store.check_ledger(), *releases.check_ledger()]


def test_everything_that_is_decided_or_released_is_in_it_in_order(
    store: MeasurementStore, releases: ReleaseStore
) -> None:
    entries = [json.loads(body) for body in read_bodies(store)]
    kinds = ["log", "approval", "approval", "approval", "approval", "release", "promotion"]
    assert [entry["kind"] for entry in entries] == kinds
    assert entries[4]["decision"] == "rejected"
    assert store.read_names()[entries[4]["decided_by"]] == "bob"
    assert entries[5]["version"] == entries[6]["version"] == "v1.0.0"
    assert entries[5]["files"] == {
        name: told["sha256"] for name, told in releases.find_record("v1.0.0")["files"].items()
    }
    assert check(store, releases) == []
    checkpoint = releases.read_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.log, checkpoint.size) == (entries[0]["log"], 7)
    leaves = [hash_leaf(body.encode()) for body in read_bodies(store)]  # as anybody computes it from the bodies
    assert checkpoint.root == compute_root(leaves).hex()


def test_an_older_checkpoint_is_found_again_at_its_size(store: MeasurementStore, releases: ReleaseStore) -> None:
    before = releases.read_checkpoint()
    assert before is not None
    releases.set_alias("champion", publish(releases, "minor"), "bob", "better")
    after = releases.read_checkpoint()
    assert after is not None
    assert after.size == before.size + 2
    assert releases.read_checkpoint(before.size) == before
    assert releases.read_checkpoint(after.size + 1) is None
    assert releases.read_checkpoint(0) is None


def test_a_log_that_nobody_wrote_into_has_no_checkpoint(store: MeasurementStore, quick_path: Path) -> None:
    opened = open_at(str(quick_path / "models"), store)
    assert opened.read_checkpoint() is None
    assert check(store, opened) == []


def rewrite(store: MeasurementStore, number: int, change: Callable[[str], str]) -> None:
    """Change the body of an entry, and its leaf with it."""
    body = change(read_bodies(store)[number])
    values = {"body": body, "leaf": hash_leaf(body.encode()).hex(), "id": number}
    run_sql(store, "UPDATE {p}log_entries SET body = :body, leaf = :leaf WHERE id = :id", **values)


FORGERIES: dict[str, tuple[Callable[[MeasurementStore], None], str]] = {
    "the leaf": (
        lambda store: run_sql(store, "UPDATE {p}log_entries SET leaf = '" + "0" * 64 + "' WHERE id = 3"),
        "log_entries 3: found leaf 0000",
    ),
    "the body": (
        lambda store: run_sql(store, "UPDATE {p}log_entries SET body = replace(body, 'heard', 'seen') WHERE id = 2"),
        "log_entries 2: found leaf",
    ),
    "body and leaf": (
        lambda store: rewrite(store, 2, lambda body: body.replace("heard", "seen")),
        "approval_events event 2: found reason 'heard', expected reason 'seen' by entry 2 of the log",
    ),
    "no canonical JSON": (
        lambda store: rewrite(store, 2, lambda body: body + " "),
        "log_entries 2: found '{",
    ),
    "one taken out": (
        lambda store: run_sql(store, "DELETE FROM {p}log_entries WHERE id = 3"),
        "log_entries: found entry 4 after 2, expected 3",
    ),
    "one taken out, the others moved up": (
        lambda store: run_sql(
            store,
            "DELETE FROM {p}log_entries WHERE id = 3",
            "UPDATE {p}log_entries SET id = id - 1000 WHERE id > 3",
            "UPDATE {p}log_entries SET id = id + 999 WHERE id < 0",
        ),
        "approval_events event 3: found no entry of it in the log",
    ),
    "the last one cut": (
        lambda store: run_sql(store, "DELETE FROM {p}log_entries WHERE id = 6"),
        "promotion_events event 1: found no entry of it in the log",
    ),
    "an event and its status": (
        lambda store: run_sql(
            store,
            "DELETE FROM {p}approval_events WHERE id = 4",
            "UPDATE {p}recording_sessions SET approval_status = 'approved'",
        ),
        "approval_events event 4: found no row, expected the one of entry 4 of the log",
    ),
    "a promotion and its alias": (
        lambda store: run_sql(store, "DELETE FROM {p}promotion_events", "DELETE FROM {p}model_aliases"),
        "promotion_events event 1: found no row, expected the one of entry 6 of the log",
    ),
    "a promotion back-dated": (
        lambda store: run_sql(store, "UPDATE {p}promotion_events SET decided_at = '2020-01-01 00:00:00.000000'"),
        "promotion_events event 1: found decided_at '2020-01-01T00:00:00.000000+00:00', expected decided_at '2",
    ),
    "a release's file": (
        lambda store: run_sql(store, "UPDATE {p}model_releases SET files = replace(files, '9', '8')"),
        "model_releases v1.0.0: found files other than entry 5 of the log says",
    ),
    "a release's row of garbage": (
        lambda store: run_sql(store, "UPDATE {p}model_releases SET files = '[]'"),
        "model_releases v1.0.0: found a row that cannot be read",
    ),
    "a release's record": (
        lambda store: run_sql(store, "UPDATE {p}model_releases SET record = replace(record, '7', '8')"),
        "model_releases v1.0.0: found record_sha256 other than entry 5 of the log says",
    ),
    "a release back-dated": (
        lambda store: run_sql(store, "UPDATE {p}model_releases SET published_at = '2020-01-01 00:00:00.000000'"),
        "model_releases v1.0.0: found published_at other than entry 5 of the log says",
    ),
    "a release hidden": (
        lambda store: run_sql(store, "UPDATE {p}model_releases SET published_at = NULL"),
        "model_releases v1.0.0: found no published row",
    ),
    "a release that nobody made": (
        lambda store: run_sql(
            store,
            "INSERT INTO {p}model_releases SELECT 'v9.0.0', 9, minor, patch, allocated_at, published_at, files, record "
            "FROM {p}model_releases",
        ),
        "model_releases v9.0.0: found no entry of it in the log",
    ),
    "another log": (
        lambda store: rewrite(store, 0, lambda body: body.replace('"kind":"log"', '"kind":"lag"')),
        "log_entries 0: found kind lag, expected log first and nowhere else",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_found_and_named(store: MeasurementStore, releases: ReleaseStore, forgery: str) -> None:
    forge, said = FORGERIES[forgery]
    assert check(store, releases) == []
    forge(store)
    found = check(store, releases)
    assert any(line.startswith(said) for line in found), found
    assert all("\n" not in line for line in found)


def cut_tail(store: MeasurementStore) -> None:
    """Undo the withdrawal and all that came after it, everywhere in the database."""
    run_sql(
        store,
        "DELETE FROM {p}log_entries WHERE id >= 4",
        "DELETE FROM {p}approval_events WHERE id = 4",
        "DELETE FROM {p}promotion_events",
        "DELETE FROM {p}model_aliases",
        "DELETE FROM {p}model_releases",
        "UPDATE {p}recording_sessions SET approval_status = 'approved'",
    )


def rewrite_reason(store: MeasurementStore) -> None:
    """Give a decision another reason in row, body and leaf."""
    run_sql(store, "UPDATE {p}approval_events SET reason = 'seen' WHERE id = 2")
    rewrite(store, 2, lambda body: body.replace("heard", "seen"))


@pytest.mark.parametrize("forge", [cut_tail, rewrite_reason])
def test_what_agrees_with_itself_again_is_told_by_a_checkpoint_kept_elsewhere(
    store: MeasurementStore, releases: ReleaseStore, forge: Callable[[MeasurementStore], None]
) -> None:
    kept = releases.read_checkpoint()
    assert kept is not None
    forge(store)
    assert check(store, releases) == []  # nothing inside the database says so
    assert releases.read_checkpoint(kept.size) != kept


def test_a_database_from_before_the_log_has_all_of_it_after_its_upgrade(quick_path: Path) -> None:
    url = f"sqlite:///{quick_path / 'old.db'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "heimdall_assets.stores.database:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        files = encode_canonical_json({"model.onnx": {"sha256": "a" * 64, "size": 3}}).decode()
        for statement in (
            "INSERT INTO known_sources (id, name, source_type, is_validated, error_margin_meters) "
            "VALUES ('k', 'k', 'x', 1, 10)",
            "INSERT INTO recording_sessions (id, known_source_id, session_name, campaign, origin, session_start, "
            "status, approval_status, attributes) VALUES ('s', 'k', 's', 'c', 'recorded', "
            "'2026-01-01 00:00:00.000000', 'completed', 'approved', '{}')",
            "INSERT INTO approval_events VALUES (1, 's', 'approved', 'ada', '2026-01-02 00:00:00.000000', 'a', 'x')",
            "INSERT INTO approval_events VALUES (2, 's', 'approved', 'bob', '2026-01-04 00:00:00.250000', 'b', 'y')",
            f"INSERT INTO model_releases VALUES ('v1.0.0', 1, 0, 0, '2026-01-03 00:00:00.000000', "
            f"'2026-01-03 12:00:00.000000', '{files}', '{{}}')",
            "INSERT INTO promotion_events VALUES "
            "(1, 'champion', 'v1.0.0', 'ada', '2026-01-03 12:00:01.000000', 'c', 'z')",
            "INSERT INTO model_aliases VALUES ('champion', 'v1.0.0')",
        ):
            connection.execute(text(statement.replace('":', '"\\:')))
    engine.dispose()
    looking = MeasurementStore(url, read_only=True)
    opened = open_at(str(quick_path / "models"), looking)
    assert opened.check_ledger()[0].startswith("log_entries: found no such table")
    assert opened.read_checkpoint() is None
    looking.close()
    store = MeasurementStore(url)
    store.upgrade()
    opened = open_at(str(quick_path / "models"), store)
    assert check(store, opened) == []
    kinds = [json.loads(body)["kind"] for body in read_bodies(store)]
    assert kinds == ["log", "approval", "release", "promotion", "approval"]  # as they were made
    store.close()
