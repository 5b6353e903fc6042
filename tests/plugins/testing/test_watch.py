"""Mistakes of plugin authors that a server would forgive or hide."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from predawn.plugins import CallNext, Chunk, Difficulty, Exchange, Plugin, Reply, hookimpl
from predawn.plugins.testing import PluginMisuseError, run_plugin
from predawn.proxy.dispatch import PluginError


class EditsInPlace(Plugin):
    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        exchange.request["messages"][0]["content"] = "changed"


class MutatesInFilter(Plugin):
    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> Any:
        def mutate(chunk: Chunk) -> Chunk:
            for choice in (chunk.data or {}).get("choices", ()):
                choice["delta"]["content"] = "changed"
            return chunk

        return mutate


class MutatesAround(Plugin):
    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        reply = await call_next(exchange)
        return reply.with_chunks(self._changed(reply.chunks))

    async def _changed(self, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        async for chunk in chunks:
            if chunk.data:
                chunk.data["choices"] = []
            yield chunk


class ShallowCopy(Plugin):
    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> Any:
        def mutate(chunk: Chunk) -> Chunk:
            data = dict(chunk.data or {})
            if not data.get("choices"):
                return chunk
            data["choices"][0]["delta"]["content"] = "changed"
            return chunk.with_data(data)

        return mutate


class AsyncFilter(Plugin):
    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> Any:
        async def later(chunk: Chunk) -> Chunk:
            return chunk

        return later


class NotAFilter(Plugin):
    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> Any:
        return "upper"


class GivesText(Plugin):
    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> Any:
        return lambda chunk: ["text", chunk]


class ForgetsToReturn(Plugin):
    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Any:
        await call_next(exchange)


class Blocks(Plugin):
    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        time.sleep(0.06)


MISUSES = [
    (EditsInPlace, "exchange.request was changed in place"),
    (MutatesInFilter, "chunk.data was changed in place"),
    (MutatesAround, "chunk.data was changed in place"),
    (ShallowCopy, "chunk.data was changed in place"),
    (AsyncFilter, "chunk_filter returned an async function"),
    (NotAFilter, "chunk_filter must return a function or None, it returned str"),
    (GivesText, "a filter gives chunks; it gave str"),
    (ForgetsToReturn, "around_completion must return a Reply, it returned NoneType"),
    (Blocks, "on_request kept the event loop busy for 0."),
]


@pytest.mark.parametrize(("plugin", "told"), MISUSES)
async def test_a_misuse_is_raised_and_says_what_to_do(plugin: type[Plugin], told: str) -> None:
    with pytest.raises(PluginMisuseError, match=told):
        await run_plugin(plugin, upstream="a b", stream=True, blocking_s=0.05 if plugin is Blocks else None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("plugin", [MutatesInFilter, ShallowCopy])
async def test_whole_bodies_are_watched_like_streams(plugin: type[Plugin], stream: bool) -> None:
    with pytest.raises(PluginMisuseError, match="in place"):
        await run_plugin(plugin, upstream="a b", stream=stream)


class Breaks(Plugin):
    hook = ""

    async def _break(self) -> None:
        raise ZeroDivisionError(self.hook)


class BreaksOnRequest(Breaks):
    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        await self._break()


class BreaksAssess(Breaks):
    @hookimpl
    async def assess(self, exchange: Exchange) -> Difficulty | None:
        await self._break()
        return None


class BreaksAround(Breaks):
    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        await self._break()
        return await call_next(exchange)


class BreaksFilter(Breaks):
    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> Any:
        return lambda chunk: 1 / 0


class BreaksMidStream(Breaks):
    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        reply = await call_next(exchange)
        return reply.with_chunks(self._broken(reply.chunks))

    async def _broken(self, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        async for chunk in chunks:
            yield chunk
            await self._break()


class BreaksObserver(Breaks):
    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        await self._break()


BROKEN = [
    (BreaksOnRequest, "on_request"),
    (BreaksAssess, "assess"),
    (BreaksAround, "around_completion"),
    (BreaksMidStream, "the chunks of around_completion"),
    (BreaksFilter, "chunk_filter"),
    (BreaksObserver, "on_done"),
]


@pytest.mark.parametrize(("plugin", "hook"), BROKEN)
async def test_what_a_plugin_raises_is_raised_to_the_test_with_its_place(plugin: type[Plugin], hook: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        await run_plugin(plugin)

    assert f"in {hook}" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("plugin", "status"),
    [(BreaksOnRequest, 502), (BreaksAssess, 200), (BreaksAround, 502), (BreaksFilter, 502), (BreaksObserver, 200)],
)
async def test_without_strictness_the_test_sees_what_a_client_would(plugin: type[Plugin], status: int) -> None:
    result = await run_plugin(plugin, upstream="a", strict=False)

    assert result.status == status
    if status == 502:
        assert result.error["code"] == "plugin_error"


async def test_the_wrong_kind_of_function_stops_the_start() -> None:
    class Sync(Plugin):
        @hookimpl
        def on_request(self, exchange: Exchange) -> None: ...

    class Async(Plugin):
        @hookimpl
        async def chunk_filter(self, exchange: Exchange) -> None: ...

    class Unknown(Plugin):
        @hookimpl
        async def on_requests(self, exchange: Exchange) -> None: ...

    for plugin, told in (
        (Sync, "must be async def"),
        (Async, "must be a plain def"),
        (Unknown, "did you mean 'on_request'"),
    ):
        with pytest.raises(PluginError, match=told):
            await run_plugin(plugin)


async def test_looking_changes_nothing() -> None:
    class Looks(Plugin):
        @hookimpl
        async def on_request(self, exchange: Exchange) -> None:
            assert exchange.request["messages"]

        @hookimpl
        def chunk_filter(self, exchange: Exchange) -> Any:
            def look(chunk: Chunk) -> Chunk:
                _ = chunk.data
                return chunk

            return look

    body = b'{"model" : "m", "messages": [ {"role":"user","content":"x"} ]}'
    result = await run_plugin(Looks, body, upstream="a")

    assert result.sent.body == body
