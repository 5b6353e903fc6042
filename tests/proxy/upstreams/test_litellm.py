from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from predawn.proxy.clock import SystemClock
from predawn.proxy.exchange import Reply
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.litellm import LiteLLMUpstream
from tests.fixtures import anthropic_server as anthropic
from tests.fixtures import gemini_server as gemini
from tests.fixtures.anthropic_server import AnthropicServer, Message, Tool
from tests.fixtures.gemini_server import Call, Content, GeminiServer
from tests.fixtures.provider import Course, Failure, Provider, Raw

# LiteLLM's models build their schemas on first use, and Pydantic remarks on the ReadOnly members of its typed dicts.
pytestmark = pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning:pydantic")

CLAUDE = "anthropic/claude-sonnet-4-5"
GEMINI = "gemini/gemini-2.5-flash"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Current weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Case:
    """One provider with an upstream in front of it."""

    def __init__(self, server: Any, model: str, key: str) -> None:
        self.server = server
        self.model = model
        self.key = key
        self.upstream = self.make()

    def make(self, **changes: Any) -> LiteLLMUpstream:
        settings = {"name": "up", "kind": "litellm", "base_url": self.server.base_url, "api_key": self.key, **changes}
        return LiteLLMUpstream(UpstreamSettings(**settings), SystemClock())

    def answer(self, **fields: Any) -> Any:
        return (Message if isinstance(self.server, AnthropicServer) else Content)(**fields)

    async def send(self, upstream: LiteLLMUpstream | None = None, *, stream: bool = False, **members: Any) -> Reply:
        body = {"model": "alias", "messages": [{"role": "user", "content": "hi"}], **members}
        if stream:
            body["stream"] = True
        return await (upstream or self.upstream).send(request(self.model, body, stream=stream))


def request(model: str, body: dict[str, Any], *, stream: bool = False, route: Any = "chat") -> UpstreamRequest:
    encoded = json.dumps(body).encode()
    return UpstreamRequest(route, "POST", "/chat/completions", model, encoded, {}, stream, lambda: body)


@pytest.fixture
async def claude() -> AsyncIterator[Case]:
    async with AnthropicServer() as server:
        case = Case(server, CLAUDE, anthropic.KEY)
        await case.upstream.open()
        yield case
        await case.upstream.aclose()


@pytest.fixture
async def google() -> AsyncIterator[Case]:
    async with GeminiServer() as server:
        case = Case(server, GEMINI, gemini.KEY)
        await case.upstream.open()
        yield case
        await case.upstream.aclose()


@pytest.fixture(params=["claude", "google"])
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    server: Any = AnthropicServer() if request.param == "claude" else GeminiServer()
    model, key = (CLAUDE, anthropic.KEY) if request.param == "claude" else (GEMINI, gemini.KEY)
    async with server:
        case = Case(server, model, key)
        await case.upstream.open()
        yield case
        await case.upstream.aclose()


async def read(reply: Reply) -> dict[str, Any]:
    assert reply.source is not None
    body = b"".join([data async for data in reply.source])
    await reply.source.aclose()
    return json.loads(body)


async def events(reply: Reply) -> list[Any]:
    """The stream's data, with `[DONE]` as it is."""
    assert reply.status == 200, await read(reply)
    assert reply.source is not None
    raws = [data async for data in reply.source]
    await reply.source.aclose()
    assert all(raw.startswith(b"data: ") and raw.endswith(b"\n\n") for raw in raws)
    return [raw[6:-2].decode() if b"[DONE]" in raw else json.loads(raw[6:]) for raw in raws]


def text_of(told: list[Any]) -> str:
    chunks = [chunk for chunk in told if isinstance(chunk, dict)]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def finish_of(told: list[Any]) -> str | None:
    chunks = [chunk for chunk in told if isinstance(chunk, dict)]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    return reasons[0] if len(reasons) == 1 else None


async def soon(event: asyncio.Event) -> bool:
    async with asyncio.timeout(5):
        return await event.wait()


# Answers


async def test_a_whole_answer_has_the_shape_of_a_chat_completion(case: Case) -> None:
    reply = await case.send()
    body = await read(reply)

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hello there"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert isinstance(body["created"], int)
    assert body["id"]


