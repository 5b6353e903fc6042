"""Verified answers of `/v1/messages` and `/v1/responses` as the official clients put them together."""

import asyncio
import json

import anthropic
import openai
import pytest
from tests.acceptance.house import CLIENT_KEY, house
from tests.acceptance.test_verify import PREFILLS, REST, WRONG, verifying

from predawn.plugins.testing import Answer, Script, ToolCall

HELLO = [{"role": "user", "content": "How many?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}
RIGHT = "Bob is small. 3 + 4 = 7. Bob = 7."
BAD_CALL = Answer(tool_calls=(ToolCall(name="add", arguments={"a": "three"}),))
GOOD_CALL = Answer(tool_calls=(ToolCall(name="add", arguments={"a": 3}),))


def openai_client(running, **more):
    return openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0, **more)


def anthropic_client(running, **more):
    return anthropic.AsyncAnthropic(base_url=running.url, api_key=CLIENT_KEY, max_retries=0, **more)


async def response_of(client, **more):
    async with client.responses.stream(model="m", input="How many?", **more) as stream:
        async for _ in stream:
            pass
        return await stream.get_final_response()


async def message_of(client, **more):
    async with client.messages.stream(model="m", max_tokens=500, messages=HELLO, **more) as stream:
        return await stream.get_final_message()


@pytest.mark.parametrize("thinks", ["", "Let me see. 1 + 1 = 2."])
async def test_a_wrong_sum_is_put_right_in_a_message_and_a_response(thinks):
    script = Script.of(Answer(reasoning=thinks, text=WRONG), Answer(text=REST))
    plugins = verifying("arithmetic", mode="intervene")
    async with house(script, models=PREFILLS, plugins=plugins) as running, anthropic_client(running) as client:
        async with client.messages.stream(model="m", max_tokens=500, messages=HELLO) as stream:
            (told,) = [event.usage async for event in stream if event.type == "message_delta"]
            message = await stream.get_final_message()

        assert [block.text for block in message.content if block.type == "text"] == [RIGHT]
        assert message.usage.output_tokens == told.output_tokens
        assert told.output_tokens + told.predawn["discarded_tokens"] == running.upstream.counts.output_tokens
    async with house(script, plugins=plugins) as running, openai_client(running) as client:
        response = await response_of(client)

        assert response.output_text == RIGHT
        assert response.status == "completed"
        assert response.usage.output_tokens + response.usage.predawn["discarded_tokens"] == (
            running.upstream.counts.output_tokens
        )


async def test_a_stopped_answer_ends_in_each_api_as_it_ends_there():
    plugins = verifying("arithmetic", mode="gate")
    async with house(Script(text=WRONG), plugins=plugins) as running:
        async with anthropic_client(running) as client:
            message = await message_of(client)
            whole = await client.messages.create(model="m", max_tokens=500, messages=HELLO)
        async with openai_client(running) as client:
            response = await client.responses.create(model="m", input="How many?")
            streamed = [one async for one in await client.responses.create(model="m", input="x", stream=True)]

        assert message.stop_reason == whole.stop_reason == "refusal"
        assert message.content[0].text == whole.content[0].text == "Bob is small."
        assert response.output_text == "Bob is small."
        assert response.incomplete_details.reason == "content_filter"
        assert (streamed[-1].type, streamed[-1].response.output_text) == ("response.incomplete", "Bob is small.")


async def test_a_wrong_call_is_made_again_before_a_client_sees_it():
    plugins = verifying("tool_call", mode="intervene")
    async with house(Script.of(BAD_CALL, GOOD_CALL), plugins=plugins) as running, anthropic_client(running) as client:
        message = await message_of(client, tools=[{"name": "add", "input_schema": SCHEMA}])

        assert [(block.name, block.input) for block in message.content] == [("add", {"a": 3})]
        assert message.stop_reason == "tool_use"
    async with house(Script.of(BAD_CALL, GOOD_CALL), plugins=plugins) as running, openai_client(running) as client:
        tool = {"type": "function", "name": "add", "parameters": SCHEMA, "strict": False}
        response = await response_of(client, tools=[tool])

        assert [(item.name, json.loads(item.arguments)) for item in response.output] == [("add", {"a": 3})]


@pytest.mark.parametrize("mode", ["observe", "optimistic", "gate", "intervene"])
async def test_a_client_that_leaves_stops_the_upstream_on_every_wire(mode):
    script = Script(text="One. " * 300, interval_ms=3)
    async with house(script, plugins=verifying("arithmetic", mode=mode)) as running:
        async with anthropic_client(running) as client:
            async with client.messages.stream(model="m", max_tokens=999, messages=HELLO) as stream:
                async for event in stream:
                    if event.type == "text":
                        break
        async with openai_client(running) as client:
            events = await client.responses.create(model="m", input="x", stream=True)
            async for event in events:
                if event.type == "response.output_text.delta":
                    break
            await events.close()
        await running.idle()

        assert running.upstream.counts.cut == 2


async def test_redaction_cache_and_verification_work_together():
    said = "Write to bob@example.com. 3 + 4 = 8. Bob = 8."
    rest = " Bob = 7, ask bob@example.com."
    plugins = ["cache", {"redact": {"requests": True}}, *verifying("arithmetic", mode="intervene")]
    request = {"model": "m", "messages": [{"role": "user", "content": "I am bob@example.com."}], "temperature": 0}
    async with house(Script.of(said, rest), plugins=plugins) as running, openai_client(running) as client:
        answers = [await client.chat.completions.create(**request) for _ in range(2)]
        sent = [one.json for one in running.upstream.requests]

        assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
        assert "3 + 4 = 7." in answers[0].choices[0].message.content
        assert len(sent) == 2
        assert "bob@example.com" not in json.dumps([one["messages"][0] for one in sent])


async def test_many_verified_streams_of_every_wire_are_all_whole():
    text = " ".join(f"{n} + 1 = {n + 1}." for n in range(20))
    async with house(Script(text=text, interval_ms=1), plugins=verifying("arithmetic", mode="gate")) as running:
        async with anthropic_client(running) as one, openai_client(running) as other:
            messages = asyncio.gather(*(message_of(one) for _ in range(10)))
            responses = asyncio.gather(*(response_of(other) for _ in range(10)))

            assert {message.content[0].text for message in await messages} == {text}
            assert {response.output_text for response in await responses} == {text}
        await running.idle()
