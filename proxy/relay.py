"""The way back: an upstream's bytes to the client, in the order and the pieces in which they came.

Two ways lead through this file. `pump_bytes` moves a body nobody looks into, straight from the read callback of one
socket to the other. `pump_chunks` moves one event at a time through filters. Both stop reading when the client does not
keep up, and neither ever ends an answer cleanly that the upstream did not end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Protocol

from aiohttp import HttpVersion11, web
from aiohttp.http import StreamWriter
from multidict import CIMultiDict

from predawn.proxy.exchange import ByteSource, Chunk, ChunkFilter, Reply, RouteName, TappedSource, closing, tapped
from predawn.proxy.joining import MOST_BYTES, JoinedWrites, Unhurried, listening_to
from predawn.proxy.stream_meter import StreamMeter
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.fold import BodyChunk, body_of, events_of
from predawn.proxy.wire.openai import has_ended, is_usage_only
from predawn.proxy.wire.sse import EventSplitter, is_done

HIGH_WATER = 256 << 10
"""Bytes that may wait for a slow client before the upstream is no longer read."""
HELD_BYTES = 64 << 10
"""Bytes of an unfinished event that wait for its end; of a longer one they are sent as they come."""
BLANK = (b"\n\n", b"\n\r\n", b"\r\r")
MAX_BODY_BYTES = 512 << 20
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class ClientStalledError(ConnectionError):
    """The client stopped reading for longer than the idle timeout."""


class StreamSink:
    """The client's side of a streamed answer: headers once, then bytes written straight to the transport."""

    __slots__ = ("_chunked", "_comments", "_ident", "_request", "_response", "_timer", "_transport", "idle_s")

    def __init__(self, request: web.BaseRequest, ident: str, idle_s: float) -> None:
        self._request = request
        self._ident = ident
        self._response: web.StreamResponse | None = None
        self._transport = request.transport
        self._chunked = True
        self._timer: asyncio.TimerHandle | None = None
        self._comments: asyncio.Task[None] | None = None
        self.idle_s = idle_s

    @property
    def opened(self) -> bool:
        return self._response is not None

    async def open(self, status: int, headers: CIMultiDict[str]) -> None:
        """Send status and headers; a second call does nothing, for they are gone."""
        if self._response is not None:
            return
        headers["x-request-id"] = self._ident
        headers["Server"] = "predawn"
        response = web.StreamResponse(status=status, headers=headers)
        if self._request.version < HttpVersion11:
            response.force_close()  # the end of the connection is the only end there is
        self._response = response
        await response.prepare(self._request)
        self._chunked = response.chunked or response.headers.get("Transfer-Encoding") == "chunked"

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket without waiting. Raises `ConnectionResetError` if the client is gone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    @property
    def is_full(self) -> bool:
        """True while more waits for the client than should be kept."""
        return self._transport is not None and self._transport.get_write_buffer_size() > HIGH_WATER

    async def drain(self) -> None:
        """Wait until the client has taken what waits for it. Raises `ClientStalledError` if it does not."""
        assert self._response is not None
        try:
            async with asyncio.timeout(self.idle_s):
                await self._request.writer.drain()
        except TimeoutError as exc:
            raise ClientStalledError(f"the client read nothing for {self.idle_s:g} s") from exc

    def comment_every(self, seconds: float, tasks: Tasks) -> None:
        """Until `quiet`, send a comment whenever the client has waited this long."""

        def begin() -> None:
            self._comments = tasks.spawn(self._comment(seconds), "keep-alive")

        self._timer = asyncio.get_running_loop().call_later(seconds, begin)

    async def _comment(self, seconds: float) -> None:
        await self.open(200, CIMultiDict(STREAM_HEADERS))
        while True:
            try:
                self.write(b": keep-alive\n\n")
            except ConnectionResetError:
                return  # whoever serves the exchange is cancelled by the same event
            await asyncio.sleep(seconds)

    def quiet(self) -> None:
        """Stop the comments: something better is about to be sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comments is not None:
            self._comments.cancel()
            self._comments = None

    @property
    def takes_trailers(self) -> bool:
        """True if the client said that it reads headers after the body, and HTTP allows them there."""
        if self._request.version < HttpVersion11:
            return False
        told = ",".join(self._request.headers.getall("TE", ()))
        return any(item.strip().lower() == "trailers" for item in told.split(","))

    async def finish(self, trailers: Mapping[str, str] | None = None) -> web.StreamResponse:
        """End the stream, with headers behind it where it is chunked."""
        assert self._response is not None
        writer = self._request.writer
        if trailers and self._chunked and isinstance(writer, StreamWriter):
            lines = "".join([f"{name}: {value}\r\n" for name, value in trailers.items()])
            if lines.count("\n") != len(trailers) or lines.count("\r") != len(trailers):
                raise ValueError("a trailer of the answer holds a line break")
            transport = self._transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            transport.write(b"0\r\n" + lines.encode("latin-1", "replace") + b"\r\n")
            writer.chunked = False  # the last chunk is written: aiohttp, which knows no trailers, has nothing to add
            await writer.drain()
        await self._response.write_eof()
        return self._response

    def break_off(self, event: bytes = b"") -> web.StreamResponse:
        """Say why, then close without the mark that would make the answer look whole.

        Without a reason the body ends well: a chunk of no bytes is its end.
        """
        assert self._response is not None
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self.write(event)
            transport.close()
        return self._response


class EventGate(Protocol):
    """What stands between the upstream's bytes and the client's."""

    def feed(self, data: bytes) -> bytes:
        """What may go on now."""
        ...

    def rest(self) -> bytes:
        """What was held back, once the stream has ended well."""
        ...


class UsageHider:
    """Takes the usage chunk out of a stream whose client did not ask for it."""

    __slots__ = ("_splitter",)

    def __init__(self) -> None:
        self._splitter = EventSplitter()

    def feed(self, data: bytes) -> bytes:
        events = self._splitter.feed(data)
        if len(events) == 1 and not is_usage_only(events[0]):
            return events[0]
        return b"".join(event for event in events if not is_usage_only(event))

    def rest(self) -> bytes:
        return self._splitter.rest()

    @property
    def is_clear(self) -> bool:
        """True if whole events that tell no usage would go on as they are."""
        return self._splitter.is_clear


class WholeEvents:
    """Lets bytes through up to the last blank line, so that a stream that is cut off ends between two events.

    After half an event nothing could be said any more: the error event would be read as the rest of its line.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        held = self._held
        if not held and data.endswith(b"\n\n"):  # whole events are the common case
            return data
        held += data
        end = max((at + len(blank) for blank in BLANK if (at := held.rfind(blank)) >= 0), default=0)
        if not end and len(held) > HELD_BYTES:
            end = len(held)
        whole = bytes(held[:end])
        del held[:end]
        return whole

    def rest(self) -> bytes:
        return bytes(self._held) if self._held else b""

    @property
    def is_clear(self) -> bool:
        """True if whole events would go on as they are."""
        return not self._held


