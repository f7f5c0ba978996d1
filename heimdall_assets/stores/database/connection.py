"""Connection: to SQLite or PostgreSQL, and transactions that are whole, in order, and safe beside others.

Belongs here: engines, locks, when to upgrade. Does not belong here: tables (``schema``), what is asked of them.
"""

import logging
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from heimdall_assets.errors import InvalidInput, InvalidSetting, NotFound, Refused, StorageError
from heimdall_assets.stores.database.raw.stated_receivers import Statement
from heimdall_assets.stores.database.schema import SCHEMA
from heimdall_assets.stores.database.shape import REVISION, Kind, Shape, read_shape
from heimdall_assets.stores.database.sqlite_locks import (
    is_busy,
    lies_where_nothing_may_be_written,
    wait_for_sqlite,
)
from heimdall_assets.stores.database.upgrading import run_migrations
from heimdall_assets.stores.database.waiting import TURN_S, Busy, find_postgresql_holder, wait_until_free
from heimdall_assets.stores.objects.addresses import DATABASE_EXPECTED, POSTGRESQL_SCHEMES, SQLITE_SCHEMES
from heimdall_assets.stores.objects.files import describe
from heimdall_assets.stores.objects.regular_files import check_regular_file

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_WRITE_LOCK = 0x4845494D
"""PostgreSQL advisory lock that every writing transaction takes first: ledgers and versions have one order."""

_WRITES = "heimdall_writes"

_ASK_AFTER_S, _ASK_EVERY_S, _ASK_TIMES, _GIVE_UP_MS = 30, 10, 3, 60_000
"""Of a PostgreSQL connection on which nothing comes: both ends ask whether the other is still there. Without, a client
whose server vanished waits for a quarter of an hour, and the lock of a client that vanished is held for two hours."""

_EXPECTED = {
    "file is not a database": "expected a SQLite file; put a whole copy in its place",
    "malformed": "expected a SQLite file without damage; put a whole copy in its place",
    "unable to open database file": "expected a file in a folder that may be written",
    "readonly database": "expected a file that may be written",
    "disk is full": "expected room to write; nothing stored before is lost",
}
"""What SQLite says -> what a user can do about it."""


class Database:
    """One database, ours or somebody else's. Connections open when needed, none at construction."""

    def __init__(self, url: str, read_only: bool = False, statement: Statement | None = None):
        self._url = _parse_url(url)
        self._statement = statement or Statement()
        self._read_only = read_only
        self._shape: Shape | None = None
        self._engine = self._create_engine(read_only)

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, for whoever needs plain SQL."""
        return self._engine

    @property
    def postgresql_url(self) -> URL | None:
        """The address of a server, with its password, for another library's tables beside ours; None: it is a file."""
        return self._url if self._url.get_backend_name() == "postgresql" else None

    @property
    def shown(self) -> str:
        """The address without what may be a password, for messages."""
        return f"database {show_address(self._url)}"

    @property
    def shape(self) -> Shape:
        """Tables and columns found, read once.

        Raises:
            StorageError: the database cannot be reached, holds no tables yet, or lacks a required column.
        """
        if self._shape is None:
            shape = self._inspect()
            if shape.kind is Kind.EMPTY:
                raise StorageError(f"{self.shown}: found no tables, expected an upgraded database")
            self._adopt(shape)
        assert self._shape is not None
        return self._shape

    @property
    def is_empty(self) -> bool:
        """Whether it holds no tables yet, or is not there at all.

        Raises:
            StorageError: the database cannot be reached.
        """
        return self._shape is None and self._inspect().kind is Kind.EMPTY

    @property
    def is_ours(self) -> bool:
        """Whether our migrations made it."""
        return self.shape.kind is Kind.OURS

    @property
    def is_writable(self) -> bool:
        """Whether rows can be added: neither opened read-only nor the field's own."""
        return not self._read_only and self.shape.kind is Kind.OURS

    def upgrade(self, begin: bool = True) -> None:
        """Make the tables, or bring them to today's schema; a database of the field is left exactly as it is.

        Raises:
            NotFound: it is not there or holds no tables, and without ``begin`` none are made.
            StorageError: the database cannot be reached, or a newer version of this project made it.
        """
        if self._url.get_backend_name() == "sqlite" and lies_where_nothing_may_be_written(_sqlite_path(self._url)):
            self._turn_read_only()  # a writer, and a reader of a write-ahead log, makes files beside it
        shape = self._inspect()
        if shape.kind.is_foreign or shape.revision == REVISION or self._read_only:
            self._adopt(shape)
            return
        if shape.kind is Kind.EMPTY and not begin:
            raise NotFound(
                f"{self.shown} (HEIMDALL_DATABASE_URL): found none, expected one that is there; heimdall demo or "
                "heimdall import begins one"
            )
        if self._url.get_backend_name() == "sqlite":
            self._use_write_ahead_log()
        with self._transaction(writes=True) as connection:
            run_migrations(connection, self.shown)
        self._shape = None
        if shape.revision is not None:
            _LOG.warning("%s: upgraded from schema revision %s to %s", self.shown, shape.revision, REVISION)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection whose every query sees the same state."""
        _ = self.shape
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection that alone may write; what it did is kept whole at the end, or not at all.

        Raises:
            Refused: the database is the field's own, or was opened read-only.
        """
        if not self.is_writable:
            why = "was opened read-only" if self._read_only and self.shape.kind is Kind.OURS else "is the field's own"
            raise Refused(f"{self.shown}: {why} and is never written; import into a database of your own")
        with self._transaction(writes=True) as connection:
            yield connection

    def compact(self) -> None:
        """Leave nothing of what was overwritten in the write-ahead log of SQLite; PostgreSQL vacuums by itself."""
        if self._url.get_backend_name() == "sqlite":
            try:
                with closing(self._open_sqlite(read_only=False)) as connection:
                    ((is_busy, *_),) = self._wait(
                        lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    )
                if is_busy:
                    _LOG.warning(
                        "%s: others read it; the bytes of what was erased stay in its files until they end", self.shown
                    )
            except sqlite3.DatabaseError as error:
                raise self._explain(str(error)) from error

    def close(self) -> None:
        """Close idle connections."""
        self._engine.dispose()

    def _adopt(self, shape: Shape) -> None:
        if shape.kind.is_foreign:
            self._turn_read_only()
        if shape.kind is not Kind.EMPTY:
            self._shape = shape

    def _turn_read_only(self) -> None:
        if not self._read_only:
            self._read_only = True
            self._engine.dispose()
            self._engine = self._create_engine(read_only=True)

    def _inspect(self) -> Shape:
        if self._url.get_backend_name() == "sqlite" and not _sqlite_path(self._url).exists():
            if self._read_only:
                raise NotFound(f"{self.shown}: found no file, expected a database")
            return Shape(Kind.EMPTY, None, {}, reads_as_text=False)
        # Whose it is is not known yet: closing somebody else's would write its log into it.
        look = self._create_engine(read_only=True)
        try:
            with self._transaction(writes=False, engine=look) as connection:
                shape = read_shape(connection, self.shown, self._statement)
        finally:
            look.dispose()
        if shape.revision is not None and shape.revision > REVISION:
            raise StorageError(
                f"{self.shown}: found schema revision {shape.revision:.40}, but this version of heimdall-assets knows "
                f"revisions up to {REVISION}: install the newer version that made it"
            )
        return shape

    @contextmanager
    def _transaction(self, writes: bool, engine: Engine | None = None) -> Iterator[Connection]:
        options: dict[str, Any] = {_WRITES: writes}
        if self._url.get_backend_name() == "postgresql" and not writes:
            options["isolation_level"] = "REPEATABLE READ"
        try:
            with (engine or self._engine).connect().execution_options(**options) as connection, connection.begin():
                if writes and self._url.get_backend_name() == "postgresql":
                    self._take_write_lock(connection)
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            said = error.orig if isinstance(error, DBAPIError) else error
            reason = str(said).strip().splitlines() or [type(said).__name__]
            raise self._explain(reason[0]) from error
        except ValueError as error:
            if "NUL" not in str(error):
                raise
            # The driver refuses what PostgreSQL cannot keep before it asks.
            raise InvalidInput(
                f"{self.shown}: found a text with a zero character, which no name or location has"
            ) from error
        except SQLAlchemyError as error:
            raise StorageError(f"{self.shown}: {str(error).splitlines()[0]}") from error

    def _create_engine(self, read_only: bool) -> Engine:
        if self._url.get_backend_name() == "sqlite":
            # No pool: a connection is a file handle, and a forked process must not inherit one.
            engine = create_engine("sqlite://", creator=partial(self._open_sqlite, read_only), poolclass=NullPool)
            event.listen(engine, "begin", self._begin_sqlite)
            event.listen(engine, "commit", self._commit_sqlite)
            schema = None
        else:
            settings = [
                "-c timezone=utc",
                "-c datestyle=ISO",
                f"-c tcp_keepalives_idle={_ASK_AFTER_S}",
                f"-c tcp_keepalives_interval={_ASK_EVERY_S}",
                f"-c tcp_keepalives_count={_ASK_TIMES}",
                f"-c tcp_user_timeout={_GIVE_UP_MS}",
            ]
            if read_only:
                settings.append("-c default_transaction_read_only=on")
            told = {
                "options": " ".join(settings),
                "connect_timeout": 10,
                "keepalives_idle": _ASK_AFTER_S,
                "keepalives_interval": _ASK_EVERY_S,
                "keepalives_count": _ASK_TIMES,
                "tcp_user_timeout": _GIVE_UP_MS,
                "fallback_application_name": f"heimdall, process {os.getpid()} of {socket.gethostname()}"[:63],
            }
            engine = create_engine(self._url, pool_pre_ping=True, connect_args=told)
            schema = SCHEMA
        return engine.execution_options(schema_translate_map={SCHEMA: schema})

    def _open_sqlite(self, read_only: bool) -> sqlite3.Connection:
        path = _sqlite_path(self._url)
        check_regular_file(path, self.shown, StorageError)
        if not read_only:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    f"{self.shown}: could not make its folder ({describe(error)}), expected a place to write"
                ) from error
        return self._wait(partial(_open_read_only if read_only else _open_to_write, path))

    def _use_write_ahead_log(self) -> None:
        """Let readers and one writer work at once; kept in the file."""
        try:
            with closing(self._open_sqlite(self._read_only)) as connection:
                self._wait(lambda: connection.execute("PRAGMA journal_mode=WAL"))
        except sqlite3.DatabaseError as error:
            raise self._explain(str(error)) from error

    def _begin_sqlite(self, connection: Connection) -> None:
        # A writer takes its lock first: upgrading a read lock later fails at once instead of waiting.
        writes = connection.get_execution_options().get(_WRITES)
        self._wait(partial(_begin_transaction, _raw(connection), bool(writes)))

    def _commit_sqlite(self, connection: Connection) -> None:
        # Without a write-ahead log, a commit waits for those who read.
        raw = _raw(connection)
        if raw.in_transaction:
            self._wait(lambda: raw.execute("COMMIT"))

    def _wait(self, attempt: Callable[[], _Result]) -> _Result:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        return wait_for_sqlite(attempt, _sqlite_path(self._url), self.shown)

    def _take_write_lock(self, connection: Connection) -> None:
        # Asked for again and again: a server that makes us wait keeps us where no signal is heard.
        def try_once() -> None:
            if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _WRITE_LOCK}):
                raise Busy

        wait_until_free(try_once, self.shown, lambda: find_postgresql_holder(connection, _WRITE_LOCK))

    def _explain(self, reason: str) -> StorageError:
        """Return the error for what the database said, with what was expected where that is known."""
        expected = next((hint for said, hint in _EXPECTED.items() if said in reason), None)
        return StorageError(f"{self.shown}: {reason}" + (f", {expected}" if expected else ""))


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # not told on: it may repeat a password
        raise InvalidSetting(f"database address: found none, expected {DATABASE_EXPECTED}") from None
    if parsed.drivername in POSTGRESQL_SCHEMES:
        return parsed.set(drivername="postgresql+psycopg2")
    if parsed.drivername in SQLITE_SCHEMES and parsed.database not in {None, "", ":memory:"}:
        return parsed.set(drivername="sqlite")
    raise InvalidSetting(f"database address {show_address(parsed)}: expected {DATABASE_EXPECTED}")


