from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import pytest
from tests.plugins.calls.callers import Caller, leaks

from predawn.plugins import CallNext, Chunk, Exchange, Plugin, Reply, Verdict, hookimpl
from predawn.plugins.calls import Refused, SideCall, answer
from predawn.plugins.calls.side import SidePurpose
from predawn.plugins.testing import Answer, ScriptedUpstream, run_plugin, settle, workbench
from predawn.proxy.clock import SystemClock
from predawn.proxy.upstreams.base import UpstreamError

SIX = Answer(text="one two three four five six")
SLOW = Answer(text="one two three four five six", interval_ms=1000)


async def run(way: Any, upstream: Any = SIX, **more: Any) -> Any:
    fake = upstream if isinstance(upstream, ScriptedUpstream) else ScriptedUpstream(upstream)
    result = await run_plugin(Caller(way), upstream=fake, **more)
    assert leaks(fake) == 0
    return result


async def test_a_call_is_heard_whole_and_booked_as_discarded() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as side:
            assert (await side.whole()).text == "one two three four five six"
        assert side.is_whole
        assert side.is_over
        return await call_next(exchange)

    result = await run(way)

    ledger = result.ledger
    assert (ledger.output, ledger.discarded, ledger.prompt, ledger.discarded_prompt) == (6, 6, 1, 1)
    assert [(call.purpose, call.phase, call.output_tokens) for call in ledger.calls] == [
        ("sample", "discarded", 6),
        ("serve", "serve", 6),
    ]


async def test_nothing_is_sent_before_somebody_listens() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next):
            pass
        return await call_next(exchange)

    result = await run(way)

    assert len(result.requests) == 1
    assert result.ledger.discarded_prompt == 0


async def test_checks_are_booked_as_verify_and_probes_as_discarded() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        purposes: tuple[SidePurpose, ...] = ("verify", "probe")
        for purpose in purposes:
            async with SideCall(exchange, call_next, purpose=purpose) as side:
                await side.whole()
        return await call_next(exchange)

    ledger = (await run(way)).ledger

    assert (ledger.verify, ledger.verify_prompt, ledger.discarded, ledger.discarded_prompt) == (6, 1, 6, 1)
    assert (ledger.all_output, ledger.all_prompt) == (18, 3)


async def test_a_chosen_call_is_the_answer() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        await side.begin()
        return answer(side)

    result = await run(way)

    assert result.text == "one two three four five six"
    assert (result.ledger.output, result.ledger.discarded, result.ledger.prompt) == (6, 0, 1)
    assert result.ledger.calls[0].phase == "serve"
    assert result.exchange.upstream == "scripted"


async def test_a_call_that_ended_can_still_be_chosen() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as side:
            await side.whole()
        assert exchange.ledger.discarded == 6
        return answer(side)

    result = await run(way)

    assert result.text == "one two three four five six"
    assert (result.ledger.output, result.ledger.discarded, result.ledger.discarded_prompt) == (6, 0, 0)


async def test_of_a_part_that_was_kept_the_rest_is_discarded() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as first, SideCall(exchange, call_next) as second:
            await first.whole()
            first.choose(output_tokens=2)
            await second.whole()
            return answer(second)

    result = await run(way)

    ledger = result.ledger
    assert (ledger.output, ledger.discarded) == (2 + 6, 4)
    assert (ledger.prompt, ledger.discarded_prompt) == (1, 1)
    assert [call.wasted_tokens for call in ledger.calls] == [4, 0]
    assert (result.usage["prompt_tokens"], result.usage["completion_tokens"]) == (1, 8)


async def test_choosing_again_with_another_part_moves_the_tokens() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as side:
            await side.whole()
            for kept in (2, 5, 0, None):
                side.choose(output_tokens=kept)
        return answer(side)

    ledger = (await run(way)).ledger

    assert (ledger.output, ledger.discarded, ledger.prompt, ledger.discarded_prompt) == (6, 0, 1, 0)


async def test_cancelling_closes_the_connection_at_once_and_books_what_came() -> None:
    upstream = ScriptedUpstream(SLOW)

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as side:
            async for _ in side:
                if side.heard.text.startswith("one two three"):
                    await side.cancel()
                    assert upstream.counts.in_flight == 0
        assert side.stopped == "cancelled"
        return await call_next(exchange)

    ledger = (await run(way, upstream)).ledger

    assert (ledger.discarded, ledger.output) == (3, 6)
    assert [call.outcome for call in ledger.calls] == ["cancelled", "ok"]
    assert ledger.calls[0].estimated
    assert upstream.counts.cut == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 40])
async def test_another_task_may_cancel_at_any_time_and_the_loop_just_ends(turns: int) -> None:
    upstream = ScriptedUpstream(Answer(text="one two three", first_byte_ms=1000, interval_ms=1000))

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        task = caller.app.tasks.spawn(side.whole(), "listen")
        for _ in range(turns):
            await asyncio.sleep(0)
        await side.cancel()
        assert upstream.counts.in_flight == 0
        heard = await task
        assert (side.stopped, side.is_over, heard.is_whole) == ("cancelled", True, False)
        return await call_next(exchange)

    caller = Caller(way)
    result = await run_plugin(caller, upstream=upstream)

    assert result.text == "one two three"
    assert leaks(upstream) == 0


async def test_a_cancelled_task_is_told_so_and_not_taken_for_a_cancelled_call() -> None:
    upstream = ScriptedUpstream(SLOW)

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async def listen() -> None:
            async with SideCall(exchange, call_next) as side:
                await side.whole()

        task = caller.app.tasks.spawn(listen(), "listen")
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await call_next(exchange)

    caller = Caller(way)
    result = await run_plugin(caller, upstream=upstream)

    assert result.ledger.calls[0].outcome == "cancelled"
    assert leaks(upstream) == 0


async def test_both_at_once_is_a_cancelled_task() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        task = caller.app.tasks.spawn(side.whole(), "listen")
        await settle()
        task.cancel()
        await side.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await call_next(exchange)

    caller = Caller(way)
    upstream = ScriptedUpstream(SLOW)
    await run_plugin(caller, upstream=upstream)

    assert leaks(upstream) == 0


async def test_a_deadline_ends_the_call_with_what_came() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        exchange.deadline = perf_counter() + 0.05
        async with SideCall(exchange, call_next) as side:
            await side.whole()
        assert (side.stopped, side.heard.text) == ("deadline", "one")
        exchange.deadline = None
        return Reply.of_chunks(said("late"))

    result = await run(way, Answer(text="one two", fault="stall_mid_stream", after=2), clock=SystemClock())

    assert result.text == "late"
    assert result.ledger.calls[0].outcome == "cancelled"


async def said(text: str) -> AsyncIterator[Chunk]:
    yield Chunk.of({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]})


async def test_nothing_is_sent_after_the_deadline() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        exchange.deadline = perf_counter() - 1
        async with SideCall(exchange, call_next) as side:
            await side.whole()
        assert side.stopped == "deadline"
        return Reply.of_chunks(said("late"))

    assert len((await run(way)).requests) == 0


async def test_an_error_is_refused_and_can_be_passed_on_as_it_came() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        try:
            async with SideCall(exchange, call_next) as side:
                await side.whole()
        except Refused as exc:
            return exc.reply()
        raise AssertionError

    upstream = ScriptedUpstream(Answer(status=400, body={"error": {"message": "no such tool", "made_up": 1.50}}))
    direct = await run_plugin(
        [], upstream=Answer(status=400, body={"error": {"message": "no such tool", "made_up": 1.50}})
    )
    result = await run(way, upstream)

    assert (result.status, result.raw) == (direct.status, direct.raw)
    assert (result.ledger.all_prompt, result.ledger.all_output) == (0, 0)


@pytest.mark.parametrize("fault", ["refuse", "die_mid_event", "no_done", "error_event"])
async def test_a_call_that_is_lost_raises_and_costs_what_came(fault: Any) -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        with pytest.raises(UpstreamError):
            async with side:
                await side.whole()
        assert isinstance(side.failure, UpstreamError)
        return Reply.of_chunks(said("sorry"))

    upstream = Answer(text="one two three four", fault=fault, after=3)
    config = {"upstreams": [{"name": "scripted", "kind": "scripted", "retries": {"attempts": 1}}]}
    result = await run(way, upstream, config=config)

    assert result.text == "sorry"
    assert result.ledger.discarded == (0 if fault == "refuse" else 2)
    assert (result.ledger.discarded_prompt == 0) == (fault == "refuse")


async def test_an_error_inside_the_stream_raises() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        with pytest.raises(UpstreamError, match="overloaded"):
            async with SideCall(exchange, call_next) as side:
                await side.whole()
        return Reply.of_chunks(said("sorry"))

    raw = (
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
        b'data: {"error":{"message":"overloaded"}}\n\n',
    )
    await run(way, Answer(raw=raw))


async def test_plugins_further_in_see_each_call_and_those_of_app_send_do_not() -> None:
    seen: list[Exchange] = []

    class Inner(Plugin):
        @hookimpl
        async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
            seen.append(exchange)
            exchange.verdicts.append(Verdict("pass", verifier="inner"))
            return await call_next(exchange)

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as first, SideCall(exchange, caller.app.send) as second:
            await first.whole()
            await second.whole()
            return answer(first)

    caller = Caller(way)
    result = await run_plugin([caller, Inner], upstream=SIX)

    assert [exchange.parent for exchange in seen] == [result.exchange]
    assert result.exchange.verdicts == [Verdict("pass", verifier="inner")]
    assert (result.ledger.output, result.ledger.discarded) == (6, 6)


async def test_calls_within_calls_are_counted_once_each() -> None:
    async def inner(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next, purpose="verify") as check, SideCall(exchange, call_next) as side:
            await check.whole()
            await side.whole()
            return answer(side)

    async def outer(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as one, SideCall(exchange, call_next) as two:
            await one.whole()
            await two.whole()
            return answer(two)

    upstream = ScriptedUpstream(SIX)
    result = await run_plugin([Caller(outer), Caller(inner)], upstream=upstream)

    ledger = result.ledger
    assert (ledger.output, ledger.discarded, ledger.verify) == (6, 6, 12)
    assert (ledger.prompt, ledger.discarded_prompt, ledger.verify_prompt) == (1, 1, 2)
    assert ledger.all_output == upstream.counts.output_tokens
    assert [call.phase for call in ledger.calls] == ["verify", "discarded", "verify", "serve"]
    assert result.usage["predawn"]["verify_tokens"] == 12


async def test_a_call_to_another_model_is_asked_for_and_priced_as_that() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, caller.app.send, changes={"model": "judge"}, purpose="verify") as side:
            await side.whole()
        return await call_next(exchange)

    caller = Caller(way)
    models = [
        {"name": "test", "upstream": "scripted", "price": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 1}},
        {"name": "judge", "upstream": "scripted", "price": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 100}},
    ]
    async with workbench(caller, upstream=SIX, config={"models": models}) as bench:
        result = await bench.run()
        told = caller.app.metrics.registry.get_sample_value

        assert result.requests[0].json["model"] == "judge"
        assert result.ledger.spend_usd == pytest.approx(6 * 101 / 1e6)
        labels = {"model": "judge", "upstream": "scripted", "type": "output", "phase": "verify"}
        assert told("predawn_tokens_total", labels) == 6
        assert told("predawn_tokens_total", {**labels, "model": "test"}) == 0
        assert told("predawn_tokens_total", {**labels, "model": "test", "phase": "serve"}) == 6