async def pump_bytes(
    source: ByteSource, sink: StreamSink, meter: StreamMeter, gate: EventGate | None, upstream: str
) -> None:
    """Relay a body as bytes until its end. Raises `UpstreamError` if it is lost on the way."""
    if (listener := tapped(source)) is not None:
        await _pump_tapped(listener, sink, meter, gate, upstream)
    else:
        async for data in source:
            meter.saw(data)
            shown = gate.feed(data) if gate is not None else data
            if shown:
                sink.write(shown)
                if sink.is_full:
                    await sink.drain()
    if gate is not None and (rest := gate.rest()):
        sink.write(rest)


async def _pump_tapped(
    source: TappedSource, sink: StreamSink, meter: StreamMeter, gate: EventGate | None, upstream: str
) -> None:
    """Relay from the read callback; this task wakes only for the end, an error, or a full buffer."""
    loop = asyncio.get_running_loop()
    attention: asyncio.Future[None] = loop.create_future()

    def call_for_attention() -> None:
        if not attention.done():
            attention.set_result(None)

    is_reading = is_paused = False

    def on_data() -> None:
        nonlocal is_reading, is_paused
        if is_reading:
            return  # reading resumed the parser, which called here again; the loop below takes what it brought
        is_reading = True
        try:
            while data := source.read_nowait():
                meter.saw(data)
                shown = gate.feed(data) if gate is not None else data
                if shown:
                    sink.write(shown)
        except (ConnectionError, UpstreamError, ValueError) as exc:
            if not attention.done():
                attention.set_exception(exc)
            return
        finally:
            is_reading = False
        if sink.is_full:
            source.pause()
            is_paused = True
            call_for_attention()
        elif source.at_end or source.error is not None:
            call_for_attention()

    source.listen(on_data)
    watch = IdleWatch(meter, sink.idle_s, call_for_attention)
    try:
        if source.error is None:
            on_data()
        while not source.at_end:
            if source.error is not None:
                raise source.error
            await attention
            attention = loop.create_future()
            if is_paused:
                await sink.drain()
                meter.last_at = perf_counter()  # the pause was the client's, not the upstream's
                is_paused = False
                source.resume()
                on_data()
            elif watch.expired:
                raise UpstreamError(upstream, "timeout_idle", f"nothing came for {sink.idle_s:g} s", sent_nothing=False)
        if attention.done() and (error := attention.exception()) is not None:
            raise error
    finally:
        watch.stop()
        source.listen(None)