async def test_a_stream_has_the_shape_of_chat_completion_chunks_and_ends_with_done(case: Case) -> None:
    reply = await case.send(stream=True)
    told = await events(reply)

    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert told[-1] == "[DONE]"
    assert text_of(told) == "Hello there"
    assert finish_of(told) == "stop"
    assert told[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["object"] for chunk in told[:-1]} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in told[:-1]}) == 1
    assert all("usage" not in chunk for chunk in told)


async def test_a_streaming_reply_can_be_read_as_chunks(case: Case) -> None:
    reply = await case.send(stream=True)
    chunks = [chunk async for chunk in reply.chunks]

    assert reply.is_stream
    assert chunks[-1].is_last
    assert (
        "".join((c.data or {"choices": []})["choices"][0]["delta"].get("content", "") for c in chunks[:2])
        == "Hello there"
    )


async def test_chunks_leave_as_they_come(case: Case) -> None:
    hold = 4 if case.model == CLAUDE else 1
    case.server.will(case.answer(course=Course(hold_after=hold)))
    reply = await case.send(stream=True)
    assert reply.source is not None
    source = aiter(reply.source)
    first = await anext(source)
    held = case.server.holding.is_set()
    case.server.gate.set()
    rest = [data async for data in source]

    assert b'"Hello"' in first
    assert held
    assert rest[-1] == b"data: [DONE]\n\n"


async def test_usage_is_streamed_only_when_asked_for_and_last(case: Case) -> None:
    told = await events(await case.send(stream=True, stream_options={"include_usage": True}))

    assert told[-1] == "[DONE]"
    assert told[-2]["choices"] == []
    assert (
        told[-2]["usage"]["total_tokens"] == told[-2]["usage"]["prompt_tokens"] + told[-2]["usage"]["completion_tokens"]
    )
    assert [("usage" in chunk) for chunk in told[:-2]] == [False] * len(told[:-2])


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_cached_tokens_are_part_of_the_prompt(claude: Case, stream: bool) -> None:
    usage = anthropic.Usage(input_tokens=10, output_tokens=7, cache_read_input_tokens=30, cache_creation_input_tokens=4)
    claude.server.will(Message(usage=usage))
    reply = await claude.send(stream=stream, stream_options={"include_usage": True} if stream else None)
    told = (await events(reply))[-2]["usage"] if stream else (await read(reply))["usage"]

    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (44, 7, 51)
    assert told["prompt_tokens_details"]["cached_tokens"] == 30
    assert told["cache_creation_input_tokens"] == 4
    assert "reasoning_tokens" not in told.get("completion_tokens_details", {})
    assert "cost" not in told


@pytest.mark.parametrize("stream", [False, True])
async def test_geminis_thoughts_are_part_of_the_completion(google: Case, stream: bool) -> None:
    google.server.will(Content(usage=gemini.Usage(prompt=50, candidates=5, thoughts=20, cached=32)))
    reply = await google.send(stream=stream, stream_options={"include_usage": True} if stream else None)
    told = (await events(reply))[-2]["usage"] if stream else (await read(reply))["usage"]

    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (50, 25, 75)
    assert told["prompt_tokens_details"]["cached_tokens"] == 32
    assert told["completion_tokens_details"]["reasoning_tokens"] == 20


async def test_a_hundred_and_fifty_equal_chunks_are_an_answer(case: Case) -> None:
    case.server.will(case.answer(text=("again ",) * 150))
    told = await events(await case.send(stream=True))

    assert text_of(told) == "again " * 150


async def test_thinking_is_told_as_reasoning_content(claude: Case) -> None:
    claude.server.will(Message(thinking="Let me see."), Message(thinking="Let me see."))
    whole = await read(await claude.send())
    told = await events(await claude.send(stream=True))
    reasoning = "".join(c["choices"][0]["delta"].get("reasoning_content") or "" for c in told[:-1])

    assert whole["choices"][0]["message"]["reasoning_content"] == "Let me see."
    assert reasoning == "Let me see."
    assert text_of(told) == "Hello there"


async def test_twenty_streams_at_once_keep_their_texts_apart(claude: Case) -> None:
    claude.server.default = lambda seen: Message(text=(seen.body["messages"][0]["content"][0]["text"], "!"))

    async def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"number {number}"}]
        return text_of(await events(await claude.send(stream=True, messages=messages)))

    assert await asyncio.gather(*map(ask, range(20))) == [f"number {number}!" for number in range(20)]


async def test_connections_are_used_again(case: Case) -> None:
    for stream in (False, True, True, False):
        reply = await case.send(stream=stream)
        await (events(reply) if stream else read(reply))

    assert len({seen.peer for seen in case.server.requests}) == 1


