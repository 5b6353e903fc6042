"""What sleep may cost a tenant on one day (UTC), in tokens and in money; what is in flight is held back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from predawn.plugins.sleep.contexts import Spent
from predawn.plugins.sleep.gate import Closed
from predawn.proxy.clock import Clock
from predawn.proxy.store_errors import StoreError

DAY_S = 86_400
log = logging.getLogger("predawn.sleep")


@dataclass(frozen=True, slots=True)
class DayLimits:
    """Per tenant and day; `None` sets no limit."""

    tokens: int | None = 2_000_000
    nano_usd: int | None = None


class Purse(Protocol):
    """Where spending is kept; see `Shelf`."""

    async def spend(self, tenant: str, spent: Spent, *, at: float | None = None) -> Spent: ...

    async def spent(self, tenant: str, *, at: float | None = None) -> Spent: ...


@dataclass(slots=True)
class _Account:
    """What of a tenant's day is not in the store."""

    held_tokens: int = 0
    held_nano_usd: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """Tokens and money held back for one call, until `settle` books what it used."""

    tenant: str
    at: float
    tokens: int
    nano_usd: int


class DayBudget:
    """Says what still fits. Each call's cost is in the store before the next one of that call's step may begin."""

    def __init__(self, limits: DayLimits, clock: Clock, purse: Purse) -> None:
        self._limits = limits
        self._clock = clock
        self._purse = purse
        self._accounts: dict[str, _Account] = {}

    async def hold(self, tenant: str, tokens: int, nano_usd: int) -> Hold | Closed:
        """Hold back what a call may cost, or say why it does not fit. What other machines spent is seen as of now."""
        at = self._clock.now()
        spent = await self._purse.spent(tenant, at=at)
        account = self._accounts.setdefault(tenant, _Account())
        closed = self._does_not_fit(account, spent, tokens, nano_usd)
        if closed is not None:
            self._forget(tenant, account)
            return closed
        account.held_tokens += tokens
        account.held_nano_usd += nano_usd
        return Hold(tenant, at, tokens, nano_usd)

    async def settle(self, hold: Hold, tokens: int, nano_usd: int) -> None:
        """Book what a call used, on the day on which it began, and give back the rest. 0 tokens: it was never sent.

        What the store cannot take stays held back until the process ends, so that the limit holds.
        """
        account = self._accounts.setdefault(hold.tenant, _Account())
        try:
            if tokens or nano_usd:
                await self._purse.spend(hold.tenant, Spent(tokens, nano_usd, 1), at=hold.at)
        except StoreError as exc:
            log.error("what sleep cost could not be booked: %d tokens: %s", tokens, exc)
            account.held_tokens += tokens
            account.held_nano_usd += nano_usd
        account.held_tokens -= hold.tokens
        account.held_nano_usd -= hold.nano_usd
        self._forget(hold.tenant, account)

    def _forget(self, tenant: str, account: _Account) -> None:
        """Keep no account in which there is nothing."""
        if account.held_tokens <= 0 and account.held_nano_usd <= 0:
            self._accounts.pop(tenant, None)

    def _does_not_fit(self, account: _Account, spent: Spent, tokens: int, nano_usd: int) -> Closed | None:
        limits = self._limits
        wait_s = DAY_S - self._clock.now() % DAY_S
        if limits.tokens is not None and spent.tokens + account.held_tokens + tokens > limits.tokens:
            numbers = {"spent": spent.tokens, "held": account.held_tokens, "wanted": tokens, "limit": limits.tokens}
            return Closed("tokens", wait_s, numbers)
        if limits.nano_usd is not None and spent.nano_usd + account.held_nano_usd + nano_usd > limits.nano_usd:
            usd = {"spent_usd": spent.nano_usd, "held_usd": account.held_nano_usd}
            usd |= {"wanted_usd": nano_usd, "limit_usd": limits.nano_usd}
            return Closed("money", wait_s, {name: value / 1e9 for name, value in usd.items()})
        return None
