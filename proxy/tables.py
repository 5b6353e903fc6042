"""The tables of the durable store, as the newest migration leaves them. Importing this imports SQLAlchemy."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),  # HMAC-SHA256 of the key, in hex
    Column("secret_id", String(16), nullable=False),  # which secret made the digest
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("models", JSON(none_as_null=True)),  # list of aliases; null allows all
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("concurrency", Integer),
    Column("nano_usd_per_day", BigInteger),
    Column("expires_at", Double),  # seconds since the epoch, as all times here
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)

usage = Table(
    "usage",
    metadata,
    Column("day", Date, primary_key=True),  # UTC
    Column("tenant", Text, primary_key=True),
    Column("key_id", String(32), primary_key=True),  # empty for requests without a key
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_prompt_tokens", BigInteger, nullable=False),  # part of prompt_tokens
    Column("output_tokens", BigInteger, nullable=False),
    # Billionths: a prompt token of a cheap model costs a hundredth of a millionth, and sums must not drift.
    Column("spend_nano_usd", BigInteger, nullable=False),
)

exchanges = Table(
    "exchanges",
    metadata,
    # Clients choose request ids, so an id is only unique within its tenant.
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("key_id", String(32)),
    Column("route", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("arrived_at", Double, nullable=False),
    Column("total_s", Double, nullable=False),
    Column("prompt", BigInteger, nullable=False),
    Column("cached_prompt", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("reasoning", BigInteger, nullable=False),
    Column("discarded", BigInteger, nullable=False),
    Column("verify", BigInteger, nullable=False),
    Column("slept", Double, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("spend_usd", Double, nullable=False),
    Column("record", JSON, nullable=False),  # calls, decisions, notes
    Column("content", Text),  # request body and reply, where recording them is switched on
    Index("exchanges_by_time", "tenant", "arrived_at"),
)