def show_address(url: URL) -> str:
    """Return an address as messages may repeat it: its password hidden, and all that follows a question mark.

    Options of a driver hold passwords too: ``password``, ``sslpassword``, whatever comes next.
    """
    shown = url.set(query={}).render_as_string(hide_password=True)
    return f"{shown}?..." if url.query else shown


def _sqlite_path(url: URL) -> Path:
    return Path(url.database or "").absolute()


def _raw(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _open_to_write(path: Path) -> sqlite3.Connection:
    """Return a connection that may write; the file is made where there is none."""
    connection = sqlite3.connect(path, timeout=TURN_S)
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")  # a decision that was reported survives a power loss
        connection.execute("PRAGMA secure_delete=ON")  # what was erased is overwritten
    except sqlite3.Error:
        connection.close()
        raise
    return _prepare(connection)


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that changes nothing, also where nothing can be written beside the file."""
    address = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=TURN_S)
    try:
        connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError as error:
        connection.close()
        if is_busy(error) or path.with_name(path.name + "-wal").exists():
            raise
        # A write-ahead database in a folder where we may not write: nobody has it open, so it can be read as it lies.
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True)
    connection.execute("PRAGMA query_only=ON")
    return _prepare(connection)


def _prepare(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.isolation_level = None  # transactions begin where ``begin_transaction`` says
    # One damaged text must not hide all other rows.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    return connection


def _begin_transaction(connection: sqlite3.Connection, writes: bool) -> None:
    """Begin a transaction that already holds the lock it needs, so that nothing in it waits.

    Raises:
        sqlite3.OperationalError: somebody else holds it; no transaction is begun.
    """
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    if writes:
        return
    try:  # the first look takes a reader's lock, so that none of its queries waits
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise
