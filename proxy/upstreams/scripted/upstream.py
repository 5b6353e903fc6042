"""The fake in process: an `Upstream` without a socket, for plugin tests and for trying settings out."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Self

from predawn.proxy.clock import Clock, SystemClock
from predawn.proxy.exchange import Reply, RouteName
from predawn.proxy.problems import Problem, SettingsError
from predawn.proxy.settings import TimeoutSettings, UpstreamSettings
from predawn.proxy.upstreams.base import Reason, UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.scripted.script import Answer, Script, ScriptError
from predawn.proxy.upstreams.scripted.stage import Choose, Counts, Opened, Received, Stage, as_script, headers_of
from predawn.proxy.wire.fold import whole_body
from predawn.proxy.wire.headers import to_client
from predawn.proxy.wire.sse import split_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from predawn.proxy.upstreams.scripted.plan import Plan, Step

ALL_ROUTES: frozenset[RouteName] = frozenset({"chat", "completions", "responses", "embeddings", "messages", "raw"})


class ScriptedSource:
    """The body of a scripted reply: the bytes of each step as they are scripted."""

    def __init__(self, upstream: ScriptedUpstream, performed: Plan, opened: Opened) -> None:
        self._upstream = upstream
        self._plan = performed
        self._opened = opened
        self._steps = iter(performed.steps)
        self._first: bytes | None = None
        self._left = performed.claimed_length if performed.claimed_length is not None else math.inf
        self._over = False

    async def start(self) -> None:
        """Wait for the first bytes; none come of an empty body."""
        self._first = await self._next(first=True)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            data, self._first = self._first, None
            return data
        following = None if self._over else await self._next(first=False)
        if following is None:
            raise StopAsyncIteration
        return following

    async def aclose(self) -> None:
        self._over = True
        self._first = None
        self._opened.close(finished=False)

    async def _next(self, *, first: bool) -> bytes | None:
        """The bytes of the next step that has some; `None` at a clean end."""
        for step in self._steps:
            await self._upstream.wait(step.wait_s, first=first)
            self._opened.sent(step)
            if data := self._cut(step):
                return data
        await self._end(first=first)
        return None

    def _cut(self, step: Step) -> bytes:
        """What a client of HTTP sees of a step: nothing beyond the claimed length."""
        data = step.data if len(step.data) <= self._left else step.data[: int(self._left)]
        self._left -= len(data)
        return data

    async def _end(self, *, first: bool) -> None:
        if self._over:
            return
        if self._plan.end == "stall":
            await self._upstream.wait(math.inf, first=first)
        self._over = True
        self._opened.close(finished=True)
        if self._plan.end == "abort" or (self._left > 0 and self._left != math.inf):
            raise UpstreamError(
                self._upstream.name, "truncated", "the connection was lost before the answer's end", sent_nothing=first
            )


class ScriptedUpstream:
    """A provider that answers by script. `requests` are what it received, `counts` what it did.

    `choose` may pick the answer to each request itself: it returns an `Answer`, a text, or `None` for the script's own.
    """

    def __init__(
        self,
        script: Script | Answer | str | None = None,
        *,
        name: str = "scripted",
        clock: Clock | None = None,
        choose: Choose | None = None,
        timeouts: TimeoutSettings | None = None,
        routes: frozenset[RouteName] = ALL_ROUTES,
    ) -> None:
        self.name = name
        self.routes = routes
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.timeouts = timeouts
        self.stage = Stage(as_script(script), choose=choose)

    @classmethod
    def from_settings(cls, settings: UpstreamSettings, clock: Clock) -> Self:
        """The upstream of a settings file; raises `SettingsError` naming what is wrong with its `script`."""
        try:
            script = Script.read(settings.script)
        except ScriptError as exc:
            problems = [Problem(("upstreams", settings.name, *found.where), found.message) for found in exc.problems]
            raise SettingsError("settings", problems) from None
        return cls(
            script,
            name=settings.name,
            clock=clock,
            timeouts=settings.timeouts,
            routes=frozenset({*settings.routes, *(("raw",) if settings.relay else ())}),
        )

    def adopt(self, timeouts: TimeoutSettings, clock: Clock) -> None:
        """Live by a server's timeouts and clock, unless the upstream was given its own."""
        self.timeouts = self.timeouts or timeouts
        if isinstance(self.clock, SystemClock):
            self.clock = clock

    @property
    def counts(self) -> Counts:
        return self.stage.counts

    @property
    def requests(self) -> list[Received]:
        """What arrived, oldest first."""
        return self.stage.requests

    async def open(self) -> None:
        """Nothing to get ready."""

    async def send(self, request: UpstreamRequest) -> Reply:
        body = request.body if isinstance(request.body, bytes) else b"".join([part async for part in request.body])
        performed = self.stage.receive(Received(request.method, request.path, headers_of(request.headers), body))
        opened = self.stage.open(performed)
        source = ScriptedSource(self, performed, opened)
        try:
            if performed.begin == "refuse":
                opened.close(finished=True)
                raise UpstreamError(self.name, "connect", "the connection was refused")
            await source.start()
        except BaseException:
            await source.aclose()
            raise
        headers = to_client(performed.headers)
        split = split_events if headers.get("Content-Type", "").startswith("text/event-stream") else whole_body
        return Reply(performed.status, headers, source=source, split=split)

    async def models(self) -> list[str]:
        return list(self.stage.script.models)

    async def aclose(self) -> None:
        """Nothing to close; replies are closed by whoever opened them."""

    async def wait(self, seconds: float, *, first: bool) -> None:
        """Pass time by the clock; raise `UpstreamError` once the timeout for a first or a further byte is over."""
        if seconds <= 0:
            return
        limit = math.inf if self.timeouts is None else self.timeouts.first_byte_s if first else self.timeouts.idle_s
        if seconds <= limit and seconds != math.inf:
            await self.clock.sleep(seconds)
        elif limit == math.inf:
            await asyncio.Event().wait()  # a stall without a timeout ends by cancellation only
        else:
            await self.clock.sleep(limit)
            reason: Reason = "timeout_ttft" if first else "timeout_idle"
            raise UpstreamError(self.name, reason, f"nothing came for {limit:g} s", sent_nothing=first)

    def __repr__(self) -> str:
        counts = self.counts
        return f"<ScriptedUpstream {self.name!r} {counts.requests} requests, {counts.in_flight} in flight>"
