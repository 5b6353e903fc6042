"""A client that is a socket: it sends any bytes, and tells exactly how an answer ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict

PATIENCE_S = 10.0


@dataclass
class Answered:
    """One response as it came."""

    status: int
    headers: CIMultiDict[str]
    body: bytes
    whole: bool
    """False if the connection ended before the response did."""
    pieces: list[bytes]
    """The chunks in which a chunked body came."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of OpenAI's shape."""
        found: dict[str, Any] = self.json["error"]
        return found

    @property
    def data(self) -> list[bytes]:
        """The payloads of a stream of events."""
        return [line[5:].strip() for line in self.body.splitlines() if line.startswith(b"data:")]


class Bare:
    """A connection to the server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, body: bytes, path: str = "/v1/chat/completions", *headers: str) -> Answered:
        """Post a body and read the whole answer."""
        await self.send(post(body, path, *headers))
        return await self.answer()

    async def head(self) -> tuple[int, CIMultiDict[str]]:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        headers: CIMultiDict[str] = CIMultiDict()
        for line in lines:
            name, _, value = line.partition(":")
            headers.add(name, value.strip())
        return int(first.split(" ")[1]), headers

    async def answer(self) -> Answered:
        status, headers = await self.head()
        if status == 100:
            status, headers = await self.head()
        pieces: list[bytes] = []
        async with asyncio.timeout(PATIENCE_S):
            whole = await self._body(status, headers, pieces)
        return Answered(status, headers, b"".join(pieces), whole, pieces)

    async def _body(self, status: int, headers: CIMultiDict[str], pieces: list[bytes]) -> bool:
        try:
            if status in (204, 304):
                return True
            if headers.get("Transfer-Encoding") == "chunked":
                while (piece := await self.chunk()) is not None:
                    pieces.append(piece)
                return True
            if "Content-Length" in headers:
                pieces.append(await self.reader.readexactly(int(headers["Content-Length"])))
                return True
            pieces.append(await self.reader.read())
        except asyncio.IncompleteReadError as exc:
            pieces.append(exc.partial)
            return False
        except ConnectionError:
            return False
        return True

    async def chunk(self) -> bytes | None:
        """The next chunk of a chunked body; `None` after the last."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        piece = await self.reader.readexactly(size + 2)
        return piece[:-2] if size else None

    async def closed(self) -> bytes:
        """Wait until the server closes; what came until then."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def abort(self) -> None:
        """Go away as a killed process does."""
        self.writer.transport.abort()


def post(body: bytes, path: str = "/v1/chat/completions", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    if not any(line.lower().startswith(("content-length:", "transfer-encoding:")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chat(**members: Any) -> bytes:
    """A chat request's body."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], **members}).encode()


@asynccontextmanager
async def bare(port: int, host: str = "127.0.0.1") -> AsyncIterator[Bare]:
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
    try:
        yield Bare(reader, writer)
    finally:
        writer.close()


async def ask(port: int, body: bytes, path: str = "/v1/chat/completions", *headers: str) -> Answered:
    """One request on a connection of its own."""
    async with bare(port) as client:
        return await client.ask(body, path, "Connection: close", *headers)
