"""Who may ask, for what, and how much: client keys, their tenants and their limits.

Keys live in the store and are looked up in memory; a background task brings in what `predawn keys` changed and writes
usage behind the requests. A server without keys opens no store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from predawn.proxy.exchange import RequestError
from predawn.proxy.keyring import ANYONE, Identity, Keyring, unauthenticated
from predawn.proxy.leases import (
    ASSUMED_OUTPUT_TOKENS,
    Account,
    Admitted,
    Lease,
    check_concurrency,
    check_rates,
    most_it_may_cost,
    write_tokens,
)
from predawn.proxy.prompt_size import estimated_prompt_tokens
from predawn.proxy.rates import Rates
from predawn.proxy.spend import Tab, UsageBook
from predawn.proxy.store import StoreError, sqlite_path
from predawn.proxy.strangers import stranger

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from predawn.proxy.clock import Clock
    from predawn.proxy.keys import Key
    from predawn.proxy.settings import PriceSettings, Settings
    from predawn.proxy.store import Store
    from predawn.proxy.tasks import Tasks

__all__ = ["ANYONE", "Access", "Identity", "Lease", "OpenStore"]

log = logging.getLogger("predawn.access")
OpenStore: TypeAlias = Callable[[], "Awaitable[Store]"]
SYNC_S = 1.0
_HOW = "Run `predawn keys create NAME` on the server"


class Access:
    """The gate in front of every request. Made by `Access.open`."""

    def __init__(self, settings: Settings, open_store: OpenStore, clock: Clock, tasks: Tasks) -> None:
        self._settings = settings
        self._open_store = open_store
        self._clock = clock
        self._tasks = tasks
        self._mode = settings.access.keys
        self._keyring = Keyring(settings)
        self._path = sqlite_path(settings.state)
        self._store: Store | None = None
        self._book = UsageBook(clock)
        self._rates: Rates | None = None
        self._accounts: dict[str, Account] = {}
        self.epoch = 0
        """Another number whenever somebody may be known that was not, or known no more, or `tab_of` says otherwise."""
        self._syncing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: Settings, open_store: OpenStore, clock: Clock, tasks: Tasks) -> Access:
        """Load the keys and keep them up to date. Raises `StoreError` if state, secret or limits URL are unusable.

        The store belongs to whoever gave `open_store`, which is called once, when there is something to read.
        """
        access = cls(settings, open_store, clock, tasks)
        await access.reload(settings)
        return access

    async def reload(self, settings: Settings | None = None) -> None:
        """Read keys and secret again, by new settings if given; `state` stays as it is.

        Raises `StoreError`, and everything stays as it was.
        """
        settings = (settings or self._settings).model_copy(update={"state": self._settings.state})
        keyring = Keyring(settings)
        url = settings.access.limits_url
        rates = await _open_rates(url, self._clock) if url else None
        async with self._syncing:
            try:
                if settings.access.keys != "off":
                    await self._refresh(keyring)
                await self._sync(keyring)  # first, for it may fail
            except BaseException:
                await _close(rates)
                raise
            if rates is not None or self._settings.access.limits_url != url:
                self._rates, rates = rates, self._rates
            self._settings, self._mode, self._keyring = settings, settings.access.keys, keyring
            self.epoch += 1
            await _close(rates)
            await self._share()
        if self._task is None and self._mode != "off":
            self._task = self._tasks.spawn(self._keep_up(), "access")

    async def aclose(self) -> None:
        """Write what was used to the store. Call it before the tasks are cancelled and the store is closed."""
        async with self._syncing:  # not in the middle of a write
            task, self._task = self._task, None
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            try:
                await self._sync(self._keyring)
                await self._share()
            except StoreError as exc:
                log.warning("usage of the last moments is lost: %s", exc)
            rates, self._rates = self._rates, None
            await _close(rates)

    @property
    def has_keys(self) -> bool:
        return self._keyring.has_keys

    def describe(self) -> str:
        """One line for the log at start."""
        if self._mode == "off":
            return "keys are off: every client is served"
        if self._keyring.has_keys:
            return f"client keys are required; {len(self._keyring)} are known"
        if self._mode == "required":
            return f"client keys are required, and there is none: nobody is served. {_HOW}"
        return f"no client keys: only this machine is served. {_HOW} to serve others"

    def identify(self, headers: Mapping[str, str], peer: str) -> Identity:
        """Who sent these headers (a mapping that ignores case) from the address `peer`. Raises 401."""
        return self.admit(headers, peer)[0]

    def admit(self, headers: Mapping[str, str], peer: str) -> tuple[Identity, float | None]:
        """The same, and until when it is so, in seconds since the epoch, as long as `epoch` stays what it is."""
        if self._mode == "off":
            return ANYONE, None
        if self._keyring.has_keys:
            return self._keyring.admit(presented_key(headers), self._clock.now())
        if self._mode == "required":
            raise unauthenticated(f"This server requires API keys, and none exists yet. {_HOW}.")
        if (why := stranger(headers, peer)) is not None:
            raise unauthenticated(f"Without API keys only clients on the server itself are served; {why}. {_HOW}.")
        return ANYONE, None

    def check_model(self, identity: Identity, model: str) -> None:
        """Raise 403 if the key may not use this alias."""
        key = identity.key
        if key is not None and key.models is not None and model not in key.models:
            raise RequestError(
                403,
                f"This API key may not use the model {model!r}. It may use: {', '.join(sorted(key.models))}.",
                type="permission_error",
                code="model_not_allowed",
                param="model",
            )

    async def reserve(
        self,
        identity: Identity,
        price: PriceSettings | None,
        prompt_tokens: int,
        max_output_tokens: int | None,
    ) -> Lease:
        """Admit a request and hold what it may use, or raise 429. Waits for nothing if the key has no limits.

        `max_output_tokens` is the sum over all answers that the request asks for. Settle or release the lease, whatever
        happens; its `headers` belong on the response.
        """
        key = identity.key
        if key is None or not identity.is_limited:
            return Lease(self._book_of(identity), identity.tenant, key, None)
        lease, account = self._hold(identity, key, price, prompt_tokens, max_output_tokens)
        is_admitted = False
        try:
            if key.requests_per_minute is not None or key.tokens_per_minute is not None:
                if self._rates is None:
                    self._rates = await _open_rates(None, self._clock)
                need = prompt_tokens + (max_output_tokens or 0)
                await check_rates(lease, key, account, self._rates, need)
            lease.admit(Admitted(price, prompt_tokens, max_output_tokens, self._rates))
            is_admitted = True
            return lease
        finally:
            if not is_admitted:
                lease.release()

    def reserve_now(
        self, identity: Identity, price: PriceSettings | None, body: bytes, max_output_tokens: int | None
    ) -> Lease | None:
        """The same for a limited key without waiting; `None`, and nothing is held, if its windows must be asked."""
        key = identity.key
        if key is None or key.requests_per_minute is not None or key.tokens_per_minute is not None:
            return None
        prompt_tokens = estimated_prompt_tokens(body)
        lease, _ = self._hold(identity, key, price, prompt_tokens, max_output_tokens)
        lease.admit(Admitted(price, prompt_tokens, max_output_tokens, self._rates))
        return lease

    def _hold(
        self,
        identity: Identity,
        key: Key,
        price: PriceSettings | None,
        prompt_tokens: int,
        max_output_tokens: int | None,
    ) -> tuple[Lease, Account]:
        """A place among the key's requests, and what it may spend of the day's budget; or 429 and nothing."""
        account = self._accounts.get(key.id)
        if account is None:
            account = self._accounts[key.id] = Account()
        check_concurrency(key, account)
        lease = Lease(self._book_of(identity), identity.tenant, key, account)
        if key.nano_usd_per_day is not None:
            output = ASSUMED_OUTPUT_TOKENS if max_output_tokens is None else max_output_tokens
            cost = most_it_may_cost(price, prompt_tokens, output)
            is_held = False
            try:
                lease.hold_spend(cost, self._book.spent_today(key.id), self._book.seconds_left_today())
                is_held = True
            finally:
                if not is_held:
                    lease.release()
        return lease, account

    def tab_of(self, identity: Identity) -> Tab | None:
        """Where requests that end without a lease are counted; it stays the same one as long as `epoch` does. `None`
        where there is nobody to book to."""
        book = self._book_of(identity)
        return book.tab_of(identity.tenant, identity.key_id or "") if book is not None else None

    def _book_of(self, identity: Identity) -> UsageBook | None:
        """Without a key and without a store there is nobody to book to and nowhere to write."""
        return None if identity.key is None and self._store is None else self._book

    async def _keep_up(self) -> None:
        is_failing = False
        while True:
            await self._clock.sleep(SYNC_S)
            try:
                async with self._syncing:
                    await self._catch_up()
            except StoreError as exc:
                if not is_failing:
                    log.warning("keys stay as they were, and usage waits in memory: %s", exc)
                is_failing = True
                continue
            if is_failing:
                log.info("the state works again")
            is_failing = False

    async def _catch_up(self) -> None:
        keyring = self._keyring
        if not await self._sync(keyring, unless=keyring.is_behind):  # one visit to the store does it nearly always
            await self._refresh(keyring)
            await self._sync(keyring)
        await self._provide_rates(keyring)
        await self._share()

    async def _refresh(self, keyring: Keyring) -> None:
        known, store = self._store, self._store
        if store is None:
            if self._path is None:
                await keyring.load_secret()
            elif not await asyncio.to_thread(self._path.exists):
                return  # a server without keys makes no file and does not import SQLAlchemy
            store = self._store = await self._open_store()
        before = keyring.state
        try:
            await keyring.refresh(store)
        finally:
            if keyring.state != before or store is not known:
                self.epoch += 1
        await self._provide_rates(keyring)

    async def _provide_rates(self, keyring: Keyring) -> None:
        if keyring.has_rates and self._rates is None and not self._settings.access.limits_url:
            self._rates = await _open_rates(None, self._clock)

    async def _sync(self, keyring: Keyring, *, unless: Callable[[Connection], bool] | None = None) -> bool:
        """See `UsageBook.sync`. Without a store it is false if there is an `unless`, which cannot be asked."""
        if self._store is None:
            return unless is None
        return await self._book.sync(self._store, reads_spend=keyring.has_budgets, unless=unless)

    async def _share(self) -> None:
        """Let other servers see, in shared windows, what was used here."""
        if self._rates is None:
            return
        for key in self._keyring.token_keys:
            account = self._accounts.get(key.id)
            if account is not None and key.tokens_per_minute is not None:
                await write_tokens(key.id, key.tokens_per_minute, account, self._rates)


async def _open_rates(url: str | None, clock: Clock) -> Rates:
    return await asyncio.to_thread(Rates.open, url, clock)  # the import takes 70 ms


async def _close(rates: Rates | None) -> None:
    if rates is not None:
        await rates.aclose()


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer`, `x-api-key` or `api-key`."""
    authorization = headers.get("Authorization")
    if authorization is not None and authorization[:7].lower() == "bearer " and (key := authorization[7:].strip()):
        return key
    return headers.get("x-api-key") or headers.get("api-key") or None
