"""A connection without a socket: the server's own protocol on one side, bytes in memory on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict

if TYPE_CHECKING:
    from predawn.proxy.app import App

PEER = ("127.0.0.1", 50000)


class MemoryTransport(asyncio.Transport):
    """What a server's protocol believes to be a socket."""

    def __init__(
        self, protocol: asyncio.Protocol, receive: Callable[[bytes], None], closed: Callable[[], None]
    ) -> None:
        super().__init__({"peername": PEER, "sockname": ("127.0.0.1", 8080)})
        self._protocol = protocol
        self._receive = receive
        self._closed = closed
        self._closing = False
        self._reading = True
        self._held: list[bytes] = []
        protocol.connection_made(self)

    def deliver(self, data: bytes) -> None:
        """Hand the client's bytes to the server, at once or when it reads again."""
        if self._reading:
            self._protocol.data_received(data)
        else:
            self._held.append(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._receive(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)
            self._closed()

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        held, self._held = self._held, []
        for data in held:
            self.deliver(data)

    def is_reading(self) -> bool:
        return self._reading

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (0, 1 << 16)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The client takes everything at once; there is no buffer."""


class Answered:
    """One HTTP answer, taken apart while it arrives, by a client that may go away after so many events."""

    def __init__(self, leaves_after: int | None = None) -> None:
        self._leaves_after = leaves_after
        self.sent = b""
        """Every byte, as the server wrote it."""
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.trailers: CIMultiDict[str] = CIMultiDict()
        """The headers behind a chunked body."""
        self.complete = False
        """True once the answer has ended in the way its head promised."""
        self._body = bytearray()
        self._rest = b""
        self._left: int | None = None
        """Bytes of the body, or of the current chunk, still to come; `None` where the head gave no length."""
        self._chunked = False

    @property
    def body(self) -> bytes:
        """The body without its framing, as far as it arrived."""
        return bytes(self._body)

    @property
    def has_seen_enough(self) -> bool:
        """True once the client would go away."""
        return self._leaves_after is not None and self._body.count(b"\n\n") >= self._leaves_after

    def feed(self, data: bytes) -> None:
        self.sent += data
        self._rest += data
        if not self.status:
            self._read_head()
        if self.status and self._chunked:
            self._read_chunks()
        elif self.status:
            self._body += self._rest
            self._rest = b""
            self.complete = self._left is not None and len(self._body) >= self._left

    def _read_head(self) -> None:
        head, blank, rest = self._rest.partition(b"\r\n\r\n")
        if not blank:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        for line in lines:
            name, _, value = line.partition(":")
            self.headers.add(name, value.strip())
        self.status = int(first.split(" ")[1])
        self._rest = rest
        if self.status < 200:  # 100-continue: the answer itself is still to come
            self.status = 0
            self.headers.clear()
            self._read_head()
            return
        self._chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        length = self.headers.get("Content-Length")
        self._left = int(length) if length is not None else None

    def _read_chunks(self) -> None:
        while not self.complete:
            size, line_end, rest = self._rest.partition(b"\r\n")
            if not line_end:
                return
            length = int(size.split(b";")[0], 16)
            if not length:
                self._read_trailers(rest)
                return
            if len(rest) < length + 2:
                return
            self._body += rest[:length]
            self._rest = rest[length + 2 :]

    def _read_trailers(self, rest: bytes) -> None:
        lines, blank, _ = (b"\r\n" + rest).partition(b"\r\n\r\n")
        if blank:
            for line in lines.decode("latin-1").split("\r\n")[1:]:
                name, _, value = line.partition(":")
                self.trailers.add(name, value.strip())
            self.complete = True


class Client:
    """The client's end of one connection."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Send a request as a client writes it."""
        lines = [f"{method} {path} HTTP/1.1", "Host: predawn.test", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.deliver("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def close(self) -> None:
        self._transport.close()


def connect(app: App, answered: Answered, over: asyncio.Future[None]) -> Client:
    """Connect to the API's port of `app`; `over` is done when the answer is complete or the connection closed."""
    from predawn.proxy.http_server import HttpServer

    def receive(data: bytes) -> None:
        answered.feed(data)
        if answered.has_seen_enough:
            transport.close()  # the client goes away
        elif answered.complete and not over.done():
            over.set_result(None)

    def closed() -> None:
        if not over.done():
            over.set_result(None)

    limit = int(app.generation.settings.server.body_limit_mb * (1 << 20))
    transport = MemoryTransport(HttpServer(app.handle, body_limit=limit)(), receive, closed)
    return Client(transport)
