"""Further calls and the limits of keys: room is held before the fan-out, and all of it is booked after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.plugins.calls.callers import Caller

from predawn.plugins import CallNext, Exchange, Reply, RequestError
from predawn.plugins.calls import SideCall
from predawn.plugins.testing import Answer, ManualClock, RunResult, Workbench, settle, workbench
from predawn.proxy.keys import NANO, Digester, Key, create_key
from predawn.proxy.leases import Account
from predawn.proxy.secret import find_or_make_secret
from predawn.proxy.spend import read_usage

PRICE = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 1e6}
"""A dollar for each output token."""
CONFIG: dict[str, Any] = {
    "access": {"keys": "auto", "secret": "a secret of the tests"},
    "models": [{"name": "test", "upstream": "scripted", "price": PRICE}],
}
ASKED = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
SIX = Answer(text="one two three four five six")


@asynccontextmanager
async def keyed(way: Any, **limits: Any) -> AsyncIterator[tuple[Workbench, Caller, dict[str, str]]]:
    """A server with one key, which is limited."""
    caller, clock = Caller(way), ManualClock()
    async with workbench(caller, upstream=SIX, config=CONFIG, clock=clock, blocking_s=None) as bench:
        store = await caller.app.store()
        digester = Digester(find_or_make_secret(caller.app.settings))
        _, presented = await create_key(store, digester, Key(id="", name="n", tenant="t", **limits))
        await bench._app.generation.service.access.reload()
        await settle()
        yield bench, caller, {"authorization": f"Bearer {presented}"}


async def used(caller: Caller, bench: Workbench) -> Any:
    access = bench._app.generation.service.access
    async with access._syncing:
        await access._sync(access._keyring)
    (row,) = await read_usage(await caller.app.store())
    return row.usage


def held(bench: Workbench, result: RunResult) -> Account:
    """What the key's running requests hold."""
    assert result.exchange.key_id is not None
    return bench._app.generation.service.access._accounts[result.exchange.key_id]


async def fan_out(exchange: Exchange, call_next: CallNext) -> Reply:
    await exchange.reserve(calls=3)
    for seed in range(3):
        async with SideCall(exchange, call_next, changes={"seed": seed}) as side:
            await side.whole()
    return await call_next(exchange)


async def test_room_is_held_for_all_calls_and_what_was_used_is_booked() -> None:
    async with keyed(fan_out, nano_usd_per_day=40 * NANO) as (bench, caller, headers):
        result = await bench.run(ASKED, headers=headers)

        assert result.status == 200
        assert result.ledger.spend_usd == pytest.approx(24)
        usage = await used(caller, bench)
        assert (usage.requests, usage.output_tokens, usage.prompt_tokens) == (1, 24, 4)
        assert usage.spend_nano_usd == 24 * NANO
        assert held(bench, result).nano_usd == 0


async def test_a_budget_without_room_refuses_before_anything_is_sent() -> None:
    async with keyed(fan_out, nano_usd_per_day=39 * NANO) as (bench, _caller, headers):
        result = await bench.run(ASKED, headers=headers)

        assert (result.status, result.error["code"], len(result.requests)) == (429, "budget_exceeded", 0)
        assert int(result.headers["retry-after"]) > 0
        assert held(bench, result).nano_usd == 0
        again = await bench.run({**ASKED, "max_tokens": 9}, headers=headers)
        assert again.status == 200


async def test_a_minute_without_room_refuses_before_anything_is_sent() -> None:
    async with keyed(fan_out, tokens_per_minute=60) as (bench, _caller, headers):
        result = await bench.run(ASKED, headers=headers)

        assert (result.status, result.error["code"], len(result.requests)) == (429, "rate_limit_exceeded", 0)
        assert held(bench, result).tokens == 0


async def test_tokens_of_all_calls_count_in_the_minute() -> None:
    async with keyed(fan_out, tokens_per_minute=1000) as (bench, _caller, headers):
        result = await bench.run(ASKED, headers=headers)
        following = await bench.run(ASKED, headers=headers)

        left = [int(one.headers["x-ratelimit-remaining-tokens"]) for one in (result, following)]
        assert result.status == 200
        assert left[0] - left[1] == 28


async def test_one_request_stays_one_request_however_many_calls_it_makes() -> None:
    async with keyed(fan_out, requests_per_minute=2, concurrency=1) as (bench, _caller, headers):
        statuses = [(await bench.run(ASKED, headers=headers)).status for _ in range(3)]

        assert statuses == [200, 200, 429]


async def test_a_call_within_a_call_reserves_from_the_clients_key() -> None:
    refused: list[RequestError] = []

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        side = SideCall(exchange, call_next)
        try:
            await side.exchange.reserve(calls=1, output_tokens=1000)
        except RequestError as exc:
            refused.append(exc)
        await side.exchange.reserve(calls=2, output_tokens=1)
        return await call_next(exchange)

    async with keyed(way, nano_usd_per_day=12 * NANO) as (bench, _caller, headers):
        result = await bench.run(ASKED, headers=headers)

        assert result.status == 200
        assert [exc.code for exc in refused] == ["budget_exceeded"]


async def test_without_limits_nothing_is_held() -> None:
    async with keyed(fan_out) as (bench, caller, headers):
        result = await bench.run(ASKED, headers=headers)

        assert result.status == 200
        assert (await used(caller, bench)).output_tokens == 24


async def test_a_client_that_goes_away_pays_for_what_was_made() -> None:
    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        await exchange.reserve(calls=1)
        async with SideCall(exchange, call_next) as side:
            await side.whole()
        return await call_next(exchange)

    async with keyed(way, nano_usd_per_day=100 * NANO) as (bench, caller, headers):
        result = await bench.run(ASKED, headers=headers, stream=True, disconnect_after=2)

        assert result.outcome == "client_closed"
        assert (await used(caller, bench)).spend_nano_usd >= 6 * NANO
        assert held(bench, result).nano_usd == 0


async def test_a_request_that_is_answered_makes_room_for_the_next_before_all_is_known_of_it() -> None:
    known = asyncio.Event()

    async def find_out() -> None:
        await known.wait()

    async def way(exchange: Exchange, call_next: CallNext) -> Reply:
        exchange.observe_after(find_out)
        return await call_next(exchange)

    async with keyed(way, concurrency=1) as (bench, _caller, headers):
        statuses = [(await bench.run(ASKED, headers=headers)).status for _ in range(2)]
        known.set()
        last = await bench.run(ASKED, headers=headers)

        assert [*statuses, last.status] == [200, 200, 200]
        assert held(bench, last).requests == 0
