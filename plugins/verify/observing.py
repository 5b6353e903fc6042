"""`observe` around an answer: it passes as it comes, byte for byte, and is read beside its way."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from predawn.plugins import Reply
from predawn.plugins.verify.dialects import reader_of
from predawn.plugins.verify.reading import Piece, is_error, said_plainly
from predawn.plugins.verify.result import HEADER, TRAILER
from predawn.plugins.verify.tapping import overheard
from predawn.plugins.verify.trace import Trace
from predawn.plugins.verify.watching import SLICE, Watching
from predawn.proxy.exchange import closing
from predawn.proxy.wire.fold import BodyChunk
from predawn.proxy.wire.sse import EventSplitter, EventTooLargeError, event_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from predawn.plugins import CallNext, Chunk, Exchange
    from predawn.plugins.verify.trace import Check
    from predawn.plugins.verify.watching import Plan, Tools

ANY_PIECE = 32
"""What any piece counts for, beside its characters."""


class Observing:
    """Reads along, in turns of the event loop of its own, after what came has been sent on.

    The client never waits: only observers do, for what is still being looked at when all was sent.
    """

    def __init__(self, tools: Tools, plan: Plan, exchange: Exchange, call: CallNext) -> None:
        self._traces: dict[int, Trace] = {}
        """What was said, by choice."""
        self._watching = Watching(tools, plan, exchange, call, self._settled, self._traces.get)
        self._plan = plan
        self._exchange = exchange
        self._reader = reader_of(exchange.route)
        self._idle = asyncio.Event()
        self._open = 0
        """Checks without a verdict."""
        self._splitter = EventSplitter()
        self._came: deque[bytes] = deque()
        self._events: deque[bytes] = deque()
        self._pieces: deque[tuple[int, Piece | None]] = deque()
        """What was read and is not cut into steps yet; `None` ends a choice."""
        self._is_called = False
        self._is_whole = False
        """True of a body that does not stream; it is read once it is there."""
        self._has_ended = False
        self._is_broken = False
        """True once an event told of an error."""
        self._is_closed = False
        self._last_at = 0.0

    async def reply(self, call_next: CallNext) -> Reply:
        reply = await call_next(self._exchange)
        if not reply.ok:
            return reply
        if self._exchange.parent is None:
            self._exchange.observe_after(self._finish)
            self._exchange.trail(TRAILER, self._told)
        else:
            self._exchange.scope.push_async_callback(self._finish)  # whoever compares samples wants to know by then
        headers = CIMultiDict(reply.headers)
        headers[HEADER] = "observe"
        if not reply.is_raw or reply.source is None:
            chunks = self._passing(reply.chunks)
            return Reply(reply.status, headers, source=reply.source, chunks=chunks, split=reply.split)
        self._is_whole = not reply.is_stream
        return Reply(reply.status, headers, source=overheard(reply.source, self._hears), split=reply.split)

    async def _passing(self, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        """An answer that a plugin further in made or looked into."""
        async with closing(chunks):
            async for chunk in chunks:
                yield chunk
                self._last_at = perf_counter()
                self._read(chunk)
                self._call()

    def _hears(self, data: bytes) -> None:
        self._came.append(data)
        self._last_at = perf_counter()
        if not self._is_whole:
            self._call()

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        """Read on for a while; what is left is for the next turn."""
        self._is_called = False
        if self._is_closed:
            return
        size = 0
        while size < SLICE and self._is_behind:
            size += ANY_PIECE
            if self._pieces:
                choice, piece = self._pieces.popleft()
                self._take(choice, piece)
                size += len(piece.text) if piece is not None else 0
            elif self._events:
                size += self._hear(self._events.popleft())
            else:
                self._split(self._came.popleft())
        if self._is_behind:
            self._call()

    @property
    def _is_behind(self) -> bool:
        return bool(self._came or self._events or self._pieces)

    def _split(self, data: bytes) -> None:
        with suppress(EventTooLargeError):  # the relay says so
            self._events.extend(self._splitter.feed(data))

    def _hear(self, event: bytes) -> int:
        """Take in one event, or have it taken in piece by piece; how many characters are done with."""
        plain = said_plainly(event)
        if plain is None or len(plain[2]) > SLICE:
            self._read(event_chunk(event))
            return 0
        choice, key, text = plain
        self._take(choice, Piece(key, text))
        return len(text)

    def _read(self, chunk: Chunk) -> None:
        self._has_ended = self._has_ended or chunk.is_last
        self._is_broken = self._is_broken or is_error(chunk)
        try:
            events = self._reader.events(chunk)
        except ValueError:
            return  # no answer, and not ours to judge
        for part in [part for one in events for part in self._reader.read(one)]:
            for piece in part.pieces:
                text = piece.text
                for at in range(0, max(len(text), 1), SLICE):
                    self._pieces.append((part.choice, piece._replace(text=text[at : at + SLICE])))
            if part.finish is not None:
                self._pieces.append((part.choice, None))

    def _take(self, choice: int, piece: Piece | None) -> None:
        trace = self._traces.get(choice)
        if trace is None:
            trace = self._traces[choice] = Trace(self._plan.verifiers, choice, longest_step=self._plan.longest_step)
        for check in trace.feed(piece) if piece is not None else trace.close():
            self._open += 1
            self._watching.checks.add(check)

    def _settled(self, check: Check) -> None:
        watching = self._watching
        self._open -= 1
        watching.heard(check)
        if check.verdict is not None and check.verdict.outcome == "violation":
            watching.note(check, "flag")
        if not self._open:
            self._idle.set()

    async def _read_on(self) -> None:
        while self._is_behind:
            self._work()
            await asyncio.sleep(0)

    async def _told(self) -> str:
        """The whole in a word, for a client that asks to be told: it waits for the last verdicts, too."""
        await self._finish()
        return "" if self._is_broken else self._watching.result.as_field

    async def _finish(self) -> None:
        """The answer is over: read the rest, and wait for the last verdicts, which come within their time limits."""
        watching = self._watching
        if self._is_closed:
            return
        if self._exchange.outcome == "ok" and (self._exchange.parent is None or self._has_ended or self._is_whole):
            if self._is_whole:
                body, self._came = b"".join(self._came), deque()
                self._read(BodyChunk(body))
            await self._read_on()
            if rest := self._splitter.rest():  # of a stream that ends without a blank line
                self._read(event_chunk(rest))
                await self._read_on()
            watching.generated_at = self._last_at
            for choice in tuple(self._traces):
                self._take(choice, None)
            while self._open and not watching.checks.is_idle:
                self._idle.clear()
                await self._idle.wait()
        self._is_closed = True
        watching.close()
