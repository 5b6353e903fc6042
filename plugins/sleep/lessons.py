"""What is learnt from a request that is over: what was saved, what was asked, what comes often."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from predawn.plugins.sleep.awake import STATE, Seen
from predawn.plugins.sleep.keeping import keep
from predawn.plugins.sleep.predictability import PREDICTABILITY
from predawn.plugins.sleep.shelf import ContextLimit
from predawn.plugins.sleep.triggers import Key, nears_window
from predawn.plugins.sleep.uses import Answered
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins import Exchange, Verdict
    from predawn.plugins.sleep.conversation import Conversation
    from predawn.plugins.sleep.discovery import Discovery
    from predawn.plugins.sleep.matches import Match
    from predawn.plugins.sleep.meters import SleepMeters
    from predawn.plugins.sleep.night import Night
    from predawn.plugins.sleep.places import Places
    from predawn.plugins.sleep.settings import SleepSettings
    from predawn.plugins.sleep.shelf import Shelf
    from predawn.plugins.sleep.triggers import Trigger
    from predawn.plugins.sleep.uses import Books
    from predawn.proxy.clock import Clock

log = logging.getLogger("predawn.sleep")
PROLONG_EVERY_S = 300.0
"""So exactly is it known which discovered context was unused for longest."""
MOST_PROLONGED = 10_000


@dataclass(slots=True)
class Lessons:
    """The part of the plugin that observes; off the path of requests."""

    settings: SleepSettings
    places: Places
    shelf: Shelf
    discovery: Discovery
    night: Night
    books: Books
    meters: SleepMeters
    clock: Clock
    prolonged: OrderedDict[Key, float] = field(default_factory=OrderedDict[Key, float])
    """When discovered contexts were last let live on."""

    async def on_done(self, exchange: Exchange) -> None:
        """Book what was used and learn from the request."""
        for upstream in {call.upstream for call in exchange.ledger.calls if call.outcome == "429"}:
            self.night.refused(self.places.place_of(upstream))  # also where another upstream answered in its place
        seen: Seen | None = exchange.state.pop(STATE, None)
        if seen is None or not seen.wish.sleeps or exchange.status >= 400:
            return
        try:
            if seen.match is not None:
                await self._book(exchange, seen, seen.match)
            if seen.conversation is not None and self.settings.discovers:
                await self._discover(exchange, seen, seen.conversation)
        except StoreError as exc:
            log.warning("a use of a context is not booked: %s", exc)

    async def _book(self, exchange: Exchange, seen: Seen, match: Match) -> None:
        is_wrong = _is_wrong(exchange.verdicts)
        answered = Answered(exchange.id, exchange.model, self.clock.now(), _measure(exchange), is_wrong)
        if seen.injected is None:
            await self.books.plain(match, answered)
        else:
            if seen.injected.kind == "served":
                answered = answered._replace(output_tokens=0)
            use, share = await self.books.used(seen.injected, answered)
            exchange.ledger.slept += share
            self.meters.used(use)
            if use.regret:
                self.meters.regretted(1)
        recalled = seen.recalled
        if recalled is not None and len(recalled.guesses) and seen.question:
            score = recalled.guesses.agreement(seen.question)
            await self.books.observe(match.tenant, match.context_id, exchange.model, PREDICTABILITY, score)
        self._tell(exchange, seen, match)
        await self._prolong(match)

    def _tell(self, exchange: Exchange, seen: Seen, match: Match) -> None:
        """Let the night know what makes the context a candidate."""
        trigger: Trigger | None = None
        if seen.calls_tools:
            trigger = "tool_calls"
        elif nears_window(exchange.ledger.prompt + exchange.ledger.output, self.settings.window_tokens):
            trigger = "truncation"
        if trigger is not None:
            self.night.happened(match.tenant, match.context_id, match.version, trigger)

    async def _prolong(self, match: Match) -> None:
        """A context that was discovered lives on because it is used."""
        key, now = Key(match.tenant, match.context_id), self.clock.monotonic()
        ttl_s = self.settings.discovered_ttl_s
        if now - self.prolonged.get(key, -math.inf) < min(PROLONG_EVERY_S, ttl_s / 10):
            return
        self.prolonged[key] = now
        if len(self.prolonged) > MOST_PROLONGED:
            self.prolonged.popitem(last=False)
        await self.shelf.prolong(match.tenant, match.context_id, self.clock.now() + ttl_s)

    async def _discover(self, exchange: Exchange, seen: Seen, conversation: Conversation) -> None:
        match = seen.match
        draft = self.discovery.saw(
            exchange.tenant,
            self.settings.namespace,
            exchange.model,
            conversation.messages,
            now=self.clock.now(),
            rule=seen.wish.rule,
            live=seen.wish.live,
            known_at=match.at if match is not None else 0,
        )
        if draft is None:
            return
        draft = replace(draft, expires_at=self.clock.now() + self.settings.discovered_ttl_s)
        try:
            context, came, made_room = await keep(self.shelf, self.night, exchange.tenant, draft, self.settings.limits)
        except ContextLimit as exc:
            log.debug("a context was discovered and not kept: %s", exc)
            self.meters.discovered("refused")
            return
        self.meters.discovered("evicted", made_room)
        if came == "created":
            self.meters.discovered("kept")
        if came != "same":
            self.night.happened(context.tenant, context.id, context.version, "seen")


def _is_wrong(verdicts: Sequence[Verdict]) -> bool:
    """Whether verifiers left a choice wrong: after what they mended, the last word is that it is right."""
    last = {verdict.choice: verdict.outcome for verdict in verdicts if verdict.outcome != "unsure"}
    return "violation" in last.values()


def _measure(exchange: Exchange) -> int | None:
    """The output tokens of an answer that can be compared with others."""
    is_whole = exchange.outcome == "ok" and bool(exchange.ledger.calls) and not exchange.ledger.estimated
    is_single = exchange.request.get("n") in (None, 1)
    return exchange.ledger.output if is_whole and is_single else None
