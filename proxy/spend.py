"""What keys used: counted in memory as requests end, added to the store behind them, read back from it.

Money is counted in whole billionths of a dollar, so that sums are exact and the same in every process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from predawn.proxy.keys import NANO
from predawn.proxy.store import insert_into

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select
    from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

    from predawn.proxy.clock import Clock
    from predawn.proxy.settings import PriceSettings
    from predawn.proxy.store import Store, Visit

_EPOCH = date(1970, 1, 1)
DAY_S = 86_400
# An upstream may claim any number, but a column holds 2**63.
MOST_TOKENS = 1 << 40
MOST_USD = 1e6


Place: TypeAlias = "tuple[int, str, str]"
"""A row of the table `usage`: day counted from 1970-01-01 (UTC), tenant, key. A `NamedTuple` takes 0.3 µs to make."""


@dataclass(slots=True)
class Usage:
    """What was used, in requests, tokens and billionths of a dollar."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    spend_nano_usd: int = 0

    @classmethod
    def of(cls, prompt_tokens: int, cached_prompt_tokens: int, output_tokens: int, spend_usd: float) -> Usage:
        """What one request used, as far as the figures can be believed."""
        return cls(1, tokens(prompt_tokens), tokens(cached_prompt_tokens), tokens(output_tokens), to_nano(spend_usd))

    def add(self, other: Usage) -> None:
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.cached_prompt_tokens += other.cached_prompt_tokens
        self.output_tokens += other.output_tokens
        self.spend_nano_usd += other.spend_nano_usd


