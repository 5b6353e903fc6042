"""Who watches: server-sent events to at most a few browsers, each as fast as it reads or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from multidict import CIMultiDict

from predawn.proxy.exchange import RequestError
from predawn.proxy.live.assets import HEADERS
from predawn.proxy.relay import STREAM_HEADERS, StreamSink

if TYPE_CHECKING:
    from aiohttp import web

    from predawn.proxy.clock import Clock
    from predawn.proxy.http_server import Request
    from predawn.proxy.tasks import Tasks

log = logging.getLogger("predawn.live")
MOST_VIEWERS = 16
TURN_S = 0.25
STATE_S = 1.0
MOST_WAITING = 512 << 10
"""Bytes that may wait for a browser; one that lets more wait is dropped, and comes back when it can."""


@dataclass(eq=False, slots=True)
class Viewer:
    """One open page."""

    request: Request
    sink: StreamSink
    gone: asyncio.Future[None]

    def send(self, event: bytes) -> bool:
        """False if it has gone, or was dropped for reading too slowly."""
        transport = self.request.transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > MOST_WAITING:
            log.info("a viewer of the live page reads too slowly and is dropped")
            transport.abort()
            return False
        self.sink.write(event)
        return True


class Viewers:
    """Sends `turn()` four times a second and `state()` once, to all who watch; neither is asked while nobody does."""

    def __init__(
        self,
        clock: Clock,
        tasks: Tasks,
        turn: Callable[[], dict[str, Any]],
        state: Callable[[], Awaitable[dict[str, Any]]],
        watched: Callable[[bool], None],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._turn = turn
        self._state = state
        self._watched = watched
        self._viewers: set[Viewer] = set()
        self._works: list[asyncio.Task[None]] = []
        self._last_state = b""
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._viewers)

    async def watch(self, request: Request) -> web.StreamResponse:
        """Answer with events until the browser goes, or the server. Raises 503 if there are too many."""
        if len(self._viewers) >= MOST_VIEWERS or self._is_closed:
            message = f"{MOST_VIEWERS} live pages are open already; close one."
            raise RequestError(503, message, type="server_error", code="too_many_viewers")
        viewer = Viewer(request, StreamSink(request, "live", 30.0), asyncio.get_running_loop().create_future())
        self._viewers.add(viewer)  # before the first await, so that they never get more
        try:
            await viewer.sink.open(200, CIMultiDict({**STREAM_HEADERS, **HEADERS, "Cache-Control": "no-store"}))
            viewer.send(self._last_state or b": welcome\n\n")
            self._begin()
            await viewer.gone
            return await viewer.sink.finish()
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._end()

    def close(self) -> None:
        """The server goes: end the streams, so that it need not wait for them."""
        self._is_closed = True
        for viewer in self._viewers:
            if not viewer.gone.done():
                viewer.gone.set_result(None)

    def _begin(self) -> None:
        if any(work.done() for work in self._works):  # one has failed, and who watched then has not yet gone
            self._end()
        if not self._works:
            self._watched(True)
            turns = self._tasks.spawn(self._repeat(self._send_turn, TURN_S), "live.turns")
            states = self._tasks.spawn(self._repeat(self._send_state, STATE_S), "live.state")
            self._works = [turns, states]

    def _end(self) -> None:
        works, self._works = self._works, []
        for work in works:
            work.cancel()
        self._last_state = b""
        self._watched(False)

    async def _repeat(self, send: Callable[[], Awaitable[None]], every_s: float) -> None:
        try:
            while True:
                await send()
                await self._clock.sleep(every_s)
        finally:  # without news a page would stand still: it is to ask again
            for viewer in self._viewers if asyncio.current_task() in self._works else ():
                if not viewer.gone.done():
                    viewer.gone.set_result(None)

    async def _send_turn(self) -> None:
        self._send(_event("turn", self._turn()))

    async def _send_state(self) -> None:
        self._last_state = _event("state", await self._state())
        self._send(self._last_state)

    def _send(self, event: bytes) -> None:
        for viewer in self._viewers:
            if viewer.sink.opened and not viewer.send(event) and not viewer.gone.done():
                viewer.gone.cancel()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))
