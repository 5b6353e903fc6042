"""The official `anthropic` client on `/v1/messages`, in front of a provider that speaks Anthropic's API itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from tests.acceptance.bare import ask
from tests.acceptance.house import CLIENT_KEY, UPSTREAM_KEY, House, house, raw_upstream
from tests.acceptance.plugins import Watch

USER: Any = [{"role": "user", "content": "hello"}]
ASKED: Any = {"model": "m", "max_tokens": 100, "messages": USER}
LOOKUP: Any = {
    "name": "lookup",
    "description": "Looks a city up.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def connected(running: House, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**{"base_url": running.url, "api_key": CLIENT_KEY, "max_retries": 0, **options})


def script(text: str) -> dict[str, str]:
    return {"x-script": text}


@pytest.fixture
async def messages() -> AsyncIterator[House]:
    async with house("hello there", upstream={"routes": ["messages"], "auth": "x-api-key"}) as running:
        yield running


@pytest.fixture
async def claude(messages: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with connected(messages) as opened:
        yield opened


async def test_a_message_is_answered(messages: House, claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(**ASKED)
    sent = messages.upstream.requests[-1]

    assert answer.content[0].text == "hello there"  # type: ignore[union-attr]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 2
    assert sent.headers["x-api-key"] == UPSTREAM_KEY
    assert sent.headers["anthropic-version"]
    assert CLIENT_KEY not in repr(dict(sent.headers))


async def test_a_message_is_streamed(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(**ASKED) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()

    assert kinds[0] == "message_start"
    assert "message_stop" in kinds
    assert final.content[0].text == "hello there"  # type: ignore[union-attr]
    assert final.usage.output_tokens == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_tool_is_called(stream: bool) -> None:
    async with house(upstream={"routes": ["messages"]}) as running, connected(running) as client:
        if stream:
            async with client.messages.stream(**ASKED, tools=[LOOKUP]) as opened:
                answer: Any = await opened.get_final_message()
        else:
            answer = await client.messages.create(**ASKED, tools=[LOOKUP])
        (call,) = [block for block in answer.content if block.type == "tool_use"]

        assert call.name == "lookup"
        assert "city" in call.input
        assert answer.stop_reason == "tool_use"


async def test_a_tools_result_images_and_caching_marks_reach_the_provider(
    messages: House, claude: anthropic.AsyncAnthropic
) -> None:
    said: Any = [
        {"role": "user", "content": [{"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "lookup", "input": {"city": "x"}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            ],
        },
    ]
    await claude.messages.create(
        model="m", max_tokens=9, messages=said, system="Be brief.", extra_headers={"anthropic-beta": "a,b"}
    )
    sent = messages.upstream.requests[-1]

    assert sent.json["messages"] == said
    assert sent.json["system"] == "Be brief."
    assert sent.headers["anthropic-beta"] == "a,b"


STATUSES = [
    (400, anthropic.BadRequestError),
    (401, anthropic.AuthenticationError),
    (403, anthropic.PermissionDeniedError),
    (404, anthropic.NotFoundError),
    (413, anthropic.APIStatusError),
    (429, anthropic.RateLimitError),
    (500, anthropic.InternalServerError),
    (529, anthropic.APIStatusError),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("status", "kind"), STATUSES)
async def test_a_providers_error_arrives_as_it_was(
    claude: anthropic.AsyncAnthropic, status: int, kind: type[anthropic.APIStatusError], stream: bool
) -> None:
    body = {"type": "error", "error": {"type": "odd_error", "message": "as it is", "more": 1}, "request_id": "theirs"}
    told = json.dumps({"status": status, "body": body, "headers": {"retry-after": "7"}})
    with pytest.raises(kind) as caught:
        await claude.messages.create(**ASKED, stream=stream, extra_headers=script(told))

    assert caught.value.status_code == status
    assert caught.value.body == body
    assert caught.value.response.headers["retry-after"] == "7"


async def test_our_own_errors_have_anthropics_shape(messages: House, claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await claude.messages.create(**{**ASKED, "model": "mm"})
    with pytest.raises(anthropic.BadRequestError) as invalid:
        await claude.messages.create(**ASKED, extra_body={"stream": "perhaps"})
    for caught in (unknown, invalid):
        body: Any = caught.value.body

        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        assert caught.value.response.headers["x-request-id"]
    assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert messages.upstream.counts.requests == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_provider_that_is_gone_is_an_api_error(stream: bool, claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        await claude.messages.create(**ASKED, stream=stream, extra_headers=script("refuse"))
    body: Any = caught.value.body

    assert caught.value.status_code == 502
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")


@pytest.mark.parametrize("plugins", [[], ["careless"], ["record"]], ids=repr)
@pytest.mark.parametrize("fault", ["die_mid_event", "stall_mid_stream, after=3", "die_mid_event, after=3"])
async def test_a_truncated_stream_raises(fault: str, plugins: list[str]) -> None:
    quick = {"routes": ["messages"], "timeouts": {"idle_s": 0.3}}
    async with house("one two three", upstream=quick, plugins=plugins) as running, connected(running) as client:
        stream = await client.messages.create(**ASKED, stream=True, extra_headers=script(fault))
        with pytest.raises(anthropic.APIError):
            [event async for event in stream]
        await running.idle()


async def test_a_stream_that_ends_before_its_end_raises() -> None:
    """A clean end without `message_stop` would be taken for a whole message."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
    )
    start += b'"model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    async with raw_upstream(head + start) as provider, house(behind=provider.base_url) as running:
        async with connected(running) as client:
            stream = await client.messages.create(**ASKED, stream=True)
            with pytest.raises(anthropic.APIError):
                [event async for event in stream]


