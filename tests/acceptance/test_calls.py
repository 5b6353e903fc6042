"""Several calls for one request, over real sockets: what is cancelled stops, what was made is paid for, nothing leaks."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import openai
import pytest
from tests.acceptance.bare import bare, chat, post
from tests.acceptance.house import CLIENT_KEY, House, house, until
from tests.acceptance.plugins import Watch

from predawn.plugins import Exchange
from predawn.plugins.testing import Answer, Received
from predawn.proxy.tasks import Tasks

SAMPLES = 16
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


def one_is_quick(received: Received) -> Answer:
    """Seed 3 answers at once, the others take ten seconds."""
    return Answer(text="one two three four") if received.json.get("seed") == 3 else Answer(chunks=500, interval_ms=20)


def watched(running: House) -> Exchange:
    (exchange,) = running.plugin(Watch).seen
    assert isinstance(exchange, Exchange)
    return exchange


@pytest.mark.parametrize("stream", [False, True])
async def test_losers_stop_at_once_and_everything_is_in_the_usage(stream: bool) -> None:
    async with house(choose=one_is_quick, plugins=["draw", "watch"]) as running:
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
            began = perf_counter()
            if stream:
                told = None
                async for chunk in await client.chat.completions.create(
                    model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
                ):
                    told = chunk.usage or told
            else:
                told = (await client.chat.completions.create(model="m", messages=MESSAGES)).usage
            assert perf_counter() - began < 8
        await until(lambda: not running.upstream.counts.in_flight, seconds=0.5)

        assert told is not None
        assert (told.prompt_tokens, told.completion_tokens) == (1, 4)
        predawn = told.to_dict()["predawn"]
        counts = running.upstream.counts
        assert isinstance(predawn, dict)
        assert (predawn["calls"], predawn["samples"], counts.requests) == (SAMPLES, SAMPLES, SAMPLES)
        assert predawn["discarded_prompt_tokens"] == SAMPLES - 1
        made = counts.output_tokens - 4
        assert made - 10 * SAMPLES <= predawn["discarded_tokens"] <= made
        await running.idle()
        ledger = watched(running).ledger
        assert (ledger.discarded, ledger.output) == (predawn["discarded_tokens"], 4)


@pytest.mark.parametrize("wait_s", [0.0, 0.005, 0.05, 0.3])
async def test_a_client_that_leaves_while_samples_run_stops_all_of_them(wait_s: float) -> None:
    async with house(Answer(chunks=500, interval_ms=20), plugins=["draw", "watch"]) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(stream=True), "/v1/chat/completions"))
            await until(lambda: running.upstream.counts.in_flight == SAMPLES)
            await asyncio.sleep(wait_s)
            client.abort()
        await until(lambda: not running.upstream.counts.in_flight, seconds=0.5)
        await running.idle()

        await until(lambda: bool(running.plugin(Watch).seen))
        exchange, counts = watched(running), running.upstream.counts
        assert exchange.outcome == "client_closed"
        assert [call.outcome for call in exchange.ledger.calls] == ["cancelled"] * SAMPLES
        assert counts.output_tokens - 10 * SAMPLES <= exchange.ledger.all_output <= counts.output_tokens
        assert exchange.ledger.all_prompt >= SAMPLES


async def test_a_reload_while_samples_run_disturbs_none_of_them() -> None:
    async with house(Answer(text="one two three", interval_ms=50), plugins=["draw", "watch"]) as running:
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
            asking = Tasks().spawn(client.chat.completions.create(model="m", messages=MESSAGES), "ask")
            await until(lambda: running.upstream.counts.in_flight == SAMPLES)
            assert await running.server.reload(lambda: running.server.settings)
            said = await asking

        assert said.choices[0].message.content == "one two three"
        await running.idle()
