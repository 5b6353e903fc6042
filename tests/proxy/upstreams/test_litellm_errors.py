from __future__ import annotations

import json
from typing import Any

import pytest
from tests.fixtures import gemini_server as gemini
from tests.fixtures.anthropic_server import Message
from tests.fixtures.gemini_server import Content
from tests.fixtures.provider import Course, Failure, Raw
from tests.fixtures.translation import CLAUDE, GEMINI, REMARKS, Case, events, read, request, soon, text_of

from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest

pytestmark = REMARKS


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


@pytest.mark.parametrize(
    "model", ["gemini/../x", "huggingface/https://127.0.0.1:1/x", "gemini/x?key=1", "a b", "x" * 300]
)
async def test_a_model_name_cannot_be_an_address(case: Case, model: str) -> None:
    reply = await case.upstream.send(request(model, {"messages": [{"role": "user", "content": "hi"}]}))

    assert reply.status == 404
    assert case.server.requests == []


async def test_an_upstream_that_names_its_model_serves_no_other_provider(claude: Case) -> None:
    upstream = claude.make(model="anthropic/claude-opus-4-1")
    await upstream.open()
    body = {"messages": [{"role": "user", "content": "hi"}]}
    same = await upstream.send(request(CLAUDE, body))
    other = await upstream.send(request("gemini/gemini-2.5-flash", body))
    await upstream.aclose()

    assert (same.status, other.status) == (200, 404)


async def test_a_body_that_is_not_json_is_refused(case: Case) -> None:
    replies = [
        await case.upstream.send(UpstreamRequest("chat", "POST", "/", case.model, body, {}, False, dict))
        for body in (b"{", b"[]", b"{}", b'{"messages":"\xff"}', b"[" * 100_000)
    ]

    assert all(400 <= reply.status < 500 or (reply.status == 200 and case.model == GEMINI) for reply in replies)


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
    "error page": Raw((b"<html>" + b"x" * 200_000,), status=503, content_type="text/html"),
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
