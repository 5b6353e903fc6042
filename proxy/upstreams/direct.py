"""Requests written straight onto aiohttp's pooled connections, without its session.

The connector keeps the pool, TLS, name resolution and happy eyeballs; the connection parses the answer. What the
session would do in between (cookies, redirects, tracing, request objects) is not wanted here and costs 80 µs a request,
half of all that a relay costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.streams import StreamReader
    from yarl import URL


TRIES = 5
"""Connections looked at for one request before giving up."""


@dataclass(slots=True)
class Answer:
    """The head of an answer, and the connection its body comes by."""

    status: int
    headers: Mapping[str, str]
    content: StreamReader
    connection: Connection


class DirectClient:
    """Sends requests with whole bodies to one origin."""

    def __init__(self, session: aiohttp.ClientSession, base: URL, *, connect_s: float, head_s: float) -> None:
        assert session.connector is not None
        self._connector = session.connector
        # the first also bounds the wait for a free place in the pool
        self._timeout = aiohttp.ClientTimeout(total=None, connect=head_s, sock_connect=connect_s)
        self._head_s = head_s
        self._loop = asyncio.get_running_loop()
        # never sent: the connector takes from it where to connect
        self._origin = aiohttp.ClientRequest("GET", base, loop=session._loop, session=session)  # noqa: SLF001
        host = base.host_port_subcomponent
        self._host = f"Host: {host}\r\n".encode("ascii")

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, more_headers: bytes = b""
    ) -> Answer:
        """Send one request and wait for the answer's head. Raises aiohttp's `ClientError`s and `OSError`.

        `more_headers` are whole lines, each with its line end. The head has `head_s` to arrive: a timer of our own
        costs 1 µs, `asyncio.timeout` 4.
        """
        connection = await self._connect()
        is_answered = False
        timer: asyncio.TimerHandle | None = None
        try:
            protocol = connection.protocol
            assert protocol is not None
            assert protocol.transport is not None
            protocol.set_response_params(read_until_eof=True, auto_decompress=True, skip_payload=method == "HEAD")
            protocol.transport.write(self._head(method, target, headers, len(body), more_headers) + body)
            timer = self._loop.call_later(self._head_s, _give_up, protocol)
            message, content = await protocol.read()
            while 100 <= message.code < 200:
                message, content = await protocol.read()
            is_answered = True
        finally:
            if timer is not None:
                timer.cancel()
            if not is_answered:
                connection.close()
        content.on_eof(connection.release)
        return Answer(message.code, message.headers, content, connection)

    async def _connect(self) -> Connection:
        """A connection on which nothing has come: it would be taken for the answer to the next request."""
        for _ in range(TRIES):
            try:
                connection = await self._connector.connect(self._origin, [], self._timeout)
            except TimeoutError as exc:
                raise aiohttp.ConnectionTimeoutError("no connection in time") from exc
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        raise aiohttp.ClientConnectionError("it sends what nobody asked for")

    def _head(self, method: str, target: str, headers: Mapping[str, str], length: int, more_headers: bytes) -> bytes:
        text = f"{method} {target} HTTP/1.1\r\n{header_lines(headers)}Content-Length: {length}\r\n"
        return text.encode("utf-8", "surrogateescape") + more_headers + self._host + b"\r\n"


def _give_up(protocol: ResponseHandler) -> None:
    protocol.set_exception(aiohttp.SocketTimeoutError("no answer in time"))


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as they stand on the wire. Names and values have been checked where they came from."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
