from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.fixtures import anthropic_server as anthropic
from tests.fixtures import gemini_server as gemini
from tests.fixtures.anthropic_server import Message, Tool
from tests.fixtures.gemini_server import Call, Content
from tests.fixtures.translation import CLAUDE, REMARKS, Case, events, finish_of, read, request

from predawn.proxy.upstreams.base import UpstreamRequest

pytestmark = REMARKS
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Current weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


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


TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "vendor=1"}


async def send_with(case: Case, headers: dict[str, str]) -> int:
    asked = request(case.model, {"model": "alias", "messages": [{"role": "user", "content": "hi"}]})
    asked.headers = headers
    reply = await case.upstream.send(asked)
    await read(reply)
    return reply.status


async def test_whose_trace_it_is_goes_on_and_no_other_header_of_the_client(case: Case) -> None:
    await send_with(case, {**TRACE, "x-evil": "1"})

    seen = case.server.last.headers
    assert {name: seen.get(name) for name in TRACE} == TRACE
    assert "x-evil" not in seen


async def test_a_trace_that_no_header_may_hold_ends_here(case: Case) -> None:
    status = await send_with(case, {"traceparent": "00-ü", "tracestate": "a\tb"})

    assert status == 200
    assert not set(TRACE) & {name.lower() for name in case.server.last.headers}


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
