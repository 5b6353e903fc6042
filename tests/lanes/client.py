"""A client that is a socket, and what it makes of the bytes that it gets."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.acceptance.house import until
from tests.lanes.upstream import turns

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) [^\r\n\x00]*")
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([^\x00-\x08\x0a-\x1f\x7f]*)")


class Client(asyncio.Protocol):
    """One connection to a lane."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.received = bytearray()
        self.is_closed = False
        self.is_reset = False
        """True if the end came as an error: what was on its way may be lost."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.is_closed = True
        return self.transport.get_extra_info("sslcontext") is None  # the test says when this side closes

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self.is_reset = exc is not None

    async def send(self, *segments: bytes) -> None:
        """Send segments, each likely to be read by itself."""
        for segment in segments:
            if self.transport.is_closing():
                return
            self.transport.write(segment)
            await turns(3)

    async def gets(self, data: bytes, times: int = 1) -> None:
        """Wait until this is among what came; fail if that takes long."""
        found = at = 0

        def is_there() -> bool:
            nonlocal found, at
            while (start := self.received.find(data, at)) >= 0:
                found, at = found + 1, start + len(data)
            at = max(at, len(self.received) - len(data) + 1)
            return found >= times or self.is_closed

        try:
            await until(is_there, seconds=15)
        except TimeoutError:
            raise AssertionError(f"{data!r} did not come, but {bytes(self.received[-2000:])!r}") from None
        assert found >= times, bytes(self.received[-2000:])

    async def ends(self) -> None:
        """Wait until the server closes."""
        await until(lambda: self.is_closed, seconds=15)

    def abort(self) -> None:
        """Go away as a killed process does."""
        self.transport.abort()

    def leave(self) -> None:
        self.transport.close()

    @property
    def answers(self) -> tuple[list[Answer], bytes]:
        """What came, and the bytes at its end that make no whole answer."""
        return read_answers(bytes(self.received))


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(Client, "127.0.0.1", port, ssl=tls)
    try:
        yield client
    finally:
        transport.abort()


@dataclass(frozen=True)
class Answer:
    """One response. A chunked body is given without its chunks."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool
    """False if it had not ended when the connection did, or when the client stopped waiting."""

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def value(self, name: str) -> str | None:
        return next(iter(self.values(name)), None)


def read_answers(data: bytes) -> tuple[list[Answer], bytes]:
    """Answers one after another, by strict rules; from the first byte that breaks one on, all is rest."""
    answers: list[Answer] = []
    while data:
        end = data.find(b"\r\n\r\n")
        head = _head(data[: end if end >= 0 else 0])
        if head is None:
            return answers, data
        line, headers = head
        body, rest, whole = _body(line, headers, data[end + 4 :])
        answers.append(Answer(line, headers, body, whole))
        data = rest
    return answers, b""


def _head(data: bytes) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    first, *lines = data.split(b"\r\n")
    found = [_LINE.fullmatch(line) for line in lines]
    if _STATUS.fullmatch(first) is None or None in found:
        return None
    return first.decode("latin-1"), tuple((m[1].decode().lower(), m[2].decode("latin-1")) for m in found if m)


def _body(line: str, headers: tuple[tuple[str, str], ...], data: bytes) -> tuple[bytes, bytes, bool]:
    """The body, what comes behind it, and whether it is whole."""
    status = int(line.split(" ")[1])
    lengths = [value for name, value in headers if name == "content-length"]
    codings = [value.lower() for name, value in headers if name == "transfer-encoding"]
    if status < 200 or status in (204, 304):
        return b"", data, not (codings or (lengths and status not in (204, 304)))
    if codings == ["chunked"] and not lengths:
        return _chunks(data)
    if len(lengths) == 1 and lengths[0].isdigit() and not codings:
        length = int(lengths[0])
        if data.startswith(b"HTTP/1."):  # the answer to HEAD
            return b"", data, True
        return data[:length], data[length:], len(data) >= length
    return data, b"", False  # until the end of the connection; a test that expects it says so


def _chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while (found := re.match(rb"([0-9a-f]{1,8})\r\n", data)) is not None:
        start, size = found.end(), int(found[1], 16)
        if not size:
            end = data.find(b"\r\n", start)
            while end > start:  # trailers
                body += b"(trailer %b)" % data[start:end]
                start, end = end + 2, data.find(b"\r\n", end + 2)
            return (body, data[end + 2 :], True) if end >= 0 else (body, b"", False)
        if len(data) < start + size + 2:
            return body + data[start : start + size], b"", False
        if data[start + size : start + size + 2] != b"\r\n":
            break
        body += data[start : start + size]
        data = data[start + size + 2 :]
    return body + (b"(not a chunk: %b)" % data if data else b""), b"", False
