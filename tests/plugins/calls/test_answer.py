from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.plugins.calls.callers import Caller, leaks

from predawn.plugins import CallNext, Chunk, Exchange, Reply
from predawn.plugins.calls import SideCall, answer, usage_of_calls
from predawn.plugins.testing import Answer, ScriptedUpstream, run_plugin, workbench

SIX = Answer(text="one two three four five six")
ASKS = {"messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}}


async def choosing(exchange: Exchange, call_next: CallNext) -> Reply:
    """One sample that is given up, one that is taken."""
    async with SideCall(exchange, call_next, changes={"seed": 1}) as lost:
        async for _ in lost:
            if lost.heard.output_tokens == 2:
                break
    side = SideCall(exchange, call_next, changes={"seed": 2})
    await side.begin()
    return answer(side, more=lambda: {"why": "the last one"}, headers={"x-predawn-samples": "2"})


PREDAWN = {
    "calls": 2,
    "samples": 2,
    "discarded_tokens": 2,
    "discarded_prompt_tokens": 1,
    "verify_tokens": 0,
    "verify_prompt_tokens": 0,
    "estimated": True,
    "why": "the last one",
}


async def test_a_client_that_does_not_stream_gets_one_body_with_all_usage() -> None:
    result = await run_plugin(Caller(choosing), upstream=SIX)

    assert result.headers["Content-Type"] == "application/json"
    assert result.headers["x-predawn-samples"] == "2"
    assert result.text == "one two three four five six"
    assert (result.usage["prompt_tokens"], result.usage["completion_tokens"], result.usage["total_tokens"]) == (1, 6, 7)
    assert result.usage["predawn"] == PREDAWN


async def test_a_client_that_streams_and_asks_gets_the_usage_last_before_the_end_mark() -> None:
    result = await run_plugin(Caller(choosing), ASKS, upstream=SIX, stream=True)

    assert result.finished
    usage, done = result.chunks[-2:]
    assert done.raw == b"data: [DONE]\n\n"
    assert usage.data is not None
    assert usage.data["choices"] == []
    assert usage.data["id"] == (result.chunks[0].data or {})["id"]
    assert usage.data["usage"]["predawn"] == PREDAWN
    assert sum("usage" in chunk.raw.decode() and b'"choices":[]' in chunk.raw for chunk in result.chunks) == 1


async def test_a_client_that_streams_and_does_not_ask_gets_no_usage_and_is_booked_all_the_same() -> None:
    result = await run_plugin(Caller(choosing), upstream=SIX, stream=True)

    assert result.text == "one two three four five six"
    assert b"completion_tokens" not in result.raw
    assert (result.ledger.output, result.ledger.discarded) == (6, 2)


async def test_the_chunks_go_out_as_they_came() -> None:
    raw = (b'data: {"id" : "x", "choices":[{"index":0,"delta":{"content":"a"},"made_up":1.50}]}\n\n', b": note\n\n")
    upstream = Answer(raw=(*raw, b"data: [DONE]\n\n"))

    result = await run_plugin(Caller(choosing), upstream=upstream, stream=True)

    assert result.raw == b"".join(raw) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_usage_that_nobody_told_is_counted(stream: bool) -> None:
    raw = tuple(
        b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"%d"},"finish_reason":null}]}\n\n' % at
        for at in range(4)
    )

    result = await run_plugin(Caller(choosing), ASKS, upstream=Answer(raw=(*raw, b"data: [DONE]\n\n")), stream=stream)

    assert result.usage["completion_tokens"] == 4
    assert result.usage["prompt_tokens"] > 0
    assert result.usage["predawn"]["estimated"]
    assert (result.ledger.output, result.ledger.estimated) == (4, True)


async def test_an_upstream_that_does_not_stream_serves_clients_that_do() -> None:
    body = {
        "id": "x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        await side.begin()
        return answer(side)

    result = await run_plugin(Caller(way), ASKS, upstream=Answer(body=body), stream=True)

    assert (result.text, result.finished) == ("whole", True)
    assert result.usage["predawn"]["calls"] == 1
    assert (result.ledger.prompt, result.ledger.output) == (3, 4)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["die_mid_event", "no_done"])
