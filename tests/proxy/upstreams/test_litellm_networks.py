from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.fixtures.provider import Course, Provider, Raw
from tests.fixtures.translation import REMARKS, Case, events, finish_of, read, request, soon, text_of

from predawn.proxy.clock import SystemClock
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.litellm import LiteLLMUpstream

pytestmark = [
    REMARKS,
    # The OpenAI SDK's answers are copied member by member, which Pydantic calls out of date.
    pytest.mark.filterwarnings(
        "ignore:Accessing the 'model_(computed_)?fields' attribute on the instance:DeprecationWarning"
    ),
]


class Plain(Provider):
    """Speaks as it is told; for providers whose HTTP client LiteLLM brings along."""

    def default(self, seen: Any) -> Raw:
        if seen.body.get("stream"):
            usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
            texts = [
                {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}]}
            ]
            texts.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            if seen.body.get("stream_options"):
                texts.append({"choices": [], "usage": usage})
            head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            told = [b"data: " + json.dumps({**head, **text}).encode() + b"\n\n" for text in texts]
            return Raw((*told, b"data: [DONE]\n\n"), content_type="text/event-stream")
        message = {"role": "assistant", "content": "Hi"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return Raw((json.dumps(body).encode(),))

    def refusal(self, seen: Any) -> None:
        return None


async def forget_clients() -> None:
    """Close what LiteLLM keeps for the process, since each test has a loop of its own."""
    import litellm

    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.fixture
async def plain() -> AsyncIterator[tuple[Plain, LiteLLMUpstream]]:
    async with Plain() as server:
        settings = UpstreamSettings(
            name="plain", kind="litellm", base_url=server.url + "/v1", api_key="sk-plain", timeouts={"idle_s": 0.2}
        )
        upstream = LiteLLMUpstream(settings, SystemClock())
        await upstream.open()
        yield server, upstream
        await upstream.aclose()
        await forget_clients()


def asked(*, stream: bool = False, **members: Any) -> UpstreamRequest:
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream, **members}
    return request("openai/some-model", body, stream=stream)


async def test_a_provider_with_its_own_client_is_translated(plain: tuple[Plain, LiteLLMUpstream]) -> None:
    server, upstream = plain
    whole = await read(await upstream.send(asked(foo=1)))
    told = await events(await upstream.send(asked(stream=True, stream_options={"include_usage": True})))

    assert whole["choices"][0]["message"]["content"] == "Hi"
    assert server.requests[0].body["foo"] == 1
    assert (text_of(told), finish_of(told), told[-1]) == ("Hi", "stop", "[DONE]")
    assert (told[-2]["choices"], told[-2]["usage"]["total_tokens"]) == ([], 3)
    assert server.last.headers["Authorization"] == "Bearer sk-plain"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503])
async def test_errors_of_a_provider_with_its_own_client_keep_their_status(
    plain: tuple[Plain, LiteLLMUpstream], status: int, stream: bool
) -> None:
    server, upstream = plain
    error = {"error": {"message": "No.", "type": "some_error", "code": "some_code", "param": None}}
    server.will(Raw((json.dumps(error).encode(),), status=status, headers={"retry-after": "17"}))
    reply = await upstream.send(asked(stream=stream))

    assert reply.status == status
    assert "No." in (await read(reply))["error"]["message"]
    assert reply.headers["retry-after"] == "17"
    assert len(server.requests) == 1


async def test_a_stalled_stream_of_a_provider_with_its_own_client_times_out(
    plain: tuple[Plain, LiteLLMUpstream],
) -> None:
    server, upstream = plain
    answer = server.default(type("Seen", (), {"body": {"stream": True}}))
    server.will(Raw(answer.pieces, content_type=answer.content_type, course=Course(hold_after=1)))
    with pytest.raises(UpstreamError) as told:
        await events(await upstream.send(asked(stream=True)))
    left = await soon(server.disconnected)

    assert told.value.reason == "timeout_idle"
    assert left


async def test_a_missing_provider_with_its_own_client_is_a_failed_connection() -> None:
    settings = UpstreamSettings(name="plain", kind="litellm", base_url="http://127.0.0.1:9/v1", api_key="sk-plain")
    upstream = LiteLLMUpstream(settings, SystemClock())
    await upstream.open()
    with pytest.raises(UpstreamError) as told:
        await upstream.send(asked())
    await upstream.aclose()
    await forget_clients()

    assert told.value.reason == "connect"


async def test_the_http_proxy_of_the_settings_is_used(claude: Case) -> None:
    upstream = claude.make(base_url="http://claude.invalid/v1", http_proxy=claude.server.url)
    await upstream.open()
    reply = await claude.send(upstream)
    await upstream.aclose()

    assert reply.status == 200
    assert claude.server.last.headers["Host"] == "claude.invalid"
