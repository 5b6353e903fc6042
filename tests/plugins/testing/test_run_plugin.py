from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from predawn.plugins import (
    Budget,
    CallNext,
    Chunk,
    ChunkFilter,
    Difficulty,
    Exchange,
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
    run_plugin,
    workbench,
)
from predawn.proxy.lifespan import App


class PolitePlugin(Plugin):
    """Adds a word to each prompt."""

    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        if exchange.route == "chat":
            exchange.edit()["messages"][-1]["content"] += ", please"


class Quiet(Plugin):
    """Does nothing at all."""


class DropSettings(PluginSettings):
    word: str = Field(description="What is dropped.")


class DropPlugin(Plugin[DropSettings]):
    settings_type = DropSettings

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        def drop(chunk: Chunk) -> Chunk | None:
            return None if self.settings.word.encode() in chunk.raw else chunk

        return drop


async def test_a_request_is_changed_before_it_is_sent() -> None:
    result = await run_plugin(PolitePlugin, "Go", upstream="gone")

    assert result.sent.text == "Go, please"
    assert result.text == "gone"
    assert (result.status, result.finished, result.outcome) == (200, True, "ok")


@pytest.mark.parametrize("stream", [False, True])
async def test_without_interference_bytes_pass_both_ways_untouched(stream: bool) -> None:
    body = (
        b'{ "model":"m", "messages":[{"role":"user","content":"hi"}],\n"odd":[1.0], "stream":%s }'
        % str(stream).lower().encode()
    )
    raw = b'data: {"odd" :1}\r\n\r\n: note\n\ndata: [DONE]\n\n' if stream else b'{"odd" :1}'

    result = await run_plugin(Quiet, body, upstream=Script(raw=(raw,)))

    assert result.sent.body == body
    assert result.raw == raw


async def test_settings_are_checked_as_a_settings_file_would_be() -> None:
    result = await run_plugin(DropPlugin, upstream="a bad word", settings={"word": "bad"}, stream=True)

    assert result.text == "a word"
    with pytest.raises(ValidationError):
        await run_plugin(DropPlugin, settings={"words": "x"})


async def test_several_plugins_run_in_their_order() -> None:
    class Loud(Plugin):
        @hookimpl
        async def on_request(self, exchange: Exchange) -> None:
            exchange.edit()["messages"][-1]["content"] += "!"

    result = await run_plugin([PolitePlugin, Loud], "Go")

    assert result.sent.text == "Go, please!"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["chat", "completions", "responses", "messages"])
async def test_every_endpoint_is_there(route: Any, stream: bool) -> None:
    result = await run_plugin(Quiet, "Hi", upstream="hello there", route=route, stream=stream)

    assert result.text == "hello there"
    assert result.exchange.route == route
    assert bool(result.chunks) is stream


async def test_embeddings_and_plugin_routes_are_there() -> None:
    result = await run_plugin(Quiet, {"input": ["a", "b"]}, route="embeddings")

    assert len(result.body["data"]) == 2


async def test_a_budget_and_a_difficulty_are_on_the_exchange() -> None:
    class Thrifty(Plugin):
        @hookimpl
        async def assess(self, exchange: Exchange) -> Difficulty | None:
            return Difficulty(0.5)

        @hookimpl
        async def allocate(self, exchange: Exchange) -> Budget | None:
            return Budget(max_output_tokens=1)

    result = await run_plugin(Thrifty, {"messages": [], "max_tokens": 50}, upstream="a b c")

    assert result.exchange.difficulty == Difficulty(0.5)
    assert result.sent.json["max_tokens"] == 1
    assert result.text == "a"


async def test_a_plugin_may_ask_several_times_or_answer_itself() -> None:
    class Twice(Plugin):
        @hookimpl
        async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
            await call_next(exchange)
            return await call_next(exchange)

    class Own(Plugin):
        @hookimpl
        async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
            return Reply.of_chunks(self._said())

        async def _said(self) -> AsyncIterator[Chunk]:
            yield Chunk.of({"choices": [{"index": 0, "delta": {"content": "mine"}, "finish_reason": "stop"}]})

    twice = await run_plugin(Twice, upstream=Script.of("first", "second"))
    own = await run_plugin(Own)

    assert (twice.text, len(twice.requests), len(twice.ledger.calls)) == ("second", 2, 2)
    assert twice.upstream.counts.opened == twice.upstream.counts.closed == 2
    assert (own.text, len(own.requests)) == ("mine", 0)
    with pytest.raises(AssertionError, match="nothing was sent"):
        _ = own.sent


