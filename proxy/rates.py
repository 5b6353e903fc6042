"""Requests and tokens per minute, counted in sliding windows by the `limits` library.

In memory the windows are this process's own; with a Redis URL all servers share them. A Redis that is away refuses
nobody: it is asked again a few seconds later, and the log says so.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.storage import Storage

    from predawn.proxy.clock import Clock

log = logging.getLogger("predawn.rates")

Kind: TypeAlias = Literal["requests", "tokens"]
TIMEOUT_S = 1.0
PAUSE_S = 5.0


class Window(NamedTuple):
    """What is left of a limit, and the seconds until there is more."""

    remaining: int
    reset_s: float


class Rates:
    """The windows of all keys."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self._storage = storage
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._clock = clock
        self._items: dict[int, RateLimitItem] = {}
        self._away_until = 0.0

    @classmethod
    def open(cls, url: str | None, clock: Clock) -> Rates:
        """Windows in memory, or in the Redis at `url`; imports `limits`. Raises `StoreError` for an unusable URL."""
        from limits.aio.storage import MemoryStorage, RedisStorage
        from limits.errors import ConfigurationError

        if url is None:
            return cls(MemoryStorage(), clock)
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise StoreError("access.limits_url: write redis://host:port/0 (or rediss:// for TLS)")
        try:
            storage = RedisStorage(
                url,
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="predawn",
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
            )
        except ConfigurationError as exc:
            raise StoreError("access.limits_url: needs the redis package: pip install 'predawn[redis]'") from exc
        except ValueError as exc:  # its text may quote the password
            raise StoreError("access.limits_url: this is no URL; write redis://host:port/0") from exc
        return cls(storage, clock)

    async def take(self, kind: Kind, key_id: str, limit: int, cost: int) -> bool:
        """Count `cost` if the window has room for it; False, and nothing is counted, if not."""
        if self._is_away():
            return True
        try:
            return await self._limiter.hit(self._item(limit), kind, key_id, cost=cost)
        except self._errors as exc:
            self._stay_away(exc)
            return True

    async def look(self, kind: Kind, key_id: str, limit: int) -> Window:
        """What is left of a window."""
        if self._is_away():
            return Window(limit, 0.0)
        try:
            reset_at, remaining = await self._limiter.get_window_stats(self._item(limit), kind, key_id)
        except self._errors as exc:
            self._stay_away(exc)
            return Window(limit, 0.0)
        return Window(remaining, max(0.0, reset_at - time.time()))  # the library asks the system for the time

    async def aclose(self) -> None:
        """Close the connections to Redis, if any."""
        bridge = getattr(self._storage, "bridge", None)
        if bridge is not None:
            await bridge.storage.aclose()

    @property
    def _errors(self) -> tuple[type[BaseException], ...]:
        from limits.errors import StorageError

        return (StorageError, OSError, *_as_tuple(self._storage.base_exceptions))

    def _item(self, limit: int) -> RateLimitItem:
        if (item := self._items.get(limit)) is None:
            from limits import RateLimitItemPerMinute

            item = self._items[limit] = RateLimitItemPerMinute(limit, 1, "keys")
        return item

    def _is_away(self) -> bool:
        return self._clock.monotonic() < self._away_until

    def _stay_away(self, exc: BaseException) -> None:
        log.warning("the Redis of access.limits_url failed; limits per minute are off for %s s: %s", PAUSE_S, exc)
        self._away_until = self._clock.monotonic() + PAUSE_S


def _as_tuple(errors: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return errors if isinstance(errors, tuple) else (errors,)
