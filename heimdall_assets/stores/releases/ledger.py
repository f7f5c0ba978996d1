"""The ledger of releases: in which database versions are numbered, published and promoted.

Belongs here: which database that is, whether it is there yet, its transactions. Does not belong here: what is written
in them (``rows``, ``store``); the ledger of approvals, which lies with the sessions (``database.measurements``).

Our own database of measurements keeps it. One that belongs to somebody else is never written, so that the ledger then
has a database of its own: a file beside the folder of releases, or what HEIMDALL_LEDGER_URL names.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.stores.database.connection import Database
from heimdall_assets.stores.objects.addresses import DATABASE_EXPECTED, BucketAddress, Place

VARIABLE = "HEIMDALL_LEDGER_URL"
FILE = "releases.db"


class ReleaseLedger:
    """Transactions of the database that keeps releases; one of its own is made with the first number given."""

    def __init__(self, database: Database):
        self._database = database

    @property
    def database(self) -> Database:
        """The database that it is kept in: always ours, and not there before the first number is given."""
        return self._database

    @property
    def exists(self) -> bool:
        """Whether anybody has ever reserved a number.

        Raises:
            StorageError: the database cannot be reached.
        """
        return not self._database.is_empty

    @property
    def is_writable(self) -> bool:
        """Whether it is there and can be written."""
        return self.exists and self._database.is_writable

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection whose every query sees the same state; only where the ledger exists."""
        with self._database.reading() as connection:
            yield connection

    def compact(self) -> None:
        """Leave nothing of what was overwritten in a write-ahead log."""
        self._database.compact()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection that alone may write, wherever else somebody else tries to.

        Raises:
            Refused: the database was opened read-only.
            StorageError: it could not be reached, or nobody let go of it.
        """
        if not self.exists:
            self._database.upgrade()
        with self._database.writing() as connection:
            yield connection


def find_ledger(measurements: Database, models: Place, url: str = "") -> ReleaseLedger:
    """Return the ledger of the releases at ``models``.

    Args:
        measurements: the database of sessions, upgraded.
        models: where the files of releases are.
        url: what HEIMDALL_LEDGER_URL says; empty: nothing.

    Raises:
        InvalidSetting: it must be said and is not, or must not be and is, or is the field's own database.
        StorageError: the database cannot be reached, or a newer version of this project made it.
    """
    if measurements.is_ours:
        if url:
            raise InvalidSetting(
                f"{VARIABLE}: found an address, expected none: {measurements.shown} is ours and keeps releases itself"
            )
        return ReleaseLedger(measurements)
    if not url:
        if isinstance(models, BucketAddress):
            raise InvalidSetting(
                f"{VARIABLE}: found none, expected {DATABASE_EXPECTED} for the ledger of releases in {models}: "
                f"{measurements.shown} is the field's own and is never written"
            )
        url = f"sqlite:///{models / FILE}"
    own = Database(url)
    if not own.is_empty:
        own.upgrade()
        if not own.is_ours:
            raise InvalidSetting(f"{VARIABLE}: {own.shown} is the field's own, expected an empty one or one of ours")
    return ReleaseLedger(own)