class Tab(Usage):
    """What one payer used on one day and is not in the book yet: kept by who serves it, collected by `UsageBook`."""

    __slots__ = ("_book", "_ends_at", "place")

    def __init__(self, book: UsageBook, tenant: str, key_id: str) -> None:
        super().__init__()
        self._book = book
        self.place: Place = (0, tenant, key_id)
        self._ends_at = 0.0

    def add_request(
        self, prompt_tokens: int, cached_prompt_tokens: int, output_tokens: int, spend_usd: float, at: float
    ) -> None:
        """Count what one request used that ended at this time, as far as the figures can be believed; none is negative.

        Half of what `UsageBook.book_request` takes.
        """
        if at >= self._ends_at:
            self._turn_page(at)
        if not (prompt_tokens <= MOST_TOKENS and output_tokens <= MOST_TOKENS and cached_prompt_tokens <= MOST_TOKENS):
            prompt_tokens, output_tokens = min(prompt_tokens, MOST_TOKENS), min(output_tokens, MOST_TOKENS)
            cached_prompt_tokens = min(cached_prompt_tokens, MOST_TOKENS)
        self.requests += 1
        self.prompt_tokens += prompt_tokens
        self.output_tokens += output_tokens
        if cached_prompt_tokens:
            self.cached_prompt_tokens += cached_prompt_tokens
        if spend_usd:
            self.spend_nano_usd += to_nano(spend_usd)

    def _turn_page(self, at: float) -> None:
        """Hand in what belongs to a day that is over."""
        self._book.collect(self)
        day = int(at // DAY_S)
        self.place = (day, *self.place[1:])
        self._ends_at = (day + 1.0) * DAY_S

    def take(self) -> Usage:
        """What has come together; nothing stays here. The next request tells the day anew: clocks are put right."""
        taken = Usage(
            self.requests, self.prompt_tokens, self.cached_prompt_tokens, self.output_tokens, self.spend_nano_usd
        )
        self.requests = self.prompt_tokens = self.cached_prompt_tokens = self.output_tokens = self.spend_nano_usd = 0
        self._ends_at = 0.0
        return taken


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One line of a report."""

    day: date
    tenant: str
    key_id: str
    usage: Usage


def cost_usd(price: PriceSettings | None, prompt_tokens: int, cached_prompt_tokens: int, output_tokens: int) -> float:
    """What tokens cost in dollars; cached ones are part of the prompt's. Zero without a price."""
    if price is None:
        return 0.0
    cached_price = price.cached_input_usd_per_mtok
    if cached_price is None:
        cached_price = price.input_usd_per_mtok
    cached = min(cached_prompt_tokens, prompt_tokens)
    return (
        (prompt_tokens - cached) * price.input_usd_per_mtok
        + cached * cached_price
        + output_tokens * price.output_usd_per_mtok
    ) / 1e6


def to_nano(usd: float) -> int:
    """Billionths of a dollar, rounded up so that a limit is never passed; what is no amount counts as nothing."""
    if not usd > 0:  # NaN included
        return 0
    return math.ceil(round(min(usd, MOST_USD) * NANO, 3))  # floats are off by less than that


def tokens(count: int) -> int:
    """A number of tokens as far as it can be believed."""
    return count if 0 <= count <= MOST_TOKENS else min(max(count, 0), MOST_TOKENS)


class UsageBook:
    """Counts what each key used, and knows what it spent today in all processes as of the last `sync`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._booked: dict[Place, Usage] = {}
        self._tabs: dict[tuple[str, str], Tab] = {}
        self._today = 0
        self._stored: dict[str, int] = {}
        self._unstored: dict[str, int] = {}

    def book(self, tenant: str, key_id: str, used: Usage) -> None:
        """Count what a request used."""
        place = (self._day(), tenant, key_id)
        usage = self._booked.get(place)
        if usage is None:
            usage = self._booked[place] = Usage()
        usage.add(used)
        if used.spend_nano_usd:
            self._unstored[key_id] = self._unstored.get(key_id, 0) + used.spend_nano_usd

    def book_request(  # noqa: PLR0917 - once per request: keywords cost 0.2 us
        self,
        tenant: str,
        key_id: str,
        prompt_tokens: int,
        cached_prompt_tokens: int,
        output_tokens: int,
        spend_usd: float,
    ) -> None:
        """Count what one request used, as far as the figures can be believed; none is negative.

        0.4 µs, against 0.9 by `book`.
        """
        day = int(self._clock.now() // DAY_S)
        if day != self._today:
            self._begin(day)
        place = (day, tenant, key_id)
        usage = self._booked.get(place)
        if usage is None:
            usage = self._booked[place] = Usage()
        if not (prompt_tokens <= MOST_TOKENS and output_tokens <= MOST_TOKENS and cached_prompt_tokens <= MOST_TOKENS):
            prompt_tokens, output_tokens = min(prompt_tokens, MOST_TOKENS), min(output_tokens, MOST_TOKENS)
            cached_prompt_tokens = min(cached_prompt_tokens, MOST_TOKENS)
        usage.requests += 1
        usage.prompt_tokens += prompt_tokens
        usage.cached_prompt_tokens += cached_prompt_tokens
        usage.output_tokens += output_tokens
        if spend_usd and (nano := to_nano(spend_usd)):
            usage.spend_nano_usd += nano
            self._unstored[key_id] = self._unstored.get(key_id, 0) + nano

    def tab_of(self, tenant: str, key_id: str) -> Tab:
        """The payer's tab, for requests that nothing limits. What stands there is in the book after the next `sync`."""
        tab = self._tabs.get((tenant, key_id))
        if tab is None:
            tab = self._tabs[tenant, key_id] = Tab(self, tenant, key_id)
        return tab

    def collect(self, tab: Tab) -> None:
        """Book what stands on a tab."""
        if not tab.requests:
            return
        day, _, key_id = place = tab.place
        used = tab.take()
        usage = self._booked.get(place)
        if usage is None:
            self._booked[place] = used
        else:
            usage.add(used)
        if used.spend_nano_usd and day == self._day():
            self._unstored[key_id] = self._unstored.get(key_id, 0) + used.spend_nano_usd

    def collect_all(self) -> None:
        """The same of every tab."""
        for tab in self._tabs.values():
            self.collect(tab)

    def spent_today(self, key_id: str) -> int:
        """Billionths of a dollar since midnight UTC, as far as they are booked."""
        self._day()
        return self._stored.get(key_id, 0) + self._unstored.get(key_id, 0)

    def seconds_left_today(self) -> float:
        return DAY_S - self._clock.now() % DAY_S

    async def sync(
        self, store: Store, *, reads_spend: bool, unless: Callable[[Connection], bool] | None = None
    ) -> bool:
        """Add to the store what was booked, all of it or nothing, and see what other processes added.

        Where `unless` says yes, which is asked first in a reading transaction, nothing of this is done; then false. It
        may be called in another thread. Not to be called twice at a time. Raises `StoreError`; what was not added stays
        booked.
        """
        self.collect_all()
        errand = _Errand(self._booked, self._day() if reads_spend else None, unless)
        if not errand.booked and errand.day is None and unless is None:
            return True
        self._booked = {}
        try:
            await store.visit(errand)
        finally:
            if errand.is_done:
                self._settle(errand)
            else:
                # If a server's connection broke during the commit, it may be counted twice: better than not at all.
                self._put_back(errand.booked)
        return errand.is_done

    def _settle(self, errand: _Errand) -> None:
        """What was spent today is in the store now, and what was read there includes it."""
        today = self._day()
        for (day, _, key_id), usage in errand.booked.items():
            if day == today and usage.spend_nano_usd:
                spent = usage.spend_nano_usd
                self._stored[key_id] = self._stored.get(key_id, 0) + spent
                self._unstored[key_id] = max(0, self._unstored.get(key_id, 0) - spent)
        if errand.spent is not None and errand.day == today:
            self._stored = errand.spent

    def _put_back(self, booked: dict[Place, Usage]) -> None:
        for place, usage in self._booked.items():
            booked.setdefault(place, Usage()).add(usage)
        self._booked = booked

    def _day(self) -> int:
        day = int(self._clock.now() // DAY_S)
        if day != self._today:
            self._begin(day)
        return day

    def _begin(self, day: int) -> None:
        self._today = day
        self._stored = {}
        self._unstored = {}


@dataclass(slots=True)
class _Errand:
    """What one visit to the store brings there and takes along."""

    booked: dict[Place, Usage]
    day: int | None
    """Whose spend is to be read."""
    unless: Callable[[Connection], bool] | None
    is_done: bool = False
    spent: dict[str, int] | None = None

    def __call__(self, visit: Visit) -> None:
        if self.unless is not None or not self.booked:
            with visit.read() as connection:
                if self.unless is not None and self.unless(connection):
                    return
                if not self.booked:
                    self._read(connection)
        if self.booked:  # beside the look before: to write is to wait for other writers, for seconds if need be
            with visit.begin() as connection:
                _add(connection, self.booked)
                self._read(connection)
        self.is_done = True

    def _read(self, connection: Connection) -> None:
        if self.day is not None:
            self.spent = _spent(connection, self.day)


_COUNTS = ("requests", "prompt_tokens", "cached_prompt_tokens", "output_tokens", "spend_nano_usd")


def _add(connection: Connection, booked: dict[Place, Usage]) -> None:
    rows = [
        {
            "day": _EPOCH + timedelta(days=day),
            "tenant": tenant,
            "key_id": key_id,
            **{name: getattr(used, name) for name in _COUNTS},
        }
        # In one order everywhere: two processes must not wait for each other.
        for (day, tenant, key_id), used in sorted(booked.items())
    ]
    connection.execute(_upsert(connection.dialect.name), rows)


@cache
def _upsert(dialect: str) -> SqliteInsert | PostgresInsert:
    """Made once: 0.5 ms."""
    from predawn.proxy.tables import usage as table

    insert = insert_into(table, dialect)
    return insert.on_conflict_do_update(
        index_elements=[table.c.day, table.c.tenant, table.c.key_id],
        set_={name: table.c[name] + insert.excluded[name] for name in _COUNTS},
    )


def _spent(connection: Connection, day: int) -> dict[str, int]:
    """What keys with a limit spent on a day."""
    rows = connection.execute(_spending(), {"today": _EPOCH + timedelta(days=day)})
    return {key_id: int(spent) for key_id, spent in rows}


@cache
def _spending() -> Select[str, int]:
    from sqlalchemy import bindparam, func, select

    from predawn.proxy.tables import keys
    from predawn.proxy.tables import usage as table

    return (
        select(table.c.key_id, func.sum(table.c.spend_nano_usd))
        .join(keys, keys.c.id == table.c.key_id)
        .where(table.c.day == bindparam("today"), keys.c.nano_usd_per_day.is_not(None))
        .group_by(table.c.key_id)
    )


async def read_usage(store: Store, *, tenant: str | None = None, since: date | None = None) -> list[UsageRow]:
    """Usage by day, tenant and key; of one tenant, or of all for whoever runs the server."""
    from predawn.proxy.tables import usage as table

    query = table.select().order_by(table.c.day, table.c.tenant, table.c.key_id)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    if since is not None:
        query = query.where(table.c.day >= since)
    async with store.read() as connection:
        found = await connection.execute(query)
        return [
            UsageRow(
                row["day"],
                row["tenant"],
                row["key_id"],
                Usage(
                    requests=row["requests"],
                    prompt_tokens=row["prompt_tokens"],
                    cached_prompt_tokens=row["cached_prompt_tokens"],
                    output_tokens=row["output_tokens"],
                    spend_nano_usd=row["spend_nano_usd"],
                ),
            )
            for row in found.mappings()
        ]
