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
    LargeBinary,
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

# What follows belongs to the plugin `sleep`. Tenants choose the ids of contexts, so each key begins with a tenant.

contexts = Table(
    "contexts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("source", String(16), nullable=False),  # registered, discovered
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # a forgotten one keeps its id and version only
    Column("model", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("options", JSON, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("uses", BigInteger, nullable=False),
    Column("last_used_at", Double),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("change", BigInteger, nullable=False),  # see `context_changes`
    Index("contexts_by_change", "change"),
    Index("contexts_by_time", "tenant", "created_at", "id"),
    Index("contexts_by_expiry", "expires_at"),
)

context_versions = Table(
    "context_versions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("context_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("links", LargeBinary, nullable=False),  # 32 bytes for each message boundary
    Column("parts", JSON, nullable=False),  # role, digest and length of each message; not what it says
    Column("messages", Text, nullable=False),  # the stable content as JSON; emptied once there is a newer version
    Column("tokens", BigInteger, nullable=False),
    Column("base_version", Integer),  # an earlier version that this one continues
    Column("notes_id", String(32)),  # the accepted notes
    Column("created_at", Double, nullable=False),
)

context_changes = Table(
    # One row. Whoever changes a context counts up here first, so that changes become visible in their order, and a
    # server learns with one short query that there is nothing new.
    "context_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    Column("gone", BigInteger, nullable=False),  # gravestones up to here have been removed
)

notes = Table(
    "notes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("context_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("passes", Integer, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("sleep_tokens", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("provenance", JSON, nullable=False),
    Index("notes_by_context", "tenant", "context_id", "version"),
)

anticipated = Table(
    "anticipated",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("context_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("question", Text, nullable=False),
    Column("normalised", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("model", Text, nullable=False),
    Column("conditions", Text, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("sleep_tokens", BigInteger, nullable=False),
    Column("provenance", JSON, nullable=False),
    Index("anticipated_by_context", "tenant", "context_id", "version"),
)

context_uses = Table(
    "context_uses",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("exchange_id", Text, primary_key=True),
    Column("context_id", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("notes_id", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", Double, nullable=False),
    Column("model", Text, nullable=False),
    Column("age_s", Double, nullable=False),
    Column("tokens_saved", Double, nullable=False),
    Column("stale", Boolean, nullable=False),
    Column("regret", Boolean, nullable=False),
    Index("context_uses_by_time", "tenant", "context_id", "at"),
)

context_decisions = Table(
    "context_decisions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("context_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("decision", JSON, nullable=False),
)

context_jobs = Table(
    # Which jobs hold something of a context, so that the job store can be purged of it.
    "context_jobs",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("context_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("orphan", Boolean, nullable=False),  # the context was forgotten, and the job is still to be purged
    Column("created_at", Double, nullable=False),
)

context_estimates = Table(
    "context_estimates",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("context_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("kind", String(16), primary_key=True),  # plain, noted
    Column("count", BigInteger, nullable=False),
    Column("mean", Double, nullable=False),
)

sleep_spend = Table(
    "sleep_spend",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("day", Date, primary_key=True),  # UTC
    Column("tokens", BigInteger, nullable=False),
    Column("nano_usd", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
)

sleep_activity = Table(
    # Counts up while people's requests are answered, so that other processes on this store do not sleep meanwhile.
    "sleep_activity",
    metadata,
    Column("place", Text, primary_key=True),
    Column("beats", BigInteger, nullable=False),
)

# What follows belongs to the plugin `budget`.

budget_outcomes = Table(
    # How requests ended, without anything that was said; the newest of each tenant and model are learnt from.
    "budget_outcomes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("exchange_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("tier", String(32), nullable=False),  # empty where a client or a ceiling made something else of it
    Column("tokens", Double, nullable=False),
    Column("difficulty", Double, nullable=False),
    Column("quality", Double),  # null where nobody could tell
    Column("hardness", Double),
    Column("source", String(16), nullable=False),  # none, agreement, verdict, feedback
    Column("look", JSON, nullable=False),  # kind, shape, features, and hashes of words
    Index("budget_outcomes_by_time", "tenant", "model", "at"),
    Index("budget_outcomes_by_age", "at"),
)

budget_prices = Table(
    "budget_prices",
    metadata,
    Column("tenant", Text, primary_key=True),  # empty where all tenants share a price
    Column("model", Text, primary_key=True),
    Column("target", Double, nullable=False),
    Column("base", Double, nullable=False),  # logarithm
    Column("debt", Double, nullable=False),  # in targets
    Column("mean", Double, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)

budget_days = Table(
    "budget_days",
    metadata,
    Column("day", Date, primary_key=True),  # UTC
    Column("tenant", Text, primary_key=True),
    Column("key_id", String(32), primary_key=True),  # empty for requests without a key
    Column("tokens", BigInteger, nullable=False),
)

sampling_trust = Table(
    # How sure a model was of samples that others confirmed or did not; nothing that was said.
    "sampling_trust",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("effort", String(16), primary_key=True),  # empty where nobody asked for one
    Column("known", JSON, nullable=False),  # pairs of a mean log-probability and 1 or 0, the oldest first
    Column("at", Double, nullable=False),
)
