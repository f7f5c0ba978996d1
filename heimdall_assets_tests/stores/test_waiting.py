"""Whoever waits for the database says so within two seconds, names the holder, obeys signals, and then goes on."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import StorageError
from heimdall_assets.stores.database import waiting
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets_tests.stores.batches import make_batch

APPROVE = ["sessions", "approve", "--all-pending", "--by", "me", "--reason", "seen"]
AT_ONCE_S = 30.0
"""What a promise of two seconds may take on a machine that runs other tests beside; a silent wait takes 60."""


class _Undone(Exception):
    """Ends a transaction that changes nothing."""


@contextmanager
def lock(url: str) -> Iterator[None]:
    """Write, as seen from elsewhere."""
    other = Database(url)
    with suppress(_Undone), other.writing():
        yield
        raise _Undone
    other.close()


def start_approving(url: str, folder: Path, *more: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "HEIMDALL_HOME": str(folder / "home"), "HEIMDALL_DATABASE_URL": url}
    # Not the first thing a shell script starts: that one would inherit ignored interrupts.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from heimdall_assets.cli import main; print('ready', flush=True); main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *APPROVE, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def list_statuses(store: MeasurementStore) -> set[str]:
    return {row["approval_status"] for row in store.list_sessions()}


def test_a_command_that_waits_says_so_obeys_signals_and_goes_on(
    store: MeasurementStore, database_url: str, tmp_path: Path
) -> None:
    store.add(make_batch())
    statuses = list_statuses(store)
    with lock(database_url):
        waiters = [start_approving(database_url, tmp_path, *more) for more in ([], [], ["--json"])]
        begun = time.monotonic()
        for process in waiters:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert said.startswith("database "), said
            assert "waiting until it is free" in said
            name = f"process {os.getpid()} " if "sqlite" in database_url else f"heimdall, process {os.getpid()} of "
            assert name in said
            assert ":heimdall@" not in said  # no password
        assert time.monotonic() - begun < AT_ONCE_S
        for process, number, status in zip(
            waiters, (signal.SIGINT, signal.SIGTERM), (130, -signal.SIGTERM), strict=False
        ):
            sent = time.monotonic()
            process.send_signal(number)
            assert process.wait(30) == status  # a shell shows the latter as 143
            assert time.monotonic() - sent < AT_ONCE_S
        assert list_statuses(store) == statuses
    answer, rest = waiters[2].communicate(timeout=30)
    assert waiters[2].returncode == 0
    assert '"num_sessions": ' in answer
    assert rest == ""  # told once
    assert list_statuses(store) == {"approved"}
    for process in waiters[:2]:
        process.communicate(timeout=30)


def test_a_wait_ends_with_one_line_that_names_the_holder(
    store: MeasurementStore, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.add(make_batch())
    monkeypatch.setattr(waiting, "BUSY_TIMEOUT_S", 0.5)
    monkeypatch.setattr(waiting, "SPEAK_AFTER_S", 0.1)
    session = store.list_sessions()[0]["id"]
    with lock(database_url), caplog.at_level(logging.WARNING), pytest.raises(StorageError) as caught:
        store.decide([session], ApprovalStatus.APPROVED, "me", "seen")
    holder = "this very process" if "sqlite" in database_url else f"heimdall, process {os.getpid()} of"
    assert holder in str(caught.value)
    assert "expected it free" in str(caught.value)
    assert len([record for record in caplog.records if "waiting until it is free" in record.getMessage()]) == 1


def test_a_short_wait_is_not_told_of(store: MeasurementStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store.add(make_batch())
    assert caplog.records == []


def test_readers_wait_for_a_file_that_is_held_whole(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that another program made, without a write-ahead log: a writer in its commit shuts readers out."""
    path = quick_path / "field.db"
    store = MeasurementStore(f"sqlite:///{path}")
    store.upgrade()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA journal_mode=DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(waiting, "BUSY_TIMEOUT_S", 0.5)
    monkeypatch.setattr(waiting, "SPEAK_AFTER_S", 0.1)
    reader = MeasurementStore(f"sqlite:///{path}", read_only=True)
    for waiter in (store, reader):
        with pytest.raises(StorageError, match="found it locked for"):
            waiter.list_sessions()
    holder.execute("ROLLBACK")
    assert store.list_sessions() == reader.list_sessions() == []
    holder.close()


def test_a_commit_waits_for_those_who_read_where_there_is_no_write_ahead_log(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quick_path / "plain.db"
    store = MeasurementStore(f"sqlite:///{path}")
    store.upgrade()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("PRAGMA journal_mode=DELETE")
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM recording_sessions").fetchone() == (0,)
    monkeypatch.setattr(waiting, "BUSY_TIMEOUT_S", 0.5)
    with pytest.raises(StorageError, match="found it locked for"):
        store.add(make_batch())
    reader.execute("ROLLBACK")
    assert store.list_sessions() == []  # nothing half-written
    store.add(make_batch())
    reader.close()
