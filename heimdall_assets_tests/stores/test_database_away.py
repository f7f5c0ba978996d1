"""PostgreSQL that goes away in a read or a write: one line, nothing half-written, the next run finishes."""

import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import event, text

from heimdall_assets.cli import main
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import StorageError
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases.store import ReleaseStore
from heimdall_assets_tests.servers import PostgresServer, run_postgres
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.releasing import FILES, RECORD, open_at
from heimdall_assets_tests.wire import Wire, run_wire

APPROVED, REJECTED = ApprovalStatus.APPROVED, ApprovalStatus.REJECTED


@pytest.fixture
def wire(postgres: PostgresServer) -> Iterator[Wire]:
    """Between us and the database."""
    with run_wire(postgres.port) as running:
        yield running


@pytest.fixture
def url(postgres: PostgresServer, postgres_template: str, wire: Wire) -> Iterator[str]:
    """Address of an upgraded, empty database at the end of the wire."""
    name = postgres.create_database(postgres_template)
    yield postgres.url(name).replace(f":{postgres.port}/", f":{wire.port}/")
    postgres.drop_database(name)


@pytest.fixture
def store(url: str) -> Iterator[MeasurementStore]:
    opened = MeasurementStore(url)
    opened.add(make_batch())
    yield opened
    opened.close()


def check_one_line(error: BaseException, url: str) -> None:
    """One line that names the database; its password is in none of what a traceback would show either."""
    place, _, password = url.rpartition("@")[2], *url.partition("@")[0].rpartition(":")[1:]
    said = str(error)
    assert said.startswith("database postgresql+psycopg2://heimdall:***@")
    assert place in said
    assert "\n" not in said
    assert password not in "".join(traceback.format_exception(error))


