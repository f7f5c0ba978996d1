"""An index of lineage: what was used for what. Derived from results at rest, it grows and may be emptied."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make its tables, empty: whoever asks first has what is at rest taken in."""
    schema = "heimdall" if op.get_bind().dialect.name == "postgresql" else None
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "lineage_nodes",
        sa.Column("id", number, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        schema=schema,
    )
    op.create_table(
        "lineage_edges",
        *(sa.Column(name, number, primary_key=True, autoincrement=False) for name in ("parent", "child", "through")),
        schema=schema,
        sqlite_with_rowid=False,
    )
    plain = sa.text("through = 0")
    op.create_index(
        "ix_lineage_edges_child",
        "lineage_edges",
        ["child", "parent"],
        schema=schema,
        sqlite_where=plain,
        postgresql_where=plain,
    )
    op.create_table(
        "lineage_results",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("reference", sa.String(128), nullable=False),
        schema=schema,
        sqlite_with_rowid=False,
    )
