"""One client connection: the plainest requests go through here, everything else is handed on, bytes and all."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, cast

from aiohttp.tcp_helpers import tcp_keepalive

from predawn.proxy import http_server
from predawn.proxy.fastlane.answer_head import Dates
from predawn.proxy.fastlane.heads import LONGEST_HEAD
from predawn.proxy.relay import HIGH_WATER

if TYPE_CHECKING:
    from predawn.proxy.app import App
    from predawn.proxy.fastlane.heads import Plan
    from predawn.proxy.fastlane.transit import Transit
    from predawn.proxy.http_server import HttpServer
    from predawn.proxy.resilience import FirstTry

BEGINNING, END = b"POST /v1/", b"\r\n\r\n"
MOST_AHEAD = 64 << 10
"""Bytes of further requests that may wait while one is answered."""
SLOW_S = 2.0
"""A request that takes longer to arrive is handed on: the full lane has patience, and limits to it."""


class Doors:
    """Makes a `Door` for each connection, and looks after them."""

    def __init__(self, app: App, http: HttpServer) -> None:
        self.app = app
        self.http = http
        self.dates = Dates()
        self.open: set[Door] = set()

    def __call__(self) -> asyncio.Protocol:
        lane = self.app.generation.lane
        return Door(self) if lane is not None and lane.is_open else self.http()

    def sweep(self) -> None:
        """Hand on what is slow to arrive, close what is idle, give up clients that do not read; once a second."""
        now = perf_counter()
        for door in tuple(self.open):
            door.look_after(now)

    def close(self) -> None:
        """Close every connection that is left."""
        for door in tuple(self.open):
            door.transport.abort()


class Door(asyncio.Protocol):
    """The states of one connection.

    idle ──part of a head──> heading ──head──> reading ──body──> serving ──answered──> idle
      └────────────────────────┴─────────────────┴─────────────────┴── unusual, slow, or failed before its first byte:
                                                                       handed on, for good
    """

    __slots__ = (
        "_ahead",
        "_began",
        "_body_at",
        "_doors",
        "_held",
        "_is_reading",
        "_last",
        "_missing",
        "_peer",
        "_raw",
        "_since",
        "_stuck_at",
        "_transit",
        "_unsent",
        "dates",
        "transport",
    )

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self.dates = doors.dates
        self._held: list[bytes] = []
        """What came of a request that is not complete."""
        self._is_reading = False
        self._raw = b""
        """The request as it came, until part of an answer was sent."""
        self._last: Plan | None = None
        """Of the latest request."""
        self._missing = 0
        """Bytes of the body that are still to come."""
        self._body_at = 0
        self._began = 0.0
        self._transit: Transit | None = None
        self._ahead = b""
        """What came behind the request that is being served."""
        self._since = perf_counter()
        """When the state began."""
        self._stuck_at = 0.0
        """When the client stopped reading; 0 while it reads."""
        self._unsent = 0
        """Bytes that waited for the client when it was last looked after between two requests."""
        self._peer = ""
        self.transport: asyncio.Transport

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        tcp_keepalive(self.transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if isinstance(name, tuple) else ""
        self._doors.open.add(self)

    def data_received(self, data: bytes) -> None:
        if self._transit is not None or self._stuck_at:
            self._ahead += data
            if len(self._ahead) > MOST_AHEAD:
                self.transport.pause_reading()
        elif self._is_reading:
            self._held.append(data)
            self._missing -= len(data)
            if self._missing <= 0:
                held, self._held, self._is_reading = self._held, [], False
                self._serve(b"".join(held))
        elif self._held:
            self._look(self._held.pop() + data, perf_counter())
        else:
            now = self._since = perf_counter()
            self._look(data, now)

    def pause_writing(self) -> None:
        self._stuck_at = perf_counter()
        if self._transit is not None:
            self._transit.pause()

    def resume_writing(self) -> None:
        self._stuck_at = 0.0
        if self._transit is not None:
            self._transit.resume()
        else:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's own signature
        self._doors.open.discard(self)
        if self._transit is not None:
            self._transit.client_left()

    # -- a request on its way in

    def _look(self, data: bytes, now: float) -> None:
        """Take up a request that begins with these bytes, or wait for the rest of its head, or hand it on."""
        app = self._doors.app
        lane = app.generation.lane
        found = None
        if lane is not None and not (app.refuses or app.leaving):
            found = lane.heads.find(data, self._peer, self._last)
        if found is None:
            if len(data) <= LONGEST_HEAD and data[: len(BEGINNING)] == BEGINNING[: len(data)] and END not in data:
                self._held = [data]
            else:
                self.hand_on(data)
            return
        self._last, length, self._body_at = found
        self._began = now
        self._missing = self._body_at + length - len(data)
        if self._missing > 0:
            self._is_reading = True
            self._held = [data]
        else:
            self._serve(data)

    def _serve(self, data: bytes) -> None:
        if self._missing:
            data, self._ahead = data[: self._missing], data[self._missing :]
            self._missing = 0
        self._raw = data
        lane, plan = self._doors.app.generation.lane, self._last
        assert plan is not None
        transit = lane.admit(self, plan, data[self._body_at :], self._began) if lane is not None else None
        if transit is None:
            self.hand_on(data + self._ahead)
        else:
            self._transit = transit
            transit.begin()

    # -- called by the transit

    def commit(self) -> None:
        """Part of an answer was sent: the request cannot be handed over any more."""
        self._raw = b""

    def hand_over(self, first: FirstTry | None) -> None:
        """Let the full lane go on with the request that is being served, after this first try if there was one."""
        self._transit = None
        self.hand_on(self._raw + self._ahead, first)

    def done(self) -> None:
        """The request is answered, or nobody waits for its answer; look at the next one."""
        self._transit = None
        self._raw = b""
        self._since = perf_counter()
        if self._ahead:
            self._go_on()

    def _go_on(self) -> None:
        """Take up what came meanwhile; not while the client reads nothing, or answers would pile up."""
        if self._ahead and not self._stuck_at and not self.transport.is_closing():
            ahead, self._ahead = self._ahead, b""
            if len(ahead) > MOST_AHEAD:
                self.transport.resume_reading()
            self._look(ahead, perf_counter())

    def close(self) -> None:
        """End the connection once what was written is sent; nothing that still comes is heard."""
        if not self.transport.is_closing():
            self.transport.pause_reading()  # TLS reads on while it flushes, and would bring another request
            self.transport.close()

    # -- other ends

    def hand_on(self, data: bytes, first: FirstTry | None = None) -> None:
        """Give the connection to the full lane for good, with what came of the request."""
        doors, transport = self._doors, self.transport
        doors.open.discard(self)
        if transport.is_closing():
            return
        handler = doors.http()
        handler.first_try = first
        transport.set_protocol(handler)
        handler.connection_made(transport)
        if self._stuck_at:
            handler.pause_writing()
        transport.set_write_buffer_limits()  # not earlier: what is still unsent may tell the handler to pause
        if len(self._ahead) > MOST_AHEAD:
            transport.resume_reading()
        handler.data_received(data)

    def look_after(self, now: float) -> None:
        """See that nothing takes for ever."""
        transit = self._transit
        if transit is not None:
            if self._stuck_at and now - self._stuck_at > transit.idle_s:
                transit.client_left(f"the client read nothing for {transit.idle_s:g} s")
                self.transport.abort()
        elif self._held:
            if now - self._since > SLOW_S:
                self.hand_on(b"".join(self._held))
        else:
            unsent = self.transport.get_write_buffer_size()
            if unsent != self._unsent:  # the client still reads an answer that was written long ago
                self._unsent, self._since = unsent, now
            if now - self._since > http_server.IDLE_CONNECTION_S:
                self.transport.abort()
