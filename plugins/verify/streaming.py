"""`gate`, `intervene` and `optimistic` around an answer: calls bring chunks, checks bring verdicts.

Each call to the upstream is heard by a task of its own, so that generation goes on whatever is being looked at. Chunks
and verdicts are acted upon where they come; the client's side is woken only where there is something to send, or a call
to be ended or begun. What becomes of both is said by the flow; here it is only done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from predawn.plugins import Chunk, Reply, RequestError
from predawn.plugins.calls import Refused, SideCall, answer
from predawn.plugins.verify.continuing import continued, room_left
from predawn.plugins.verify.dialects import reader_of, writer_of
from predawn.plugins.verify.mending import mend
from predawn.plugins.verify.modes.flow import Ask, Continue, Drop, Flow, Noted, Send
from predawn.plugins.verify.modes.rules import Rule
from predawn.plugins.verify.reading import (
    KEYS,
    Part,
    choice_in,
    finish_of,
    head_of,
    is_error,
    part_said,
    parts_of,
    shape_of,
)
from predawn.plugins.verify.result import HEADER, TRAILER
from predawn.plugins.verify.watching import SLICE, Watching, most_choices, sliced
from predawn.proxy.dispatch import HookError
from predawn.proxy.exchange import closing
from predawn.proxy.joining import Passing
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.fold import BodyChunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from predawn.plugins import CallNext, Exchange
    from predawn.plugins.calls.plain import Said
    from predawn.plugins.verify.continuing import Way
    from predawn.plugins.verify.dialects import Reader
    from predawn.plugins.verify.mending import Mending
    from predawn.plugins.verify.modes.flow import Action, Kept
    from predawn.plugins.verify.trace import Check
    from predawn.plugins.verify.watching import Plan, Tools
    from predawn.proxy.exchange import RouteName
    from predawn.proxy.joining import Take

MOST_UNSENT = 1024
"""Chunks that may wait for a client; beyond it the upstream has to."""
FEW_UNSENT = 3
"""So many are handed on one by one sooner than in one go."""
LATE_ROUTES = frozenset({"chat", "completions"})
"""Whose plain chunks leave as they came."""
AT_ONCE = 8
"""Choices whose last steps are cut before others get their turn."""
NO_PREFILL = frozenset({400, 404, 405, 415, 422, 501})
"""What upstreams say to a begun message that they do not continue."""


@dataclass(slots=True, eq=False)
class _Source:
    """A call that makes one choice of the answer, or all of them."""

    side: SideCall
    reader: Reader
    choice: int | None = None
    way: Way | None = None
    mending: Mending | None = None
    task: asyncio.Task[None] | None = None
    is_over: bool = False
    kept: dict[int, Kept] = field(default_factory=dict[int, "Kept"])
    """What stays in the answer, of choices that were cut off."""


@dataclass(frozen=True, slots=True)
class _Runs:
    """What one call brings together goes to the answer that it is part of."""

    answer: Streaming
    source: _Source

    def takes(self, first: Said) -> bool:
        return self.answer.takes_run(self.source, first)

    def taken(self, first: Said, texts: list[str], raws: list[bytes]) -> None:
        self.answer.taken_run(self.source, first, texts, raws)


class Streaming:
    """One answer, made by one call or by several."""

    def __init__(self, tools: Tools, plan: Plan, exchange: Exchange, call: CallNext) -> None:
        # a client that does not stream gets nothing early: what was wrong need not be in it
        mode = "gate" if plan.mode == "optimistic" and not exchange.stream else plan.mode
        self._flow = Flow(
            plan.verifiers,
            shape_of(exchange.route),
            partial(Rule, mode, plan.rules),
            longest_step=plan.longest_step,
            holds_thoughts=plan.holds_thoughts,
            is_sent_early=exchange.stream,
            most_choices=most_choices(exchange),
            mends=partial(mend, remark=plan.remark, replaces=plan.replaces),
        )
        self._watching = Watching(tools, plan, exchange, call, self._settled, self._flow.trace_of)
        self._exchange = exchange
        self._shape: RouteName = shape_of(exchange.route)
        self._is_text = exchange.route == "completions"
        self._writer = writer_of(exchange.route)
        self._call = call
        self._sources: list[_Source] = []
        self._makers: dict[int, list[_Source | None]] = {}
        """Which calls made a choice, where the first one does not make it to its end; `None` until there is one."""
        self._kept_tokens: dict[int, int] = {}
        self._out: deque[Chunk] = deque()
        self._take: Take[Chunk] | None = None
        """Where chunks go while the client's side waits for them."""
        self._reads_late = mode == "optimistic" and exchange.route in LATE_ROUTES
        """Plain chunks are sent where they come and read in rounds: in batches that costs a quarter as much."""
        self._rounds = tools.rounds if self._reads_late else tools.turns
        self._late: list[Said] = []
        """What was sent and is not read yet."""
        self._late_chars = 0
        self._to_do: deque[Action] = deque()
        self._is_doing = False
        self._to_cancel: list[_Source] = []
        self._to_go_on: dict[int, Mending] = {}
        self._error: BaseException | None = None
        self._is_broken = False
        """True once the client was told of an error by an event of the upstream's."""
        self._wake: asyncio.Future[None] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def reply(self) -> Reply:
        """Ask, and answer with what is verified. A refusal is the upstream's own."""
        side = SideCall(self._exchange, self._call, purpose="serve", keep=False)
        try:
            reply = await side.begin()
        except Refused as refused:
            return refused.reply()
        if reply is None:
            raise RequestError(504, "The deadline passed before an answer came.", type="server_error")
        chunks = Passing(self._chunks(_Source(side, reader_of(side.exchange.route))), self._passed_to)
        result = self._watching.result
        if self._exchange.stream:
            if self._exchange.parent is None:
                self._exchange.trail(TRAILER, self._told)
            return answer(side, chunks=chunks, more=result.as_usage, headers={HEADER: result.mode})
        async with closing(chunks):
            whole = [chunk async for chunk in chunks]
        return answer(side, chunks=_again(whole), more=result.as_usage, headers={HEADER: result.word})

    async def _told(self) -> str:
        return "" if self._is_broken else self._watching.result.as_field

    # -- chunks out

    async def _chunks(self, first: _Source) -> AsyncGenerator[Chunk, None]:
        rounds = self._rounds
        rounds.open += 1
        try:
            self._listen(first)
            while True:
                is_offered = False
                while self._out:
                    yield self._out.popleft()
                    if len(self._out) > FEW_UNSENT and self._take is not None and not is_offered:
                        is_offered = True
                        await self._offer_rest()
                self._has_room.set()
                if self._error is not None:
                    raise self._error
                if self._is_broken:
                    return
                if self._to_cancel:
                    await self._to_cancel.pop().side.cancel()
                elif self._to_go_on:
                    await self._go_on(next(iter(self._to_go_on)))
                elif self._flow.is_over and all(source.is_over for source in self._sources):
                    break
                else:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                    self._wake = None
            self._watching.close()
            for chunk in self._writer.end():
                yield chunk
        finally:
            rounds.open -= 1
            await self._close()

    async def _offer_rest(self) -> None:
        """Wait for a moment, in which all that is there may be taken: one by one each passes all that stands around."""

        def offer() -> None:
            self._send()
            self._woken()

        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        loop.call_soon(offer)
        await self._wake
        self._wake = None

    def _passed_to(self, take: Take[Chunk] | None) -> None:
        self._take = take

    def _send(self) -> None:
        """What may go is taken at once by whoever waits for it, or else waits until they have been woken."""
        out, wake = self._out, self._wake
        if out and self._take is not None and wake is not None and not wake.done() and self._take(out):
            out.clear()
        if out or self._to_cancel or self._to_go_on:
            self._woken()

    async def _close(self) -> None:
        self._take = None
        self._late.clear()
        self._watching.close()
        for source in self._sources:
            if source.task is not None:
                source.task.cancel()
            await source.side.close()

    def _woken(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # -- what comes in

    def _listen(self, source: _Source) -> None:
        self._sources.append(source)
        source.task = self._watching.tools.tasks.spawn(self._hear(source), "verify-hear")
        source.task.add_done_callback(partial(self._heard_out, source))

    async def _hear(self, source: _Source) -> None:
        error: Exception | None = None
        try:
            async with source.side as side:
                turns = (None, None) if self._reads_late else (self._rounds, _Runs(self, source))
                async for chunk in side.listen(partial(self._taken, source), *turns):
                    await self._heard(source, chunk)
                    if len(self._out) >= MOST_UNSENT:
                        self._has_room.clear()
                        await self._has_room.wait()
        except (UpstreamError, Refused, RequestError, HookError, ValueError) as exc:
            error = exc
        if source.side.stopped == "deadline" and not source.is_over:
            error = RequestError(504, "The deadline passed before the answer was whole.", type="server_error")
        await self._ended(source, error)
        self._woken()

    def _heard_out(self, source: _Source, task: asyncio.Task[None]) -> None:
        """Whatever a call ends by, nobody waits for it any more."""
        error = task.exception() if not task.cancelled() else None
        if error is not None or not source.is_over:
            upstream = self._exchange.upstream
            self._error = (
                self._error or error or UpstreamError(upstream, "truncated", "it was let go", sent_nothing=False)
            )
            self._woken()

    def _settled(self, check: Check) -> None:
        if check.is_stale:
            return
        try:
            if self._late and check.verdict is not None and check.verdict.outcome == "violation":
                self._catch_up()  # what the client has stays in the answer
            self._watching.heard(check)
            self._do(self._flow.settled(check))
        except BaseException as exc:  # the client waits for the answer, and nobody for the check
            self._error = self._error or exc
            self._woken()
            raise
        if self._flow.is_over:
            self._woken()

    def _taken(self, source: _Source, chunk: Chunk, said: Said | None) -> bool:
        """Whether a chunk could be cut and acted upon where it came, as nearly all can; the others are `_heard`."""
        size = len(said.text) if said is not None else len(chunk.raw) // 2
        if size > SLICE or len(self._out) >= MOST_UNSENT or isinstance(chunk, BodyChunk):
            return False
        if said is not None and self._reads_late and self._passes(said, chunk):
            return True
        if self._late:
            self._catch_up()
        if said is not None and (said.member == "text") is self._is_text:
            if not self._makers and source is self._sources[0]:
                if not source.is_over:
                    member = said.member
                    self._do(self._flow.added(said.choice, KEYS[member], member, said.text, chunk))
                return True
            parts = [part_said(said, chunk)]
        else:
            parts = source.reader.read(chunk)
            if not parts and not source.is_over:
                self._beside(source, chunk)
        for part in parts:
            if not source.is_over and (mine := self._own(source, part)) is not None:
                self._do(self._flow.said(mine))
        return True

    def takes_run(self, source: _Source, first: Said) -> bool:
        """Whether plain chunks are acted upon together."""
        is_only_maker = not self._makers and source is self._sources[0]
        return is_only_maker and (first.member == "text") is self._is_text and len(self._out) < MOST_UNSENT

    def taken_run(self, source: _Source, first: Said, texts: list[str], raws: list[bytes]) -> None:
        """Plain chunks that were read together."""
        if not source.is_over:
            self._do(self._flow.added_run(first.choice, KEYS[first.member], first.member, texts, raws))

    def _passes(self, said: Said, chunk: Chunk) -> bool:
        """Whether a chunk could be sent at once, to be read later."""
        size = len(said.text)
        if self._late_chars + size > SLICE:
            self._catch_up()
        take, wake = self._take, self._wake
        if take is None or wake is None or wake.done() or self._out or self._makers:
            return False
        if not self._flow.goes_on(said.choice, KEYS[said.member]) or not take((chunk,)):
            return False
        if not self._late:
            self._rounds.add(self)
        self._late.append(said)
        self._late_chars += size
        return True

    def read(self) -> bool:
        """Read what was sent meanwhile; there is never more than is read at once."""
        try:
            self._catch_up()
        except BaseException as exc:  # of a verifier's own boundary
            self._error = self._error or exc
            self._woken()
            raise
        return False

    def _catch_up(self) -> None:
        late, self._late, self._late_chars = self._late, [], 0
        actions: list[Action] = []
        at = 0
        while at < len(late):
            first = late[at]
            texts: list[str] = []
            while at < len(late) and (said := late[at]).choice == first.choice and said.member == first.member:
                texts.append(said.text)
                at += 1
            actions += self._flow.came(first.choice, KEYS[first.member], texts)
        self._do(actions)  # once the flow knows of all that was sent: the first check may stop the answer

    async def _heard(self, source: _Source, chunk: Chunk) -> None:
        for one in source.reader.events(chunk):
            parts = source.reader.read(one)
            if not parts and not source.is_over:
                self._beside(source, one)
            for part in parts:
                for number, piece in enumerate(sliced(part)):
                    if number:
                        await asyncio.sleep(0)
                    if not source.is_over and (mine := self._own(source, piece)) is not None:
                        self._do(self._flow.said(mine))

    def _own(self, source: _Source, part: Part) -> Part | None:
        """The part as the client is to see it; `None` if another call makes its choice by now."""
        index = part.choice if source.choice is None else source.choice
        if self._maker(index) is not source:
            return None
        if source.choice is None:
            return part
        if not part.pieces and part.finish is None:
            return None  # who speaks was said at the beginning
        data = part.chunk.data
        assert data is not None
        head = {**head_of(part.chunk), **self._flow.head}
        choice = {**choice_in(data), "index": index}
        if isinstance(delta := choice.get("delta"), dict):
            choice["delta"] = {name: value for name, value in delta.items() if name != "role"}
        return part._replace(choice=index, chunk=part.chunk.with_data({**head, "choices": [choice]}))

    def _maker(self, index: int) -> _Source | None:
        makers = self._makers.get(index)
        return makers[-1] if makers is not None else self._sources[0]

    def _beside(self, source: _Source, chunk: Chunk) -> None:
        """A chunk without choices: a comment, an error, filters' results, the usage."""
        is_alone = source is self._sources[0] and (chunk.data is None or len(self._sources) == 1)
        if is_error(chunk) or (is_alone and not chunk.is_last):
            self._out.append(chunk)
            self._send()

    async def _ended(self, source: _Source, error: Exception | None) -> None:
        self._catch_up()
        was_over, source.is_over = source.is_over, True
        if not was_over:
            self._watching.generated_at = perf_counter()
            self._keep(source)
        if error is None or was_over:
            for number, index in enumerate([source.choice] if source.choice is not None else self._flow.choices):
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
                if self._maker(index) is source:
                    self._do(self._flow.ended(index))
        elif self._exchange.stream and source.side.heard.error:
            self._is_broken = True
        elif source.mending is None or not self._is_asked_otherwise(source, source.mending, error):
            self._error = self._error or _as_known(error, self._exchange)

    # -- what is done

    def _do(self, actions: Sequence[Action]) -> None:
        """One after the other: to ask may have an older check passed over, whose verdict comes at once."""
        if not actions:
            return
        if len(actions) == 1 and not self._is_doing and isinstance(only := actions[0], Send):
            self._out += self._writer.write(only.chunk)
            self._send()
            return
        self._to_do += actions
        if self._is_doing:
            return
        self._is_doing = True
        try:
            self._do_all()
        finally:
            self._is_doing = False
        self._send()

    def _do_all(self) -> None:
        watching, to_do = self._watching, self._to_do
        while to_do:
            action = to_do.popleft()
            if isinstance(action, Send):
                self._out += self._writer.write(action.chunk)
            elif isinstance(action, Ask):
                watching.checks.add(action.check)
            elif isinstance(action, Drop):
                watching.checks.drop(action.check)
            elif isinstance(action, Noted):
                watching.note(action.check, action.deed)
            else:
                self._leave(action.choice, action.kept)
                if isinstance(action, Continue):
                    self._makers[action.choice].append(None)
                    self._to_go_on[action.choice] = action.mending

    def _leave(self, index: int, kept: Sequence[Kept]) -> None:
        """The call that made a choice is not needed for it any more."""
        self._to_go_on.pop(index, None)
        self._kept_tokens[index] = sum(one.tokens for one in kept)
        makers = self._makers.setdefault(index, [self._sources[0]])
        for maker, stays in zip(makers, kept, strict=True):
            if maker is not None:
                maker.kept[index] = stays
                if maker.is_over:
                    self._keep(maker)
        source = makers[-1]
        if source is None or source.is_over:
            return
        others = self._flow.choices if source.choice is None else []
        is_wanted = any(one != index and self._maker(one) is source and self._flow.is_open(one) for one in others)
        if not is_wanted and not self._may_begin_more(source):
            source.is_over = True
            self._watching.generated_at = perf_counter()
            self._keep(source)
            self._to_cancel.append(source)

    def _may_begin_more(self, source: _Source) -> bool:
        """Whether choices of the call have not even begun."""
        asked = self._exchange.request.get("n")
        expected = asked if isinstance(asked, int) and self._exchange.route == self._shape else 1
        return source.choice is None and len(self._flow.choices) < expected

    def _keep(self, source: _Source) -> None:
        """Say how much of a call is in the answer, where it is not all or its upstream does not tell."""
        usage = source.side.heard.usage
        if source.kept:
            tokens = {index: choice.tokens for index, choice in source.side.heard.choices.items()}
            thoughts = {index: self._flow.thoughts_of(index) for index in tokens} if source.choice is None else {}
            for index, (kept, thought) in source.kept.items():
                place = index if source.choice is None else 0
                tokens[place], thoughts[place] = kept, thought
            source.side.choose(output_tokens=sum(tokens.values()), reasoning_tokens=sum(thoughts.values()))
        elif source.choice is not None and not (usage is not None and usage.reasoning):
            source.side.choose(reasoning_tokens=self._flow.thoughts_of(source.choice))

    async def _go_on(self, index: int) -> None:
        """Have another call go on with a choice. Where limits or the upstream do not allow it, the choice ends here."""
        is_allowed = True
        try:
            await self._exchange.reserve(calls=1)
        except RequestError:
            is_allowed = False
        mending = self._to_go_on.pop(index, None)
        if mending is None:
            return  # it was stopped meanwhile
        watching, plan, exchange = self._watching, self._watching.plan, self._exchange
        kept = self._kept_tokens.get(index, 0)
        if room_left(exchange, kept) == 0:
            self._give_up(index, "length")
            return
        if not plan.tells_why and (mending.is_retry or mending.key.where != "tool_call"):
            mending = replace(mending, note="")
        attempt = watching.result.corrections + watching.result.retries
        changed = continued(exchange, mending, watching.tools.ways, kept_tokens=kept, attempt=attempt)
        if changed is None or not is_allowed:
            self._give_up(index, "content_filter")
            return
        watching.result.ways.append(changed.way)
        side = SideCall(
            exchange, self._call, changes=changed.changes, without=changed.without, purpose="serve", keep=False
        )
        reader = reader_of(exchange.route)
        source = self._makers[index][-1] = _Source(side, reader, index, changed.way, mending)
        watching.generated_at = 0.0
        self._listen(source)

    def _give_up(self, index: int, reason: str) -> None:
        """There is no way to go on: what is verified is all there will be."""
        self._watching.result.stopped = self._watching.result.stopped or reason == "content_filter"
        finish = finish_of(self._flow.head, index, reason, self._shape)
        (part,) = parts_of(finish, self._shape)
        self._do(self._flow.said(part))

    def _is_asked_otherwise(self, source: _Source, mending: Mending, error: Exception) -> bool:
        """Whether it was an upstream that takes no prefill: it is asked in the conversation, now and ever after."""
        assert source.choice is not None
        if source.way != "prefill" or source.side.heard.chunks:
            return False
        if not isinstance(error, Refused) or error.status not in NO_PREFILL:
            return False
        self._watching.tools.ways.refuse(self._exchange)
        self._makers[source.choice][-1] = None
        self._to_go_on[source.choice] = mending
        return True


async def _again(chunks: list[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        yield chunk


def _as_known(error: Exception, exchange: Exchange) -> Exception:
    """An error that the proxy can tell a client of in the middle of an answer."""
    if isinstance(error, Refused):
        said = error.body[:300].decode("utf-8", "replace")
        message = f"it would not go on with its answer ({error.status}: {said})"
        return UpstreamError(exchange.upstream, "protocol", message, sent_nothing=False)
    if isinstance(error, ValueError):
        return UpstreamError(exchange.upstream, "protocol", str(error), sent_nothing=False)
    return error
