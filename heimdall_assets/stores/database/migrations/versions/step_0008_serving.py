"""Rules of serving and keys of callers as ledgers of their own, and the day on which a key was used last."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from heimdall_assets.stores.database.migrations.append_only import protect
from heimdall_assets.stores.database.schema import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, empty: until somebody makes a rule the champion answers everybody."""
    schema = "heimdall" if op.get_bind().dialect.name == "postgresql" else None
    releases = "heimdall.model_releases.version" if schema else "model_releases.version"
    op.create_table(
        "serving_rule_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("rule", sa.String(32), nullable=False),
        sa.Column("version", sa.String(64), sa.ForeignKey(releases)),
        sa.Column("share", sa.Double),
        sa.Column("salt", sa.String(128)),
        sa.Column("user", sa.Text),
        sa.Column("receiver", sa.String(128)),
        sa.Column("num_promotions", sa.Integer, nullable=False),
        *_decision(),
        schema=schema,
    )
    op.create_table(
        "service_key_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("secret_sha256", sa.String(64)),
        sa.Column("owner", sa.Text),
        sa.Column("expires_at", UtcDateTime),
        *_decision(),
        schema=schema,
    )
    for ledger in ("serving_rule_events", "service_key_events"):
        protect(ledger)
    op.create_table(
        "service_key_uses",
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("last_used_on", sa.String(10), nullable=False),
        schema=schema,
    )


def _decision() -> "list[sa.Column[Any]]":
    return [
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("decided_at", UtcDateTime, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    ]
