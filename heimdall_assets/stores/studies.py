"""Studies: where Optuna keeps what every trial of a search was given and gave, shared by all that work on it.

Belongs here: opening that database, and its troubles as ours. Does not belong here: which trials there are and who
takes them (``pipeline.searching``); the result of a search, which is an object like any other.

A home on PostgreSQL keeps studies in a schema of their own beside its ledger; any other in one SQLite file a search, in
the scratch folder, which goes the way of all work that nobody took up again.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.locks import hold_lock

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from heimdall_assets.stores.database.connection import Database

SCHEMA = "heimdall_search"
"""PostgreSQL schema of Optuna's tables."""

FILE = "study.db"
_FOLDER = "search-"
_OPENING = 0x48455353
"""PostgreSQL advisory lock of whoever makes the schema and its tables."""
_WAIT_S = 60.0


class Studies:
    """The studies of one home, by name."""

    def __init__(self, database: "Database", scratch: Path):
        """Open nothing yet.

        Args:
            database: keeps the home's ledger; where it is PostgreSQL, it keeps studies too.
            scratch: local folder of work in progress.
        """
        self._database = database
        self._scratch = scratch

    @property
    def shown(self) -> str:
        """Where studies are, for messages."""
        return self._database.shown if self._database.postgresql_url is not None else f"studies in {self._scratch}"

    def locate_work(self, name: str) -> Path:
        """Return the local folder of what the trials of a study keep on their way."""
        return self._scratch / f"{_FOLDER}{name}"

    def exists(self, name: str) -> bool:
        """Return whether anybody began a study of this name.

        Raises:
            StorageError: the database cannot be reached.
        """
        return name in self.list_names()

    def list_names(self) -> list[str]:
        """Return the names of all studies, in alphabetical order.

        Raises:
            StorageError: the database cannot be reached.
        """
        if self._database.postgresql_url is None:
            found = self._scratch.glob(f"{_FOLDER}*/{FILE}")
            return sorted(path.parent.name.removeprefix(_FOLDER) for path in found)
        with self.opened("") as storage:
            return sorted(study.study_name for study in storage.get_all_studies())

    @contextmanager
    def opened(self, name: str) -> Iterator["RDBStorage"]:
        """Give Optuna's storage of a study, whose tables are made where there are none.

        Raises:
            StorageError: the database cannot be opened, or fails while it is used.
        """
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            storage = self._open_postgresql() if self._database.postgresql_url is not None else self._open_file(name)
            with closing(_Ended(storage)):
                yield storage
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
            said = str(getattr(cause, "orig", None) or cause).strip().splitlines() or [type(error).__name__]
            raise StorageError(f"{self.shown}: {said[0]:.200}") from error

    def _open_file(self, name: str) -> "RDBStorage":
        from optuna.storages import RDBStorage
        from sqlalchemy import event
        from sqlalchemy.pool import NullPool

        file = self.locate_work(name) / FILE
        with hold_lock(file.with_suffix(".lock"), "whoever opens the study", _WAIT_S):
            storage = RDBStorage(
                _as_template(f"sqlite:///{file}"),
                engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": _WAIT_S}},
            )
        # A writer takes its lock first: upgrading a reader's later fails at once beside another writer.
        event.listen(storage.engine, "connect", _leave_transactions)
        event.listen(storage.engine, "begin", _begin_to_write)
        return storage

    def _open_postgresql(self) -> "RDBStorage":
        from optuna.storages import RDBStorage
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        url = self._database.postgresql_url
        assert url is not None
        told = {"options": f"-c search_path={SCHEMA}", "connect_timeout": 10}
        engine = create_engine(url, poolclass=NullPool, connect_args=told)
        lock = text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=_OPENING)
        with engine.begin() as connection:
            connection.execute(lock)
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        with engine.begin() as connection:  # two that make the tables at once would each find the other's half
            connection.execute(lock)
            return RDBStorage(
                _as_template(url.render_as_string(hide_password=False)),
                engine_kwargs={"pool_pre_ping": True, "connect_args": told},
            )


class _Ended:
    """Closes the connections of a storage."""

    def __init__(self, storage: "RDBStorage"):
        self._storage = storage

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()


def _as_template(address: str) -> str:
    """Return an address as Optuna takes it, which fills in what stands in braces."""
    return address.replace("{", "{{").replace("}", "}}")


def _leave_transactions(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # they begin where ``_begin_to_write`` says


def _begin_to_write(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
