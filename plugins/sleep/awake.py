"""What happens to requests: matched to the context that they begin with, and given its notes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep import injection
from predawn.plugins.sleep.contexts import Message
from predawn.plugins.sleep.control import Wish, read_wish
from predawn.plugins.sleep.conversation import ROUTES, Conversation
from predawn.plugins.sleep.effort import is_foreseen, lower, thinks
from predawn.plugins.sleep.predictability import is_covered
from predawn.plugins.sleep.serving import may_be_served
from predawn.plugins.sleep.toolgaps import waits_for_tools
from predawn.plugins.sleep.undoing import REFUSALS, Change
from predawn.plugins.sleep.uses import Injected
from predawn.proxy.prompt_size import BYTES_PER_TOKEN
from predawn.proxy.resilience import retry_after_s
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins import Chunk, Exchange, Reply
    from predawn.plugins.sleep.activity import Activity
    from predawn.plugins.sleep.contexts import Anticipated, Notes
    from predawn.plugins.sleep.index import Index, Match
    from predawn.plugins.sleep.meters import SleepMeters
    from predawn.plugins.sleep.night import Night
    from predawn.plugins.sleep.places import Places
    from predawn.plugins.sleep.prompts import Style
    from predawn.plugins.sleep.recall import Recall, Recalled
    from predawn.plugins.sleep.settings import SleepSettings
    from predawn.proxy.clock import Clock

log = logging.getLogger("predawn.sleep")
STATE = "sleep.seen"


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
    change: Change | None = None
    calls_tools: bool = False


@dataclass(slots=True)
class Awake:
    """The part of the plugin that requests meet; made when the server starts."""

    settings: SleepSettings
    places: Places
    index: Index
    recall: Recall
    night: Night
    activity: Activity
    meters: SleepMeters
    clock: Clock

    async def on_request(self, exchange: Exchange) -> None:
        """Send sleep away from the upstream, and put in what is known. Raises `RequestError` for senseless wishes."""
        place = self.places.of(exchange.model)
        exchange.scope.callback(self.night.ended, place)
        ended = self.night.began(place)
        self.activity.came(place)
        if ended:  # let them hang up first: an upstream that hears of the end later works on for sleep meanwhile
            await asyncio.sleep(0)
        if exchange.route not in ROUTES:
            return
        wish = read_wish(exchange.control, Wish(rule=self.settings.split))
        seen = exchange.state[STATE] = Seen(wish)
        if not wish.sleeps:
            self.meters.skipped()
            return
        has_any = self.index.has(exchange.tenant, self.settings.namespace, exchange.model)
        if has_any or self.settings.discovers:
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
            why = self._why_left_out(exchange, seen, notes, recalled, answer)
            if why:
                exchange.decide("sleep", "left out", context=match.context_id, notes=notes.id, why=why)
            else:
                self._inject(exchange, seen, notes, answer)

    def _why_left_out(
        self, exchange: Exchange, seen: Seen, notes: Notes, recalled: Recalled, answer: Anticipated | None
    ) -> str:
        """Why notes would not help with the question; empty if they would."""
        if self.settings.inject == "always":
            return ""
        is_foreseen_ = answer is not None or is_foreseen(seen.question, recalled)
        if not is_foreseen_ and not is_covered(seen.question, recalled.words):
            return "not covered"
        # The bundled model answers from notes at once; thinking with them it is right half as often as without.
        if notes.provenance.get("style") == "terse" and exchange.route == "chat":
            members = self.places.less_thought(exchange.model, self.settings.effort_with_notes)
            is_fresh = seen.match is not None and not seen.match.stale
            if thinks(exchange.request, members, lowers=is_foreseen_ and is_fresh):
                return "thinks"
        return ""

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
        if self._is_full(exchange, notes):
            exchange.decide("sleep", "left out", context=match.context_id, notes=notes.id, why="window")
            return
        style: Style = "terse" if notes.provenance.get("style") == "terse" else "full"
        text = notes.text[: self.settings.max_notes_chars]
        is_hinted = answer is not None and style == "full" and not match.stale
        if answer is not None and is_hinted:
            text = injection.with_hint(text, answer.question, answer.answer, self.settings.max_notes_chars)
        put = injection.noted(conversation.messages, match, style, notes.id, text)
        if put is None:
            exchange.decide("sleep", "left out", context=match.context_id, notes=notes.id, why="no place")
            return
        conversation.put(exchange.edit(), put.messages)
        seen.change = Change(put.put, put.gap)
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
        edited = exchange.edit()
        before = dict(edited)
        if lower(edited, exchange.route, self.places.less_thought(exchange.model, effort)):
            if seen.change is not None:
                seen.change.saw(before, edited)
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

    def _is_full(self, exchange: Exchange, notes: Notes) -> bool:
        """Whether notes might not fit into the model's window any more."""
        window = self.settings.window_tokens
        return window is not None and len(exchange.body) // BYTES_PER_TOKEN + notes.tokens > window

    def undo(self, exchange: Exchange, status: int) -> bool:
        """Take out what was put in, because the upstream refused the request; False if nothing was, or can be."""
        seen: Seen | None = exchange.state.get(STATE)
        if status not in REFUSALS or seen is None or seen.change is None or not seen.change.undo(exchange):
            return False
        seen.change = seen.injected = None
        exchange.notes[:] = [note for note in exchange.notes if note.get("by") != "sleep"]
        exchange.decide("sleep", "taken out", status=status)
        return True

    def saw(self, exchange: Exchange, reply: Reply) -> None:
        """The upstream's answer to a person begins. Where it is a refusal, sleep keeps away as long as it asks for."""
        if reply.status == 429 and exchange.upstream:
            self.night.refused(self.places.place_of(exchange.upstream), retry_after_s(reply.headers, self.clock))

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
        if seen is None or seen.match is None or seen.match.notes_id is not None:
            return None

        def watch(chunk: Chunk) -> Chunk:
            if not seen.calls_tools and waits_for_tools(exchange.route, chunk):
                seen.calls_tools = True
            return chunk

        return watch
