"""Names of people in one table, from which they can be erased; entries of the log hold pseudonyms from here on."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; what was decided before keeps the names that it was decided under."""
    op.create_table(
        "people",
        sa.Column("pseudonym", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, unique=True),
        sa.Column("secret", sa.String(64)),
        schema="heimdall" if op.get_bind().dialect.name == "postgresql" else None,
    )
