"""The books of use: who used what, how old it was, what it saved, what it cost to make, and what was regretted.

Saved is what the running mean of answers without notes has more than this answer: of the same model, about the same
context. What was paid asleep is written off in equal parts over as many uses as were expected when it was decided, so
that the parts add up to the whole. Everything is booked off the request path, in batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from predawn.plugins.sleep.contexts import Use
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins.sleep.contexts import Anticipated, Notes
    from predawn.plugins.sleep.index import Match
    from predawn.plugins.sleep.shelf import Shelf
    from predawn.proxy.clock import Clock

log = logging.getLogger("predawn.sleep")
Kind: TypeAlias = Literal["notes", "hint", "served"]
EXPECTED_USES = 10.0
"""Over how many uses a cost is written off where no decision tells; the paper's ten queries for each context."""
FLUSH_S = 2.0
MOST_WAITING = 20_000
MOST_KEPT = 10_000
MEMORY = 200
MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Injected:
    """What went into one request."""

    match: Match
    kind: Kind
    notes: Notes | None = None
    answer: Anticipated | None = None

    @property
    def id(self) -> str:
        """Of what was used."""
        return self.notes.id if self.notes is not None else self.answer.id if self.answer is not None else ""

    @property
    def made_at(self) -> float:
        made = [one.made_at for one in (self.notes, self.answer) if one is not None]
        return min(made, default=0.0)

    @property
    def sleep_tokens(self) -> int:
        return sum(one.sleep_tokens for one in (self.notes, self.answer) if one is not None)


class Answered(NamedTuple):
    """What of a finished exchange counts here."""

    exchange_id: str
    model: str
    at: float
    output_tokens: int | None
    """`None` if the answer is no measure: an error, several choices, or none of the upstream's."""
    is_wrong: bool = False
    """A verifier said so."""


class _EstimateKey(NamedTuple):
    tenant: str
    context_id: str
    model: str
    kind: str


@dataclass(slots=True)
class _Mean:
    """A running mean: what the store had, and what came since."""

    count: int = 0
    mean: float = 0.0
    unwritten: list[float] = field(default_factory=list[float])

    def add(self, value: float) -> None:
        self.count += 1
        self.mean += (value - self.mean) / min(self.count, MEMORY)
        self.unwritten.append(value)


@dataclass(slots=True)
class _WriteOff:
    """What is left to be charged for something made asleep."""

    part: float
    left: int


