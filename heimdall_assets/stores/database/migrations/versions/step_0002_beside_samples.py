"""What is said of a recording beside its samples: how well its start is known, its full scale, its channel."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; rows that are there have none."""
    schema = "heimdall" if op.get_bind().dialect.name == "postgresql" else None
    op.add_column("measurements", sa.Column("iq_start_sigma_s", sa.Double), schema=schema)
    op.add_column("measurements", sa.Column("iq_full_scale", sa.Double), schema=schema)
    op.add_column("measurements", sa.Column("iq_channel", sa.BigInteger), schema=schema)
