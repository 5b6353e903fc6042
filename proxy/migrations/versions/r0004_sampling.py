"""How far a tenant's samples of a model are to be trusted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "sampling_trust",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("effort", sa.String(16), primary_key=True),
        sa.Column("known", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
