"""Alembic's entry: runs the steps on the connection it is handed, inside that connection's transaction."""

from alembic import context

from heimdall_assets.stores.schema import SCHEMA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table="heimdall_schema_version",
    version_table_schema=SCHEMA if connection.dialect.name == "postgresql" else None,
)
context.run_migrations()
