"""Ready-made arrival times and bearings of a measurement, each with its one-sigma error."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; rows that are there have none."""
    schema = "heimdall" if op.get_bind().dialect.name == "postgresql" else None
    op.add_column("measurements", sa.Column("arrival_unix_ns", sa.BigInteger), schema=schema)
    op.add_column("measurements", sa.Column("arrival_sigma_s", sa.Double), schema=schema)
    op.add_column("measurements", sa.Column("bearing_deg", sa.Double), schema=schema)
    op.add_column("measurements", sa.Column("bearing_sigma_deg", sa.Double), schema=schema)