async def test_an_answer_that_is_lost_on_the_way_never_ends_cleanly(fault: Any, stream: bool) -> None:
    upstream = ScriptedUpstream(Answer(text="one two three four", fault=fault, after=3))

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        await side.begin()
        return answer(side)

    result = await run_plugin(Caller(way), upstream=upstream, stream=stream)

    assert result.error["code"] == "upstream_error"
    assert (not result.finished) if stream else result.status == 502
    assert result.outcome == "truncated"
    assert (result.ledger.output, result.ledger.discarded) == (2, 0)
    assert result.ledger.calls[0].outcome == "truncated"
    assert leaks(upstream) == 0


async def test_an_error_inside_the_stream_goes_out_once_and_as_it_came() -> None:
    error = b'data: {"error":{"message":"overloaded","made_up":1.50}}\n\n'
    raw = (b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n', error)

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        await side.begin()
        return answer(side)

    result = await run_plugin(Caller(way), upstream=Answer(raw=raw), stream=True)

    assert result.raw.count(b'"error"') == 1
    assert error in result.raw


async def test_a_call_that_another_task_listens_to_can_be_the_answer() -> None:
    upstream = ScriptedUpstream(Answer(text="one two three four five six", interval_ms=1000))

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        caller.app.tasks.spawn(side.whole(), "listen")
        while side.heard.output_tokens < 2:
            await asyncio.sleep(0)
        return answer(side)

    caller = Caller(way)
    result = await run_plugin(caller, ASKS, upstream=upstream, stream=True)

    assert (result.text, result.usage["completion_tokens"]) == ("one two three four five six", 6)
    assert leaks(upstream) == 0


async def test_calls_that_still_run_are_in_the_usage() -> None:
    told: list[dict[str, Any]] = []

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as one, SideCall(exchange, call_next, purpose="verify") as two:
            for side in (one, two):
                async for _ in side:
                    if side.heard.output_tokens == 2:
                        break
            told.append(usage_of_calls(exchange))
            await one.whole()
            return answer(one)

    result = await run_plugin(Caller(way), upstream=SIX)

    assert (told[0]["discarded_tokens"], told[0]["verify_tokens"], told[0]["calls"]) == (2, 2, 2)
    assert (result.ledger.output, result.ledger.discarded, result.ledger.verify) == (6, 0, 2)


@pytest.mark.parametrize("route", ["completions", "messages", "responses"])
async def test_other_dialects_are_answered_too(route: Any) -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as lost:
            await lost.whole()
        side = SideCall(exchange, call_next)
        await side.begin()
        return answer(side)

    direct = await run_plugin([], upstream=SIX, route=route, stream=True)
    for stream in (True, False):
        result = await run_plugin(Caller(way), upstream=SIX, route=route, stream=stream)

        assert result.text == direct.text
        assert result.finished
        assert (result.ledger.output, result.ledger.discarded) == (6, 6)
        assert (result.ledger.prompt, result.ledger.discarded_prompt) == (1, 1)


async def test_chunks_of_ones_own_can_go_out_in_its_place() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as side:
            await side.whole()
        side.choose(output_tokens=1)
        return answer(side, chunks=said("one, at most"))

    result = await run_plugin(Caller(way), ASKS, upstream=SIX, stream=True)

    assert (result.text, result.usage["completion_tokens"]) == ("one, at most", 1)
    assert result.usage["predawn"]["discarded_tokens"] == 5


async def said(text: str) -> AsyncIterator[Chunk]:
    yield Chunk.of({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]})
    yield Chunk(b"data: [DONE]\n\n", is_last=True)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
async def test_a_client_that_goes_away_leaves_nothing_open_and_everything_booked(after: int) -> None:
    upstream = ScriptedUpstream(Answer(text="one two three four five six", interval_ms=1000))

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        sides = [SideCall(exchange, call_next, changes={"seed": seed}) for seed in range(4)]
        for side in sides:
            caller.app.tasks.spawn(side.whole(), "listen")
        while sides[0].heard.output_tokens < 1:
            await asyncio.sleep(0)
        return answer(sides[0])

    caller = Caller(way)
    async with workbench(caller, upstream=upstream) as bench:
        result = await bench.run(stream=True, disconnect_after=after)
        ledger = result.ledger

        assert result.outcome == "client_closed"
        assert leaks(upstream) == 0
        assert ledger.all_output <= upstream.counts.output_tokens
        assert ledger.all_output >= upstream.counts.output_tokens - 4
        assert {call.outcome for call in ledger.calls} <= {"cancelled"}
        assert all(call.prompt_tokens for call in ledger.calls)
