"""The connections to one upstream: kept while they are of use, no more of them than allowed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from aiohappyeyeballs import start_connection

from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.connection import UpstreamConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from predawn.proxy.upstreams.base import Reason

KEPT_S = 60
"""How long a connection is kept that nobody uses."""
MARGIN_S = 1.5
"""So long before the upstream would, where it tells: the timer comes once a second, and messages travel."""
ADDRESSES_S = 30
"""How long addresses of a name are remembered."""
SECOND_ADDRESS_S = 0.25
"""When the next address is tried besides the one that has not answered yet (RFC 8305 §5)."""
SWEEP_S = 1.0
CLOSING_S = 2.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a pool connects to."""

    host: str
    port: int
    host_line: bytes
    tls: ssl.SSLContext | None = None


class Pool:
    """The connections to one origin; built on a running loop.

    A place is taken by each connection that is being made, busy or idle:

        free ──acquire──> connecting ──> busy ──answered──> idle ──take──> busy
          ^                  │            │                  │
          └── failed ────────┴── closed ──┴── closed, 60 s ──┘      a place or connection that comes free goes to
                                                                    whoever has waited longest

    Idle connections are used again last in, first out, so that those not needed grow old. One timer looks after all:
    a timer per request would cost 1 µs. It runs only while there are connections.
    """

    def __init__(
        self,
        name: str,
        origin: Origin,
        *,
        limit: int,
        connect_s: float,
        first_byte_s: float,
        idle_s: float,
        now: Callable[[], float] = perf_counter,
    ) -> None:
        self.name: Final = name
        self.host_line: Final = origin.host_line
        self.first_byte_s: Final = first_byte_s
        self.idle_s: Final = idle_s
        self.now = now
        self._origin = origin
        self._limit = limit
        self._connect_s = connect_s
        self._sweep_s = min(SWEEP_S, first_byte_s / 8, idle_s / 8)
        self._loop = asyncio.get_running_loop()
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._taken = 0
        """Places that are not free."""
        self._waiters: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        """Each is given a connection, or `None` for a place in which to make one."""
        self._timer: asyncio.TimerHandle | None = None
        self._kept_s: float = KEPT_S
        self._addresses: list[Any] = []
        self._resolved_at = 0.0
        self._resolving = asyncio.Lock()
        self._is_closed = False
        self._emptied: asyncio.Future[None] | None = None

    @property
    def connections(self) -> tuple[UpstreamConnection, ...]:
        """Those there are, idle and busy; for whoever looks at what is going on."""
        return tuple(self._all)

    def take(self) -> UpstreamConnection | None:
        """An idle connection, at once. It must be asked, or given back."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.is_closed:
                return connection
        return None

    async def acquire(self) -> UpstreamConnection:
        """A connection, idle or new. It must be asked, or given back. Raises `UpstreamError`."""
        if self._is_closed:
            raise self.error("connect", "it is being closed")
        connection = self.take()
        if connection is not None:
            return connection
        if self._taken < self._limit:
            self._taken += 1
        else:
            connection = await self._wait()
            if connection is not None:
                return connection
        return await self._connect()

    def give_back(self, connection: UpstreamConnection) -> None:
        """Take a connection back that was not asked."""
        if connection.is_usable:
            self.answered(connection)
        else:
            connection.abort()

    async def aclose(self) -> None:
        """Close all connections; whoever waits for an answer hears that it is lost."""
        self._is_closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(self.error("connect", "it is being closed"))
        self._waiters.clear()
        for connection in self.connections:
            connection.fail("it is being closed")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._all:
            self._emptied = self._loop.create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    await self._emptied

    def sweep(self) -> None:
        """Give up answers that are overdue, and close connections nobody has used for long."""
        now = self.now()
        for connection in self.connections:
            connection.overdue(now, first_byte_s=self.first_byte_s, idle_s=self.idle_s)
        while self._idle and now - self._idle[0].read_at >= self._kept_s:
            self._idle.pop(0).abort()

    def error(self, reason: Reason, message: str, *, sent_nothing: bool = True) -> UpstreamError:
        return UpstreamError(self.name, reason, message, sent_nothing=sent_nothing)

    # -- told by connections

    def joined(self, connection: UpstreamConnection) -> None:
        self._all.add(connection)
        if self._timer is None and not self._is_closed:
            self._timer = self._loop.call_later(self._sweep_s, self._tick)

    def answered(self, connection: UpstreamConnection) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def keeps(self, seconds: int) -> None:
        self._kept_s = min(KEPT_S, max(0.0, seconds - MARGIN_S))

    def closed(self, connection: UpstreamConnection) -> None:
        with suppress(ValueError):
            self._idle.remove(connection)
        self._free()

    def left(self, connection: UpstreamConnection) -> None:
        self._all.discard(connection)
        if not self._all and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _free(self) -> None:
        """Hand a place on that has come free."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._taken -= 1

    def _tick(self) -> None:
        self._timer = None
        if self._all and not self._is_closed:  # before anything else: what a receiver does wrong must not stop it
            self._timer = self._loop.call_later(self._sweep_s, self._tick)
            self.sweep()

    # -- waiting and connecting

    async def _wait(self) -> UpstreamConnection | None:
        """A connection that came free, or `None` for a place. Whoever leaves hands on what was meant for it."""
        waiter: asyncio.Future[UpstreamConnection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        is_content = False
        try:
            async with asyncio.timeout(self.first_byte_s):
                while True:
                    connection = await waiter
                    if connection is None or connection.is_usable:
                        is_content = True
                        return connection
                    # it was closed while it was handed over: its place is free, or somebody else's already
                    if (idle := self.take()) is not None:
                        is_content = True
                        return idle
                    if self._taken < self._limit:
                        self._taken += 1
                        is_content = True
                        return None
                    waiter = self._loop.create_future()
                    self._waiters.appendleft(waiter)
                    connection.abort()
        except TimeoutError:
            message = f"no connection within {self.first_byte_s:g} s: all {self._limit} are in use"
            raise self.error("connect", message) from None
        finally:
            if not is_content:
                self._leave(waiter)

    def _leave(self, waiter: asyncio.Future[UpstreamConnection | None]) -> None:
        with suppress(ValueError):
            self._waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            connection = waiter.result()
            if connection is None:
                self._free()
            else:
                self.give_back(connection)

    async def _connect(self) -> UpstreamConnection:
        """A new connection in a place that is taken already."""
        connection = UpstreamConnection(self)
        is_open = False
        try:
            async with asyncio.timeout(self._connect_s):
                await self._open(connection)
            is_open = connection.is_usable and not self._is_closed
        except TimeoutError as exc:
            raise self.error("connect", f"no connection within {self._connect_s:g} s") from exc
        except UnicodeError as exc:
            raise self.error("connect", "cannot connect (its name is not a host's)") from exc
        except OSError as exc:
            raise self.error("connect", f"cannot connect ({_told(exc)})") from exc
        finally:
            if not is_open:
                self._addresses = []  # it may have moved
                connection.abort()  # which frees its place
                self.left(connection)  # uvloop may not tell of one that was cancelled while it connected
        if not is_open:
            raise self.error("connect", "cannot connect (it closed the connection)")
        return connection

    async def _open(self, connection: UpstreamConnection) -> None:
        origin = self._origin
        sock = await start_connection(
            await self._resolve(), happy_eyeballs_delay=SECOND_ADDRESS_S, interleave=1, loop=self._loop
        )
        await self._loop.create_connection(
            lambda: connection,
            sock=sock,
            ssl=origin.tls,
            server_hostname=origin.host.rstrip(".") if origin.tls is not None else None,
        )

    async def _resolve(self) -> list[Any]:
        """The addresses, another one first each time: so the machines behind one name share the connections."""
        async with self._resolving:
            if not self._addresses or self.now() - self._resolved_at >= ADDRESSES_S:
                origin = self._origin
                found = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
                self._addresses, self._resolved_at = list(found), self.now()
            first, *others = self._addresses
            self._addresses = [*others, first]
            return [first, *others]

    def __repr__(self) -> str:
        busy = self._taken - len(self._idle)
        return f"<Pool {self.name!r} {busy} busy, {len(self._idle)} idle, {len(self._waiters)} waiting>"


def _told(exc: OSError) -> str:
    """What went wrong, in few words and without addresses."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return exc.reason or "TLS failed"
    if isinstance(exc, socket.gaierror):
        return exc.strerror or "its name is not known"
    return os.strerror(exc.errno) if exc.errno else type(exc).__name__