async def test_what_the_provider_says_of_its_service_reaches_the_client_but_no_cookie(claude: Case) -> None:
    reply = await claude.send()

    assert reply.headers["request-id"] == "req_011CSHoEeqs5C35K2UUqR7Fy"
    assert reply.headers["anthropic-ratelimit-requests-remaining"] == "3999"
    assert "set-cookie" not in {name.lower() for name in reply.headers}


# Requests


async def test_a_whole_conversation_with_images_and_tools_reaches_anthropic(claude: Case) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    settings = {
        "temperature": 0.3,
        "stop": ["END"],
        "max_tokens": 77,
        "top_p": 0.9,
        "user": "u-1",
        "tool_choice": "required",
    }
    await claude.send(messages=messages, tools=[WEATHER], parallel_tool_calls=False, **settings)
    seen = claude.server.last

    assert seen.body["system"] == [{"type": "text", "text": "Be brief."}]
    assert seen.body["messages"][0]["content"][1]["source"] == {
        "type": "base64",
        "media_type": "image/png",
        "data": PIXEL,
    }
    assert seen.body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}
    ]
    assert seen.body["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}]
    assert seen.body["tools"][0]["input_schema"]["properties"] == {"city": {"type": "string"}}
    assert seen.body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert (seen.body["temperature"], seen.body["stop_sequences"], seen.body["max_tokens"]) == (0.3, ["END"], 77)
    assert seen.body["metadata"] == {"user_id": "u-1"}
    assert seen.headers["x-api-key"] == anthropic.KEY


async def test_a_whole_conversation_with_images_and_tools_reaches_gemini(google: Case) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky":"rain"}'},
    ]
    settings = {"temperature": 0.3, "stop": ["END"], "max_tokens": 77, "seed": 5, "top_k": 4}
    await google.send(messages=messages, tools=[WEATHER], **settings)
    body = google.server.last.body
    parts = [part for content in body["contents"] for part in content["parts"]]

    assert body.get("system_instruction", body.get("systemInstruction"))["parts"] == [{"text": "Be brief."}]
    assert {"inline_data": {"mime_type": "image/png", "data": PIXEL}} in parts
    assert [part["function_call"]["args"] for part in parts if "function_call" in part] == [{"city": "Oslo"}]
    assert any("function_response" in part for part in parts)
    declaration = body["tools"][0]["function_declarations"][0]
    assert (declaration["name"], declaration["parameters"]["required"]) == ("weather", ["city"])
    assert body["generationConfig"].items() >= {"temperature": 0.3, "max_output_tokens": 77, "seed": 5}.items()
    assert google.server.last.headers["x-goog-api-key"] == gemini.KEY


@pytest.mark.parametrize("stream", [False, True])
async def test_parallel_tool_calls_come_back_with_their_arguments(case: Case, stream: bool) -> None:
    cities = ({"city": "Oslo"}, {"city": "Rome", "days": [1, 2]})
    if case.model == CLAUDE:
        case.server.will(Message(text=(), tools=tuple(Tool("weather", c, f"toolu_{i}") for i, c in enumerate(cities))))
    else:
        case.server.will(Content(text=(), calls=tuple(Call("weather", c) for c in cities)))
    reply = await case.send(stream=stream, tools=[WEATHER])
    if stream:
        told = await events(reply)
        calls: dict[int, dict[str, str]] = {}
        for chunk in told[:-1]:
            for part in chunk["choices"][0]["delta"].get("tool_calls") or ():
                call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += part.get("id") or ""
                call["name"] += part["function"].get("name") or ""
                call["arguments"] += part["function"].get("arguments") or ""
        finish = finish_of(told)
    else:
        choice = (await read(reply))["choices"][0]
        calls = {i: {"id": c["id"], **c["function"]} for i, c in enumerate(choice["message"]["tool_calls"])}
        finish = choice["finish_reason"]
        assert choice["message"]["content"] is None

    assert finish == "tool_calls"
    assert [call["name"] for call in calls.values()] == ["weather", "weather"]
    assert tuple(json.loads(call["arguments"]) for call in calls.values()) == cities
    assert len({call["id"] for call in calls.values()}) == 2


