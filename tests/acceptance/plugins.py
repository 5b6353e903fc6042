"""Plugins that tests name in their settings; `conftest.py` makes them known."""

from __future__ import annotations

from collections.abc import AsyncIterator

from predawn.plugins import (
    CallNext,
    Chunk,
    ChunkFilter,
    Exchange,
    Plugin,
    PluginSettings,
    Reply,
    hookimpl,
)


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