async def test_tool_calls_and_usage_are_easy_to_reach() -> None:
    upstream = Answer(tool_calls=(ToolCall(name="f", arguments={"a": 1}),))
    for stream in (False, True):
        request = {"messages": [], "stream_options": {"include_usage": True}} if stream else {"messages": []}
        result = await run_plugin(Quiet, request, upstream=upstream, stream=stream)

        assert result.message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
        assert result.usage["completion_tokens"] == 2


async def test_an_upstreams_error_reaches_the_client_with_its_headers() -> None:
    result = await run_plugin(Quiet, upstream=Answer(status=429, headers={"retry-after": "99"}))

    assert (result.status, result.headers["retry-after"]) == (429, "99")
    assert result.error["type"] == "rate_limit_error"


async def test_retries_take_no_real_time() -> None:
    upstream = Script.of(Answer(status=503, headers={"retry-after": "2"}), "at last")

    result = await run_plugin(Quiet, upstream=upstream)

    assert result.text == "at last"
    assert len(result.requests) == 2


async def test_stalls_end_by_their_timeouts_at_once() -> None:
    before = await run_plugin(Quiet, upstream=Answer(fault="stall_headers"), stream=True)
    within = await run_plugin(Quiet, upstream=Answer(text="a b c d", fault="stall_mid_stream"), stream=True)

    assert (before.status, before.error["code"]) == (504, "upstream_timeout")
    assert (within.status, within.error["code"]) == (200, "upstream_timeout")
    assert within.text == "a b"
    assert not within.finished


@settings(max_examples=20)
@given(after=st.integers(0, 7), interval_ms=st.sampled_from([0, 1000]))
def test_a_client_that_goes_away_closes_the_upstream_once(after: int, interval_ms: int) -> None:
    script = Script(text="a b c d", interval_ms=interval_ms)  # seven events

    result = asyncio.run(run_plugin(PolitePlugin, upstream=script, stream=True, disconnect_after=after))
    counts = result.upstream.counts

    assert result.outcome == "client_closed"
    assert (counts.opened, counts.closed) == (1, 1)
    assert len(result.chunks) == after
    assert result.exchange.ledger.chunks >= after


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_may_go_away_before_it_hears_anything(stream: bool) -> None:
    result = await run_plugin(Quiet, upstream=Answer(fault="stall_headers"), stream=stream, disconnect_after=0)

    assert (result.status, result.outcome) == (0, "client_closed")
    assert (result.upstream.counts.cut, result.upstream.counts.in_flight) == (1, 0)


async def test_that_a_client_goes_away_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    await run_plugin(PolitePlugin, upstream=Script(text="a b c d"), stream=True, disconnect_after=3)

    assert caplog.record_tuples == []


async def test_requests_may_run_side_by_side() -> None:
    async with workbench(PolitePlugin, upstream=Script(interval_ms=50)) as bench:
        results = await asyncio.gather(*(bench.run(str(number), stream=True) for number in range(5)))

    assert [result.exchange.request["messages"][0]["content"] for result in results] == [
        f"{number}, please" for number in range(5)
    ]
    assert bench.upstream.counts.most_in_flight == 5


async def test_a_refused_request_has_no_exchange() -> None:
    result = await run_plugin(Quiet, b"{not json")

    assert result.status == 400
    with pytest.raises(AssertionError, match="refused before"):
        _ = result.exchange


async def test_a_plugin_may_refuse_with_a_status_of_its_choice() -> None:
    class Closed(Plugin):
        @hookimpl
        async def on_request(self, exchange: Exchange) -> None:
            raise RequestError(418, "Closed on Sundays.", code="closed")

    result = await run_plugin(Closed)

    assert (result.status, result.error["code"], len(result.requests)) == (418, "closed", 0)


