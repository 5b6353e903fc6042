"""Plugins that tests name in their settings; `conftest.py` makes them known."""

from __future__ import annotations

from collections.abc import AsyncIterator

from predawn.plugins import (
    App,
    CallNext,
    Chunk,
    ChunkFilter,
    Exchange,
    Plugin,
    PluginSettings,
    Reply,
    hookimpl,
)
from predawn.plugins.calls import SideCall, answer


class Watch(Plugin[PluginSettings]):
    """Keeps every finished exchange."""

    def __init__(self, settings: PluginSettings) -> None:
        super().__init__(settings)
        self.seen: list[Exchange] = []

    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        self.seen.append(exchange)


class Shout(Plugin[PluginSettings]):
    """Looks at every chunk and changes the text of each."""

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        return shout


def shout(chunk: Chunk) -> Chunk:
    data = chunk.data
    if not data or not data.get("choices"):
        return chunk
    choices = []
    for choice in data["choices"]:
        delta = choice.get("delta") or {}
        content = delta.get("content")
        choices.append({**choice, "delta": {**delta, "content": content.upper()}} if content else choice)
    return chunk.with_data({**data, "choices": choices})


class Careless(Plugin[PluginSettings]):
    """Wraps the stream in a generator that closes nothing."""

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        reply = await call_next(exchange)
        return reply.with_chunks(_same(reply.chunks))


async def _same(chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    async for chunk in chunks:
        yield chunk


class Slow(Plugin[PluginSettings]):
    """Makes the client wait until `go` is set."""

    def __init__(self, settings: PluginSettings) -> None:
        import asyncio

        super().__init__(settings)
        self.go = asyncio.Event()

    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        await self.go.wait()


class Draw(Plugin[PluginSettings]):
    """Draws several answers at once and takes the first one that is there; the others are cancelled."""

    samples = 16

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        self._tasks = app.tasks
        yield

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        import asyncio

        await exchange.reserve(calls=self.samples - 1)
        sides = [SideCall(exchange, call_next, changes={"seed": seed}) for seed in range(self.samples)]
        drawn = {self._tasks.spawn(side.whole(), "draw"): side for side in sides}
        done, _ = await asyncio.wait(drawn, return_when=asyncio.FIRST_COMPLETED)
        first = min((drawn[task] for task in done), key=lambda side: sides.index(side))
        for side in sides:
            if side is not first:
                await side.cancel()
        return answer(first)