class Statements:
    """The statements of a store's transactions, and the commit after them: counted, and something done at one."""

    def __init__(self, store: MeasurementStore, at: int = 0, then: Callable[[str], Any] = str):
        self.names: list[str] = []
        self._at, self._then = at, then
        self._listens = [
            (store.engine, "before_cursor_execute", lambda *told: self._count(told[2].split()[0])),
            (store.engine, "commit", lambda _: self._count("COMMIT")),
        ]

    def _count(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self._at:
            self._then(name)

    def __enter__(self) -> "Statements":
        for listen in self._listens:
            event.listen(*listen)
        return self

    def __exit__(self, *_: object) -> None:
        for listen in self._listens:
            event.remove(*listen)


def count_statements(store: MeasurementStore, work: Callable[[], Any]) -> int:
    with Statements(store) as seen:
        work()
    return len(seen.names)


def list_decisions(store: MeasurementStore) -> list[tuple[str, str]]:
    return [(row["recording_session_id"], row["decision"]) for row in store.list_approval_events()]


def list_statuses(store: MeasurementStore) -> set[str]:
    return {row["approval_status"] for row in store.list_sessions()}


def test_a_read_that_is_cut_is_one_line_and_the_next_one_works(store: MeasurementStore, wire: Wire, url: str):
    sessions = store.list_sessions()
    for at in range(1, count_statements(store, store.list_sessions) + 1):
        with Statements(store, at, lambda _: wire.cut()), pytest.raises(StorageError) as caught:
            store.list_sessions()
        check_one_line(caught.value, url)
        with pytest.raises(StorageError, match="connection to server") as caught:
            store.list_sessions()  # it is still away
        check_one_line(caught.value, url)
        wire.mend()
        assert store.list_sessions() == sessions  # the same opened store


def test_a_decision_that_is_cut_anywhere_is_whole_or_not_there(store: MeasurementStore, wire: Wire, url: str):
    ids = [row["id"] for row in store.list_sessions()]
    store.decide(ids, REJECTED, "ada", "known from now on")
    count = count_statements(store, lambda: store.decide(ids, APPROVED, "ada", "first"))
    for at in range(1, count + 1):
        store.decide(ids, REJECTED, "ada", f"before {at}")
        told = list_decisions(store)
        with Statements(store, at, lambda _: wire.cut()), pytest.raises(StorageError) as caught:
            store.decide(ids, APPROVED, "ada", f"cut at {at}")
        check_one_line(caught.value, url)
        wire.mend()
        assert list_decisions(store) == told
        assert list_statuses(store) == {"rejected"}
        assert store.decide(ids, APPROVED, "ada", f"after the cut at {at}") == len(ids)
        assert store.check_ledger() == []


def test_a_decision_whose_answer_is_lost_is_kept_and_not_made_twice(store: MeasurementStore, wire: Wire, url: str):
    ids = [row["id"] for row in store.list_sessions()]
    store.decide(ids, REJECTED, "ada", "known from now on")
    at = count_statements(store, lambda: store.decide(ids, APPROVED, "ada", "first"))
    store.decide(ids, REJECTED, "ada", "second")
    with (
        Statements(store, at, lambda _: setattr(wire, "loses_answers", True)) as seen,
        pytest.raises(StorageError) as caught,
    ):
        store.decide(ids, APPROVED, "ada", "seen")
    assert seen.names[-1] == "COMMIT"
    check_one_line(caught.value, url)
    wire.mend()
    assert store.decide(ids, APPROVED, "ada", "seen") == 0  # said again as after any error
    assert len(list_decisions(store)) == 4 * len(ids)
    assert list_statuses(store) == {"approved"}
    assert store.check_ledger() == []


def test_a_release_that_is_cut_anywhere_is_finished_by_the_next_run(
    store: MeasurementStore, wire: Wire, url: str, quick_path: Path
):
    releases = open_at(str(quick_path), store)

    def publish(number: int) -> str:
        version = releases.reserve_version("minor", f"results/{number}")
        releases.publish(version, FILES, RECORD)
        releases.set_alias("champion", version, "ada", f"seen {number}")
        return version

    releases.name_person("ada")
    count = count_statements(store, lambda: publish(0))
    assert count > 10
    for at in range(1, count + 1):
        with Statements(store, at, lambda _: wire.cut()), pytest.raises(StorageError) as caught:
            publish(at)
        check_one_line(caught.value, url)
        wire.mend()
        check_whole(releases, at)
        assert publish(at) == f"v1.{at}.0"
        check_whole(releases, at + 1)
        assert releases.resolve("champion") == releases.resolve("latest") == f"v1.{at}.0"
    assert releases.put_right() == []


def check_whole(releases: ReleaseStore, num_before: int) -> None:
    """Whatever shows is whole: the releases before and, where the cut came late enough, the one under way."""
    versions = [record["version"] for record in releases.list_releases()]
    assert versions in ([f"v1.{number}.0" for number in range(count)] for count in (num_before, num_before + 1))
    assert [line for version in versions[-2:] for line in releases.find_problems(version)] == []
    assert releases.check_ledger() == []


def test_a_command_says_so_in_one_line(store: MeasurementStore, wire: Wire, url: str, tmp_path: Path):
    environment = {"HEIMDALL_HOME": str(tmp_path), "HEIMDALL_DATABASE_URL": url}
    approve = ["sessions", "approve", "--all-pending", "--by", "ada", "--reason", "seen"]
    wire.cut()
    refused = CliRunner().invoke(main, approve, env=environment)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: database postgresql+psycopg2://heimdall:***@")
    wire.mend()
    assert CliRunner().invoke(main, approve, env=environment).exit_code == 0
    assert list_statuses(store) == {"approved"}


def test_a_server_killed_in_a_read_and_in_a_write_loses_nothing_that_was_told():
    with run_postgres(keeps_commits=True) as server:
        url = server.url(server.create_database())
        store = MeasurementStore(url)
        store.upgrade()
        store.add(make_batch())
        ids = [row["id"] for row in store.list_sessions()]
        assert store.decide(ids[:1], APPROVED, "ada", "told") == 1
        last = count_statements(store, store.list_sessions) - 1  # the one before the commit
        with Statements(store, last, lambda _: server.kill()), pytest.raises(StorageError) as caught:
            store.list_sessions()
        check_one_line(caught.value, url)
        with pytest.raises(StorageError, match="Connection refused") as caught:
            store.list_sessions()
        check_one_line(caught.value, url)
        server.start()
        assert [row["approval_status"] for row in store.list_sessions()] == ["approved", "pending", "pending"]

        last = count_statements(store, lambda: store.decide(ids[1:2], APPROVED, "ada", "told too"))
        with Statements(store, last, lambda _: server.kill()) as seen, pytest.raises(StorageError) as caught:
            store.decide(ids, APPROVED, "ada", "all rows are written, the commit is not")
        assert seen.names[-1] == "COMMIT"
        check_one_line(caught.value, url)
        server.start()
        assert list_decisions(store) == [(ids[0], "approved"), (ids[1], "approved")]
        assert store.decide(ids, APPROVED, "ada", "again") == 1
        assert store.check_ledger() == []
        store.close()


def test_a_machine_that_vanished_keeps_nobody_waiting_for_hours(store: MeasurementStore):
    """Both ends ask whether the other is still there, and say which of them gives up when."""
    with store.database.writing() as connection:
        told = {
            row.name: row.setting
            for row in connection.execute(text("SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp_%'"))
        }
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=socket.dup(driver.fileno())) as end:
            ours = [end.getsockopt(socket.IPPROTO_TCP, option) for option in _ASKING]
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert told == {
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    assert ours == [30, 10, 3, 60_000]


_ASKING = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
