"""Upgrading: a database of ours brought to today's schema, inside a transaction that somebody else began.

Belongs here: running the migrations. Does not belong here: what they do (``migrations``), when one is due
(``connection``).
"""

from sqlalchemy import Connection, text

from heimdall_assets.errors import StorageError
from heimdall_assets.stores.database.schema import SCHEMA
from heimdall_assets.stores.database.view import create_view, drop_view


def run_migrations(connection: Connection, shown: str) -> None:
    """Make the tables, or bring them to today's schema; ``shown`` names the database in messages.

    Raises:
        StorageError: a newer version of this project made it.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    config = Config()
    config.set_main_option("script_location", "heimdall_assets.stores.database:migrations".replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    drop_view(connection)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StorageError(f"{shown}: {error}; a newer version of this project may have made it") from error
    create_view(connection)
