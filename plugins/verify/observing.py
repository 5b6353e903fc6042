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
from predawn.plugins.verify.watching import FEW_CHOICES, SLICE, Watching, most_choices
from predawn.proxy.exchange import closing
from predawn.proxy.wire.fold import BodyChunk
from predawn.proxy.wire.sse import AT_ONCE, EventSplitter, EventTooLargeError, event_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from predawn.plugins import CallNext, Chunk, Exchange
    from predawn.plugins.verify.trace import Check
    from predawn.plugins.verify.watching import Plan, Tools

ANY_PIECE = 32
"""What any piece counts for, beside its characters."""
MOST_UNREAD = 8 << 20
"""Bytes that may wait to be read. What comes faster for longer is read no further, as nobody holds the upstream up."""
MOST_READ = 4 << 20
"""Characters that are read of one answer, pieces counting as above; they are kept until it is over."""


class Observing:
    """Reads along, in rounds of their own, after what came has been sent on.

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
        self._chunks: deque[Chunk] = deque()
        """What came as chunks, of an answer that a plugin further in made or looked into."""
        self._pieces: deque[tuple[int, Piece | None]] = deque()
        """What was read and is not cut into steps yet; `None` ends a choice."""
        self._unread = 0
        """Bytes that came and are not read yet."""
        self._read_chars = 0
        self._gave_up = ""
        """Why it is read no further."""
        self._is_called = False
        """True while it waits for its turn to be read."""
        self._is_whole = False
        """True of a body that does not stream; it is read once it is there."""
        self._has_ended = False
        self._is_broken = False
        """True once an event told of an error."""
        self._is_closed = False
        self._last_at = 0.0
        self._rounds = tools.rounds
        self._rounds.open += 1

    async def reply(self, call_next: CallNext) -> Reply:
        try:
            reply = await call_next(self._exchange)
        except BaseException:
            self._rounds.open -= 1
            raise
        if not reply.ok:
            self._rounds.open -= 1
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
                if self._has_room(len(chunk.raw)):
                    self._chunks.append(chunk)
                    self._call()

    def _hears(self, data: bytes) -> None:
        if self._is_closed or self._gave_up:
            return
        self._last_at = perf_counter()
        self._unread += len(data)
        self._came.append(data)
        if self._unread > MOST_UNREAD:
            self._give_up("it came faster than it could be read")
        elif not self._is_called and not self._is_whole:
            self._call()

    def _has_room(self, size: int) -> bool:
        """Whether so much more may wait to be read."""
        if self._is_closed or self._gave_up:
            return False
        self._unread += size
        if self._unread > MOST_UNREAD:
            self._give_up("it came faster than it could be read")
        return not self._gave_up

    def _give_up(self, why: str) -> None:
        """Let go of what is not read; each choice ends in a step that nobody looks at."""
        self._gave_up = why
        self._drop_unread()
        self._splitter = EventSplitter()
        self._pieces.extend((choice, None) for choice in tuple(self._traces) or (0,))
        self._call()

    def _drop_unread(self) -> None:
        self._came.clear()
        self._chunks.clear()
        self._events.clear()
        self._pieces.clear()

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._rounds.add(self)

    def read(self) -> bool:
        """Read on for a while; whether more is left, for the next turn."""
        self._is_called = self._read_a_little()
        return self._is_called

    def _read_a_little(self) -> bool:
        if self._is_closed:
            return False
        size = 0
        while size < SLICE and self._is_behind:
            size += ANY_PIECE
            if self._pieces:
                choice, piece = self._pieces.popleft()
                self._take(choice, piece)
                size += len(piece.text) if piece is not None else 0
            elif self._events:
                size += self._hear()
            elif self._chunks:
                chunk = self._chunks.popleft()
                self._unread -= len(chunk.raw)
                self._read(chunk)
            else:
                size += self._split()
        return self._is_behind

    @property
    def _is_behind(self) -> bool:
        return bool(self._came or self._chunks or self._events or self._pieces)

    def _split(self) -> int:
        """Take the first bytes apart; what that counts for."""
        came = self._came
        data = came.popleft()
        if len(data) > AT_ONCE:
            came.appendleft(data[AT_ONCE:])
            data = data[:AT_ONCE]
        elif came:
            pieces = [data]
            size = len(data)
            while came and size + len(came[0]) <= AT_ONCE:
                size += len(came[0])
                pieces.append(came.popleft())
            data = b"".join(pieces)
        with suppress(EventTooLargeError):  # the relay says so
            for event in self._splitter.feed(data):
                if not event.startswith(b"data:") and (event.isspace() or (event[:1] == b":" and b"data" not in event)):
                    self._unread -= len(event)
                else:
                    self._events.append(event)
        return len(data) * SLICE // AT_ONCE

    def _hear(self) -> int:
        """Take in the first event, or have it taken in piece by piece; what that counts for.

        What several in a row add to one text is taken in together, which costs a quarter of one after another.
        """
        events = self._events
        event = events.popleft()
        self._unread -= len(event)
        plain = said_plainly(event)
        if plain is None or len(plain[2]) > SLICE:
            self._read(event_chunk(event))
            return 0
        choice, key, text = plain
        texts, size = [text], len(text)
        most = min(SLICE, MOST_READ - self._read_chars - SLICE)
        while events and size < most and (plain := said_plainly(events[0])) is not None:
            if plain[1] != key or plain[0] != choice or len(plain[2]) > SLICE:
                break
            self._unread -= len(events.popleft())
            texts.append(plain[2])
            size += len(plain[2]) + ANY_PIECE
        self._take(choice, Piece(key, "".join(texts)), len(texts))
        return size

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

    def _take(self, choice: int, piece: Piece | None, pieces: int = 1) -> None:
        self._read_chars += ANY_PIECE * pieces + (len(piece.text) if piece is not None else 0)
        is_new = choice not in self._traces
        if not self._gave_up and (self._read_chars > MOST_READ or (is_new and not self._may_begin_more)):
            self._give_up("the answer is too long to be read to its end")
            return
        if is_new:
            self._traces[choice] = Trace(self._plan.verifiers, choice, longest_step=self._plan.longest_step)
        trace = self._traces[choice]
        for check in trace.feed(piece) if piece is not None else trace.close():
            self._open += 1
            if self._gave_up:
                self._watching.checks.pass_over(check, self._gave_up)
            else:
                self._watching.checks.add(check)

    @property
    def _may_begin_more(self) -> bool:
        begun = len(self._traces)
        return begun < FEW_CHOICES or begun < most_choices(self._exchange)

    def _settled(self, check: Check) -> None:
        watching = self._watching
        self._open -= 1
        check.group.settled(check.cut.index)
        watching.heard(check)
        if check.verdict is not None and check.verdict.outcome == "violation":
            watching.note(check, "flag")
        if not self._open:
            self._idle.set()

    async def _read_on(self) -> None:
        while self._read_a_little():  # noqa: ASYNC110 - nothing is waited for: others get their turn
            await asyncio.sleep(0)

    async def _told(self) -> str:
        """The whole in a word, for a client that asks to be told: it waits for the last verdicts, too."""
        await self._all_told()  # who leaves now leaves the rest to `_finish`
        self._close()
        return "" if self._is_broken else self._watching.result.as_field

    async def _finish(self) -> None:
        """The answer is over, and so is all that goes on for it, also where nobody waits for it any more."""
        try:
            if self._exchange.outcome == "ok":
                await self._all_told()
        finally:
            self._close()

    async def _all_told(self) -> None:
        """Read the rest, and wait for the last verdicts, which come within their time limits."""
        if not self._is_closed and await self._read_to_the_end():
            while self._open and not self._watching.checks.is_idle:
                self._idle.clear()
                await self._idle.wait()

    async def _read_to_the_end(self) -> bool:
        """Whether there was an end: a sample may have been given up."""
        if self._is_whole and self._came:
            body, self._came = b"".join(self._came), deque()
            self._read(BodyChunk(body))
        await self._read_on()
        if rest := self._splitter.rest():  # of a stream that ends without a blank line
            self._read(event_chunk(rest))
            await self._read_on()
        if self._exchange.parent is not None and not (self._has_ended or self._is_whole):
            return False
        self._watching.generated_at = self._last_at
        for choice in tuple(self._traces):
            self._take(choice, None)
            await asyncio.sleep(0)
        return True

    def _close(self) -> None:
        self._rounds.open -= not self._is_closed
        self._is_closed = True
        self._drop_unread()
        self._watching.close()