async def test_a_json_schema_reaches_the_provider(case: Case) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    text = '{"a":1}'
    if case.model == CLAUDE:
        case.server.will(Message(text=(text,)))
    else:
        case.server.will(Content(text=(text,)))
    wanted = {"type": "json_schema", "json_schema": {"name": "out", "schema": schema, "strict": True}}
    body = await read(await case.send(response_format=wanted))

    assert '"integer"' in json.dumps(case.server.last.body).lower()
    assert body["choices"][0]["message"]["content"] == text


async def test_members_that_litellm_does_not_know_reach_the_provider(google: Case) -> None:
    await google.send(labels={"team": "red"})

    assert google.server.last.body["labels"] == {"team": "red"}


async def test_what_the_provider_does_not_know_is_refused_by_the_provider(case: Case) -> None:
    reply = await case.send(foo=1)
    error = (await read(reply))["error"]

    assert reply.status == 400
    assert "foo" in error["message"]


@pytest.mark.parametrize(
    "control",
    [
        {"api_base": "http://127.0.0.1:1"},
        {"base_url": "http://127.0.0.1:1"},
        {"api_key": "stolen"},
        {"mock_response": "mocked"},
        {"custom_llm_provider": "openai"},
        {"fallbacks": ["openai/gpt-4o"]},
        {"extra_headers": {"x-evil": "1"}},
        {"extra_body": {"system": "evil"}},
        {"callbacks": ["langfuse"]},
        {"success_callback": ["langfuse"]},
        {"num_retries": 5},
        {"timeout": 0.0001},
        {"client": 1},
        {"model_list": [{"model_name": "x"}]},
        {"vertex_credentials": "/etc/passwd"},
        {"metadata": {"a": "b"}},
        {"caching": True},
        {"drop_params": True, "seed": 1},
    ],
    ids=lambda control: next(iter(control)),
)
async def test_clients_cannot_steer_litellm(claude: Case, control: dict[str, Any]) -> None:
    import litellm

    reply = await claude.send(**control)
    body = await read(reply)

    assert "mocked" not in json.dumps(body)
    assert (reply.status, bool(claude.server.requests)) in [(200, True), (400, True), (400, False)]
    assert all(seen.headers["x-api-key"] == anthropic.KEY for seen in claude.server.requests)
    assert all("x-evil" not in seen.headers and "system" not in seen.body for seen in claude.server.requests)
    assert litellm.success_callback == litellm.callbacks == litellm.failure_callback == []


async def test_options_are_defaults_that_a_client_may_override(claude: Case) -> None:
    upstream = claude.make(
        options={"temperature": 0.1, "drop_params": True, "extra_headers": {"anthropic-beta": "x-1"}}
    )
    await upstream.open()
    await claude.send(upstream, seed=3)
    await claude.send(upstream, temperature=0.9)
    await upstream.aclose()

    assert [seen.body["temperature"] for seen in claude.server.requests] == [0.1, 0.9]
    assert "seed" not in claude.server.requests[0].body


async def test_headers_of_the_settings_are_sent(case: Case) -> None:
    upstream = case.make(headers={"x-team": "red"})
    await upstream.open()
    await case.send(upstream)
    await upstream.aclose()

    assert case.server.last.headers["x-team"] == "red"


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_anthropics_base_url_may_end_with_its_version_or_not(claude: Case, suffix: str) -> None:
    upstream = claude.make(base_url=claude.server.url + suffix)
    await upstream.open()
    reply = await claude.send(upstream)
    await upstream.aclose()

    assert (reply.status, claude.server.last.path) == (200, "/v1/messages")


async def test_keys_of_the_environment_are_not_used(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "stray-key")
    upstream = case.make(api_key=None)
    await upstream.open()
    reply = await case.send(upstream)
    await upstream.aclose()

    assert reply.status in (400, 401)
    assert "stray-key" not in str(case.server.last.headers)


async def test_proxies_of_the_environment_are_not_used(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    reply = await case.send()

    assert reply.status == 200


async def test_an_image_is_not_fetched_for_a_client(google: Case) -> None:
    url = f"{google.server.url}/secret.png"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    reply = await google.send(messages=[{"role": "user", "content": content}])

    assert reply.status == 400
    assert google.server.requests == []


async def test_the_clients_request_is_not_changed(case: Case) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "tools": [WEATHER]}
    before = json.dumps(body)
    call = request(case.model, body)
    await case.upstream.send(UpstreamRequest("chat", "POST", "/", case.model, b"", {}, False, call.decoded))

    assert json.dumps(body) == before


