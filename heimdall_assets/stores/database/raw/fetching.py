"""Fetching: what a query found, column by column; a database of hundreds of thousands of rows in a second.

Belongs here: the way from a driver's rows to columns. Does not belong here: what is asked (``snapshots``), what the
values are (``columns``).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Select
from sqlalchemy.exc import OperationalError

from heimdall_assets.stores.database.raw.columns import Gathered

_CHUNK = 200
"""Rows turned into columns at once: few enough to be forgotten before Python looks for what to collect."""


def fetch_columns(connection: Connection, query: Select[Any]) -> dict[str, Gathered]:
    """Return what ``query`` finds, label -> values as the driver gives them, in the order of the rows.

    SQLAlchemy's own rows would double the time. A text of SQLite that is no UTF-8 reads with a sign in place of what is
    none, as everywhere (``connection``).
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        return _fetch(connection, query)
    try:
        with _reading_strictly(driver):
            return _fetch(connection, query)
    except (OperationalError, sqlite3.OperationalError) as error:
        if "decode to UTF-8" not in str(error):
            raise
    return _fetch(connection, query)


@contextmanager
def _reading_strictly(driver: sqlite3.Connection) -> Iterator[None]:
    """Let texts be decoded by the driver itself, which takes a third of the time and refuses what is no UTF-8."""
    lenient = driver.text_factory
    driver.text_factory = str
    try:
        yield
    finally:
        driver.text_factory = lenient


def _fetch(connection: Connection, query: Select[Any]) -> dict[str, Gathered]:
    result = connection.execute(query)
    cursor: Any = result.cursor
    columns = {name: Gathered() for name in list(result.keys())}
    while rows := cursor.fetchmany(_CHUNK):
        for column, part in zip(columns.values(), zip(*rows, strict=True), strict=True):
            column.extend(part)
    result.close()
    return columns
