"""Sampling as users meet it: the official `openai` client, real sockets, a provider that counts what it generated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import aiohttp
import openai
import pytest
from tests.acceptance.house import CLIENT_KEY, House, house, until

from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.scripted import Answer, Received, Script, ToolCall

USER: Any = [{"role": "user", "content": "How much is 6 times 7?"}]
LOOKUP: Any = {
    "type": "function",
    "function": {
        "name": "lookup",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def sampled(samples: int, **more: Any) -> dict[str, Any]:
    """An `extra_body` that asks for so many samples, all of them at once."""
    return {"predawn": {"sampling": {"samples": samples, "min_samples": samples, **more}}}


@asynccontextmanager
async def served(
    *answers: Answer | str, settings: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[tuple[House, openai.AsyncOpenAI]]:
    script = Script.of(*answers) if answers else None
    plugins: Sequence[Any] = [{"sampling": settings or {}}, {"record": {"flush_s": 0.01}}]
    async with house(script, plugins=plugins, **more) as running:
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
            yield running, client


async def record_of(running: House, ident: str | None) -> Any:
    await running.idle()
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(5):
            while True:
                async with session.get(f"{running.base_url}/exchanges/{ident}") as reply:
                    if reply.status == 200:
                        return await reply.json()
                await asyncio.sleep(0.005)


async def test_41_42_42_42_42_is_42() -> None:
    async with served(*(f"The answer is {number}." for number in (41, 42, 42, 42, 42))) as (_, client):
        answer = await client.chat.completions.create(model="m", messages=USER, extra_body=sampled(5))

        assert answer.choices[0].message.content == "The answer is 42."
        assert len(answer.choices) == 1


async def test_a_good_way_and_a_different_way_are_not_option_a() -> None:
    texts = ["A good way to start is early.", "A different way is better.", "B"]
    async with served(*texts) as (_, client):
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=USER, extra_body=sampled(3, fallback="single")
        )

        assert raw.parse().choices[0].message.content in texts
        assert raw.headers.get("x-predawn-agreement") in {None, "1.00"}


async def test_tools_reach_every_sample_and_the_call_comes_back_whole() -> None:
    def call(city: str) -> Answer:
        return Answer(tool_calls=(ToolCall(name="lookup", arguments={"city": city}),))

    async with served(call("Ulm"), call("Bonn"), call("Bonn")) as (running, client):
        answer = await client.chat.completions.create(model="m", messages=USER, tools=[LOOKUP], extra_body=sampled(3))
        calls: Any = answer.choices[0].message.tool_calls

        assert answer.choices[0].finish_reason == "tool_calls"
        assert json.loads(calls[0].function.arguments) == {"city": "Bonn"}
        assert [received.json["tools"] for received in running.upstream.requests] == [[LOOKUP]] * 3


async def test_a_streamed_tool_call_accumulates() -> None:
    call = Answer(tool_calls=(ToolCall(name="lookup", arguments={"city": "Bonn"}),))
    async with served(call, call) as (_, client):
        async with client.chat.completions.stream(
            model="m", messages=USER, tools=[LOOKUP], extra_body=sampled(2)
        ) as stream:
            final = await stream.get_final_completion()
        calls: Any = final.choices[0].message.tool_calls

        assert json.loads(calls[0].function.arguments) == {"city": "Bonn"}


async def test_images_formats_and_seeds_reach_every_sample() -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    messages: Any = [{"role": "system", "content": "JSON only."}, {"role": "user", "content": content}]
    schema = {"name": "it", "strict": True, "schema": {"type": "object", "properties": {"it": {"type": "string"}}}}
    formatted: Any = {"type": "json_schema", "json_schema": schema}
    async with served(*['{"it": "a pixel"}'] * 3) as (running, client):
        answer = await client.chat.completions.create(
            model="m", messages=messages, response_format=formatted, seed=5, temperature=0.3, extra_body=sampled(3)
        )
        sent = [received.json for received in running.upstream.requests]

        assert json.loads(answer.choices[0].message.content or "") == {"it": "a pixel"}
        assert [body["messages"] for body in sent] == [messages] * 3
        assert [body["response_format"] for body in sent] == [formatted] * 3
        assert sorted(body["seed"] for body in sent) == [5, 6, 7]
        assert {body["temperature"] for body in sent} == {0.3}


@pytest.mark.parametrize(
    "text", ["--strategy judge", 'predawn: {"sampling": {"samples": 50}}', "User: Assistant: stop"]
)
async def test_user_text_never_switches_strategy(text: str) -> None:
    async with served(text) as (running, client):
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])

        assert answer.choices[0].message.content == text
        assert len(running.upstream.requests) == 1


async def test_n_keeps_its_meaning() -> None:
    async with served(Answer(texts=("41", "42", "42"))) as (running, client):
        answer = await client.chat.completions.create(model="m", messages=USER, n=3, extra_body=sampled(5))

        assert [choice.message.content for choice in answer.choices] == ["41", "42", "42"]
        assert len(running.upstream.requests) == 1


async def test_a_header_may_ask_too() -> None:
    async with served("41", "42", "42") as (running, client):
        wish = {"x-predawn-sampling": '{"strategy": "vote", "samples": 3, "min_samples": 3}'}
        answer = await client.chat.completions.create(model="m", messages=USER, extra_headers=wish)

        assert answer.choices[0].message.content == "42"
        assert not any("predawn" in str(received.json) for received in running.upstream.requests)


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_complete(stream: bool) -> None:
    async with served("It is 41, I believe.", "It is 42.", "It is 42.") as (running, client):
        if stream:
            chunks = await client.chat.completions.create(
                model="m", messages=USER, stream=True, stream_options={"include_usage": True}, extra_body=sampled(3)
            )
            seen = [chunk async for chunk in chunks]
            usage: Any = seen[-1].usage
            assert seen[-1].choices == []
        else:
            usage = (await client.chat.completions.create(model="m", messages=USER, extra_body=sampled(3))).usage
        counts = running.upstream.counts

        assert usage.completion_tokens == 3
        assert usage.total_tokens == usage.prompt_tokens + 3
        assert usage.predawn["samples"] == 3
        assert usage.completion_tokens + usage.predawn["discarded_tokens"] == counts.output_tokens
        assert usage.prompt_tokens + usage.predawn["discarded_prompt_tokens"] == counts.prompt_tokens


async def test_the_record_tells_what_was_done_and_what_it_cost() -> None:
    async with served("It is 41.", "It is 42.", "It is 42.") as (running, client):
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=USER, extra_body=sampled(3))
        kept = await record_of(running, raw.headers.get("x-request-id"))
        decision = next(item for item in kept["decisions"] if item["by"] == "sampling")

        assert decision["detail"]["strategy"] == "vote"
        assert decision["detail"]["samples"] == 3
        assert decision["detail"]["tokens"] == running.upstream.counts.output_tokens
        assert raw.headers["x-predawn-samples"] == "3"
        assert len(kept["calls"]) == 3


async def test_losers_are_cancelled_within_a_chunk_and_100_ms() -> None:
    """The provider counts what it generates: a token each 20 ms, for as long as somebody listens."""
    quick, slow = Answer(text="It is 42.", interval_ms=20), Answer(text="word " * 500, interval_ms=20)
    wish = {"predawn": {"sampling": {"strategy": "first_m_of_k", "samples": 8, "first": 2}}}
    took, late = [], []
    for _ in range(3):  # what a busy machine does it does not do each time
        async with served(quick, quick, *[slow] * 6) as (running, client):
            answer = await client.chat.completions.create(model="m", messages=USER, extra_body=wish)
            answered = perf_counter()
            counts = running.upstream.counts
            await until(lambda counts=counts: not counts.in_flight)
            took.append(perf_counter() - answered)
            generated = counts.output_tokens
            await asyncio.sleep(0.1)

            assert answer.choices[0].message.content == "It is 42."
            assert counts.output_tokens == generated
            assert counts.cut == 6
            discarded = answer.usage.predawn["discarded_tokens"]  # type: ignore[union-attr]
            late.append(generated - answer.usage.completion_tokens - discarded)  # type: ignore[union-attr]

    assert min(took) < 0.1
    assert min(late) <= 6, "a chunk of each"


async def test_a_client_that_leaves_stops_every_sample() -> None:
    async with served(*[Answer(text="word " * 500, interval_ms=10)] * 8) as (running, client):
        counts = running.upstream.counts
        asked = client.chat.completions.create(model="m", messages=USER, extra_body=sampled(8), timeout=30)
        asking = Tasks().spawn(asked, "asking")
        await until(lambda: counts.in_flight == 8)
        asking.cancel()
        left = perf_counter()
        await until(lambda: not counts.in_flight)

        assert perf_counter() - left < 0.1
        await running.idle()


async def test_no_connection_leaks() -> None:
    """After many votes, all of them cut short, no place among the provider's connections is held."""
    answers = [Answer(text="It is 42.", interval_ms=1), Answer(text="word " * 200, interval_ms=1)]
    script = Script(answers=tuple(answers), cycle=True)
    wish = {"predawn": {"sampling": {"strategy": "first_m_of_k", "samples": 4, "first": 2}}}
    plugins: list[Any] = [{"sampling": {}}]
    async with house(script, plugins=plugins, upstream={"max_connections": 8}) as running:
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
            asked = (client.chat.completions.create(model="m", messages=USER, extra_body=wish) for _ in range(20))
            answers_ = await asyncio.gather(*asked)
        await running.idle()
        counts = running.upstream.counts

        assert {answer.choices[0].message.content for answer in answers_} <= {"It is 42.", ("word " * 200)}
        assert counts.opened == counts.closed
        assert running.station().in_flight == 0
        assert await running.answers()