async def test_headers_reach_the_plugin_but_credentials_do_not() -> None:
    result = await run_plugin(
        Quiet, headers={"X-Team": "a", "Authorization": "Bearer secret", "x-predawn-sleep": "off"}
    )

    assert result.exchange.headers["x-team"] == "a"
    assert result.exchange.control == {"sleep": "off"}
    assert "authorization" not in result.sent.headers
    assert "x-predawn-sleep" not in result.sent.headers


async def test_lifespan_spans_all_requests_of_a_workbench_and_may_open_the_store() -> None:
    class Counting(Plugin):
        def __init__(self, settings: PluginSettings) -> None:
            super().__init__(settings)
            self.log: list[str] = []

        @hookimpl
        async def lifespan(self, app: App) -> AsyncIterator[None]:
            self.log.append("open")
            await app.store()
            yield
            self.log.append("close")

        @hookimpl
        async def on_done(self, exchange: Exchange) -> None:
            self.log.append(exchange.outcome)

    plugin = Counting(PluginSettings())
    async with workbench(plugin, upstream=Script.of("one", "two")) as bench:
        results: list[RunResult] = [await bench.run(), await bench.run()]

    assert [result.text for result in results] == ["one", "two"]
    assert plugin.log == ["open", "ok", "ok", "close"]


async def test_a_plugins_own_endpoint_is_reached() -> None:
    class Endpoint(Plugin):
        @hookimpl
        def register_routes(self, register: Any) -> None:
            register("GET", "/v1/greetings/{name}", self.greet)

        async def greet(self, request: Any) -> Any:
            from aiohttp import web

            return web.json_response({"hello": request.match_info["name"]})

    async with workbench(Endpoint) as bench:
        answered = await bench.http("GET", "/v1/greetings/ann")

    assert (answered.status, answered.body) == (200, b'{"hello": "ann"}')


async def test_settings_of_the_server_can_be_replaced() -> None:
    config = {"models": [{"name": "small", "upstream": "scripted", "model": "real-name"}]}

    named = await run_plugin(Quiet, {"model": "small", "messages": []}, config=config)
    unknown = await run_plugin(Quiet, {"model": "smal", "messages": []}, config=config)

    assert named.sent.json["model"] == "real-name"
    assert unknown.status == 404
    assert "'small'" in unknown.error["message"]


async def test_the_clock_is_the_plugins_too() -> None:
    class Slow(Plugin):
        clock: Any

        @hookimpl
        async def lifespan(self, app: App) -> AsyncIterator[None]:
            self.clock = app.clock
            yield

        @hookimpl
        async def on_request(self, exchange: Exchange) -> None:
            await self.clock.sleep(20)

    clock = ManualClock()
    result = await run_plugin(Slow, upstream=Script(text="a b", interval_ms=500), clock=clock, stream=True)

    assert result.text == "a b"
    assert clock.monotonic() == pytest.approx(20.5)


async def test_work_in_a_thread_is_waited_for() -> None:
    class Threaded(Plugin):
        @hookimpl
        async def on_request(self, exchange: Exchange) -> None:
            exchange.state["threaded"] = await asyncio.to_thread(sum, [1, 2])

    assert (await run_plugin(Threaded)).exchange.state == {"threaded": 3}


async def test_fixtures_are_there_without_an_import(
    run_plugin: Any, scripted_upstream: Any, manual_clock: ManualClock
) -> None:
    upstream: ScriptedUpstream = scripted_upstream("from the fixture")
    result = await run_plugin(Quiet, upstream=upstream)

    assert result.text == "from the fixture"
    assert upstream.clock is manual_clock
    assert result.requests is upstream.requests


class AnswersWithoutEnd(Plugin):
    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        return Reply.of_chunks(_said("all of it"))


async def _said(text: str) -> AsyncIterator[Chunk]:
    yield Chunk.of({"id": "x", "choices": [{"index": 0, "delta": {"content": text}}]})


class HoldsBack(Plugin):
    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        held: list[Chunk] = []

        def function(chunk: Chunk) -> list[Chunk]:
            held.append(chunk)
            return held if chunk.is_last else []

        return function


@pytest.mark.parametrize("stream", [False, True])
async def test_a_filter_gives_out_what_it_held_back_when_an_answer_has_no_end(stream: bool) -> None:
    result = await run_plugin([AnswersWithoutEnd, HoldsBack], stream=stream)

    assert result.text == "all of it"
