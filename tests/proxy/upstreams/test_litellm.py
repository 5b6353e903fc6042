from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.fixtures import anthropic_server as anthropic
from tests.fixtures import gemini_server as gemini
from tests.fixtures.anthropic_server import Message
from tests.fixtures.gemini_server import Content
from tests.fixtures.provider import Course
from tests.fixtures.translation import (
    CLAUDE,
    REMARKS,
    Case,
    events,
    finish_of,
    read,
    request,
    text_of,
)

from predawn.proxy.clock import SystemClock
from predawn.proxy.settings import Settings, UpstreamSettings
from predawn.proxy.upstreams.litellm import LiteLLMUpstream

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
from tests.fixtures.provider import Failure
from tests.fixtures.translation import *
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


EXAMPLES = re.findall(
    r"```yaml\n(.*?)```", (Path(__file__).parents[3] / "docs" / "providers.md").read_text(), re.DOTALL
)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_of_the_page_on_providers_are_settings(example: str) -> None:
    settings = Settings.model_validate(yaml.safe_load(example))

    assert {model.upstream for model in settings.models} <= {upstream.name for upstream in settings.upstreams}
