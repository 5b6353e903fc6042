"""One connection to an upstream: a request is written, and the answer is told to a receiver as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from predawn.proxy.stream_meter import MOST_NOTED
from predawn.proxy.upstreams.answer import AnswerReader, framed, size_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from predawn.proxy.stream_meter import StreamMeter
    from predawn.proxy.upstreams.answer_head import AnswerHead
    from predawn.proxy.upstreams.base import Reason, UpstreamError

WRITTEN_AT_ONCE = 16 << 10
"""Bytes of a body that are copied behind the head: one write instead of two."""
STALE_S = 1.0
"""A kept connection that closes so soon after it was asked had probably been closed before."""


class Receiver(Protocol):
    """Who hears the answer: `on_head`, `on_body` or `on_chunk` any number of times, and one `on_end` or `on_lost`.

    All are called from the connection's read callback. After `abort` nothing is called any more.
    """

    def on_head(self, head: AnswerHead) -> None:
        """Status and headers are there; answers of status 1xx are passed over."""
        ...

    def on_body(self, data: bytes, is_last: bool) -> None:
        """What one read brought, chunked coding taken off; `on_end` follows at once if it `is_last`."""
        ...

    def on_chunk(self, data: bytes) -> None:
        """In place of `on_body`: what one whole chunk brought, and not the last."""
        ...

    def on_end(self) -> None:
        """The answer is complete, and the connection back in its pool or closed."""
        ...

    def on_lost(self, error: UpstreamError) -> None:
        """It will not be complete; `error.sent_nothing` is true if `on_head` was not called."""
        ...


class Keeper(Protocol):
    """What a connection needs of its pool."""

    def now(self) -> float: ...

    def joined(self, connection: UpstreamConnection) -> None:
        """It is connected."""
        ...

    def answered(self, connection: UpstreamConnection) -> None:
        """It can be asked again."""
        ...

    def closed(self, connection: UpstreamConnection) -> None:
        """It cannot be asked any more; called once."""
        ...

    def keeps(self, seconds: int) -> None:
        """The upstream closes connections that nobody uses for so long."""
        ...

    def left(self, connection: UpstreamConnection) -> None:
        """Its transport is gone; called once, after `closed`."""
        ...

    def error(self, reason: Reason, message: str, *, sent_nothing: bool) -> UpstreamError: ...


class Passage:
    """Where whole events go through, each in a chunk of its own, without their receiver being told.

    They are written as they came, and noted to be counted later. 2.3 µs a chunk became 1.3, with cold caches.
    """

    __slots__ = ("chunks", "count", "hides", "times", "write")

    def __init__(self, write: Callable[[bytes], object], meter: StreamMeter, *, hides: bool) -> None:
        self.write = write
        self.hides = hides
        """True if chunks that may tell the usage are the receiver's business."""
        self.chunks = meter.chunks
        self.times = meter.times
        self.count = meter.count


