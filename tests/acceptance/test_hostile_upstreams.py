"""Providers that lie, babble, stall and die: a clear error, nothing hangs, and the next request works."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.acceptance.bare import Answered, ask, bare, chat, post
from tests.acceptance.house import House, house, raw_upstream, read_request, until
from tests.acceptance.plugins import Watch

from predawn.proxy.wire import sse

SHORT = {"timeouts": {"connect_s": 1, "first_byte_s": 0.3, "idle_s": 0.3}}
PLUGINS: list[list[Any]] = [
    [],
    ["shout"],
    ["careless"],
    [{"record": {"record_content": True}}],
]
each_plugin = pytest.mark.parametrize("plugins", PLUGINS, ids=["none", "shout", "careless", "record"])
each_kind = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
BODY = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


def sized(body: bytes, head: bytes = OK, *, close: bool = True) -> bytes:
    end = b"Connection: close\r\n" if close else b""
    return head + end + b"Content-Length: %d\r\n\r\n" % len(body) + body


def is_clear(answer: Answered) -> bool:
    """An answer that nobody can take for another one: whole and good, a JSON error, or a stream that broke off."""
    if answer.status >= 400:
        return bool(answer.whole and answer.error["message"] and answer.headers["x-request-id"])
    if answer.whole:
        return True
    return b'"error"' in answer.data[-1]


async def asked(running: House, fault: str, *, stream: bool) -> Answered:
    answer = await ask(running.port, chat(stream=stream), "/v1/chat/completions", f"x-script: {fault}")
    await running.idle()

    assert is_clear(answer)
    assert await running.answers()
    return answer


@pytest.mark.parametrize(
    "fault",
    [
        "refuse",
        "stall_headers",
        "stall_first_byte",
        "stall_mid_stream",
        "die_first_byte",
        "die_mid_event",
        "length_too_long",
        "redirect",
    ],
)
@each_kind
@each_plugin
async def test_a_failing_provider_is_a_clear_error(fault: str, stream: bool, plugins: list[Any]) -> None:
    async with house("one two three", upstream=SHORT, plugins=plugins) as running:
        answer = await asked(running, fault, stream=stream)

        assert answer.status >= 500 or not answer.whole


@pytest.mark.parametrize("fault", ["length_too_short", "garbage", "invalid_utf8", "error_event", "no_done"])
@each_kind
@each_plugin
async def test_a_babbling_provider_harms_nobody(fault: str, stream: bool, plugins: list[Any]) -> None:
    async with house("one two three", upstream=SHORT, plugins=plugins) as running:
        await asked(running, fault, stream=stream)


@pytest.mark.parametrize(
    "style", ["crlf", "data_lines", "no_space", "comments", "byte_by_byte", "one_write", "huge_event", "gzip", "http10"]
)
@each_kind
@each_plugin
async def test_an_odd_provider_is_understood(style: str, stream: bool, plugins: list[Any]) -> None:
    async with house("one two three", upstream=SHORT, plugins=plugins) as running:
        answer = await asked(running, style, stream=stream)

        assert answer.status == 200
        assert answer.whole
        assert "Content-Encoding" not in answer.headers
        assert b"three" in answer.body.lower()


@each_kind
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed_and_not_passed_on(status: int, stream: bool) -> None:
    async with raw_upstream(sized(BODY)) as elsewhere:
        told = (
            f"HTTP/1.1 {status} x\r\nLocation: {elsewhere.base_url}/x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        async with raw_upstream(told.encode()) as provider, house(behind=provider.base_url) as running:
            answer = await ask(running.port, chat(stream=stream))

            assert (answer.status, answer.error["code"]) == (502, "upstream_error")
            assert "Location" not in answer.headers
            assert str(status) in answer.error["message"]
            assert elsewhere.connections == 0


NOT_HTTP = {
    "nothing at all": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "bytes": bytes(range(256)),
    "a status that is none": b"HTTP/1.1 abc OK\r\n\r\n",
    "a head that ends": b"HTTP/1.1 200 OK\r\nContent-Type: appl",
    "a negative length": OK + b"Content-Length: -5\r\n\r\n{}",
    "a length that is none": OK + b"Content-Length: many\r\n\r\n{}",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "a huge header": OK + b"X-Huge: " + b"h" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "a chunk without a size": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk that ends": OK + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"a":1',
    "no gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot  gzip",
    "a stream that is no gzip": EVENTS + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot  gzip",
    "an empty stream": EVENTS + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
    "a bad chunk in a stream": EVENTS + b"Transfer-Encoding: chunked\r\n\r\n8\r\ndata: {}\r\nzz\r\n",
}


@pytest.mark.parametrize("told", NOT_HTTP.values(), ids=NOT_HTTP)
@each_kind
@each_plugin
async def test_what_is_not_http_is_502(told: bytes, stream: bool, plugins: list[Any]) -> None:
    async with (
        raw_upstream(told) as provider,
        house(behind=provider.base_url, upstream=SHORT, plugins=plugins) as running,
    ):
        answer = await ask(running.port, chat(stream=stream))
        await running.idle()

        assert is_clear(answer)
        if answer.status == 200:
            assert stream
            assert not answer.whole
        else:
            assert answer.status == 502
            assert answer.error["code"] == "upstream_error"
            assert "b'" not in answer.error["message"]  # it may hold anything


@each_plugin
async def test_bytes_after_an_answer_answer_nobody_else(plugins: list[Any]) -> None:
    """A provider that sends two answers must not have the second one taken for that of the next request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stray = BODY.replace(b'"hi"', b'"stray"')
        writer.write(sized(BODY, close=False) + sized(stray, close=False))
        await read_request(reader)
        writer.write(sized(BODY, close=False))
        await reader.read()

    async with raw_upstream(serve) as provider, house(behind=provider.base_url, plugins=plugins) as running:
        async with bare(running.port) as client:
            answers = [await client.ask(chat()) for _ in range(3)]

        assert [b"stray" in answer.body for answer in answers] == [False] * 3


