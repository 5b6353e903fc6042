"""What a plugin author writes, with the types that a checker must see. Checked, never run."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, assert_type

from pydantic import Field

from predawn.plugins import (
    Budget,
    CallNext,
    Chunk,
    ChunkFilter,
    Difficulty,
    Exchange,
    Ledger,
    Plugin,
    PluginSettings,
    Reply,
    RequestError,
    hookimpl,
)
from predawn.plugins.testing import (
    Answer,
    ManualClock,
    RunResult,
    Script,
    ScriptedUpstream,
    ToolCall,
    predawn_server,
    run_plugin,
    workbench,
)
from predawn.proxy.lifespan import App


class Own(PluginSettings):
    marks: int = Field(default=1, description="How many.")


class Everything(Plugin[Own]):
    settings_type = Own

    def __init__(self, settings: Own) -> None:
        super().__init__(settings)
        assert_type(self.settings, Own)
        assert_type(self.settings.marks, int)

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        assert_type(app.clock.monotonic(), float)
        yield

    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        assert_type(exchange.request, Mapping[str, Any])
        assert_type(exchange.edit(), dict[str, Any])
        if exchange.stream:
            raise RequestError(400, "no streams", code="no_streams")

    @hookimpl
    async def assess(self, exchange: Exchange) -> Difficulty | None:
        return Difficulty(0.5) if exchange.model == "big" else None

    @hookimpl
    async def allocate(self, exchange: Exchange) -> Budget | None:
        assert_type(exchange.difficulty, Difficulty | None)
        return Budget(effort="low", max_output_tokens=10)

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        reply = await call_next(exchange)
        assert_type(reply, Reply)
        return reply.with_chunks(self._passed(reply.chunks))

    async def _passed(self, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        async for chunk in chunks:
            assert_type(chunk.data, dict[str, Any] | None)
            yield chunk

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        return lambda chunk: [chunk, Chunk.of({"choices": []})]

    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        assert_type(exchange.ledger, Ledger)


class Unconfigured(Plugin):
    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        assert_type(self.settings.timeout_s, float)


async def tests() -> None:
    clock = ManualClock()
    upstream = ScriptedUpstream(
        Script(text="a", interval_ms=20, answers=(Answer(status=500), Answer(fault="no_done", style=("crlf",)))),
        clock=clock,
        choose=lambda received: Answer(tool_calls=(ToolCall(name="f"),)) if received.text else None,
    )
    result = await run_plugin(Everything, {"messages": []}, upstream=upstream, settings={"marks": 2}, stream=True)
    assert_type(result, RunResult)
    assert_type(result.text, str)
    assert_type(result.exchange, Exchange)
    assert_type(result.chunks, list[Chunk])
    await run_plugin([Everything(Own()), Unconfigured], "hi", upstream="text", clock=clock, disconnect_after=1)
    async with workbench(Everything, Unconfigured, upstream=Script.of("a", Answer(status=400))) as bench:
        assert_type(await bench.run("hi", route="messages"), RunResult)
    async with predawn_server({"plugins": ["shout"]}) as server:
        assert_type(server.base_url, str)