async def test_a_stream_waits_with_comments_and_then_comes_at_once() -> None:
    answers = [Answer(text="It is 42.", first_byte_ms=150)] * 3
    async with served(*answers, server={"keep_alive_comment_s": 0.03}) as (running, _):
        body = {"model": "m", "messages": USER, "stream": True, **sampled(3)}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{running.base_url}/chat/completions", json=body) as reply:
                raw = await reply.read()

        assert raw.startswith(b": keep-alive\n\n")
        assert raw.endswith(b"data: [DONE]\n\n")
        assert raw.count(b'"content"') == 4  # the role's, and three words


async def test_if_all_samples_fail_the_first_error_is_the_clients() -> None:
    limited = Answer(status=429, headers={"retry-after": "3"})
    async with served(limited, Answer(status=500), Answer(status=500)) as (_, client):
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="m", messages=USER, extra_body=sampled(3))

        assert caught.value.response.headers["retry-after"] == "3"


async def test_sixteen_samples_take_little_longer_than_one() -> None:
    """Where the provider has room. Provider, server and client share one loop here, so tokens come slowly."""

    def choose(_: Received) -> Answer:
        return Answer(text="step " * 9 + "It is 42.", interval_ms=50)

    async with served(choose=choose) as (_, client):

        async def took(**more: Any) -> float:
            began = perf_counter()
            await client.chat.completions.create(model="m", messages=USER, **more)
            return perf_counter() - began

        await took()
        single = min([await took() for _ in range(2)])
        voted = min([await took(extra_body=sampled(16)) for _ in range(2)])

        assert voted <= 1.3 * single


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_and_responses_vote(stream: bool) -> None:
    async with served("41", "42", "42", "41", "42", "42") as (_, client):
        if stream:
            pieces = await client.completions.create(model="m", prompt="6*7=", stream=True, extra_body=sampled(3))
            text = "".join([piece.choices[0].text async for piece in pieces if piece.choices])
            response: Any
            async with client.responses.stream(model="m", input="6*7?", extra_body=sampled(3)) as events:
                async for _event in events:
                    pass
                response = await events.get_final_response()
        else:
            text = (await client.completions.create(model="m", prompt="6*7=", extra_body=sampled(3))).choices[0].text
            response = await client.responses.create(model="m", input="6*7?", extra_body=sampled(3))

        assert text == "42"
        assert response.output_text == "42"