async def test_embeddings_are_translated(google: Case) -> None:
    body = {"model": "alias", "input": ["a", "b"]}
    reply = await google.upstream.send(request("gemini/gemini-embedding-001", body, route="embeddings"))
    told = await read(reply)

    assert reply.status == 200
    assert [item["embedding"] for item in told["data"]] == [[0.25, -0.5, 0.0], [0.25, -0.5, 1.0]]
    assert [item["index"] for item in told["data"]] == [0, 1]


async def test_a_body_that_arrives_in_pieces_is_translated(case: Case) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"messages":[{"role":"user",'
        yield b'"content":"hi"}]}'

    reply = await case.upstream.send(UpstreamRequest("chat", "POST", "/", case.model, pieces(), {}, False, dict))

    assert reply.status == 200


# Ends other than `stop`


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("theirs", "ours"), [("max_tokens", "length"), ("stop_sequence", "stop"), ("refusal", "content_filter")]
)
async def test_anthropics_reasons_to_stop_are_mapped(claude: Case, theirs: str, ours: str, stream: bool) -> None:
    claude.server.will(Message(stop_reason=theirs))
    reply = await claude.send(stream=stream)
    told = finish_of(await events(reply)) if stream else (await read(reply))["choices"][0]["finish_reason"]

    assert told == ours


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("theirs", "ours"), [("MAX_TOKENS", "length"), ("SAFETY", "content_filter")])
async def test_geminis_reasons_to_stop_are_mapped(google: Case, theirs: str, ours: str, stream: bool) -> None:
    google.server.will(Content(finish_reason=theirs))
    reply = await google.send(stream=stream)
    told = finish_of(await events(reply)) if stream else (await read(reply))["choices"][0]["finish_reason"]

    assert told == ours


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_gemini_blocks_ends_with_content_filter(google: Case, stream: bool) -> None:
    google.server.will(Content(blocked="PROHIBITED_CONTENT"))
    reply = await google.send(stream=stream)
    told = finish_of(await events(reply)) if stream else (await read(reply))["choices"][0]["finish_reason"]

    assert told == "content_filter"


# Errors

STATUSES = [400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 529]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", STATUSES)
async def test_an_error_keeps_its_status_message_and_retry_after(case: Case, status: int, stream: bool) -> None:
    case.server.will(Failure(status, "some_error", "Try it later, dear user.", {"retry-after": "17"}))
    reply = await case.send(stream=stream)
    error = (await read(reply))["error"]

    assert reply.status == status
    assert error["message"] == "Try it later, dear user."
    assert error.keys() == {"message", "type", "param", "code"}
    assert reply.headers["retry-after"] == "17"
    assert len(case.server.requests) == 1