class IdleWatch:
    """Notices a stream that has gone quiet, with one timer that is set again only when it fires."""

    __slots__ = ("_call", "_idle_s", "_meter", "_started", "_timer", "expired")

    def __init__(self, meter: StreamMeter, idle_s: float, call: Callable[[], None]) -> None:
        self.expired = False
        self._meter = meter
        self._idle_s = idle_s
        self._call = call
        self._started = perf_counter()
        self._timer = asyncio.get_running_loop().call_later(idle_s, self._check)

    def _check(self) -> None:
        quiet_s = perf_counter() - max(self._meter.last_at, self._started)
        if quiet_s >= self._idle_s:
            self.expired = True
            self._call()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s - quiet_s, self._check)

    def stop(self) -> None:
        self._timer.cancel()


def filtered(chunk: Chunk, filters: Sequence[ChunkFilter]) -> Iterable[Chunk]:
    """What becomes of one chunk: each filter sees what the one before it let through."""
    chunks: list[Chunk] = [chunk]
    if not filters:
        return chunks
    for function in filters:
        passed: list[Chunk] = []
        for item in chunks:
            result = function(item)
            if isinstance(result, Chunk):
                passed.append(result)
            elif result is not None:
                passed += result
        chunks = passed
    return chunks


async def pump_chunks(
    reply: Reply,
    sink: StreamSink,
    meter: StreamMeter,
    filters: Sequence[ChunkFilter],
    route: RouteName,
    *,
    upstream: str,
    hides_usage: bool,
) -> None:
    """Relay chunk by chunk through the filters. Raises `UpstreamError` if the answer is lost on the way."""
    is_done_seen = is_last_seen = False

    def send(chunk: Chunk) -> None:
        nonlocal is_done_seen, is_last_seen
        is_last_seen = is_last_seen or chunk.is_last
        for item in filtered(chunk, filters):
            for event in _events(item, route, upstream, include_usage=not hides_usage):
                is_done_seen = is_done_seen or is_done(event)
                writes.add(event, is_shown=not (hides_usage and is_usage_only(event)))

    def take(chunks: Collection[Chunk]) -> bool:
        """Send chunks from where they come, if there is nothing more to them than that they are sent."""
        if writes.size or sink.is_full:
            return False
        pieces: list[bytes] = []
        for chunk in chunks:
            if chunk.is_last or ((type(chunk) is not Chunk or chunk.origin is not None) and _is_of_body(chunk)):
                return False
            pieces.append(chunk.raw)
        raw = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(raw) > MOST_BYTES or (hides_usage and b'"usage"' in raw):
            return False
        try:
            sink.write(raw)
        except ConnectionError:
            return False  # whoever iterates meets the same error
        meter.saw(raw)
        return True

    with JoinedWrites(sink, meter) as writes:
        listen = listening_to(reply.chunks) if not filters else None
        if listen is not None:
            listen(take)
        async with closing(reply.chunks):
            async for chunk in Unhurried(reply.chunks, writes.flush_before_waiting):
                send(chunk)
                if writes.size > MOST_BYTES:
                    writes.flush()
                    await asyncio.sleep(0)  # an answer that is there already is not the only one
                if sink.is_full:
                    await sink.drain()
        if not is_done_seen and route in ("chat", "completions") and not reply.is_stream:
            send(Chunk(b"data: [DONE]\n\n", is_last=True))
        elif filters and not is_last_seen:
            send(Chunk(b": end\n\n", is_last=True))  # filters give out what they held back


