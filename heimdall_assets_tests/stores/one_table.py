"""A database of one table, as its owner makes it: measurements(session_id, websdr_id, ..., approved)."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from heimdall_assets.specs import DatasetSpec
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.raw.stated_receivers import Statement

COLUMNS = (
    "session_id", "websdr_id", "latitude", "longitude", "frequency_mhz", "snr_db", "timestamp", "created_at",
    "approved",
)  # fmt: skip
SQLITE = {"key": "TEXT", "id": "INTEGER", "real": "REAL", "time": "TIMESTAMP", "flag": "BOOLEAN"}
POSTGRESQL = {"key": "UUID", "id": "INTEGER", "real": "DOUBLE PRECISION", "time": "TIMESTAMPTZ", "flag": "BOOLEAN"}


def make_one_table(url: str, rows: Iterable[tuple[Any, ...]], schema: str = "", **types: str) -> None:
    """Make the table in an empty database with ``rows`` in the order of ``COLUMNS``; ``types`` win over the usual."""
    kinds = (POSTGRESQL if "postgresql" in url else SQLITE) | types
    prefix = f"{schema}." if schema else ""
    engine = create_engine(url)
    with engine.begin() as connection:
        if schema:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
        connection.execute(
            text(
                f"CREATE TABLE {prefix}measurements (session_id {kinds['key']}, websdr_id {kinds['id']}, "
                f"latitude {kinds['real']}, longitude {kinds['real']}, frequency_mhz {kinds['real']}, "
                f"snr_db {kinds['real']}, timestamp {kinds['time']}, created_at {kinds['time']}, "
                f"approved {kinds['flag']})"
            )
        )
    engine.dispose()
    add_rows(url, rows, prefix)


def add_rows(url: str, rows: Iterable[tuple[Any, ...]], prefix: str = "") -> None:
    """Add rows as the owner of the table does."""
    engine = create_engine(url)
    values = ", ".join(f":{name}" for name in COLUMNS)
    with engine.begin() as connection:
        for row in rows:
            statement = text(f"INSERT INTO {prefix}measurements VALUES ({values})")
            connection.execute(statement, dict(zip(COLUMNS, row, strict=True)))
    engine.dispose()


def write_receivers(path: Path, receivers: dict[str, Any]) -> str:
    """Write the file that says where receivers stand; return its path."""
    path.write_text(json.dumps(receivers))
    return str(path)


def open_one_table(url: str, receivers: str = "", time_zone: str = "") -> MeasurementStore:
    """Return the opened database."""
    store = MeasurementStore(url, statement=Statement(receivers, time_zone))
    store.upgrade()
    return store


def list_reasons(store: MeasurementStore) -> dict[str, str]:
    """Return id of a row that is left out -> why."""
    left_out = store.read_approved(DatasetSpec()).left_out
    return dict(zip(left_out["measurement_id"], left_out["reason"], strict=True))
