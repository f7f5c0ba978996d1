"""Which part of its recording a measurement is."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; rows that are there are all of their recordings."""
    schema = "heimdall" if op.get_bind().dialect.name == "postgresql" else None
    op.add_column("measurements", sa.Column("iq_first_sample", sa.BigInteger), schema=schema)
