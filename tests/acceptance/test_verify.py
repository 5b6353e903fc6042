"""Verified answers as the official client gets them, over real sockets."""

import asyncio
import json

import openai
import pytest
from tests.acceptance.house import CLIENT_KEY, house

from predawn.plugins.testing import Answer, Script, ToolCall

WRONG = "Bob is small. 3 + 4 = 8. Bob = 8."
REST = " Bob = 7."
HELLO = [{"role": "user", "content": "How many?"}]
TOOL = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}}
TOOLS = [{"type": "function", "function": TOOL}]
PREFILLS = [{"name": "m", "upstream": "up", "prefill": True}]


def verifying(*verifiers, **given):
    return ["record", {"verify": {"verifiers": list(verifiers), **given}}]


def asking(running):
    return openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0)


async def streamed(client, **more):
    members = {"model": "m", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}, **more}
    return [chunk async for chunk in await client.chat.completions.create(**members)]


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_a_wrong_sum_is_put_right_in_the_middle_of_a_stream():
    plugins = verifying("arithmetic", mode="intervene")
    async with house(Script.of(WRONG, REST), models=PREFILLS, plugins=plugins) as running, asking(running) as client:
        chunks = await streamed(client)

        assert text_of(chunks) == "Bob is small. 3 + 4 = 7. Bob = 7."
        assert len({chunk.id for chunk in chunks}) == 1
        assert [
            chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason
        ] == ["stop"]
        usage = chunks[-1].usage
        assert usage.completion_tokens + usage.predawn["discarded_tokens"] == running.upstream.counts.output_tokens
        await running.idle()


async def test_a_whole_answer_says_how_it_went_in_a_header():
    plugins = verifying("arithmetic", mode="intervene")
    async with house(Script.of(WRONG, REST), models=PREFILLS, plugins=plugins) as running, asking(running) as client:
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=HELLO)

        assert raw.headers["x-predawn-verify"] == "corrected"
        assert raw.parse().choices[0].message.content == "Bob is small. 3 + 4 = 7. Bob = 7."
        assert "predawn" not in raw.parse().choices[0].model_dump()


async def test_a_call_that_breaks_its_schema_never_reaches_the_client():
    wrong = Answer(tool_calls=(ToolCall(name="add", arguments={"a": "three"}),))
    right = Answer(tool_calls=(ToolCall(name="add", arguments={"a": 3}),))
    plugins = verifying("tool_call", mode="intervene")
    async with house(Script.of(wrong, right), plugins=plugins) as running, asking(running) as client:
        chunks = await streamed(client, tools=TOOLS)
        calls = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()]

        assert json.loads("".join(call.function.arguments or "" for call in calls)) == {"a": 3}
        assert "three" not in str(chunks)


async def test_a_stopped_stream_says_so_and_ends_well():
    plugins = verifying({"regex": {"must_not": ["secret"]}}, mode="gate")
    answer = Answer(pieces=("Well.\n", "It is sec", "ret.\n", "Bye."))
    async with house(Script.of(answer), plugins=plugins) as running, asking(running) as client:
        chunks = await streamed(client)

        assert "sec" not in text_of(chunks)
        assert chunks[-2].choices[0].finish_reason == "content_filter"
        assert chunks[-2].choices[0].predawn["stopped_by"] == "regex"


@pytest.mark.parametrize("mode", ["observe", "optimistic", "gate", "intervene"])
async def test_many_verified_streams_at_once_are_all_whole(mode):
    text = " ".join(f"{n} + 1 = {n + 1}." for n in range(20))
    plugins = verifying("arithmetic", mode=mode)
    async with house(Script(text=text, interval_ms=1), plugins=plugins) as running, asking(running) as client:
        answers = await asyncio.gather(*(streamed(client) for _ in range(40)))

        assert {text_of(chunks) for chunks in answers} == {text}
        await running.idle()


async def test_a_client_that_leaves_stops_the_upstream():
    plugins = verifying("arithmetic", mode="gate")
    async with house(Script(text="One. " * 500, interval_ms=5), plugins=plugins) as running, asking(running) as client:
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()
        await running.idle()

        assert running.upstream.counts.cut == 1
