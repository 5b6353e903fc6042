"""Client keys: what one allows, the digest that stands for it, and the table they are kept in.

The key itself is shown once, when it is made. It has 256 random bits, so a fast digest is enough, and it must be fast:
each request pays for it (HMAC-SHA256: 0.8 µs; bcrypt would be 50 ms).
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping, Select

    from predawn.proxy.store import Store

NANO = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A client's key without the key: what is known of it, and what it allows. `None` allows everything."""

    id: str
    name: str
    tenant: str = "default"
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    nano_usd_per_day: int | None = None
    """Spend per UTC day in billionths of a dollar."""
    expires_at: float | None = None
    created_at: float = 0.0
    revoked_at: float | None = None

    @property
    def is_limited(self) -> bool:
        """True if requests must be counted before they are sent."""
        return not (
            self.requests_per_minute is None
            and self.tokens_per_minute is None
            and self.concurrency is None
            and self.nano_usd_per_day is None
        )

    @property
    def ends_at(self) -> float | None:
        """When the key stops or stopped to work, whichever of revocation and expiry came first."""
        ends = [at for at in (self.expires_at, self.revoked_at) if at is not None]
        return min(ends) if ends else None


class KeyCounts(NamedTuple):
    """Changes whenever a key is made or revoked: keys are never deleted and never change otherwise."""

    made: int
    revoked: int


class Digester:
    """Turns a presented key into the digest that is stored."""

    __slots__ = ("_hmac", "secret_id")

    def __init__(self, secret: bytes) -> None:
        self._hmac = hmac.new(secret, digestmod="sha256")
        self.secret_id = hmac.digest(secret, b"predawn secret id", "sha256").hex()[:16]
        """Tells secrets apart without telling them."""

    def __call__(self, presented: str) -> bytes:
        copy = self._hmac.copy()  # half the cost of hashing the secret anew
        copy.update(presented.encode("utf-8", "surrogateescape"))
        return copy.digest()

    def __repr__(self) -> str:
        return f"<Digester {self.secret_id}>"


async def create_key(store: Store, digester: Digester, draft: Key) -> tuple[Key, str]:
    """Store a key like `draft` with an id of its own; return it and the key to hand out, which is not stored."""
    from predawn.proxy.tables import keys

    presented = f"pd-{secrets.token_urlsafe(32)}"
    key = replace(draft, id=f"key_{secrets.token_hex(8)}")
    async with store.begin() as connection:
        await connection.execute(
            keys.insert().values(
                id=key.id,
                digest=digester(presented).hex(),
                secret_id=digester.secret_id,
                name=key.name,
                tenant=key.tenant,
                models=None if key.models is None else sorted(key.models),
                requests_per_minute=key.requests_per_minute,
                tokens_per_minute=key.tokens_per_minute,
                concurrency=key.concurrency,
                nano_usd_per_day=key.nano_usd_per_day,
                expires_at=key.expires_at,
                created_at=key.created_at,
                revoked_at=key.revoked_at,
            )
        )
    return key, presented


async def revoke_key(store: Store, key_id: str, now: float) -> bool:
    """Revoke a key from `now` on; False if there is no such key or it was revoked before."""
    from predawn.proxy.tables import keys

    async with store.begin() as connection:
        done = await connection.execute(
            keys.update().where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=now)
        )
    return done.rowcount == 1


async def list_keys(store: Store) -> list[Key]:
    """All keys ever made, oldest first."""
    from predawn.proxy.tables import keys

    async with store.read() as connection:
        rows = await connection.execute(keys.select().order_by(keys.c.created_at, keys.c.id))
        return [_key(row) for row in rows.mappings()]


def count_keys(connection: Connection) -> KeyCounts:
    return KeyCounts(*connection.execute(_counting()).one())


@cache
def _counting() -> Select[int, int]:
    from sqlalchemy import func, select

    from predawn.proxy.tables import keys

    return select(func.count(), func.count(keys.c.revoked_at))


def keys_by_digest(connection: Connection, secret_id: str) -> dict[bytes, Key]:
    """The keys whose digests were made with this secret."""
    from predawn.proxy.tables import keys

    rows = connection.execute(keys.select().where(keys.c.secret_id == secret_id))
    return {bytes.fromhex(row["digest"]): _key(row) for row in rows.mappings()}


def _key(row: RowMapping) -> Key:
    return Key(
        id=row["id"],
        name=row["name"],
        tenant=row["tenant"],
        models=None if row["models"] is None else frozenset(row["models"]),
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        concurrency=row["concurrency"],
        nano_usd_per_day=row["nano_usd_per_day"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )
