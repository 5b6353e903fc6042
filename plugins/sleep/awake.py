"""What happens to requests: matched to the context that they begin with, given its notes, and learnt from when over."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep import injection
from predawn.plugins.sleep.contexts import Message
from predawn.plugins.sleep.control import Wish, read_wish
from predawn.plugins.sleep.conversation import ROUTES, Conversation
from predawn.plugins.sleep.effort import is_foreseen, lower
from predawn.plugins.sleep.predictability import PREDICTABILITY, is_covered
from predawn.plugins.sleep.serving import may_be_served
from predawn.plugins.sleep.shelf import ContextLimit
from predawn.plugins.sleep.triggers import Key, ended_in_tool_calls, nears_window
from predawn.plugins.sleep.uses import Answered, Injected
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins import Chunk, Exchange
    from predawn.plugins.sleep.activity import Activity
    from predawn.plugins.sleep.contexts import Anticipated, Notes
    from predawn.plugins.sleep.discovery import Discovery
    from predawn.plugins.sleep.index import Index, Match
    from predawn.plugins.sleep.meters import SleepMeters
    from predawn.plugins.sleep.night import Night
    from predawn.plugins.sleep.places import Places
    from predawn.plugins.sleep.recall import Recall, Recalled
    from predawn.plugins.sleep.settings import SleepSettings
    from predawn.plugins.sleep.shelf import Shelf
    from predawn.plugins.sleep.triggers import Trigger
    from predawn.plugins.sleep.uses import Books
    from predawn.proxy.clock import Clock

log = logging.getLogger("predawn.sleep")
STATE = "sleep.seen"
PROLONG_EVERY_S = 3600.0
MOST_PROLONGED = 10_000


@dataclass(slots=True)
class Seen:
    """A request on its way, as sleep sees it."""

    wish: Wish
    conversation: Conversation | None = None
    """As it came, without notes."""
    match: Match | None = None
    question: str = ""
    recalled: Recalled | None = None
    injected: Injected | None = None
    calls_tools: bool = False


@dataclass(slots=True)
class Awake:
    """The part of the plugin that requests meet; made when the server starts."""

    settings: SleepSettings
    places: Places
    shelf: Shelf
    index: Index
    recall: Recall
    discovery: Discovery
    night: Night
    activity: Activity
    books: Books
    meters: SleepMeters
    clock: Clock
    prolonged: OrderedDict[Key, float] = field(default_factory=OrderedDict[Key, float])
    """When discovered contexts were last let live on."""

    async def on_request(self, exchange: Exchange) -> None:
        """Send sleep away from the upstream, and put in what is known. Raises `RequestError` for senseless wishes."""
        place = self.places.of(exchange.model)
        exchange.scope.callback(self.night.ended, place)
        self.night.began(place)
        self.activity.came(place)
        if exchange.route not in ROUTES:
            return
        wish = read_wish(exchange.control, Wish(rule=self.settings.split))
        seen = exchange.state[STATE] = Seen(wish)
        if not wish.sleeps:
            self.meters.skipped()
            return
        has_any = self.index.has(exchange.tenant, self.settings.namespace, exchange.model)
        if has_any or self.settings.discover:
            seen.conversation = Conversation.of(exchange.route, exchange.request)
        if seen.conversation is None or not has_any:
            self.index.lookups["miss"] += 1
            return
        try:
            await self._look_up(exchange, seen, seen.conversation)
        except StoreError as exc:
            log.warning("a request goes without its notes: %s", exc)

    async def _look_up(self, exchange: Exchange, seen: Seen, conversation: Conversation) -> None:
        messages = conversation.messages
        match = self._match(exchange, seen.wish, messages)
        if match is None:
            return
        seen.match = match = await self.index.with_notes(match)
        seen.question = injection.said_last(messages, match)
        notes = match.notes if self._is_usable(match, exchange) else None
        seen.recalled = recalled = await self.recall.of(match, notes)
        self.night.used(match.tenant, match.context_id, match.version)
        if self.settings.inject == "never":
            exchange.decide("sleep", "left out", context=match.context_id, why="inject: never")
            return
        answer = self._answer(recalled, seen.question)
        if answer is not None and self._serves(exchange, answer, match, len(messages)):
            self._serve(exchange, seen, answer)
        elif notes is not None:
            is_sure = answer is not None or self.settings.inject == "always"
            if not is_sure and not is_covered(seen.question, recalled.words):
                exchange.decide("sleep", "left out", context=match.context_id, notes=notes.id, why="not covered")
            else:
                self._inject(exchange, seen, notes, answer)

    def _match(self, exchange: Exchange, wish: Wish, messages: Sequence[Message]) -> Match | None:
        """The context that the request names, or else the longest one that it begins with."""
        place = (exchange.tenant, self.settings.namespace, exchange.model)
        if wish.context is not None:
            match = self.index.named(*place, wish.context, messages, rule=wish.rule)
            if match is not None:
                self.index.lookups["stale" if match.stale else "hit"] += 1
                return match
            exchange.decide("sleep", "unknown context", context=wish.context[:128])
        return self.index.match(*place, messages, wish.rule, live=wish.live)

    def _is_usable(self, match: Match, exchange: Exchange) -> bool:
        if match.notes is None or (match.stale and not self.settings.use_stale):
            return False
        if match.tenant != exchange.tenant:
            log.error("notes of another tenant were matched; they are not used")
            return False
        return True

    def _answer(self, recalled: Recalled, question: str) -> Anticipated | None:
        return recalled.answer_to(question) if question and self.settings.serve != "off" else None

    def _serves(self, exchange: Exchange, answer: Anticipated, match: Match, messages: int) -> bool:
        return (
            self.settings.serve == "exact"
            and exchange.route == "chat"
            and not match.stale
            and may_be_served(answer, match, exchange.request, exchange.model, messages)
        )

    def _serve(self, exchange: Exchange, seen: Seen, answer: Anticipated) -> None:
        assert seen.match is not None
        seen.injected = Injected(seen.match, "served", answer=answer)
        self._note(exchange, seen.injected)

    def _inject(self, exchange: Exchange, seen: Seen, notes: Notes, answer: Anticipated | None) -> None:
        conversation, match = seen.conversation, seen.match
        assert conversation is not None
        assert match is not None
        style = self.style_of(exchange.model)
        text = notes.text[: self.settings.max_notes_chars]
        is_hinted = answer is not None and style == "full" and not match.stale
        if answer is not None and is_hinted:
            text = injection.with_hint(text, answer.question, answer.answer, self.settings.max_notes_chars)
        messages = injection.noted(conversation.messages, match, style, notes.id, text)
        if messages is None:
            exchange.decide("sleep", "left out", context=match.context_id, notes=notes.id, why="no place")
            return
        conversation.put(exchange.edit(), messages)
        self._lower_effort(exchange, seen, match)
        seen.injected = Injected(match, "hint" if is_hinted else "notes", notes, answer if is_hinted else None)
        self._note(exchange, seen.injected)

    def _lower_effort(self, exchange: Exchange, seen: Seen, match: Match) -> None:
        """Fresh notes that hold what the question is about spare the model the thinking."""
        effort, recalled = self.settings.effort_with_notes, seen.recalled
        if match.stale or recalled is None:
            return
        if self.settings.inject == "covered" and not is_foreseen(seen.question, recalled):
            return
        if lower(exchange.edit(), exchange.route, self.places.less_thought(exchange.model, effort)):
            exchange.decide("sleep", "lowered effort", context=match.context_id, effort=effort)

    def _note(self, exchange: Exchange, injected: Injected) -> None:
        """Say on the record what was put in and where it comes from. A budget may go by `fresh`."""
        match, notes, answer = injected.match, injected.notes, injected.answer
        shown: dict[str, Any] = {
            "by": "sleep",
            "kind": injected.kind,
            "fresh": not match.stale,
            "context": match.context_id,
            "version": match.version,
            "age_s": round(max(0.0, self.clock.now() - injected.made_at), 3),
        }
        if notes is not None:
            shown |= {"id": notes.id, "notes_version": notes.version, "tokens": notes.tokens, "model": notes.model}
        if answer is not None:
            shown |= {"answer": answer.id}
        exchange.notes.append(shown)
        exchange.decide("sleep", injected.kind, context=match.context_id, version=match.version, stale=match.stale)

    def style_of(self, model: str) -> Any:
        """How notes are written for a model."""
        return self.places.style_of(model) if self.settings.style == "auto" else self.settings.style

    def answer_for(self, exchange: Exchange) -> str | None:
        """What is to be answered without asking the upstream."""
        seen: Seen | None = exchange.state.get(STATE)
        if seen is None or seen.injected is None or seen.injected.kind != "served":
            return None
        assert seen.injected.answer is not None
        return seen.injected.answer.answer

    def watcher(self, exchange: Exchange) -> Any:
        """Looks whether an answer ends in tool calls, where a context waits for a moment to be slept on."""
        seen: Seen | None = exchange.state.get(STATE)
        if seen is None or seen.match is None or seen.match.notes_id is not None or exchange.route != "chat":
            return None

        def watch(chunk: Chunk) -> Chunk:
            for choice in (chunk.data or {}).get("choices") or ():
                if ended_in_tool_calls([choice.get("finish_reason")]):
                    seen.calls_tools = True
            return chunk

        return watch

    # When it is over.

    async def on_done(self, exchange: Exchange) -> None:
        """Book what was used and learn from the request."""
        calls = exchange.ledger.calls
        if exchange.status == 429 and calls and calls[-1].outcome == "429":
            self.night.refused(self.places.place_of(calls[-1].upstream))
        seen: Seen | None = exchange.state.pop(STATE, None)
        if seen is None or not seen.wish.sleeps or exchange.status >= 400:
            return
        try:
            if seen.match is not None:
                await self._book(exchange, seen, seen.match)
            if seen.conversation is not None and self.settings.discover:
                await self._discover(exchange, seen, seen.conversation)
        except StoreError as exc:
            log.warning("a use of a context is not booked: %s", exc)

    async def _book(self, exchange: Exchange, seen: Seen, match: Match) -> None:
        answered = Answered(exchange.id, exchange.model, self.clock.now(), _measure(exchange))
        if seen.injected is None:
            await self.books.plain(match, answered)
        else:
            if seen.injected.kind == "served":
                answered = answered._replace(output_tokens=0)
            use, share = await self.books.used(seen.injected, answered)
            exchange.ledger.slept += share
            self.meters.used(use)
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
            context, came = await self.shelf.put(exchange.tenant, draft, most=self.settings.max_contexts)
        except ContextLimit as exc:
            log.info("a context was discovered and not kept: %s", exc)
            return
        if came != "same":
            self.night.happened(context.tenant, context.id, context.version, "seen")


def _measure(exchange: Exchange) -> int | None:
    """The output tokens of an answer that can be compared with others."""
    is_whole = exchange.outcome == "ok" and bool(exchange.ledger.calls) and not exchange.ledger.estimated
    is_single = exchange.request.get("n") in (None, 1)
    return exchange.ledger.output if is_whole and is_single else None
