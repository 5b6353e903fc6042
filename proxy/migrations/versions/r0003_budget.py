"""How requests ended, what tokens are worth, and what each day cost."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "budget_outcomes",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("exchange_id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("tokens", sa.Double, nullable=False),
        sa.Column("difficulty", sa.Double, nullable=False),
        sa.Column("quality", sa.Double),
        sa.Column("hardness", sa.Double),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("look", sa.JSON, nullable=False),
    )
    op.create_index("budget_outcomes_by_time", "budget_outcomes", ["tenant", "model", "at"])
    op.create_index("budget_outcomes_by_age", "budget_outcomes", ["at"])
    op.create_table(
        "budget_prices",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("target", sa.Double, nullable=False),
        sa.Column("base", sa.Double, nullable=False),
        sa.Column("debt", sa.Double, nullable=False),
        sa.Column("mean", sa.Double, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "budget_days",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("tokens", sa.BigInteger, nullable=False),
    )