async def test_the_sdk_does_not_multiply_our_retries() -> None:
    over = {"routes": ["messages"], "retries": {"attempts": 2, "base_s": 0.001}}
    async with house(upstream=over) as running, connected(running, max_retries=2) as client:
        with pytest.raises(anthropic.InternalServerError):
            await client.messages.create(**ASKED, extra_headers=script("status=503"))

        assert running.upstream.counts.requests == 2


async def test_leaving_a_stream_cancels_the_provider(messages: House, claude: anthropic.AsyncAnthropic) -> None:
    stream = await claude.messages.create(**ASKED, stream=True, extra_headers=script("stall_mid_stream, after=2"))
    await anext(aiter(stream))
    await stream.close()
    await messages.idle()

    assert messages.upstream.counts.cut == 1


@pytest.mark.parametrize(
    "plugins", [["record"], [{"record": {"record_content": True}}], ["careless", "record"]], ids=repr
)
async def test_usage_is_booked_without_asking_for_it(plugins: list[Any]) -> None:
    over = {"routes": ["messages"]}
    async with house("hello there", upstream=over, plugins=plugins) as running, connected(running) as client:
        for ident, stream in (("whole", False), ("streamed", True)):
            answer: Any = await client.messages.create(**ASKED, stream=stream, extra_headers={"x-request-id": ident})
            if stream:
                [event async for event in answer]
            await running.idle()
            kept: Any = await client.get(f"/v1/exchanges/{ident}", cast_to=object)

            assert "stream_options" not in running.upstream.requests[-1].json
            assert (kept["route"], kept["outcome"]) == ("messages", "ok")
            assert (kept["ledger"]["prompt"], kept["ledger"]["output"]) == (1, 2)
            assert kept["ledger"]["estimated"] is False


async def test_a_provider_that_does_not_speak_it_is_named() -> None:
    async with house(upstream={"routes": ["chat"]}) as running, connected(running) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(**ASKED)

        assert "'m'" in caught.value.message
        assert running.upstream.counts.requests == 0


async def test_both_clients_talk_at_once(messages: House) -> None:
    async with connected(messages) as client:
        answers = await asyncio.gather(*(client.messages.create(**ASKED) for _ in range(20)))

        assert {answer.content[0].text for answer in answers} == {"hello there"}  # type: ignore[union-attr]


async def test_the_prompts_tokens_are_booked_from_the_first_event() -> None:
    """Its last event may tell the output's tokens only, far behind the first."""

    def event(kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()

    usage = {"input_tokens": 70, "cache_read_input_tokens": 30, "output_tokens": 1}
    message = {"id": "x", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    told = [
        event("message_start", message=message),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": "word " * 99}) for _ in range(99)),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 500}),
        event("message_stop"),
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for piece in told:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with raw_upstream(serve) as provider, house(behind=provider.base_url, plugins=["watch"]) as running:
        answer = await ask(running.port, json.dumps({**ASKED, "stream": True}).encode(), "/v1/messages")
        await running.idle()
        (exchange,) = running.plugin(Watch).seen

        assert answer.whole
        assert (exchange.ledger.prompt, exchange.ledger.cached_prompt, exchange.ledger.output) == (100, 30, 500)
