"""Contexts, what sleep made of them, and what it cost and bought."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _contexts()
    _thoughts()
    _books()


def _contexts() -> None:
    op.create_table(
        "contexts",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("uses", sa.BigInteger, nullable=False),
        sa.Column("last_used_at", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("change", sa.BigInteger, nullable=False),
    )
    op.create_index("contexts_by_change", "contexts", ["change"])
    op.create_index("contexts_by_time", "contexts", ["tenant", "created_at", "id"])
    op.create_index("contexts_by_expiry", "contexts", ["expires_at"])
    op.create_table(
        "context_versions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("context_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("links", sa.LargeBinary, nullable=False),
        sa.Column("parts", sa.JSON, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("base_version", sa.Integer),
        sa.Column("notes_id", sa.String(32)),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "context_changes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("gone", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO context_changes (id, value, gone) VALUES (1, 0, 0)")


def _thoughts() -> None:
    op.create_table(
        "notes",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("context_id", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("passes", sa.Integer, nullable=False),
        sa.Column("made_at", sa.Double, nullable=False),
        sa.Column("sleep_tokens", sa.BigInteger, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provenance", sa.JSON, nullable=False),
    )
    op.create_index("notes_by_context", "notes", ["tenant", "context_id", "version"])
    op.create_table(
        "anticipated",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("context_id", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("normalised", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("verified", sa.Boolean, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("conditions", sa.Text, nullable=False),
        sa.Column("made_at", sa.Double, nullable=False),
        sa.Column("sleep_tokens", sa.BigInteger, nullable=False),
        sa.Column("provenance", sa.JSON, nullable=False),
    )
    op.create_index("anticipated_by_context", "anticipated", ["tenant", "context_id", "version"])


def _books() -> None:
    op.create_table(
        "context_uses",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("exchange_id", sa.Text, primary_key=True),
        sa.Column("context_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("notes_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("age_s", sa.Double, nullable=False),
        sa.Column("tokens_saved", sa.Double, nullable=False),
        sa.Column("stale", sa.Boolean, nullable=False),
        sa.Column("regret", sa.Boolean, nullable=False),
    )
    op.create_index("context_uses_by_time", "context_uses", ["tenant", "context_id", "at"])
    op.create_table(
        "context_decisions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("context_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("decision", sa.JSON, nullable=False),
    )
    op.create_table(
        "context_jobs",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("context_id", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("orphan", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "context_estimates",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("context_id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("mean", sa.Double, nullable=False),
    )
    op.create_table(
        "sleep_spend",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("nano_usd", sa.BigInteger, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sleep_activity",
        sa.Column("place", sa.Text, primary_key=True),
        sa.Column("beats", sa.BigInteger, nullable=False),
    )