async def test_an_answer_that_comes_while_nobody_asks_answers_nobody() -> None:
    go, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sized(BODY, close=False))
        await go.wait()
        writer.write(sized(BODY.replace(b'"hi"', b'"stray"'), close=False))
        await writer.drain()
        gone.set()
        await read_request(reader)
        writer.write(sized(BODY, close=False))
        await reader.read()

    async with raw_upstream(serve) as provider, house(behind=provider.base_url) as running:
        before = await ask(running.port, chat())
        (pooled,) = running.station().upstream.pool.connections  # type: ignore[attr-defined]
        go.set()
        await gone.wait()
        await until(lambda: pooled.is_closed)
        after = await ask(running.port, chat())

        assert (200, 200, False) == (before.status, after.status, b"stray" in after.body)


async def test_early_hints_are_passed_over() -> None:
    told = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + sized(BODY)
    async with raw_upstream(told) as provider, house(behind=provider.base_url) as running:
        answer = await ask(running.port, chat())

        assert (answer.status, answer.body) == (200, BODY)


async def test_headers_of_the_connection_and_cookies_stay_with_the_provider() -> None:
    odd = (
        b"Keep-Alive: timeout=5\r\nConnection: close, X-Private\r\nX-Private: 1\r\nSet-Cookie: a=b\r\n"
        b"Server: secret\r\nAlt-Svc: h3\r\nTrailer: X-T\r\nX-Kept: yes\r\nOpenAI-Organization: org\r\n"
    )
    told = OK + odd + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    async with raw_upstream(told) as provider, house(behind=provider.base_url) as running:
        async with bare(running.port) as client:
            answer = await client.ask(chat())
            again = await client.ask(chat())

        for name in ("Keep-Alive", "X-Private", "Set-Cookie", "Alt-Svc", "Trailer"):
            assert name not in answer.headers
        assert answer.headers["X-Kept"] == "yes"
        assert answer.headers["OpenAI-Organization"] == "org"
        assert answer.headers["Server"] == "predawn"
        assert again.status == 200


@each_plugin
async def test_a_stream_nobody_asked_for_is_folded(plugins: list[Any]) -> None:
    piece = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}\n\n'
    told = sized(piece + b"data: [DONE]\n\n", EVENTS)
    async with raw_upstream(told) as provider, house(behind=provider.base_url, plugins=plugins) as running:
        answer = await ask(running.port, chat())

        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json["choices"][0]["message"]["content"].lower() == "hi"


@each_plugin
async def test_a_body_where_a_stream_was_asked_for_is_an_answer(plugins: list[Any]) -> None:
    async with raw_upstream(sized(BODY)) as provider, house(behind=provider.base_url, plugins=plugins) as running:
        answer = await ask(running.port, chat(stream=True))

        assert answer.status == 200
        assert answer.whole
        assert b"hi" in answer.body.lower()


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@each_plugin
async def test_a_body_that_makes_no_stream_is_clear(path: str, plugins: list[Any]) -> None:
    body = b'{"id": "r", "output": 7}'
    async with raw_upstream(sized(body)) as provider, house(behind=provider.base_url, plugins=plugins) as running:
        answer = await ask(running.port, chat(stream=True), path)

        if answer.headers["Content-Type"].startswith("application/json"):
            assert answer.body == body
        else:
            assert not answer.whole
            assert b"event: error\ndata: {" in answer.body


async def test_a_body_after_comments_becomes_a_stream() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(sized(BODY))

    waits = {"keep_alive_comment_s": 0.05}
    async with (
        raw_upstream(serve) as provider,
        house(behind=provider.base_url, plugins=["careless"], server=waits) as running,
    ):
        answer = await ask(running.port, chat(stream=True))
        first = json.loads(answer.data[0])

        assert answer.body.startswith(b": keep-alive")
        assert first["choices"][0]["delta"]["content"] == "hi"
        assert answer.data[-1] == b"[DONE]"


