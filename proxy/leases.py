"""What a request holds of its key's limits, from admission to its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from predawn.proxy.exchange import RequestError
from predawn.proxy.keys import NANO
from predawn.proxy.rates import Window
from predawn.proxy.spend import UsageBook, cost_usd, to_nano, tokens

if TYPE_CHECKING:
    from predawn.proxy.keys import Key
    from predawn.proxy.rates import Kind, Rates
    from predawn.proxy.settings import PriceSettings

ASSUMED_OUTPUT_TOKENS = 4096
"""What a request without `max_tokens` is expected to answer at most."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Admitted:
    """By what a request was admitted."""

    price: PriceSettings | None
    prompt_tokens: int
    output_tokens: int | None
    rates: Rates | None


@dataclass(slots=True)
class Account:
    """What the running requests of one key hold in this process."""

    requests: int = 0
    nano_usd: int = 0
    tokens: int = 0
    spent_tokens: int = 0
    """Tokens of ended requests that are not in the window yet: requests end without waiting for Redis."""
    writing_tokens: int = 0


class Lease:
    """A request's place among its key's limits; it ends once, by `settle` or `release`, and then does nothing more."""

    __slots__ = (
        "_account",
        "_admitted",
        "_book",
        "_has_place",
        "_nano_usd",
        "_open",
        "_tenant",
        "_tokens",
        "headers",
        "key",
    )

    def __init__(self, book: UsageBook | None, tenant: str, key: Key | None, account: Account | None) -> None:
        self._book = book
        self._tenant = tenant
        self.key = key
        self._account = account
        self._nano_usd = 0
        self._tokens = 0
        self._admitted: Admitted | None = None
        self._open = True
        self.headers: Mapping[str, str] = _NO_HEADERS
        """`x-ratelimit-*` of the key's own limits for the response; they replace those of the upstream."""
        self._has_place = account is not None
        """True while it counts among the requests of its key that run side by side."""
        if account is not None:
            account.requests += 1

    def answered(self) -> None:
        """Make room for the client's next request, where what this one used is settled later."""
        if self._has_place and self._account is not None:
            self._account.requests -= 1
        self._has_place = False

    def settle(self, prompt_tokens: int, cached_prompt_tokens: int, output_tokens: int, spend_usd: float) -> None:
        """Book what the request really used in place of what was held for it."""
        if not self._open:
            return
        self._give_back()
        account, key = self._account, self.key
        if account is not None and key is not None and key.tokens_per_minute is not None:
            account.spent_tokens += tokens(prompt_tokens) + tokens(output_tokens)
        if self._book is not None:
            key_id = key.id if key is not None else ""
            self._book.book_request(self._tenant, key_id, prompt_tokens, cached_prompt_tokens, output_tokens, spend_usd)

    def release(self) -> None:
        """Give back what was held for a request that used nothing."""
        if self._open:
            self._give_back()

    def _give_back(self) -> None:
        self._open = False
        self.answered()
        if (account := self._account) is not None:
            account.nano_usd -= self._nano_usd
            account.tokens -= self._tokens
            assert min(account.requests, account.nano_usd, account.tokens) >= 0

    def hold_spend(self, cost: int, spent: int, seconds_left: float) -> None:
        """Hold `cost` billionths of a dollar, or raise 429 if the day's budget has no room for it."""
        key, account = self.key, self._account
        if key is None or account is None or key.nano_usd_per_day is None:
            return
        left = key.nano_usd_per_day - spent - account.nano_usd
        if cost > left:
            raise _refusal(
                f"The daily budget of this key ({_usd(key.nano_usd_per_day)}) has {_usd(max(left, 0))} left, and this "
                f"request may cost {_usd(cost)}. Lower max_tokens, or wait for midnight UTC.",
                seconds_left,
                code="budget_exceeded",
            )
        account.nano_usd += cost
        self._nano_usd += cost

    def hold_tokens(self, need: int) -> None:
        """Hold tokens of the minute, for which there must be room."""
        if self._account is not None and self._open:  # it may have ended while its window was looked up
            self._account.tokens += need
            self._tokens += need

    def admit(self, admitted: Admitted) -> None:
        """Remember by what the request was admitted, for `extend`."""
        self._admitted = admitted

    async def extend(self, calls: int, prompt_tokens: int | None = None, output_tokens: int | None = None) -> None:
        """Hold room for `calls` calls more, each like the one admitted unless told otherwise; all of it or none.

        Raises `RequestError` 429. It is one request all the same: neither concurrency nor requests count it again.
        """
        admitted, key, account = self._admitted, self.key, self._account
        if admitted is None or key is None or account is None or not self._open:
            return
        prompt = admitted.prompt_tokens if prompt_tokens is None else prompt_tokens
        output = admitted.output_tokens if output_tokens is None else output_tokens
        held_usd = 0
        if key.nano_usd_per_day is not None and self._book is not None:
            assumed = ASSUMED_OUTPUT_TOKENS if output is None else output
            held_usd = calls * most_it_may_cost(admitted.price, prompt, assumed)
            self.hold_spend(held_usd, self._book.spent_today(key.id), self._book.seconds_left_today())
        is_held = False
        try:
            if key.tokens_per_minute is not None and admitted.rates is not None:
                await hold_tokens(self, key, account, admitted.rates, calls * (prompt + (output or 0)))
            is_held = True
        finally:
            if not is_held and self._open:
                account.nano_usd -= held_usd
                self._nano_usd -= held_usd

    def __repr__(self) -> str:
        return f"<Lease {self.key.id if self.key else self._tenant} {'open' if self._open else 'ended'}>"


