"""aiohttp's client connection with a tap: a listener is told after each read, so that a relay needs no task switch.

Waking a task for each chunk costs about as much as all else that is done with it. `TapConnection` is the one place that
relies on aiohttp's own classes; everything above it sees `TapSource`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler

from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader


class TapConnection(ResponseHandler):
    """One connection to an upstream; `tap` is called after every read and when the connection is lost."""

    tap: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.tap is not None:
            self.tap()

    def connection_lost(self, exc: BaseException | None) -> None:
        tap = self.tap
        super().connection_lost(exc)
        if tap is not None:
            tap()


class Owner(Protocol):
    """Who holds the connection: gives it back to the pool, or closes it."""

    def release(self) -> Any: ...

    def close(self) -> Any: ...


def tapped(connector: aiohttp.TCPConnector) -> aiohttp.TCPConnector:
    """Make a connector build its connections with a tap."""
    factory: Any = functools.partial(TapConnection, loop=asyncio.get_running_loop())
    connector._factory = factory  # noqa: SLF001 - there is no public way
    return connector


class TapSource:
    """The body of one answer, read by iteration or by listening. Implements `TappedSource`."""

    __slots__ = ("_closed", "_connection", "_content", "_listener", "_owner", "_upstream", "idle_s")

    def __init__(self, content: StreamReader, owner: Owner, protocol: Any, upstream: str, idle_s: float) -> None:
        self._content = content
        self._owner = owner
        self._connection: Any = protocol
        """The `TapConnection`; `None` if the whole body came with its head. Once it has come, another may have it."""
        self._listener: Callable[[], None] | None = None
        self._upstream = upstream
        self.idle_s = idle_s
        self._closed = False

    @property
    def at_end(self) -> bool:
        return self._content.at_eof()

    @property
    def is_complete(self) -> bool:
        return self._content.is_eof() and self._content.exception() is None

    @property
    def error(self) -> UpstreamError | None:
        """Set once the body is lost on the way."""
        if (exc := self._content.exception()) is not None:
            return self._lost(exc)
        if not self._content.is_eof() and self._connection is not None and self._connection.transport is None:
            return self._lost(None)
        return None

    def _lost(self, exc: BaseException | None) -> UpstreamError:
        why = f": {exc}" if exc is not None and str(exc) else ""
        return UpstreamError(self._upstream, "truncated", f"the answer was cut off{why}", sent_nothing=False)

    def read_nowait(self) -> bytes:
        return b"" if self._content.exception() is not None else self._content.read_nowait()

    def listen(self, callback: Callable[[], None] | None) -> None:
        mine, self._listener = self._listener, callback
        if self._connection is None:
            return
        if callback is not None and not self._content.is_eof():
            self._connection.tap = callback
        elif self._connection.tap is mine:  # else the connection is back in the pool and serves another request
            self._connection.tap = None

    def pause(self) -> None:
        if self._connection is not None and not self._content.is_eof():
            self._connection.pause_reading()

    def resume(self) -> None:
        if self._connection is not None and not self._content.is_eof():
            self._connection.resume_reading()

    @property
    def has_begun(self) -> bool:
        """True if something has been read or can be, or never will."""
        return bool(self._content.total_bytes) or self.at_end or self.error is not None

    async def first_byte(self) -> None:
        """Wait until something can be read, or the body is over or lost."""
        arrived = asyncio.get_running_loop().create_future()

        def on_data() -> None:
            if not arrived.done() and self.has_begun:
                arrived.set_result(None)

        self.listen(on_data)
        try:
            await arrived
        finally:
            self.listen(None)
        error: UpstreamError | None = self.error
        if error is not None and not self._content.total_bytes:
            raise UpstreamError(self._upstream, "truncated", error.message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self.idle_s):
                    data = await self._content.readany()
            except TimeoutError as exc:
                message = f"nothing came for {self.idle_s:g} s"
                raise UpstreamError(self._upstream, "timeout_idle", message, sent_nothing=False) from exc
            except (aiohttp.ClientError, OSError, RuntimeError) as exc:
                raise self._lost(exc) from exc
            if not data:
                return
            yield data

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.listen(None)
        if self._content.is_eof():
            self._owner.release()
        else:
            self._owner.close()
