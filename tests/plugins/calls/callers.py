"""A plugin whose way of answering each test brings itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from predawn.plugins import App, CallNext, Exchange, Plugin, PluginSettings, Reply, hookimpl
from predawn.proxy.upstreams.scripted import ScriptedUpstream

Way: TypeAlias = Callable[[Exchange, CallNext], Awaitable[Reply]]


class Caller(Plugin):
    """Answers as it is told to."""

    def __init__(self, way: Way) -> None:
        super().__init__(PluginSettings())
        self.way = way
        self._app: App | None = None

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        self._app = app
        yield

    @property
    def app(self) -> App:
        assert self._app is not None
        return self._app

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        return await self.way(exchange, call_next)


def leaks(upstream: ScriptedUpstream) -> int:
    """Replies of an upstream that nobody closed."""
    return upstream.counts.opened - upstream.counts.closed