def check_concurrency(key: Key, account: Account) -> None:
    """Raise 429 if the key has as many requests running as it may."""
    if key.concurrency is not None and account.requests >= key.concurrency:
        raise _refusal(f"This key may have {key.concurrency} requests running at a time.", 1.0)


async def check_rates(lease: Lease, key: Key, account: Account, rates: Rates, need: int) -> None:
    """Count the request and hold `need` tokens in the key's windows, or raise 429."""
    headers: dict[str, str] = {}
    if (limit := key.tokens_per_minute) is not None:
        window = await hold_tokens(lease, key, account, rates, need)
        _describe(headers, "tokens", limit, window)
    if (limit := key.requests_per_minute) is not None:
        taken = await rates.take("requests", key.id, limit, 1)
        window = await rates.look("requests", key.id, limit)
        _describe(headers, "requests", limit, window)
        if not taken:
            raise _refusal(f"This key may send {limit} requests per minute.", window.reset_s, headers=headers)
    lease.headers = headers


async def hold_tokens(lease: Lease, key: Key, account: Account, rates: Rates, need: int) -> Window:
    """Hold `need` tokens in the key's window and say what is left of it, or raise 429."""
    limit = key.tokens_per_minute
    assert limit is not None
    await write_tokens(key.id, limit, account, rates)
    window = await rates.look("tokens", key.id, limit)
    # No await from here until the tokens are held.
    left = window.remaining - account.tokens - account.spent_tokens - account.writing_tokens
    if need > left:
        raise _too_many_tokens(limit, need, max(left, 0), window.reset_s)
    lease.hold_tokens(need)
    return Window(left - need, window.reset_s)


async def write_tokens(key_id: str, limit: int, account: Account, rates: Rates) -> None:
    """Put the tokens of ended requests into the window; what does not fit fills it and is forgotten."""
    spent, account.spent_tokens = account.spent_tokens, 0
    if not spent:
        return
    account.writing_tokens += spent
    try:
        window = await rates.look("tokens", key_id, limit)
        if cost := min(spent, window.remaining):
            await rates.take("tokens", key_id, limit, cost)
    finally:
        account.writing_tokens -= spent


def most_it_may_cost(price: PriceSettings | None, prompt_tokens: int, output_tokens: int) -> int:
    """An upper bound of a request's cost, in billionths of a dollar."""
    uncached = cost_usd(price, prompt_tokens, 0, output_tokens)
    cached = cost_usd(price, prompt_tokens, prompt_tokens, output_tokens)
    return to_nano(max(uncached, cached))


def _describe(headers: dict[str, str], kind: Kind, limit: int, window: Window) -> None:
    headers[f"x-ratelimit-limit-{kind}"] = str(limit)
    headers[f"x-ratelimit-remaining-{kind}"] = str(max(window.remaining, 0))
    headers[f"x-ratelimit-reset-{kind}"] = f"{window.reset_s:.3f}s"


def _too_many_tokens(limit: int, need: int, left: int, reset_s: float) -> RequestError:
    headers: dict[str, str] = {}
    _describe(headers, "tokens", limit, Window(left, reset_s))
    if need > limit:
        headers["x-should-retry"] = "false"
        words = f"This request may take {need} tokens, and this key may use {limit} per minute: it can never be served."
        return _refusal(f"{words} Shorten it, or lower max_tokens.", 60.0, headers=headers)
    # A window slides: what is missing comes back at the limit's own pace at the earliest.
    wait_s = min(60.0, max(reset_s, (need - left) * 60.0 / limit))
    return _refusal(
        f"This key may use {limit} tokens per minute; {left} are left, and this request may take {need}.",
        wait_s,
        headers=headers,
    )


def _refusal(
    message: str, wait_s: float, *, code: str = "rate_limit_exceeded", headers: Mapping[str, str] = _NO_HEADERS
) -> RequestError:
    wait = max(1, math.ceil(wait_s))
    retry = {} if wait <= 60 else {"x-should-retry": "false"}  # the SDKs do not wait that long, they try at once
    return RequestError(
        429,
        message,
        type="rate_limit_error",
        code=code,
        headers={**headers, **retry, "retry-after": str(wait)},
    )


def _usd(nano: int) -> str:
    """`$1.5`, without an exponent and without zeros at the end."""
    whole, rest = divmod(nano, NANO)
    return f"${whole}.{rest:09d}".rstrip("0").rstrip(".")
