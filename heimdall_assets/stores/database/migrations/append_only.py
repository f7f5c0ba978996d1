"""Tables that only grow: triggers with which the database itself refuses to change or delete a row.

Belongs here: making and lifting them in a migration. Does not belong here: which tables they are of.
"""

from alembic import op


def protect(table: str) -> None:
    """Have the database refuse every change of a row of ``table``, whose key is ``id``; PostgreSQL has its function."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON heimdall.{table} "
            "FOR EACH ROW EXECUTE FUNCTION heimdall.refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON heimdall.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION heimdall.refuse_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    # INSERT OR REPLACE deletes without firing the delete trigger.
    op.execute(
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id) "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    )


def lift(table: str) -> None:
    """Take the triggers of ``protect`` away, for the rest of a migration."""
    if op.get_bind().dialect.name == "postgresql":
        for name in ("append_only", "no_truncate"):
            op.execute(f"DROP TRIGGER {table}_{name} ON heimdall.{table}")
    else:
        for name in ("no_update", "no_delete", "no_replace"):
            op.execute(f"DROP TRIGGER {table}_{name}")
