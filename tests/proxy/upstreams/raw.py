"""A provider that a test plays by hand, and a receiver that notes what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.upstreams.answer_head import AnswerHead
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.pool import Origin, Pool

ASKED = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Peer:
    """The provider's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def asked(self) -> bytes:
        """One request's head; its body, where it has a length, is read too."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head + await self.reader.readexactly(int(length or 0))

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hung_up(self) -> bytes:
        """What was not read, once the other end has closed."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


class Provider:
    """Peers in the order in which they connected."""

    def __init__(self) -> None:
        self.port = 0
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def peer(self) -> Peer:
        async with asyncio.timeout(5):
            return await self.peers.get()


@asynccontextmanager
async def provider(tls: Any = None) -> AsyncIterator[Provider]:
    made = Provider()
    all_peers: list[Peer] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        all_peers.append(peer)
        made.peers.put_nowait(peer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, limit=1 << 22)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for peer in all_peers:
            peer.writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def pool_to(port: int, *, clock: ManualClock | None = None, **over: Any) -> AsyncIterator[Pool]:
    told: dict[str, Any] = {"limit": 4, "connect_s": 5, "first_byte_s": 60, "idle_s": 300, **over}
    if clock is not None:
        told["now"] = clock.monotonic
    made = Pool("u", Origin("127.0.0.1", port, b"Host: test\r\n"), **told)
    try:
        yield made
    finally:
        await made.aclose()


class Heard:
    """A receiver that notes what it is told."""

    def __init__(self) -> None:
        self.head: AnswerHead | None = None
        self.body = b""
        self.told: list[str] = []
        self.error: UpstreamError | None = None
        self._over = asyncio.Event()
        self._news = asyncio.Event()

    def on_head(self, head: AnswerHead) -> None:
        self.head = head
        self._note("head")

    def on_body(self, data: bytes, is_last: bool) -> None:  # noqa: ARG002
        self.body += data
        self._note("body")

    def on_chunk(self, data: bytes) -> None:
        self.on_body(data, is_last=False)

    def on_end(self) -> None:
        self._note("end")
        self._over.set()

    def on_lost(self, error: UpstreamError) -> None:
        self.error = error
        self._note("lost")
        self._over.set()

    def _note(self, what: str) -> None:
        self.told.append(what)
        self._news.set()

    @property
    def outcome(self) -> tuple[str, bool] | None:
        return None if self.error is None else (self.error.reason, self.error.sent_nothing)

    async def over(self) -> None:
        async with asyncio.timeout(5):
            await self._over.wait()

    async def news(self) -> None:
        """Wait until it is told something more."""
        self._news.clear()
        async with asyncio.timeout(5):
            await self._news.wait()
