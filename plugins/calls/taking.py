"""The events of a body, offered where they are read, and waited for only where nobody takes them there.

Waking a task for each event costs more than all that is done with most of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, Self

from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.sse import AT_ONCE, EventSplitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from predawn.plugins import Chunk
    from predawn.proxy.exchange import TappedSource

SLICE_S = 0.004
"""How long events are offered before others get their turn."""


class Turns(Protocol):
    """Says when what has come is read."""

    def add(self, answer: Untaken) -> None:
        """Something has come of this answer: `read` it soon."""
        ...


def _nobody(event: bytes) -> Chunk | None:
    """Takes what comes after the end."""


class Untaken:
    """Iterate it for the chunks that were not taken, in their order.

    `offer` is called with each event from the read callback of the connection, or when its turn has come if it is given
    `turns`, for which the end of the answer does not wait; it returns the chunk if somebody has to wait for it.
    `offer_run` is asked before, with all events that are there, and removes those that it takes together. Nothing
    behind a chunk that is waited for is offered before the next one is asked for, nor is more kept than the connection
    does by itself. What `offer` raises comes to whoever iterates.
    """

    __slots__ = (
        "_data",
        "_error",
        "_events",
        "_is_busy",
        "_is_due",
        "_is_ended",
        "_last_at",
        "_offer",
        "_offer_run",
        "_source",
        "_splitter",
        "_timer",
        "_turns",
        "_untaken",
        "_upstream",
        "_wake",
    )

    def __init__(
        self,
        source: TappedSource,
        offer: Callable[[bytes], Chunk | None],
        upstream: str,
        turns: Turns | None = None,
        offer_run: Callable[[deque[bytes]], bool] | None = None,
    ) -> None:
        self._offer_run = offer_run
        self._turns = turns
        self._is_due = False
        """True while it waits for its turn."""
        self._source = source
        self._offer = offer
        self._upstream = upstream
        self._splitter = EventSplitter()
        self._events: deque[bytes] = deque()
        self._data = b""
        """What was read and is not split into events yet."""
        self._untaken: Chunk | None = None
        self._error: Exception | None = None
        self._wake: asyncio.Future[None] | None = None
        self._is_busy = False
        """True while events are offered, which may make the connection read on."""
        self._is_ended = False
        self._last_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._timer is None and not self._is_ended:
            self._begin()
        while not self._is_ended:
            self._offer_all()
            self._look_for_error()  # nobody was told of one that came while nobody waited
            if self._error is not None:
                self._end()
                raise self._error
            if self._untaken is not None:
                chunk, self._untaken = self._untaken, None
                return chunk
            if self._source.at_end and not self._events:
                if rest := self._splitter.rest():
                    self._events.append(rest)
                    continue
                self._end()
                break
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Offer no more."""
        self._end()

    def _begin(self) -> None:
        self._last_at = perf_counter()
        self._timer = asyncio.get_running_loop().call_later(self._source.idle_s, self._look)
        self._source.listen(self._read if self._turns is None else self._came)

    def _end(self) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._offer, self._offer_run = _nobody, None  # no circle is left to be collected
            self._source.listen(None)
            if self._timer is not None:
                self._timer.cancel()

    def _came(self) -> None:
        """Something has come, or the connection is lost."""
        if self._turns is None or self._source.is_complete or self._source.error is not None:
            self._read()
        elif not self._is_due:
            self._is_due = True
            self._turns.add(self)

    def read(self) -> bool:
        """Its turn has come."""
        self._is_due = False
        self._read()
        return False

    def _read(self) -> None:
        """Something has come, or the connection is lost."""
        if self._wake is None or self._is_busy:
            return  # whoever iterates is at work, and will look for itself
        if not self._offer_all() or self._source.error is not None:
            self._look_for_error()
        if self._untaken is not None or self._error is not None or self._source.at_end:
            self._call()

    def _call(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _look_for_error(self) -> None:
        """What the connection was lost by, once all that came before has been offered."""
        if self._untaken is None and self._error is None and not self._events:
            self._error = self._source.error

    def _offer_all(self) -> bool:
        """All there is, up to what nobody takes; False if nothing was."""
        found = False
        self._is_busy = True
        events, until = self._events, 0.0
        with self:
            while self._untaken is None and self._error is None and not self._is_ended:
                if events:
                    if not found:
                        found = True
                    elif not until:
                        until = perf_counter() + SLICE_S
                    elif perf_counter() > until:
                        asyncio.get_running_loop().call_soon(self._read)
                        break
                    if self._offer_run is None or not self._offer_run(events):
                        self._untaken = self._offer(events.popleft())
                elif data := self._data or self._source.read_nowait():
                    self._last_at = perf_counter()
                    if len(data) > AT_ONCE:
                        self._data, data = data[AT_ONCE:], data[:AT_ONCE]
                    else:
                        self._data = b""
                    events.extend(self._splitter.feed(data))
                else:
                    break
        self._is_busy = False
        return found

    def _look(self) -> None:
        """Whether it has gone quiet; one timer, set again only when it fires."""
        idle_s = self._source.idle_s
        quiet_s = perf_counter() - self._last_at if self._wake is not None else 0.0
        if quiet_s >= idle_s:
            message = f"nothing came for {idle_s:g} s"
            self._error = UpstreamError(self._upstream, "timeout_idle", message, sent_nothing=False)
            self._call()
        else:
            self._timer = asyncio.get_running_loop().call_later(idle_s - quiet_s, self._look)

    def __enter__(self) -> None:
        """An error in a read callback would end the connection and be logged; it is for whoever iterates."""

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> bool:
        if isinstance(exc, Exception):
            self._error = exc
            return True
        return False
