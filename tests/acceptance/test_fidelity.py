"""Nothing is added, lost or rewritten: requests and answers pass byte for byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.acceptance.bare import ask, bare, chat, post
from tests.acceptance.house import CLIENT_KEY, UPSTREAM_KEY, House, house, raw_upstream

ODD_REQUESTS = [
    b'{"model":"m","messages":[{"role":"user","content":"hello"}]}',
    b'\n {\t"messages" : [ {"content":"hello" , "role":"user"} ],\r\n "model"\t:"m" ,"z":{} , "a":[ ] }  \n',
    rb'{"model":"m","messages":[{"role":"user","content":"\u00e9\u4e16\/\ud83d\ude00\u0000"}]}',
    '{"model":"m","messages":[{"role":"user","content":"é世😀"}]}'.encode(),
    b'{"model":"m","messages":[],"seed":123456789012345678901234567890,"temperature":0.10000000000000000555,"x":1E+2,"y":-0.0}',
    b'{"model":"m","messages":[],"unknown":{"deep":[[[{"a":null}]]]},"stream_options":null,"n":null,"stream":null}',
    b'{"model":"m","messages":[],"messages":[{"role":"user","content":"the second"}]}',
    b'{"messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"model":"x","predawn":1}}}],"model":"m"}',
    b'{"model":"m","messages":[],"max_completion_tokens":5,"max_tokens":5,"stop":["User:","Assistant:"]}',
]


@pytest.mark.parametrize("plugins", [[], ["watch"], ["shout"], ["careless", "record"]], ids=repr)
async def test_a_request_reaches_the_provider_byte_for_byte(plugins: list[str]) -> None:
    async with house("fine", plugins=plugins) as running:
        for body in ODD_REQUESTS:
            await ask(running.port, body)

            assert running.upstream.requests[-1].body == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SPACES = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])


async def test_any_json_reaches_the_provider_with_nothing_but_its_model_changed() -> None:
    models = [{"name": "m", "upstream": "up", "model": "org/real-name"}]
    async with house("fine", models=models) as running, bare(running.port) as client:
        loop = asyncio.get_running_loop()

        @given(
            before=st.dictionaries(st.text(max_size=5), json_values, max_size=3), space=SPACES, ascii_only=st.booleans()
        )
        @settings(max_examples=60, suppress_health_check=list(HealthCheck))
        def examples(before: dict[str, Any], space: str, ascii_only: bool) -> None:
            taken = {"model", "messages", "n", "stream", "predawn", "script", "stream_options", "max_tokens"}
            members = {key: value for key, value in before.items() if key not in taken}
            told = {**members, "model": "m", "messages": [], "predawn": {"cache": False}, "last": 1}
            sent = json.dumps(told, ensure_ascii=ascii_only, separators=("," + space, space + ":"))
            body = sent.encode("utf-8", "surrogatepass")
            if not ascii_only and any(0xD800 <= ord(letter) < 0xE000 for letter in sent):
                return
            answer = asyncio.run_coroutine_threadsafe(client.ask(body), loop).result(30)
            expected = body.replace(
                b'"model"' + space.encode() + b':"m"', b'"model"' + space.encode() + b':"org/real-name"'
            )
            control = json.dumps({"predawn": {"cache": False}}, separators=("," + space, space + ":"))[1:-1].encode()

            assert answer.status == 200, answer.body
            got = running.upstream.requests[-1].body
            assert json.loads(got) == {
                **{k: v for k, v in json.loads(body).items() if k != "predawn"},
                "model": "org/real-name",
            }
            assert got == expected.replace(b"," + space.encode() + control, b"", 1)

        await asyncio.to_thread(examples)


async def test_an_answer_reaches_the_client_byte_for_byte() -> None:
    body = b'{ "id":"x",\t"created":1.0, "odd":[1,  2 ],"n":12345678901234567890123, "t":"\\u00e9\\/" }\n\n'
    told = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with raw_upstream(told + body) as provider, house(behind=provider.base_url, plugins=["watch"]) as running:
        answer = await ask(running.port, chat())

        assert answer.body == body
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert answer.headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("status", [400, 404, 418, 422, 429, 500, 503])
async def test_an_error_reaches_the_client_byte_for_byte(status: int) -> None:
    body = b'{ "error" : {"message":"odd","type":null,"code":1.0,"inner":{"x":[]}} }\n'
    told = (
        b"HTTP/1.1 %d Odd\r\nContent-Type: application/problem+json\r\nretry-after: 3\r\nretry-after-ms: 2500\r\n"
        b"x-ratelimit-remaining-tokens: 0\r\nopenai-organization: o\r\nx-request-id: theirs\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n"
    ) % (status, len(body))
    async with raw_upstream(told + body) as provider, house(behind=provider.base_url) as running:
        for stream in (False, True):
            answer = await ask(running.port, chat(stream=stream), "/v1/chat/completions", "x-request-id: mine")

            assert (answer.status, answer.body) == (status, body)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("3", "2500")
            assert answer.headers["x-ratelimit-remaining-tokens"] == "0"
            assert answer.headers["openai-organization"] == "o"
            assert (answer.headers["x-request-id"], answer.headers["x-upstream-request-id"]) == ("mine", "theirs")


STREAMS = {
    "plain": b'data: {"a":1}\n\ndata: {"a":2}\n\ndata: [DONE]\n\n',
    "carriage returns": b'data: {"a":1}\r\n\r\ndata: {"a":2}\r\n\r\ndata: [DONE]\r\n\r\n',
    "comments": b': hello\n\n: more\ndata: {"a":1}\n\n:\n\ndata: [DONE]\n\n: after\n\n',
    "several lines": b'event: x\nid: 5\nretry: 100\ndata: {"a":\ndata: 1}\n\ndata:[DONE]\n\n',
    "no blank line at the end": b'data: {"a":1}\n\ndata: [DONE]\n',
    "no line end at all": b'data: {"a":1}\n\ndata: [DONE]',
    "a byte order mark": b'\xef\xbb\xbfdata: {"a":1}\n\ndata: [DONE]\n\n',
    "lone carriage returns": b'data: {"a":1}\r\rdata: [DONE]\r\r',
    "odd json": b'data: { "a" : 1.0,\t"b":"\\u00e9\\/" }\n\ndata: [DONE]\n\n',
    "unknown fields": b'foo: bar\ndata: {"a":1}\nid: 7\n\ndata: [DONE]\n\n',
    "a large event": b'data: {"a":"' + b"x" * 1_500_000 + b'"}\n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("plugins", [[], ["careless"], ["shout"], ["record"]], ids=repr)
@pytest.mark.parametrize("told", STREAMS.values(), ids=STREAMS)
async def test_a_stream_reaches_the_client_byte_for_byte(told: bytes, plugins: list[str]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    async with raw_upstream(head + told) as provider, house(behind=provider.base_url, plugins=plugins) as running:
        answer = await ask(running.port, chat(stream=True))

        assert answer.whole
        assert answer.body == told
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("plugins", [[], ["careless"], ["record"]], ids=repr)
async def test_a_stream_may_be_split_anywhere(plugins: list[str]) -> None:
    told = b': c\r\n\r\ndata: {"a":"\xc3\xa9"}\r\n\r\nevent: x\r\ndata: {"b":2}\r\n\r\ndata: [DONE]\r\n\r\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for at in range(len(told)):
            writer.write(told[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)

    async with raw_upstream(serve) as provider, house(behind=provider.base_url, plugins=plugins) as running:
        answer = await ask(running.port, chat(stream=True))

        assert answer.body == told


async def test_a_slow_reader_gets_everything() -> None:
    """The provider is paused while the client does not keep up, and nothing is lost or reordered."""
    events = [b'data: {"n":%d,"x":"%b"}\n\n' % (number, b"x" * 100_000) for number in range(150)]
    told = b"".join(events) + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(told)
    async with raw_upstream(head + told) as provider, house(behind=provider.base_url) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(stream=True)))
            await client.head()
            received = b""
            while (piece := await client.chunk()) is not None:
                received += piece
                await asyncio.sleep(0)

        assert received == told


async def test_request_headers_travel_as_they_should(served: House) -> None:
    lines = (
        f"Authorization: Bearer {CLIENT_KEY}",
        f"x-api-key: {CLIENT_KEY}",
        f"api-key: {CLIENT_KEY}",
        f"Cookie: session={CLIENT_KEY}",
        f"Proxy-Authorization: Basic {CLIENT_KEY}",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Upgrade: h2c",
        "X-Predawn-Cache: true",
        "x-predawn-anything: 1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil",
        "X-Forwarded-User: evil",
        "Accept-Encoding: gzip, br",
        "x-request-id: mine",
        "OpenAI-Organization: org",
        "OpenAI-Beta: assistants=v2",
        "Idempotency-Key: abc",
        "X-Stainless-Lang: python",
        "User-Agent: OpenAI/Python 2",
        "X-Twice: 1",
        "X-Twice: 2",
    )
    answer = await ask(served.port, chat(), "/v1/chat/completions", *lines)
    sent = served.upstream.requests[-1].headers
    names = {name.lower() for name in sent}

    assert answer.status == 200
    assert not names & {"x-api-key", "api-key", "cookie", "proxy-authorization", "x-hop", "keep-alive", "te", "upgrade"}
    assert not {name for name in names if name.startswith(("x-predawn", "x-forwarded"))}
    assert CLIENT_KEY not in repr(dict(sent))
    assert sent["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert sent["Accept-Encoding"] == "identity"
    assert (sent["OpenAI-Organization"], sent["Idempotency-Key"]) == ("org", "abc")
    assert (sent["User-Agent"], sent["X-Stainless-Lang"]) == ("OpenAI/Python 2", "python")
    assert sent.getall("X-Twice") == ["1", "2"]  # type: ignore[attr-defined]


async def test_a_trusted_proxys_headers_travel_on() -> None:
    over = {"trusted_proxies": ["127.0.0.0/8"]}
    async with house("fine", server=over, access={"keys": "off"}) as running:
        await ask(running.port, chat(), "/v1/chat/completions", "X-Forwarded-For: 10.1.1.1", "Forwarded: for=10.1.1.1")
        sent = running.upstream.requests[-1].headers

        assert (sent["X-Forwarded-For"], sent["Forwarded"]) == ("10.1.1.1", "for=10.1.1.1")


async def test_every_answer_tells_who_and_how_long(served: House) -> None:
    for stream in (False, True):
        answer = await ask(served.port, chat(stream=stream))

        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["openai-processing-ms"].isdigit()
        assert answer.headers["x-predawn-upstream"] == "up"
        assert answer.headers["Server"] == "predawn"
        assert answer.headers.getall("Server") == ["predawn"]
        assert len(answer.headers.getall("Date", [])) <= 1


async def test_a_query_travels_on(served: House) -> None:
    await ask(served.port, chat(), "/v1/chat/completions?api-version=2024%2D10&x=a+b%20c")

    assert served.upstream.requests[-1].path == "/chat/completions?api-version=2024%2D10&x=a+b%20c"


async def test_a_providers_own_headers_and_key_are_sent() -> None:
    over = {"auth": "api-key", "headers": {"X-Title": "predawn", "OpenAI-Project": "p"}}
    async with house("fine", upstream=over) as running:
        await ask(running.port, chat(), "/v1/chat/completions", "X-Title: mine")
        sent = running.upstream.requests[-1].headers

        assert sent.getall("X-Title") == ["predawn"]  # type: ignore[attr-defined]
        assert (sent["api-key"], sent["OpenAI-Project"]) == (UPSTREAM_KEY, "p")
        assert "Authorization" not in sent


async def test_other_paths_are_not_relayed_unless_allowed(served: House) -> None:
    for path in ("/v1/files", "/v1/audio/speech", "/v1/rerank"):
        answer = await ask(served.port, b"{}", path)

        assert answer.status == 404
        assert answer.error["code"] == "unknown_url"
    assert served.upstream.counts.requests == 0


@pytest.mark.parametrize("size", [0, 10, 3 << 20])
async def test_allowed_paths_are_relayed_raw(size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    async with house(upstream={"relay": ["/files", "/audio"]}) as running:
        answer = await ask(running.port, body, "/v1/files/x?purpose=a%20b", f"Authorization: Bearer {CLIENT_KEY}")
        sent = running.upstream.requests[-1]
        other = await ask(running.port, body, "/v1/filesystem")
        escape = await ask(running.port, body, "/v1/files/%2e%2e/admin")

        assert answer.status == 200
        assert answer.body == body
        assert answer.headers["x-echo-path"] == "/files/x?purpose=a%20b"
        assert sent.body == body
        assert sent.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert CLIENT_KEY not in repr(dict(sent.headers))
        assert other.status == 404
        assert escape.status == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_any_method_is_relayed(method: str) -> None:
    async with house(upstream={"relay": True}) as running, bare(running.port) as client:
        await client.send(post(b"{}", "/v1/batches/1").replace(b"POST", method.encode()))
        answer = await client.answer()

        assert answer.headers["x-echo-method"] == method
        assert await running.answers()


@pytest.mark.parametrize("fault", ["refuse", "stall_headers", "die_mid_event", "redirect", "status=429, retry-after=3"])
async def test_a_relayed_path_fails_clearly(fault: str) -> None:
    quick = {"relay": True, "timeouts": {"connect_s": 1, "first_byte_s": 0.3, "idle_s": 0.3}}
    async with house(upstream=quick, plugins=["record"]) as running:
        answer = await ask(running.port, b'{"a":1}', "/v1/moderations", f"x-script: {fault}")
        await running.idle()

        assert answer.status >= 400
        assert answer.error["message"]
        assert answer.headers["x-request-id"]
        assert "Location" not in answer.headers
        assert (answer.headers.get("retry-after") == "3") == (answer.status == 429)
        assert await running.answers()