@pytest.mark.parametrize(
    ("status", "word", "message", "type_", "code"),
    [
        (400, "invalid_request_error", "prompt is too long: 9 > 8", "invalid_request_error", "context_length_exceeded"),
        (400, "invalid_request_error", "no", "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "no", "authentication_error", "invalid_api_key"),
        (403, "permission_error", "no", "permission_error", "permission_error"),
        (404, "not_found_error", "no", "invalid_request_error", "model_not_found"),
        (413, "request_too_large", "no", "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "no", "rate_limit_error", "rate_limit_exceeded"),
        (529, "overloaded_error", "no", "server_error", "overloaded_error"),
    ],
)
async def test_an_error_is_told_in_openais_words(
    claude: Case, status: int, word: str, message: str, type_: str, code: str
) -> None:
    claude.server.will(Failure(status, word, message))
    error = (await read(await claude.send()))["error"]

    assert (error["type"], error["code"]) == (type_, code)


async def test_googles_retry_info_becomes_retry_after(google: Case) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.5s"}
    google.server.will(Failure(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", details=[info]))
    reply = await google.send()

    assert (reply.status, reply.headers["retry-after"]) == (429, "17.5")


async def test_words_in_a_message_do_not_change_its_status(claude: Case) -> None:
    claude.server.will(Failure(400, "invalid_request_error", "tool 'Overloaded' has an Invalid API Key rate limit"))
    reply = await claude.send()

    assert reply.status == 400


async def test_no_secret_is_told(case: Case) -> None:
    upstream = case.make(headers={"x-gateway": "gateway-secret"})
    await upstream.open()
    case.server.will(Failure(403, "permission_error", f"key {case.key} with gateway-secret may not"))
    body = json.dumps(await read(await case.send(upstream)))
    await upstream.aclose()

    assert "*** with *** may not" in body
    assert case.key not in repr(upstream) + repr(upstream.settings)


async def test_what_cannot_be_translated_is_refused_without_asking_the_provider(claude: Case) -> None:
    reply = await claude.send(logit_bias={"50256": -100})
    error = (await read(reply))["error"]

    assert (reply.status, error["code"], error["param"]) == (400, "unsupported_parameter", "logit_bias")
    assert "drop_params" in error["message"]
    assert claude.server.requests == []


async def test_several_choices_are_not_streamed_instead_of_being_lost(google: Case) -> None:
    google.server.will(Content(candidates=2))
    streamed = await google.send(stream=True, n=2)
    whole = await read(await google.send(n=2))

    assert (streamed.status, (await read(streamed))["error"]["param"]) == (400, "n")
    assert [choice["index"] for choice in whole["choices"]] == [0, 1]


@pytest.mark.parametrize("model", ["no-such-model", "", "nobody/claude"])
async def test_a_model_without_a_known_provider_is_not_found(case: Case, model: str) -> None:
    reply = await case.upstream.send(request(model, {"messages": [{"role": "user", "content": "hi"}]}))

    assert (reply.status, (await read(reply))["error"]["code"]) == (404, "model_not_found")


NONSENSE: list[Any] = [
    None,
    [],
    "hi",
    [1],
    [{}],
    [{"role": "user"}],
    [{"role": "nobody", "content": "hi"}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
    [{"role": "user", "content": [{"type": "what"}]}],
    [{"role": "tool", "tool_call_id": "x", "content": "y"}],
    [{"role": "assistant", "content": None, "tool_calls": [{"id": 1, "function": {"name": 2, "arguments": "{"}}]}],
]


@pytest.mark.parametrize("messages", NONSENSE, ids=lambda messages: json.dumps(messages)[:40])
async def test_nonsense_in_a_request_is_never_a_server_error(case: Case, messages: Any) -> None:
    reply = await case.send(messages=messages)
    again = await case.send()

    assert reply.status == 200 or 400 <= reply.status < 500
    assert again.status == 200


# Providers that break


async def test_a_provider_that_is_not_there_is_a_failed_connection(case: Case) -> None:
    upstream = case.make(base_url="http://127.0.0.1:9/v1")
    await upstream.open()
    with pytest.raises(UpstreamError) as whole:
        await case.send(upstream)
    with pytest.raises(UpstreamError) as stream:
        await case.send(upstream, stream=True)
    await upstream.aclose()

    assert {(e.value.reason, e.value.sent_nothing) for e in (whole, stream)} == {("connect", True)}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_says_nothing_times_out(case: Case, stream: bool) -> None:
    case.server.will(case.answer(course=Course(hold_after=0)))
    upstream = case.make(timeouts={"first_byte_s": 0.1, "idle_s": 0.1})
    await upstream.open()
    with pytest.raises(UpstreamError) as told:
        await case.send(upstream, stream=stream)
    left = await soon(case.server.disconnected)
    await upstream.aclose()

    assert told.value.reason in ("timeout_ttft", "timeout_idle")
    assert told.value.sent_nothing
    assert left


async def test_a_stream_that_stalls_times_out(case: Case) -> None:
    case.server.will(case.answer(course=Course(hold_after=4 if case.model == CLAUDE else 1)))
    upstream = case.make(timeouts={"idle_s": 0.1})
    await upstream.open()
    reply = await case.send(upstream, stream=True)
    with pytest.raises(UpstreamError) as told:
        await events(reply)
    left = await soon(case.server.disconnected)
    await upstream.aclose()

    assert (told.value.reason, told.value.sent_nothing) == ("timeout_idle", False)
    assert left


@pytest.mark.parametrize("how", ["die_after", "stop_after"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5])
async def test_a_stream_that_breaks_off_is_never_a_whole_answer(case: Case, how: str, number: int) -> None:
    number = number if case.model == CLAUDE else number // 3
    case.server.will(case.answer(course=Course(**{how: number})))
    with pytest.raises(UpstreamError) as told:
        await events(await case.send(stream=True))
    after = await case.send()

    assert told.value.reason == "truncated"
    assert after.status == 200


async def test_a_stream_without_an_end_marker_passes_where_the_settings_say_so(google: Case) -> None:
    upstream = google.make(done_marker=False)
    await upstream.open()
    google.server.will(Content(course=Course(stop_after=1)))
    told = await events(await google.send(upstream, stream=True))
    await upstream.aclose()

    assert (text_of(told), told[-1]) == ("Hello", "[DONE]")


async def test_an_answer_that_breaks_off_is_truncated(claude: Case) -> None:
    claude.server.will(Message(course=Course(die_after=1)))
    with pytest.raises(UpstreamError) as told:
        await claude.send()

    assert told.value.reason == "truncated"


async def test_an_error_event_at_the_start_of_a_stream_keeps_its_status(claude: Case) -> None:
    claude.server.will(Message(error_after=0))
    reply = await claude.send(stream=True)

    assert (reply.status, (await read(reply))["error"]["message"]) == (529, "Overloaded")


async def test_an_error_event_in_mid_stream_ends_it_as_an_error(claude: Case) -> None:
    claude.server.will(Message(error_after=4))
    with pytest.raises(UpstreamError) as told:
        await events(await claude.send(stream=True))

    assert (told.value.reason, told.value.sent_nothing) == ("5xx", False)
    assert "Overloaded" in told.value.message


async def test_an_error_in_geminis_stream_is_told(google: Case) -> None:
    error = {"error": {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED"}}
    failing = f"data: {json.dumps(error)}\r\n\r\n".encode()
    first = gemini.events(Content())[0]
    google.server.will(Raw((failing,), content_type="text/event-stream"))
    google.server.will(Raw((first, failing), content_type="text/event-stream"))
    at_once = await google.send(stream=True)
    with pytest.raises(UpstreamError) as told:
        await events(await google.send(stream=True))

    assert at_once.status == 429
    assert told.value.reason == "429"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_with_status_200_is_an_error(case: Case, stream: bool) -> None:
    anthropics = {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}}
    googles = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow down."}}
    body = anthropics if case.model == CLAUDE else googles
    case.server.will(Raw((json.dumps(body).encode(),)))
    reply = await case.send(stream=stream)

    assert (reply.status, (await read(reply))["error"]["message"]) == (429, "Slow down.")


GARBAGE = {
    "nothing": Raw(()),
    "bytes": Raw((b"\x00\xff\xfe garbage",)),
    "half": Raw((b'{"id":"msg_1","type":"mess',)),
    "html": Raw((b"<html><body>Welcome</body></html>",), content_type="text/html"),
    "list": Raw((b"[1,2,3]",)),
    "null": Raw((b"null",)),
    "object": Raw((b"{}",)),
    "deep": Raw((b"[" * 50_000,)),
    "sse": Raw((b"data: {\n\ndata: ]\n\n", b"event: x\ndata: 7\n\n"), content_type="text/event-stream"),
    "binary sse": Raw((b"data: \xff\xfe\n\n\x00\n\n",), content_type="text/event-stream"),
    "redirect": Raw((), status=307, headers={"Location": "http://127.0.0.1:9/"}),
    "error page": Raw((b"<html>" + b"x" * 1_000_000,), status=503, content_type="text/html"),
    "error bytes": Raw((b"\xff\xfe",), status=429),
    "dead": Raw((b"{", b"}"), course=Course(die_after=1)),
    "lies": Raw((b"{}",), headers={"Content-Length": "5000"}, course=Course(die_after=1)),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_is_an_error_and_the_next_request_works(case: Case, what: str, stream: bool) -> None:
    case.server.will(GARBAGE[what])
    try:
        reply = await case.send(stream=stream)
        outcome: Any = reply.status
        if reply.ok:
            outcome = await events(reply) if stream else await read(reply)
    except UpstreamError as exc:
        outcome = exc.reason
    after = await case.send()

    assert outcome in ("protocol", "truncated", 429, 503)
    assert after.status == 200


async def test_redirects_are_not_followed(case: Case) -> None:
    case.server.will(Raw((), status=307, headers={"Location": f"{case.server.url}/elsewhere"}))
    with pytest.raises(UpstreamError, match="not followed"):
        await case.send()

    assert len(case.server.requests) == 1


# Cancellation and closing


async def test_closing_the_source_cancels_the_providers_request_at_once(case: Case) -> None:
    case.server.will(case.answer(course=Course(hold_after=4 if case.model == CLAUDE else 1)))
    reply = await case.send(stream=True)
    assert reply.source is not None
    await anext(aiter(reply.source))
    await reply.source.aclose()
    await reply.source.aclose()

    assert await soon(case.server.disconnected)
    assert [data async for data in reply.source] == []


async def test_closing_the_source_ends_a_read_in_another_task(case: Case) -> None:
    case.server.will(case.answer(course=Course(hold_after=4 if case.model == CLAUDE else 1)))
    reply = await case.send(stream=True)
    source = reply.source
    assert source is not None

    async def drain() -> int:
        return len([data async for data in source])

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(drain())
        await soon(case.server.holding)
        await source.aclose()

    assert reading.result() <= 1
    assert await soon(case.server.disconnected)


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_a_call_cancels_the_providers_request(case: Case, stream: bool) -> None:
    case.server.will(case.answer(course=Course(hold_after=0)))
    async with asyncio.TaskGroup() as group:
        call = group.create_task(case.send(stream=stream))
        await soon(case.server.holding)
        call.cancel()

    assert call.cancelled()
    assert await soon(case.server.disconnected)


async def test_cancelling_a_read_cancels_the_providers_request_once_closed(case: Case) -> None:
    case.server.will(case.answer(course=Course(hold_after=4 if case.model == CLAUDE else 1)))
    reply = await case.send(stream=True)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(events(reply))
        await soon(case.server.holding)
        reading.cancel()
    assert reply.source is not None
    await reply.source.aclose()

    assert await soon(case.server.disconnected)


async def test_nothing_is_left_behind_on_the_loop(case: Case) -> None:
    before = asyncio.all_tasks()
    for stream in (False, True):
        reply = await case.send(stream=stream, stream_options={"include_usage": True} if stream else None)
        await (events(reply) if stream else read(reply))
        case.server.will(Failure(500, "api_error"), Raw((b"data: {",), content_type="text/event-stream"))
        await case.send(stream=stream)
        with pytest.raises(UpstreamError):
            await case.send(stream=True)
    await case.upstream.aclose()
    await case.server.__aexit__()
    for _ in range(3):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if not task.done()]

    assert left == []


# The library


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    upstream = LiteLLMUpstream(UpstreamSettings(name="up", kind="litellm"), SystemClock())

    with pytest.raises(ModuleNotFoundError, match=r"'up'.*pip install 'predawn\[litellm\]'"):
        asyncio.run(upstream.open())


async def test_an_upstream_that_is_not_open_says_so() -> None:
    upstream = LiteLLMUpstream(UpstreamSettings(name="up", kind="litellm"), SystemClock())

    with pytest.raises(RuntimeError, match="not open"):
        await upstream.send(request(CLAUDE, {}))
    assert (await upstream.models(), upstream.routes) == ([], {"chat", "embeddings"})
    await upstream.aclose()


ALONE = """
import asyncio, json, logging, os, socket, sys
def hook(event, args):
    if event == "socket.connect" and args[1][0] not in ("127.0.0.1", "::1"):
        print("CONNECT", args[1]); os._exit(3)
    if event == "socket.getaddrinfo" and args[0] not in ("127.0.0.1", "localhost", None):
        print("RESOLVE", args[0]); os._exit(3)
sys.addaudithook(hook)
import predawn.proxy.upstreams.litellm as ours
assert not {"litellm", "httpx", "openai"} & sys.modules.keys(), "imported before it is needed"
from tests.proxy.upstreams.test_litellm import *
async def main():
    async with AnthropicServer() as a, GeminiServer() as g:
        for case in (Case(a, CLAUDE, anthropic.KEY), Case(g, GEMINI, gemini.KEY)):
            await case.upstream.open()
            assert (await case.send(messages=[{"role": "user", "content": "PROMPT-MARK"}])).status == 200
            await events(await case.send(stream=True, stream_options={"include_usage": True}))
            case.server.will(Failure(500, "api_error"))
            assert (await case.send(messages=[{"role": "user", "content": "PROMPT-MARK"}])).status == 500
            await case.upstream.aclose()
logging.basicConfig(level=logging.DEBUG)
logging.getLogger("asyncio").setLevel(logging.WARNING)
asyncio.run(main())
print("FINE")
"""


def test_nothing_but_the_provider_is_contacted_and_nothing_is_logged(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    (tmp_path / ".env").write_text("PREDAWN_STRAY=1\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{root / '.src'}:{root}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", ALONE],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip

    assert done.stdout == "FINE\n", done.stderr
    assert "PROMPT-MARK" not in done.stderr
    assert anthropic.KEY not in done.stderr
    assert "Traceback" not in done.stderr
