"""What goes wrong around calls: plugins that raise, answers from elsewhere, hostile streams, impatient clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.plugins.calls.callers import Caller, leaks

from predawn.plugins import CallNext, Chunk, Exchange, Plugin, Reply, hookimpl
from predawn.plugins.cache import CachePlugin, CacheSettings
from predawn.plugins.calls import SideCall, answer
from predawn.plugins.testing import Answer, ScriptedUpstream, run_plugin, workbench
from predawn.proxy.dispatch import HookError
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire import sse

SIX = Answer(text="one two three four five six")
RETRIES = {"upstreams": [{"name": "scripted", "kind": "scripted", "retries": {"attempts": 3, "base_s": 0.001}}]}


async def taken(exchange: Exchange, call_next: CallNext) -> Reply:
    side = SideCall(exchange, call_next)
    await side.begin()
    return answer(side)


@pytest.mark.parametrize("when", ["before", "during", "after"])
async def test_a_plugin_further_in_that_raises_is_blamed_and_nothing_stays_open(when: str) -> None:
    class Raises(Plugin):
        @hookimpl
        async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
            if when == "before":
                raise KeyError(when)
            reply = await call_next(exchange)
            if when == "during":
                raise KeyError(when)
            return reply.with_chunks(self.broken(reply))

        async def broken(self, reply: Reply) -> AsyncIterator[Chunk]:
            async for chunk in reply.chunks:
                yield chunk
                raise KeyError("after")

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        with pytest.raises(HookError, match="raises"):
            async with SideCall(exchange, call_next) as side:
                await side.whole()
        return await taken(exchange, caller.app.send)

    caller, upstream = Caller(way), ScriptedUpstream(SIX)
    result = await run_plugin([caller, Raises], upstream=upstream, strict=False)

    assert result.text == "one two three four five six"
    assert leaks(upstream) == 0
    assert result.ledger.discarded_prompt == (0 if when == "before" else 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_came_from_a_cache_costs_nothing_and_keeps_its_usage(stream: bool) -> None:
    caller, upstream = Caller(taken), ScriptedUpstream(SIX)
    cache = CachePlugin(CacheSettings())
    request = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "seed": 1}
    request["stream_options"] = {"include_usage": True}
    async with workbench(caller, cache, upstream=upstream) as bench:
        first = await bench.run(request, stream=stream)
        second = await bench.run(request, stream=stream)

        assert (first.text, second.text) == (first.text, first.text)
        assert upstream.counts.requests == 1
        assert (second.ledger.all_prompt, second.ledger.all_output) == (0, 0)
        assert second.usage["completion_tokens"] == first.usage["completion_tokens"] == 6


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_never_streams_is_answered_with_a_body_of_the_right_length(stream: bool) -> None:
    body = {
        "id": "x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    result = await run_plugin(Caller(taken), upstream=Answer(body=body), stream=stream)

    assert (result.text, result.finished) == ("whole", True)
    if not stream:
        assert int(result.headers["Content-Length"]) == len(result.raw)


async def test_an_event_without_end_is_the_upstreams_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    first = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        with pytest.raises(UpstreamError, match="more than"):
            async with SideCall(exchange, call_next) as side:
                await side.whole()
        return Reply.of_chunks(said("sorry"))

    upstream = ScriptedUpstream(Answer(raw=(first, b"data: " + b"x" * 5000)))
    result = await run_plugin(Caller(way), upstream=upstream)

    assert (result.text, leaks(upstream)) == ("sorry", 0)
    assert result.ledger.calls[0].outcome == "protocol"


async def said(text: str) -> AsyncIterator[Chunk]:
    yield Chunk.of({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]})


async def test_tries_that_failed_are_on_the_ledger_and_cost_nothing() -> None:
    turn = iter([Answer(status=503), Answer(status=503), SIX])
    upstream = ScriptedUpstream(choose=lambda _: next(turn))

    result = await run_plugin(Caller(taken), upstream=upstream, config=RETRIES)

    assert [call.status for call in result.ledger.calls] == [503, 503, 200]
    assert [call.output_tokens for call in result.ledger.calls] == [0, 0, 6]
    assert (result.ledger.all_prompt, result.ledger.all_output, leaks(upstream)) == (1, 6, 0)


@pytest.mark.parametrize("leave", range(6))
async def test_a_client_that_leaves_calls_within_calls_leaves_nothing_open(leave: int) -> None:
    async def inner(exchange: Exchange, call_next: CallNext) -> Reply:
        check = SideCall(exchange, call_next, purpose="verify")
        inside.app.tasks.spawn(check.whole(), "check")
        return await taken(exchange, call_next)

    async def outer(exchange: Exchange, call_next: CallNext) -> Reply:
        sides = [SideCall(exchange, call_next) for _ in range(3)]
        for side in sides[1:]:
            outside.app.tasks.spawn(side.whole(), "listen")
        await asyncio.sleep(0)
        await sides[0].begin()
        return answer(sides[0])

    outside, inside = Caller(outer), Caller(inner)
    upstream = ScriptedUpstream(Answer(text="one two three four", interval_ms=100, first_byte_ms=50))
    result = await run_plugin([outside, inside], upstream=upstream, stream=True, disconnect_after=leave)

    ledger = result.ledger
    assert result.outcome == "client_closed"
    assert leaks(upstream) == 0
    assert len(ledger.calls) == upstream.counts.requests
    assert sum(call.output_tokens for call in ledger.calls) == ledger.all_output


async def test_nothing_is_sent_for_a_request_that_is_over() -> None:
    late: list[SideCall] = []

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        late.append(SideCall(exchange, call_next))
        return await call_next(exchange)

    async with workbench(Caller(way), upstream=SIX) as bench:
        result = await bench.run()
        heard = await late[0].whole()

        assert (late[0].stopped, heard.text, len(result.requests)) == ("cancelled", "", 1)
        assert result.ledger.discarded_prompt == 0


async def test_calls_of_a_request_that_fails_are_booked_all_the_same() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        async for _ in side:
            if side.heard.output_tokens == 3:
                raise KeyError("way")
        raise AssertionError

    upstream = ScriptedUpstream(SIX)
    result = await run_plugin(Caller(way), upstream=upstream, strict=False)

    assert (result.status, result.error["code"]) == (502, "plugin_error")
    assert (result.ledger.discarded, leaks(upstream)) == (3, 0)


async def test_what_cannot_be_closed_keeps_nothing_else_open() -> None:
    closed: list[str] = []

    async def fails() -> None:
        raise OSError("no")

    async def works() -> None:
        closed.append("works")

    exchange = Exchange(b"{}")
    exchange.end_with(works)
    exchange.end_with(fails)
    exchange.scope.push_async_callback(works)
    exchange.end_with(works)

    with pytest.raises(OSError, match="no"):
        await exchange.close()

    assert closed == ["works", "works", "works"]


async def test_requests_at_the_same_time_keep_their_calls_apart() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        sides = [SideCall(exchange, call_next, changes={"seed": seed}) for seed in range(4)]
        tasks = [caller.app.tasks.spawn(side.whole(), "listen") for side in sides]
        for task in tasks:
            await task
        return answer(sides[-1])

    def echo(received: Any) -> Answer:
        return Answer(text=f"{received.json['messages'][0]['content']} {received.json['seed']}", interval_ms=10)

    caller, upstream = Caller(way), ScriptedUpstream(choose=echo)
    async with workbench(caller, upstream=upstream) as bench:
        runs = [caller.app.tasks.spawn(bench.run(f"asker{number}"), "run") for number in range(5)]
        results = [await one for one in runs]

        assert [result.text for result in results] == [f"asker{number} 3" for number in range(5)]
        assert [(one.ledger.output, one.ledger.discarded) for one in results] == [(2, 6)] * 5
        assert leaks(upstream) == 0


async def test_an_answer_that_a_plugin_asked_for_again_is_on_the_ledger() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        await call_next(exchange)
        return await call_next(exchange)

    ledger = (await run_plugin(Caller(way), upstream=SIX)).ledger

    assert (ledger.prompt, ledger.output, ledger.discarded_prompt, ledger.estimated) == (1, 6, 1, True)
    assert [call.phase for call in ledger.calls] == ["discarded", "serve"]