class UpstreamConnection(asyncio.Protocol):
    """One connection of a pool, asked one request at a time.

    idle ──ask──> asked ──head──> answering ──end──> idle, or closed if the answer or its framing says so
     │              └─────────────────┴── lost, overdue or aborted ──> closed
     └── a byte, or its end, comes while nobody asks ──> closed

    A request that was written is never written again here: an upstream may have acted upon a POST although its answer
    is missing (RFC 9110 §9.2.2). One whose connection closes before the head is told to the receiver as lost, with
    nothing sent, and the policy of retries decides.
    """

    __slots__ = (
        "_has_body",
        "_keeper",
        "_passage",
        "_reader",
        "_transport",
        "_writable",
        "asked_at",
        "is_answering",
        "is_closed",
        "is_paused",
        "is_used",
        "read_at",
        "receiver",
        "upload",
    )

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None
        """Done once more can be written; `None` while it can."""
        self._has_body = False
        self._passage: Passage | None = None
        self.receiver: Receiver | None = None
        """Who hears the answer; may be replaced until it is over, from within `on_head` too."""
        self.asked_at = self.read_at = 0.0
        self.is_answering = False
        """True from the head to the end."""
        self.is_closed = False
        self.is_paused = False
        self.is_used = False
        """True if it brought an answer before."""
        self.upload: asyncio.Task[None] | None = None
        """Sends the request's body while that is on its way; an answer that ends earlier ends the connection."""

    @property
    def is_usable(self) -> bool:
        """True if it can be asked, as far as is known."""
        return not self.is_closed and self._transport is not None and not self._transport.is_closing()

    def ask(self, receiver: Receiver, head: bytes, body: bytes, *, is_head: bool = False) -> None:
        """Send one request, head complete with its blank line. The connection must be idle, and taken."""
        assert self.receiver is None
        assert self._transport is not None
        if len(body) <= WRITTEN_AT_ONCE:  # written first: the upstream is at work meanwhile
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        self.receiver = receiver
        self._reader.start(is_to_head=is_head)
        self.is_answering = self._has_body = False
        self.asked_at = self._keeper.now()

    def pause(self) -> None:
        """Stop reading, for the receiver cannot take more."""
        if not self.is_paused and self.is_usable:
            assert self._transport is not None
            self.is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.is_paused:
            self.is_paused = False
            self.read_at = self._keeper.now()  # the pause was not the upstream's
            if self.is_usable and self._transport is not None:
                self._transport.resume_reading()

    def let_pass(self, passage: Passage) -> None:
        """Until something else comes, let whole events through there. For the receiver, while it is told of a body."""
        if self._reader.is_between:
            self._passage = passage

    def abort(self) -> None:
        """Close it now; its receiver hears nothing more."""
        self.receiver = self._passage = None
        self._shut()

    def overdue(self, now: float, *, first_byte_s: float, idle_s: float) -> None:
        """Give up an answer that is not there in time. A stream of events has begun once its body has."""
        if self.receiver is None or self.is_paused:
            return
        if not self._has_body and now - self.asked_at >= first_byte_s:
            head = self._reader.head
            if head is None or head.is_events:
                self._lose("timeout_ttft", f"no answer within {first_byte_s:g} s")
                return
        if self.is_answering and now - max(self.read_at, self.asked_at) >= idle_s:  # it may answer during an upload
            self._lose("timeout_idle", f"nothing came for {idle_s:g} s")

    # -- uploads

    def write(self, data: bytes) -> None:
        """Send more of the request's body."""
        assert self._transport is not None
        self.asked_at = self._keeper.now()  # an answer cannot be expected sooner
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until more can be written, or it is closed."""
        if self._writable is not None:
            await self._writable

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.is_closed:  # whoever wanted it has left
            self._transport.abort()
            return
        self.read_at = self._keeper.now()
        self._keeper.joined(self)

    def data_received(self, data: bytes) -> None:
        passage = self._passage
        if passage is not None:
            lines = size_lines(len(data))
            is_event = lines and data.startswith(lines) and data.endswith(b"\n\n\r\n", len(lines[0]))
            if is_event and not (passage.hides and b'"usage"' in data):
                passage.write(data)  # first, for the client waits
                self.read_at = now = self._keeper.now()
                chunks = passage.chunks
                chunks.append(data)
                passage.times.append(now)
                if len(chunks) >= MOST_NOTED:
                    passage.count()
                return
            self._passage = None
        receiver, reader = self.receiver, self._reader
        if receiver is None:  # it would be taken for the answer to the next request
            self.abort()
            return
        if reader.is_between and (at := framed(data)):
            self.read_at = self._keeper.now()
            self._has_body = True
            receiver.on_chunk(data[at:-2])
            return
        if not (reader.read_on(data) if self.is_answering else reader.read_first(data)):
            reader.feed(data)
        pieces = reader.pieces
        if not self.is_answering:
            self.read_at = self._keeper.now()
            if reader.head is not None:
                self.is_answering = True
                receiver.on_head(reader.head)
                receiver = self.receiver
                if receiver is None:
                    return
        elif pieces:
            self.read_at = self._keeper.now()
        if pieces:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._has_body = True
            receiver.on_body(body, reader.is_over and reader.fault is None)
            receiver = self.receiver
            if receiver is None:
                return
        if reader.fault is not None:
            cut = "the answer was cut off: " if self.is_answering else ""
            self._lose("truncated" if cut else "protocol", f"{cut}not a valid HTTP answer ({reader.fault})")
        elif reader.is_over:
            self._end(receiver)

    def eof_received(self) -> None:
        self._over(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._over(exc)
        self.resume_writing()
        self._transport = None
        self._reader.close()
        self._keeper.left(self)

    # -- ends

    def _end(self, receiver: Receiver) -> None:
        self.receiver = None
        self.is_answering = False
        if self._reader.is_reusable and self.upload is None:
            if not self.is_used:
                self._begin_use()
            if self.is_paused:
                self.resume()
            self._keeper.answered(self)
        else:
            self._shut()
        receiver.on_end()

    def _begin_use(self) -> None:
        """Its first answer tells for how long it may be kept."""
        self.is_used = True
        head = self._reader.head
        if head is not None and (seconds := head.kept_s) is not None:
            self._keeper.keeps(seconds)

    def _over(self, exc: BaseException | None) -> None:
        """The upstream has closed the connection."""
        if (receiver := self.receiver) is None:
            self._shut()
        elif exc is None and self._reader.ends_by_closing:
            self._end(receiver)
        elif self.is_answering:
            self._lose("truncated", f"the answer was cut off{_why(exc)}")
        else:
            is_stale = self.is_used and self._keeper.now() - self.asked_at < STALE_S
            self._lose("connect", f"cannot connect (it closed the connection{_why(exc)})", is_stale=is_stale)

    def _lose(self, reason: Reason, message: str, *, is_stale: bool = False) -> None:
        receiver, self.receiver, self._passage = self.receiver, None, None
        error = self._keeper.error(reason, message, sent_nothing=not self.is_answering)
        error.is_stale = is_stale
        self._shut()
        if receiver is not None:
            receiver.on_lost(error)

    def fail(self, message: str) -> None:
        """Give up what is on its way, for a reason of our own."""
        self._lose("truncated" if self.is_answering else "connect", message)

    def _shut(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.is_answering = False
        if self.upload is not None:
            self.upload.cancel()
            self.upload = None
        if self._transport is not None:
            self._transport.abort()  # `close` would wait until what is left of a request has been read
        else:
            self._reader.close()
        self._keeper.closed(self)

    def __repr__(self) -> str:
        if self.is_closed:
            return "<UpstreamConnection closed>"
        state = "idle" if self.receiver is None else "answering" if self.is_answering else "asked"
        return f"<UpstreamConnection {state}{', paused' if self.is_paused else ''}>"


def _why(exc: BaseException | None) -> str:
    return f": {exc.strerror}" if isinstance(exc, OSError) and exc.strerror else ""
