"""A server whose sockets are played by hand: what the loop would call is called by the test, one event at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from predawn.plugins.testing.clock import ManualClock, settle
from predawn.proxy.fastlane.door import Door
from predawn.proxy.metrics import Metrics
from predawn.proxy.server import Server, running
from predawn.proxy.settings import Settings
from predawn.proxy.upstreams.connection import UpstreamConnection
from predawn.proxy.upstreams.openai import OpenAIUpstream
from predawn.proxy.upstreams.pool import Pool

USAGE = b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}'
BODY = b'{"choices":[],' + USAGE + b"}"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ANSWER = JSON_HEAD % len(BODY) + BODY
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"
ROUTES = ["chat", "completions", "responses", "embeddings", "messages"]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def asking(path: str = "/v1/chat/completions", *, lines: bytes = b"", model: str = "m", **members: Any) -> bytes:
    """A plain request."""
    body = json.dumps({"model": model, "messages": [], **members}).encode()
    head = b"POST %b HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n" % (path.encode(), lines, len(body))
    return head + body


class Wire(asyncio.Transport):
    """A transport that keeps what is written; as full, slow and closed as the test says."""

    def __init__(self, protocol: asyncio.Protocol, peer: str = "127.0.0.1") -> None:
        super().__init__()
        self.protocol: asyncio.Protocol = protocol
        self.written = bytearray()
        self.unsent = 0
        self.limit = 64 << 10
        self.is_reading_paused = self.closing = self.aborted = self.is_lost = False
        self._peer = peer
        self._has_paused = False
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._peer, 1) if name == "peername" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast("asyncio.Protocol", protocol)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closing:
            self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002
        self.limit = high if high is not None else 64 << 10
        self.fill(self.unsent)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def fill(self, unsent: int) -> None:
        """So much waits for the other end now; tells the protocol as the loop's transports do."""
        self.unsent = unsent
        if unsent > self.limit and not self._has_paused:
            self._has_paused = True
            self.protocol.pause_writing()
        elif unsent <= self.limit // 4 and self._has_paused:
            self._has_paused = False
            self.protocol.resume_writing()

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return not self.is_reading_paused

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def brings(self, *pieces: bytes) -> None:
        """The other end sent this, a piece in each read."""
        for piece in pieces:
            self.protocol.data_received(piece)

    def lose(self, exc: Exception | None = None) -> None:
        """The loop tells that the connection is gone; once, as it does."""
        self.closing = True
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connection_lost(exc)

    def taken(self) -> bytes:
        """What was written since the last look."""
        data = bytes(self.written)
        self.written.clear()
        return data


class Sides:
    """A running server, its clients and its provider."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.wires: list[Wire] = []
        """All there were."""

    @property
    def service(self) -> Any:
        return self.server.app.generation.service

    @property
    def metrics(self) -> Metrics:
        """With all that is over counted."""
        metrics = self.server.app.metrics
        metrics.postponed.settle()
        return metrics

    @property
    def station(self) -> Any:
        return self.server.app.generation.stations["up"]

    @property
    def pool(self) -> Pool:
        upstream = self.station.upstream
        assert isinstance(upstream, OpenAIUpstream)
        assert upstream.pool is not None
        return upstream.pool

    def client(self) -> tuple[Door, Wire]:
        door = self.server.doors()
        assert isinstance(door, Door)
        self.wires.append(Wire(door))
        return door, self.wires[-1]

    def provider(self) -> Wire:
        """An idle connection to it."""
        connection = UpstreamConnection(self.pool)
        self.pool._taken += 1
        self.wires.append(Wire(connection))
        self.pool.answered(connection)
        return self.wires[-1]

    @property
    def left(self) -> tuple[int, int, float]:
        """What is on its way: requests, calls, and what the gauge says."""
        return len(self.service.conversations), self.station.in_flight, self.service.in_flight["chat"].value

    @property
    def is_idle(self) -> bool:
        return not any(self.left)

    @property
    def answered(self) -> float:
        """Requests that the fast lane answered."""
        return cast("float", self.service.fast_lane.value)


@asynccontextmanager
async def sides(
    state: str, *, stream_usage: bool = False, access: Mapping[str, str] | None = None, **server: Any
) -> AsyncIterator[Sides]:
    upstream = {
        "name": "up",
        "kind": "openai",
        "base_url": "http://127.0.0.1:9/v1",
        "api_key": "sk-up",
        "routes": ROUTES,
    }
    limits = {"retries": {"attempts": 1}, "breaker": {"failures": 2}}
    settings = {
        "state": state,
        "access": access or {"keys": "off"},
        "server": {"port": 0, "admin_port": 0, **server},
        "upstreams": [{**upstream, **limits, "stream_usage": stream_usage}],
        "models": [{"name": "m", "upstream": "up"}],
    }
    async with running(Settings.model_validate(settings), clock=ManualClock()) as started:
        made = Sides(started)
        try:
            yield made
        finally:
            for wire in made.wires:
                wire.lose()
            await settle()