class Books:
    """Counts in memory and writes behind."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        self._shelf = shelf
        self._clock = clock
        self._means: OrderedDict[_EstimateKey, _Mean] = OrderedDict()
        self._writeoffs: OrderedDict[tuple[str, str], _WriteOff] = OrderedDict()
        self._uses: deque[tuple[str, Use]] = deque()
        self._dirty: set[_EstimateKey] = set()
        self._flushing = asyncio.Lock()
        self.dropped = 0
        """Uses that were never written, because the store did not take them for long."""

    async def plain(self, match: Match, answered: Answered) -> None:
        """An answer about a context to which nothing was added."""
        if answered.output_tokens is not None:
            await self.observe(match.tenant, match.context_id, answered.model, "plain", answered.output_tokens)

    async def used(self, injected: Injected, answered: Answered) -> tuple[Use, float]:
        """Book a use; returns it with the share of what sleep cost that this exchange bears."""
        match = injected.match
        plain = await self._mean(_EstimateKey(match.tenant, match.context_id, answered.model, "plain"))
        saved = 0.0
        if plain.count and answered.output_tokens is not None:
            saved = plain.mean - answered.output_tokens
        if injected.kind != "served" and answered.output_tokens is not None:
            await self.observe(match.tenant, match.context_id, answered.model, "noted", answered.output_tokens)
        use = Use(
            context_id=match.context_id,
            version=match.version,
            notes_id=injected.id,
            exchange_id=answered.exchange_id,
            at=answered.at,
            model=answered.model,
            age_s=max(0.0, answered.at - injected.made_at),
            tokens_saved=saved,
            stale=match.stale,
            kind=injected.kind,
            regret=answered.is_wrong,
        )
        self._uses.append((match.tenant, use))
        if len(self._uses) > MOST_WAITING:
            self._uses.popleft()
            self.dropped += 1
        return use, await self._share(injected)

    async def observe(self, tenant: str, context_id: str, model: str, kind: str, value: float) -> None:
        """Let a value into a running mean."""
        key = _EstimateKey(tenant, context_id, model, kind)
        (await self._mean(key)).add(value)
        self._dirty.add(key)

    async def _mean(self, key: _EstimateKey) -> _Mean:
        """The running mean, read from the store the first time."""
        mean = self._means.get(key)
        if mean is None:
            known = await self._shelf.estimate(*key)
            mean = self._means.setdefault(key, _Mean(known.count, known.mean) if known is not None else _Mean())
            if len(self._means) > MOST_KEPT:
                self._means.popitem(last=False)
        self._means.move_to_end(key)
        return mean

    async def _share(self, injected: Injected) -> float:
        """What one use of something bears of what it cost."""
        key = (injected.match.tenant, injected.id)
        writeoff = self._writeoffs.get(key)
        if writeoff is None:
            writeoff = self._writeoffs.setdefault(key, await self._opened(injected))
            if len(self._writeoffs) > MOST_KEPT:
                self._writeoffs.popitem(last=False)
        self._writeoffs.move_to_end(key)
        if writeoff.left == 0:
            return 0.0
        writeoff.left -= 1
        return writeoff.part

    async def _opened(self, injected: Injected) -> _WriteOff:
        match = injected.match
        decision = await self._shelf.decision(match.tenant, match.context_id)
        expected = decision.get("expected_uses") if decision is not None else None
        count = max(1, round(expected if isinstance(expected, (int, float)) else EXPECTED_USES))
        before = await self._shelf.times_used(match.tenant, match.context_id, injected.id)
        return _WriteOff(injected.sleep_tokens / count, max(0, count - before))

    async def run(self) -> None:
        """Write behind until cancelled."""
        while True:
            await self._clock.sleep(FLUSH_S)
            try:
                await self.flush()
            except StoreError as exc:
                log.warning("uses of contexts wait for the store: %s", exc)

    async def flush(self) -> None:
        """Write what waits. Raises `StoreError`; what was not written waits on."""
        async with self._flushing:
            while self._uses:
                batch = [self._uses[place] for place in range(min(len(self._uses), MOST_AT_ONCE))]
                by_tenant: dict[str, list[Use]] = {}
                for tenant, use in batch:
                    by_tenant.setdefault(tenant, []).append(use)
                for tenant, uses in by_tenant.items():
                    await self._shelf.book(tenant, uses)  # again does no harm
                for written in batch:
                    if self._uses and self._uses[0] is written:
                        self._uses.popleft()
            while self._dirty:
                key = self._dirty.pop()
                mean = self._means.get(key)
                if mean is None:
                    continue
                values, mean.unwritten = mean.unwritten, []
                try:
                    await self._shelf.observe(*key, sum(values) / len(values), len(values))
                except BaseException:
                    mean.unwritten[:0] = values
                    self._dirty.add(key)
                    raise

    def forget(self, tenant: str, context_id: str) -> None:
        """A context was forgotten: what waits to be written of it is not, and a new one of its name begins anew."""
        for key in [key for key in self._means if (key.tenant, key.context_id) == (tenant, context_id)]:
            del self._means[key]
            self._dirty.discard(key)
        kept = [one for one in self._uses if (one[0], one[1].context_id) != (tenant, context_id)]
        self._uses.clear()
        self._uses.extend(kept)

    async def settle(self) -> None:
        """Wait for what is being written just now, lest it reach a new context of a forgotten one's name."""
        async with self._flushing:
            pass

    async def regret(self, tenant: str, exchange_id: str) -> int:
        """Note that an exchange's answer was wrong; returns how many uses that spoils. Raises `StoreError`."""
        await self.flush()
        return await self._shelf.regret(tenant, exchange_id)