def _events(chunk: Chunk, route: RouteName, upstream: str, *, include_usage: bool) -> list[bytes]:
    return stream_of_body(chunk, route, upstream, include_usage=include_usage) if _is_of_body(chunk) else [chunk.raw]


def _is_of_body(chunk: Chunk) -> bool:
    """Whether a chunk is a whole body, or was made from one."""
    origin: Chunk | None = chunk
    while origin is not None:
        if isinstance(origin, BodyChunk):
            return True
        origin = origin.origin
    return False


def stream_of_body(chunk: Chunk, route: RouteName, upstream: str, *, include_usage: bool) -> list[bytes]:
    """The events of a whole body. Raises `UpstreamError` if it has none."""
    try:
        return events_of(chunk, route, include_usage=include_usage)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        message = f"it did not stream, and its answer makes no stream ({type(exc).__name__})"
        raise UpstreamError(upstream, "protocol", message, sent_nothing=False) from exc


async def read_body(source: ByteSource, upstream: str) -> bytes:
    """A whole body. Raises `UpstreamError` if it is lost or endless."""
    if (listener := tapped(source)) is not None and listener.is_complete:
        return listener.read_nowait()  # it came together with the headers, as short answers do
    pieces: list[bytes] = []
    size = 0
    async for data in source:
        pieces.append(data)
        size += len(data)
        if size > MAX_BODY_BYTES:
            message = f"the answer has more than {MAX_BODY_BYTES >> 20} MiB"
            raise UpstreamError(upstream, "protocol", message, sent_nothing=False)
    return b"".join(pieces)


async def fold_chunks(reply: Reply, filters: Sequence[ChunkFilter], route: RouteName, upstream: str) -> bytes:
    """The body for a client that does not stream. Raises `UpstreamError` if the chunks are no whole answer."""
    chunks: list[Chunk] = []
    is_last_seen = False
    async with closing(reply.chunks):
        async for chunk in reply.chunks:
            is_last_seen = is_last_seen or chunk.is_last
            chunks += filtered(chunk, filters)
    if filters and not is_last_seen:
        chunks += filtered(Chunk(b": end\n\n", is_last=True), filters)  # filters give out what they held back
    if reply.is_stream and not has_ended(b"".join(chunk.raw for chunk in chunks[-3:]), route):
        raise UpstreamError(upstream, "truncated", "the stream ended without its end mark", sent_nothing=False)
    try:
        return body_of(chunks, route)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        message = f"its answer cannot be put together ({type(exc).__name__})"
        raise UpstreamError(upstream, "protocol", message, sent_nothing=False) from exc
