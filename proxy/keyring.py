"""The keys in memory: from what a client presents to who it is."""

from __future__ import annotations

import asyncio
import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from predawn.proxy.exchange import RequestError
from predawn.proxy.keys import Digester, Key, KeyCounts, count_keys, keys_by_digest
from predawn.proxy.secret import find_secret
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from predawn.proxy.settings import Settings
    from predawn.proxy.store import Store

log = logging.getLogger("predawn.access")
LONGEST_KEY = 512


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sent a request. `key` is `None` for a client that needs none."""

    tenant: str = "default"
    key: Key | None = None
    is_limited: bool = False
    """True if `Access.reserve` has something to count; without a lease, it is counted at the end (`Access.tab_of`)."""
    needs_usage: bool = False
    """True if a limit depends on the tokens that the upstream reports."""

    @property
    def key_id(self) -> str | None:
        return None if self.key is None else self.key.id

    @classmethod
    def of(cls, key: Key) -> Identity:
        needs_usage = key.tokens_per_minute is not None or key.nano_usd_per_day is not None
        return cls(key.tenant, key, key.is_limited, needs_usage)


ANYONE = Identity()


class _Known(NamedTuple):
    digest: bytes
    ends_at: float | None
    identity: Identity


class Keyring:
    """The keys of the store as of the last `refresh`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._digester: Digester | None = None
        self._known: dict[bytes, _Known] = {}
        self._counts = KeyCounts(0, 0)
        self._revision = 0
        self.has_keys = False
        """True once a key was made, revoked ones included: revoking the last key does not open the door."""
        self.has_budgets = False
        self.has_rates = False
        self.token_keys: tuple[Key, ...] = ()
        """The keys with a limit of tokens per minute."""

    def __len__(self) -> int:
        return len(self._known)

    @property
    def state(self) -> tuple[bool, int]:
        """Another one after each `refresh` that changed something."""
        return self.has_keys, self._revision

    def admit(self, presented: str | None, now: float) -> tuple[Identity, float | None]:
        """Who holds this key, and until when. Raises 401."""
        if presented is None:
            raise unauthenticated("No API key was given. Send it as `Authorization: Bearer KEY`.")
        if self._digester is None or len(presented) > LONGEST_KEY:
            raise unauthenticated("The API key is not known here.")
        digest = self._digester(presented)
        known = self._known.get(digest)
        if known is None or not hmac.compare_digest(known.digest, digest):
            raise unauthenticated("The API key is not known here.")
        if known.ends_at is not None and now >= known.ends_at:
            raise unauthenticated("The API key has expired or was revoked.")
        return known.identity, known.ends_at

    async def load_secret(self) -> Digester:
        """Read the secret once. Raises `StoreError` if there is none."""
        if self._digester is None:
            secret = await asyncio.to_thread(find_secret, self._settings)
            if secret is None:
                raise StoreError(
                    f"there are keys in {self._settings.state}, but the file with their secret beside it is gone: "
                    "restore it, or make new keys"
                )
            self._digester = Digester(secret)
        return self._digester

    def is_behind(self, connection: Connection) -> bool:
        """True if the store has other keys than these. Changes nothing; for transactions in any thread."""
        return count_keys(connection) != self._counts

    async def refresh(self, store: Store) -> None:
        """Bring in what changed in the store. Raises `StoreError`; the keys then stay as they were."""
        async with store.read() as connection:
            counts = await connection.run_sync(count_keys)
            if counts == self._counts:
                return
            self.has_keys = True  # before the secret is read: without it nobody gets in
            digester = await self.load_secret()
            keys = await connection.run_sync(keys_by_digest, digester.secret_id)
        self._known = {digest: _Known(digest, key.ends_at, Identity.of(key)) for digest, key in keys.items()}
        self._counts = counts
        self._revision += 1
        self.has_budgets = any(key.nano_usd_per_day is not None for key in keys.values())
        self.token_keys = tuple(key for key in keys.values() if key.tokens_per_minute is not None)
        self.has_rates = bool(self.token_keys) or any(key.requests_per_minute is not None for key in keys.values())
        if others := counts.made - len(keys):
            log.warning("%d keys were made with another secret and are not accepted", others)


def unauthenticated(message: str) -> RequestError:
    """401, as every refusal of a client that is not known."""
    return RequestError(
        401,
        message,
        type="authentication_error",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )
