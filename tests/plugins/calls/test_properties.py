"""Whatever calls are made, and whenever each is given up: nothing stays open, and every token is somewhere, once."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.calls.callers import Caller, leaks

from predawn.plugins import CallNext, Exchange, Reply
from predawn.plugins.calls import Refused, SideCall, answer, usage_of_calls
from predawn.plugins.testing import Answer, ScriptedUpstream, run_plugin
from predawn.proxy.upstreams.base import UpstreamError

faults = st.sampled_from([None, None, None, "die_mid_event", "no_done", "error_event", "refuse"])
answers = st.builds(
    lambda words, fault, gap, first: Answer(
        text=" ".join(["word"] * words), interval_ms=gap, first_byte_ms=first, **({"fault": fault} if fault else {})
    ),
    st.integers(1, 8),
    faults,
    st.sampled_from([0, 0, 100]),
    st.sampled_from([0, 100]),
)
plans = st.lists(
    st.tuples(
        st.sampled_from(["sample", "probe", "verify"]),
        st.one_of(st.none(), st.integers(0, 6)),  # after how many tokens it is given up
        st.booleans(),  # by another task
    ),
    min_size=1,
    max_size=5,
)
RETRY = {
    "upstreams": [{"name": "scripted", "kind": "scripted", "retries": {"attempts": 1}, "breaker": {"failures": 100}}]
}


async def listen(side: SideCall, stop: int | None, side_task: bool, caller: Caller) -> None:
    async def cancel() -> None:
        await side.cancel()

    try:
        async with side:
            if stop == 0:
                caller.app.tasks.spawn(cancel(), "cancel")
            async for _ in side:
                if stop is not None and side.heard.output_tokens >= stop:
                    if side_task:
                        caller.app.tasks.spawn(cancel(), "cancel")
                        stop = None
                    else:
                        break
    except (UpstreamError, Refused):
        pass


@settings(max_examples=60)
@given(
    script=st.lists(answers, min_size=1, max_size=5),
    plan=plans,
    stream=st.booleans(),
    leave=st.one_of(st.none(), st.integers(0, 8)),
    together=st.booleans(),
    winner=st.integers(0, 4),
    kept=st.one_of(st.none(), st.integers(0, 8)),
)
async def test_nothing_stays_open_and_every_token_is_counted_once(
    script: list[Answer], plan: Any, stream: bool, leave: int | None, together: bool, winner: int, kept: int | None
) -> None:
    sides: list[SideCall] = []

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        sides.extend(
            SideCall(exchange, call_next, changes={"seed": number}, purpose=purpose)
            for number, (purpose, _, _) in enumerate(plan)
        )
        planned = list(zip(sides, plan, strict=True))
        if together:
            listening = [(side, stop, by_task, caller) for side, (_, stop, by_task) in planned]
            for task in [caller.app.tasks.spawn(listen(*one), "listen") for one in listening]:
                await task
        else:
            for side, (_, stop, by_task) in planned:
                await listen(side, stop, by_task, caller)
        usage_of_calls(exchange)
        chosen = sides[winner % len(sides)]
        if chosen.is_whole:
            chosen.choose(output_tokens=kept)
            return answer(chosen)
        return await call_next(exchange)

    caller = Caller(way)
    turn = iter(script * 20)
    upstream = ScriptedUpstream(choose=lambda _: next(turn))
    result = await run_plugin(
        caller, upstream=upstream, stream=stream, disconnect_after=leave, config=RETRY, strict=False
    )

    assert leaks(upstream) == 0
    if result.done is None:
        return
    ledger = result.ledger
    calls = ledger.calls
    assert len(calls) == upstream.counts.requests
    assert sum(call.output_tokens for call in calls) == ledger.all_output
    assert sum(call.prompt_tokens for call in calls) == ledger.all_prompt
    assert all(call.booked for call in calls)
    assert all(call.outcome != "pending" for call in calls)
    assert min(ledger.output, ledger.discarded, ledger.verify, ledger.prompt, ledger.discarded_prompt) >= 0
    answered = sum(call.status in range(200, 300) or call.status == 0 for call in calls if call.outcome != "connect")
    assert sum(call.prompt_tokens > 0 for call in calls) == answered
    if leave is None:
        told = result.usage.get("predawn")
        if told is not None and result.status == 200:
            assert told["discarded_tokens"] == ledger.discarded
            assert told["verify_tokens"] == ledger.verify
            assert told["discarded_prompt_tokens"] == ledger.discarded_prompt


async def test_sixty_four_samples_of_a_client_that_goes_away_are_all_closed() -> None:
    upstream = ScriptedUpstream(Answer(chunks=50, interval_ms=100))

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        sides = [SideCall(exchange, call_next, changes={"seed": seed}) for seed in range(64)]
        tasks = [caller.app.tasks.spawn(side.whole(), "listen") for side in sides]
        for task in tasks:
            await task
        return answer(sides[0])

    caller = Caller(way)
    result = await run_plugin(caller, upstream=upstream, disconnect_after=0)
    await asyncio.sleep(0)

    assert (result.outcome, leaks(upstream), upstream.counts.in_flight) == ("client_closed", 0, 0)
    assert len(result.ledger.calls) == 64
    assert result.ledger.all_output == upstream.counts.output_tokens