ODD_BODIES = {
    "empty": b"",
    "html": b"<html>502 Bad Gateway</html>",
    "null": b"null",
    "a list": b"[1,2]",
    "not a number": BODY.replace(b'"created": 1', b'"created": NaN'),
    "members twice": BODY.replace(b'"model": "m"', b'"model": "m", "model": "n", "choices": []'),
    "no utf-8": BODY.replace(b'"hi"', b'"h\xff\xfei"'),
    "half a character": BODY.replace(b'"hi"', rb'"\ud83d"'),
    "deep": b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "choices that are none": b'{"choices":{"a":1},"usage":7}',
    "choices of nothing": b'{"choices":[null,1,"x",{"message":null},{"message":{"content":5}}]}',
    "odd usage": BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": "many"'),
    "huge usage": BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": 99999999999999999999999999'),
    "negative usage": BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": -5'),
    "fractional usage": BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": 1.5e300'),
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
async def test_an_odd_body_is_passed_on_byte_for_byte(body: bytes) -> None:
    async with raw_upstream(sized(body)) as provider:
        async with house(behind=provider.base_url, plugins=[{"record": {}}, "watch"]) as running:
            answer = await ask(running.port, chat())
            await running.idle()

            assert (answer.status, answer.body) == (200, body)
            assert len(running.plugin(Watch).seen) == 1


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
@pytest.mark.parametrize("framed", ["whole", "events", "unasked"])
async def test_an_odd_body_harms_no_plugin(body: bytes, framed: str) -> None:
    stream = framed != "whole"
    told = sized(b"data: " + body + b"\n\ndata: [DONE]\n\n", EVENTS) if framed == "events" else sized(body)
    plugins: list[Any] = ["careless", {"record": {"record_content": True}}, "watch"]
    async with raw_upstream(told) as provider, house(behind=provider.base_url, plugins=plugins) as running:
        answer = await ask(running.port, chat(stream=stream))
        await running.idle()

        assert answer.status in (200, 502)
        assert is_clear(answer)
        assert len(running.plugin(Watch).seen) == 1


@pytest.mark.parametrize("plugins", [[], ["record"], ["shout"]], ids=repr)
async def test_an_event_without_end_is_an_error(plugins: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100_000)
    told = EVENTS + b"Connection: close\r\n\r\ndata: {}\n\ndata: " + b"x" * 1_000_000
    async with raw_upstream(told) as provider, house(behind=provider.base_url, plugins=[*plugins, "watch"]) as running:
        answer = await ask(running.port, chat(stream=True))
        await running.idle()
        (exchange,) = running.plugin(Watch).seen

        assert not answer.whole
        assert b'"error"' in answer.body
        assert exchange.outcome in ("truncated", "upstream_error")


@each_kind
async def test_many_faults_at_once_leave_nothing_behind(stream: bool) -> None:
    faults = [
        "refuse",
        "stall_headers",
        "die_first_byte",
        "die_mid_event",
        "length_too_long",
        "garbage",
        "redirect",
        "",
    ]
    calm = {**SHORT, "breaker": {"failures": 1000}}
    async with house("one two three", upstream=calm, plugins=["watch"]) as running:
        answers = await asyncio.gather(
            *(
                ask(running.port, chat(stream=stream), "/v1/chat/completions", f"x-script: {faults[i % len(faults)]}")
                for i in range(80)
            )
        )
        await running.idle()

        assert all(is_clear(answer) for answer in answers)
        assert sum(answer.status == 200 and answer.whole for answer in answers) >= 10
        assert len(running.plugin(Watch).seen) == 80
        assert running.upstream.counts.opened == running.upstream.counts.closed
        assert await running.answers()


LARGE = chat(filler="x" * 5_000_000)


async def test_a_provider_that_does_not_read_is_504() -> None:
    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await provider.over.wait()

    async with raw_upstream(deaf, reads=False) as provider:
        async with house(behind=provider.base_url, upstream=SHORT) as running:
            for body in (LARGE, chat()):
                answer = await ask(running.port, body)
                await running.idle_here()

                assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")


async def test_a_client_may_leave_while_a_provider_does_not_read() -> None:
    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await provider.over.wait()

    async with raw_upstream(deaf, reads=False) as provider:
        async with house(behind=provider.base_url, plugins=["watch"]) as running:
            async with bare(running.port) as client:
                await client.send(post(LARGE))
                await until(lambda: running.station().in_flight == 1)
                client.abort()
            await running.idle_here()
            await until(lambda: len(running.plugin(Watch).seen) == 1)

            assert running.plugin(Watch).seen[0].outcome == "client_closed"


@pytest.mark.parametrize("size", [10, 500_000, 5_000_000])
@each_kind
async def test_an_answer_before_the_request_was_read_is_passed_on(size: int, stream: bool) -> None:
    """A provider may refuse a request as too large after its head."""
    refusal = b'{"error":{"message":"too large","type":"x","param":null,"code":null}}'

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sized(refusal, b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\n"))
        while await reader.read(1 << 16):  # closing with unread bytes would reset the connection under the answer
            pass

    async with raw_upstream(refuse, reads=False) as provider:
        async with house(behind=provider.base_url, upstream=SHORT) as running:
            answer = await ask(running.port, chat(filler="x" * size, stream=stream))
            await running.idle_here()

            assert (answer.status, answer.body) == (413, refusal)