async def test_a_prompt_that_a_sibling_counted_is_not_guessed() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as before, SideCall(exchange, call_next) as whole:
            async for _ in before:
                break
            await before.cancel()
            guessed = exchange.ledger.discarded_prompt
            assert guessed > 2
            await whole.whole()
            assert exchange.ledger.discarded_prompt == 2
            async with SideCall(exchange, call_next) as after:
                async for _ in after:
                    break
            assert exchange.ledger.discarded_prompt == 3
            return answer(whole)

    price = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 0}
    config = {"models": [{"name": "*", "upstream": "scripted", "price": price}]}
    ledger = (await run(way, config=config)).ledger

    assert (ledger.prompt, ledger.discarded_prompt) == (1, 2)
    assert ledger.spend_usd == pytest.approx(3)
    assert [call.prompt_tokens for call in ledger.calls] == [1, 1, 1]


async def test_a_reload_in_between_lets_running_calls_end() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async with SideCall(exchange, call_next) as side:
            await side.begin()
            began.set()
            await go_on.wait()
            await side.whole()
            async with SideCall(exchange, caller.app.send) as after:
                await after.whole()
            return answer(side)

    caller = Caller(way)
    async with workbench(caller, upstream=SIX) as bench:
        task = caller.app.tasks.spawn(bench.run(), "request")
        await began.wait()
        generation = bench._app.generation
        generation.in_force.models = generation.service.models
        go_on.set()
        result = await task

    assert (result.text, result.ledger.discarded) == ("one two three four five six", 6)


@pytest.mark.parametrize("gap_ms", [0, 1000])
async def test_several_tasks_may_listen_to_one_call(gap_ms: int) -> None:
    upstream = ScriptedUpstream(Answer(text="one two three four five six", interval_ms=gap_ms, first_byte_ms=gap_ms))

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        async def slowly() -> int:
            seen = 0
            async for _ in side:
                seen += 1
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            return seen

        async def following() -> list[bytes]:
            return [chunk.raw async for chunk in side.follow()]

        async with SideCall(exchange, call_next) as side:
            spawn = caller.app.tasks.spawn
            counting = [spawn(slowly(), "listen") for _ in range(3)]
            reading = [spawn(following(), "follow") for _ in range(3)]
            assert (await side.whole()).text == "one two three four five six"
            for reader in reading:
                assert await reader == [chunk.raw for chunk in side.chunks]
            for counted in counting:
                assert await counted == (len(side.chunks) if gap_ms else 0)  # all of it, from when they began
        return answer(side)

    caller = Caller(way)
    result = await run_plugin(caller, upstream=upstream)

    assert (result.text, result.ledger.output, leaks(upstream)) == ("one two three four five six", 6, 0)


async def test_all_who_listen_are_told_of_a_failure() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        tasks = [caller.app.tasks.spawn(side.whole(), "listen") for _ in range(3)]
        for task in tasks:
            with pytest.raises(UpstreamError):
                await task
        return Reply.of_chunks(said("sorry"))

    caller = Caller(way)
    upstream = ScriptedUpstream(Answer(text="one two three", fault="die_mid_event", first_byte_ms=5, interval_ms=5))
    result = await run_plugin(caller, upstream=upstream)

    assert (result.text, leaks(upstream)) == ("sorry", 0)


@pytest.mark.parametrize("fault", [None, "stall_mid_stream"])
async def test_cancelling_ends_it_for_all_who_listen(fault: Any) -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        tasks = [caller.app.tasks.spawn(side.whole(), "listen") for _ in range(4)]
        await settle()
        await side.cancel()
        for task in tasks:
            assert not (await task).is_whole
        return Reply.of_chunks(said("enough"))

    caller = Caller(way)
    upstream = ScriptedUpstream(Answer(text="one two three", interval_ms=1000, **({"fault": fault} if fault else {})))
    result = await run_plugin(caller, upstream=upstream)

    assert (result.text, leaks(upstream)) == ("enough", 0)
