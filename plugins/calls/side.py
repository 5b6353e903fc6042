"""One more call of an exchange: sent, heard, cancelled and booked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, TypeVar

from predawn.plugins import Chunk, Exchange, Reply
from predawn.plugins.calls.bodies import side_body
from predawn.plugins.calls.booking import book, own_tokens, rebook, see_count, with_counted_prompt
from predawn.plugins.calls.heard import Heard
from predawn.plugins.calls.plain import Said, said_plainly
from predawn.plugins.calls.refused import Refused, body_of_refusal
from predawn.plugins.calls.taking import SLICE_S, Turns, Untaken
from predawn.plugins.calls.tokens import Entry, Tokens
from predawn.proxy.exchange import tapped
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.sse import EventTooLargeError, event_chunk, split_events

if TYPE_CHECKING:
    from predawn.plugins import CallNext

SidePurpose: TypeAlias = Literal["serve", "sample", "probe", "verify"]
Stopped: TypeAlias = Literal["", "cancelled", "deadline"]
Take: TypeAlias = Callable[[Chunk, Said | None], bool]
"""Takes a chunk, of which a plain one is read already, or says that it cannot without waiting."""


class TakesRuns(Protocol):
    """Takes several plain chunks at a time, where a `Take` is given one."""

    def takes(self, first: Said) -> bool:
        """Whether chunks that add to the same text as this one are taken together now."""
        ...

    def taken(self, first: Said, texts: list[str], raws: list[bytes]) -> None:
        """They came: what each adds, and as what event."""
        ...


T = TypeVar("T")
LONGEST_RUN = 512
"""Characters that are taken together before others get their turn."""
TURNS = 100
"""Rounds of the event loop that an interrupted task gets to let go of what it waits for."""
OPEN = "calls.open"
"""Key of `exchange.state`: the side calls that are not over."""
GUESSED = "calls.guessed"
"""Key of `exchange.state`: those that are over and whose prompt nobody counted."""


class SideCall:
    """One call to a model for an exchange, beside or in place of its own. Use it once, as a context.

    Nothing is sent before somebody listens: by iterating, `whole()` or `begin()`, which raise `Refused` for an error
    that the upstream answered, and `UpstreamError` or `RequestError` where no answer came or none to its end.
    `cancel()` may be called by anybody at any time. Several tasks may listen, to all that comes if `keep`. Leaving the
    context, or the end of the client's exchange, closes the upstream's connection.

    `call` is `call_next`, or `App.send` to go around plugins. `changes` are members of the request to set, `without`
    those to leave out; everything else goes out as the client wrote it. `purpose` is where its tokens are booked unless
    `choose()` makes it the answer: "sample" and "probe" as discarded, "verify" as verify; "serve" is chosen from the
    start. `keep` remembers its chunks, which `answer` needs. It is stopped after `timeout_s`, and at the exchange's
    deadline.
    """

    __slots__ = (
        "_call",
        "_count",
        "_entry",
        "_followers",
        "_interrupted",
        "_is_begun",
        "_iterator",
        "_keep",
        "_kept_reasoning",
        "_kept_tokens",
        "_last",
        "_listener",
        "_reads_plainly",
        "_run",
        "_said",
        "_serving",
        "_take",
        "_timeout_s",
        "_timer",
        "_turns",
        "chunks",
        "exchange",
        "failure",
        "heard",
        "is_chosen",
        "is_over",
        "is_whole",
        "parent",
        "purpose",
        "reply",
        "stopped",
    )

    def __init__(
        self,
        exchange: Exchange,
        call: CallNext,
        *,
        changes: Mapping[str, Any] | None = None,
        without: Collection[str] = (),
        purpose: SidePurpose = "sample",
        stream: bool = True,
        keep: bool = True,
        timeout_s: float | None = None,
    ) -> None:
        body = side_body(exchange, changes, without, stream=stream)
        child = exchange.child(body, purpose=purpose, stream=stream)
        if changes is not None and isinstance(model := changes.get("model"), str):
            child.model = child.alias = model
        self.parent = exchange
        self.exchange = child
        """The child: its verdicts, decisions and ledger are this call's alone."""
        self.purpose: SidePurpose = purpose
        self.heard = Heard(exchange.route)
        self._reads_plainly = exchange.route in ("chat", "completions")
        self.reply: Reply | None = None
        """Status and headers, once they are there."""
        self.stopped: Stopped = ""
        """Why it was not heard to its end; empty while it runs and for one that ended by itself."""
        self.failure: Exception | None = None
        """What kept it from coming to its end, if it was not stopped."""
        self.chunks: list[Chunk] = []
        """What came so far, if `keep`."""
        self.is_over = False
        """True once it is closed and booked."""
        self.is_whole = False
        """True if it came to its own end."""
        self.is_chosen = purpose == "serve"
        self._call = call
        self._keep = keep
        self._kept_tokens: int | None = None
        self._kept_reasoning: int | None = None
        self._timeout_s = timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._is_begun = False
        self._iterator: AsyncIterator[Chunk] | None = None
        self._last: Chunk | None = None
        self._count = 0
        """Of the chunks that came."""
        self._take: Take | None = None
        self._turns: Turns | None = None
        self._run: TakesRuns | None = None
        self._said: Said | None = None
        """What the last chunk says, where it is a plain one."""
        self._listener: asyncio.Task[Any] | None = None
        """The task that waits for this call."""
        self._interrupted = False
        self._followers: list[asyncio.Future[None]] = []
        self._entry: Entry | None = None
        self._serving: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, exc: object, trace: object) -> None:
        await self.close()

    # -- listening

    async def begin(self) -> Reply | None:
        """Send it; the reply's status and headers, or `None` if it was stopped before they came."""
        while self._is_begun and self.reply is None and not self.is_over:
            await self._more()  # another task has sent it
        if self._is_begun or self.is_over:
            if self.reply is None and self.failure is not None:
                raise self.failure
            return self.reply
        self._is_begun = True
        self._open()
        if self.stopped:  # the deadline has passed, or there is nobody to ask for
            await self.close()
            return None
        try:
            reply = await self._wait(self._call(self.exchange))
            if reply is not None and not self.is_over and not self.stopped:
                self.reply = reply
                if not reply.ok:
                    body = await self._wait(body_of_refusal(reply))
                    raise Refused(reply, body or b"")
                self._adopt()
                self._tell()
        except BaseException as exc:
            await self._failed(exc)
            raise
        if self.reply is None:
            await self.close()
            if self._entry is not None:  # else somebody is about to close it, and what it may have got after all
                await self.exchange.close()
        return self.reply

    def _open(self) -> None:
        parent = self.parent
        if parent.is_closed:
            self.stopped = "cancelled"
            return
        parent.end_with(self.close)
        parent.state.setdefault(OPEN, set()).add(self)
        limits = [self._timeout_s] if self._timeout_s is not None else []
        if parent.deadline is not None:
            limits.append(parent.deadline - perf_counter())
        if limits:
            left = min(limits)
            if left <= 0:
                self.stopped = "deadline"
            else:
                self._timer = asyncio.get_running_loop().call_later(left, self._stop, "deadline")

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """What comes from now on."""
        return _Listening(self, self._count)

    async def chunk_behind(self, at: int) -> tuple[Chunk, int]:
        """The chunk that follows the first `at` of them, and how many there are with it.

        Raises `StopAsyncIteration` where there is none, and `RuntimeError` for one that has gone by and was not kept.
        """
        while at >= self._count:
            if self._listener is None or self.is_over:
                return await self._untaken(), self._count
            await self._more()
            if self.failure is not None and at >= self._count:
                raise self.failure
        if not self._keep:
            raise RuntimeError("another task listens to this call, which keeps no chunks: make it with keep=True")
        return self.chunks[at], at + 1

    async def _untaken(self) -> Chunk:
        until = perf_counter() + SLICE_S
        while True:
            chunk = await self._next()
            if self._take is None or isinstance(self._iterator, Untaken) or not self._take(chunk, self._said):
                return chunk
            if perf_counter() > until:  # all of it may be there already
                await self._wait(asyncio.sleep(0))
                until = perf_counter() + SLICE_S

    async def _next(self) -> Chunk:
        reply = await self.begin() if self._iterator is None else self.reply
        if reply is None or self.is_over or self.stopped:
            await self.close()
            raise StopAsyncIteration
        iterator = self._iterator = self._iterator or self._chunks_of(reply)
        if self._last is not None:
            self._last.forget()
        try:
            chunk = await self._wait(anext(iterator))
        except StopAsyncIteration:
            await self._ended()
            raise
        except EventTooLargeError as exc:
            error = UpstreamError(self.exchange.upstream, "protocol", str(exc), sent_nothing=False)
            await self._failed(error)
            raise error from exc
        except BaseException as exc:
            await self._failed(exc)
            raise
        if chunk is None or self.is_over:
            await self.close()
            raise StopAsyncIteration
        if not isinstance(iterator, Untaken):
            is_as_it_came = self._reads_plainly and chunk.origin is None
            self._said = said_plainly(chunk.raw) if is_as_it_came else None
            self._saw(chunk, self._said)
        self._last = chunk
        return chunk

    def listen(self, take: Take, turns: Turns | None = None, run: TakesRuns | None = None) -> Self:
        """Iterate what this returns: `take` is given each chunk first, and what it takes needs no task to be woken.

        It is called from the read callback of the connection, with what a plain chunk says; it must not wait and must
        not be given back what it has returned `True` for. Nothing that follows a chunk that it did not take is read
        before that one has been iterated over. With `turns` it is called when these say, with all that came meanwhile;
        and what plain chunks add to one text goes to `run` instead, where that takes it.
        """
        self._take = take
        self._run = run
        self._turns = turns
        return self

    def _chunks_of(self, reply: Reply) -> AsyncIterator[Chunk]:
        if self._take is not None and reply.is_raw and reply.source is not None and reply.split is split_events:
            source = tapped(reply.source)
            if source is not None:
                return Untaken(
                    source,
                    self._offer,
                    self.exchange.upstream,
                    self._turns,
                    self._offer_run if self._run is not None else None,
                )
        return aiter(reply.chunks)

    def _offer(self, event: bytes) -> Chunk | None:
        """An event that has just been read; the chunk if it was not taken."""
        assert self._take is not None
        if self.is_over or self.stopped:
            return None
        said = said_plainly(event) if self._reads_plainly else None
        chunk = Chunk(event) if said is not None else event_chunk(event)
        self._saw(chunk, said)
        return None if self._take(chunk, said) else chunk

    def _offer_run(self, events: deque[bytes]) -> bool:
        """Take the events in front that add to one text, if there are any and they are wanted so."""
        run = self._run
        if run is None or len(events) < 2 or not self._reads_plainly or self.is_over or self.stopped:
            return False
        first = said_plainly(events[0])
        if first is None or len(first.text) > LONGEST_RUN or not run.takes(first):
            return False
        texts, size = [first.text], len(first.text)
        for event in islice(events, 1, None):
            said = said_plainly(event)
            if said is None or said.choice != first.choice or said.member != first.member:
                break
            size += len(said.text)
            if size > LONGEST_RUN:
                break
            texts.append(said.text)
        raws = [events.popleft() for _ in texts]
        self.heard.saw_run(first, texts)
        self._count += len(raws)
        if self._keep:
            self.chunks += map(Chunk, raws)
        if self._followers:
            self._tell()
        run.taken(first, texts, raws)
        return True

    def _saw(self, chunk: Chunk, said: Said | None) -> None:
        if said is not None:
            self.heard.saw_plainly(said)
        else:
            self.heard.saw(chunk)
        self._count += 1
        if self._keep:
            self.chunks.append(chunk)
        if self._followers:
            self._tell()

    async def whole(self) -> Heard:
        """Listen to the end, or until it is stopped."""
        while not self.is_over:
            await self._step()
        if self.failure is not None:
            raise self.failure
        return self.heard

    async def _step(self) -> None:
        """Until something more has come, whoever waits for it."""
        if self._listener is not None:
            await self._more()
        else:
            with suppress(StopAsyncIteration):
                await self._untaken()

    async def follow(self) -> AsyncIterator[Chunk]:
        """Its chunks from the first, the rest as they come, whoever listens. It ends and fails as it does.

        Needs `keep`.
        """
        at = 0
        while True:
            if at < len(self.chunks):
                at += 1
                yield self.chunks[at - 1]
            elif self.is_over:
                break
            else:
                await self._step()
        if self.failure is not None:
            raise self.failure

    async def _more(self) -> None:
        """Wait until something has come, or it is over."""
        more: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._followers.append(more)
        await more

    def _tell(self) -> None:
        for follower in self._followers:
            if not follower.done():
                follower.set_result(None)
        self._followers.clear()

    async def _wait(self, awaited: Awaitable[T]) -> T | None:
        """Wait for the upstream; `None` if the call is stopped meanwhile."""
        task = asyncio.current_task()
        assert task is not None
        assert self._listener is None, "only one task may listen to a call"
        self._listener = task
        before = task.cancelling()
        is_ended = False
        try:
            result = await awaited
            is_ended = True
            return result
        except asyncio.CancelledError:
            if self._interrupted and task.uncancel() <= before:
                self._interrupted = False
                return None
            self._interrupted = False
            raise
        finally:
            self._listener = None
            if is_ended and self._interrupted:  # it ended all the same
                task.uncancel()

    async def _ended(self) -> None:
        heard = self.heard
        self.is_whole = not heard.error and (heard.is_whole or heard.is_finished)
        if not self.is_whole:
            upstream = self.exchange.upstream
            exc = UpstreamError(upstream, "truncated", "the stream ended without its end mark", sent_nothing=False)
            if heard.error:
                exc = UpstreamError(upstream, "protocol", heard.error, sent_nothing=False)
            await self._failed(exc)
            raise exc
        await self.close()

    async def _failed(self, exc: BaseException) -> None:
        """Close it; the call that was lost on the way says so."""
        if isinstance(exc, Exception) and not self.stopped:
            self.failure = self.failure or exc
        call = self.exchange.ledger.own_call
        if isinstance(exc, UpstreamError) and not exc.sent_nothing and call is not None:
            call.outcome = exc.reason
        await self.close()

    # -- stopping

    def _stop(self, why: Stopped) -> None:
        if self.is_over or self.stopped:
            return
        self.stopped = why
        if self._listener is not None and self._listener is not asyncio.current_task():
            self._interrupted = True
            self._listener.cancel()

    async def cancel(self) -> None:
        """Close the upstream's connection now; who is listening finds the call ended."""
        self._stop("cancelled")
        await self.close()

    async def close(self) -> None:
        """Stop it if it runs, close what it opened, book what it cost. Does nothing the second time."""
        if self.is_over:
            return
        if not self.is_whole and self._is_begun:
            self._stop("cancelled")
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._release()
        finally:
            try:
                if not self.is_whole:
                    for call in self.exchange.ledger.calls:
                        if call.outcome == "pending":
                            call.outcome = "cancelled"
                await self.exchange.close()
            finally:
                self._book()
                self._tell()
                self._take = self._run = None  # no circle is left to be collected
                if self._listener is None:
                    self._iterator = None

    async def _release(self) -> None:
        """Let go of the reply, once whoever waits for it has been interrupted."""
        for _ in range(TURNS):  # bounded: that task may be waiting for this one
            if self._listener is None or self._listener is asyncio.current_task():
                break
            await asyncio.sleep(0)
        if self._iterator is not None and self._listener is None:
            aclose = getattr(self._iterator, "aclose", None)
            if aclose is not None:
                await aclose()

    # -- what it cost

    @property
    def tokens(self) -> Tokens:
        """What it has cost so far."""
        return own_tokens(self.exchange, self.heard)

    @property
    def entry(self) -> Entry:
        """What it has cost so far, and what for."""
        return self._entry or self._entry_now()

    def _entry_now(self) -> Entry:
        if self.is_chosen:
            brings = not self.parent.ledger.is_answer_booked
            return Entry(self.tokens, "serve", self._kept_tokens, brings, self._kept_reasoning)
        return Entry(self.tokens, "verify" if self.purpose == "verify" else "discarded")

    def _book(self) -> None:
        parent = self.parent
        parent.state.get(OPEN, set()).discard(self)
        self._entry = self._entry_now()
        self._serving = book(self.exchange, self._entry)
        if self.is_chosen:
            self._inherit()
        guessed: list[SideCall] = parent.state.setdefault(GUESSED, [])
        if see_count(self.exchange, self.heard):
            for side in guessed:
                side.recount()
            guessed.clear()
        elif self.heard.usage is None and self._entry.tokens.prompt and not self.exchange.ledger.is_answer_booked:
            guessed.append(self)

    def recount(self) -> None:
        """A sibling's prompt has been counted: this one's, which was guessed by its size, is now known better."""
        if self._entry is not None:
            self._entry = with_counted_prompt(self.exchange, self._entry, self._serving)

    def choose(self, *, output_tokens: int | None = None, reasoning_tokens: int | None = None) -> None:
        """Make it the answer, or a part of it: its tokens are the answer's, the first `output_tokens` of them if given.

        `reasoning_tokens` is how many of those are thoughts, where that is known better than its usage tells.

        The first call chosen brings the answer's prompt; the prompts of others are booked as discarded. May be called
        while it runs and after it has ended. Its verdicts and decisions become those of the client's exchange.
        """
        was_chosen, self.is_chosen = self.is_chosen, True
        self._kept_tokens = output_tokens
        self._kept_reasoning = reasoning_tokens
        self._adopt()
        if self._entry is not None:
            former, brought = self._entry, was_chosen and self._entry.brings_prompt
            brings = brought or not self.parent.ledger.is_answer_booked
            self._entry = Entry(former.tokens, "serve", output_tokens, brings, reasoning_tokens)
            rebook(self.parent.ledger, self._serving, former, self._entry)
            if not was_chosen:
                self._inherit()

    def _adopt(self) -> None:
        """The client is told which upstream answered."""
        if self.is_chosen and self.exchange.upstream:
            self.parent.upstream = self.exchange.upstream
            self.parent.upstream_model = self.exchange.upstream_model

    def _inherit(self) -> None:
        self.parent.verdicts += self.exchange.verdicts
        self.parent.decisions += self.exchange.decisions

    def __repr__(self) -> str:
        state = "over" if self.is_over else "begun" if self._is_begun else "new"
        return f"<SideCall {self.purpose} {state} {self.stopped} {self.heard!r}>"


class _Listening:
    """One task's way through the chunks of a call; no chunk is missed, whoever else listens."""

    __slots__ = ("_at", "_side")

    def __init__(self, side: SideCall, at: int) -> None:
        self._side = side
        self._at = at

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        chunk, self._at = await self._side.chunk_behind(self._at)
        return chunk
