"""Clients that are slow, huge, malformed or malicious: a clear error with a request id, and the next one is served."""

from __future__ import annotations

import asyncio
import json
import socket
from time import perf_counter
from typing import Any

import openai
import pytest
from tests.acceptance.bare import Answered, ask, bare, chat, post
from tests.acceptance.house import CLIENT_KEY, House, house

from predawn.proxy import http_server, service

MIB = 1 << 20


def refused(answer: Answered, *statuses: int) -> bool:
    """True for an error in the API's own shape, with one of these statuses."""
    error = answer.error
    return (
        answer.status in statuses
        and answer.whole
        and set(error) == {"message", "type", "param", "code"}
        and bool(error["message"])
        and bool(answer.headers["x-request-id"])
        and answer.headers["Content-Type"].startswith("application/json")
    )


async def raw(running: House, data: bytes) -> Answered:
    """What the server answers to these bytes; afterwards everybody else must still be served."""
    async with bare(running.port) as client:
        await client.send(data)
        answer = await client.answer()
    await running.idle()

    assert await running.answers()
    return answer


BODIES = {
    "nothing": (b"", "invalid_json"),
    "a word": (b"hello", "invalid_json"),
    "half an object": (b'{"model":"m","messages":[', "invalid_json"),
    "two objects": (b'{"model":"m"}{"model":"m"}', "invalid_json"),
    "a list": (b'[{"model":"m"}]', "invalid_json"),
    "a string": (b'"model"', "invalid_json"),
    "null": (b"null", "invalid_json"),
    "not a number": (b'{"model":"m","temperature":NaN}', "invalid_json"),
    "infinity": (b'{"model":"m","temperature":-Infinity}', "invalid_json"),
    "single quotes": (b"{'model':'m'}", "invalid_json"),
    "a trailing comma": (b'{"model":"m",}', "invalid_json"),
    "bytes that are no utf-8": (b'{"model":"m","user":"\xff\xfe"}', None),  # the upstream's own words
    "a model that is no utf-8": (b'{"model":"m\xff"}', "invalid_json"),
    "a byte order mark": (b'\xef\xbb\xbf{"model":"m"}', "invalid_json"),
    "utf-16": ('{"model":"m"}'.encode("utf-16"), "invalid_json"),
    "a nul in a string": (b'{"model":"m\x00"}', "invalid_json"),
    "depth": (b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
    "depth of objects": (b'{"model":"m","a":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "invalid_json"),
    "depth without end": (b"[" * 1_000_000, "invalid_json"),
    "no model": (b'{"messages":[]}', None),
    "a model of null": (b'{"model":null}', None),
    "a model that is a number": (b'{"model":5}', None),
    "a stream that is a word": (b'{"model":"m","stream":"perhaps"}', None),
    "an n that is a list": (b'{"model":"m","n":[1]}', None),
    "an n that is huge": (b'{"model":"m","n":99999999999999999999999}', None),
    "stream options of a list": (b'{"model":"m","stream_options":[]}', None),
    "control that is no object": (b'{"model":"m","predawn":"sleep"}', None),
}


@pytest.mark.parametrize(("body", "code"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_body_that_is_no_request_is_400(body: bytes, code: str | None, path: str, served: House) -> None:
    answer = await raw(served, post(body, path))

    assert refused(answer, 400, 404)
    assert answer.status == 400
    if code is not None:
        assert answer.error["code"] == code


async def test_what_is_strange_but_valid_goes_on(served: House) -> None:
    bodies = [
        b' \r\n\t{"model":"m","messages":[{"role":"user","content":"\\ud83d"}]}\n\n',
        b'{"model":"m","messages":[],"n":1.0,"temperature":1e400}',
        b'{"model":"m","messages":[],"seed":123456789012345678901234567890}',
        b'{"model":"m","messages":[],"messages":[{"role":"user","content":"twice"}]}',
    ]
    for body in bodies:
        answer = await raw(served, post(body))

        assert answer.status in (200, 400)
        assert answer.error if answer.status == 400 else answer.json


@pytest.mark.parametrize("second", [b'"model"', rb'"mod\u0065l"'], ids=["plain", "in disguise"])
async def test_a_body_of_two_models_is_served_by_one_of_them(second: bytes) -> None:
    """Whichever is meant, the alias that is looked up here is the one that the provider is asked for."""
    models = [{"name": name, "upstream": "up", "model": f"real-{name}"} for name in ("m", "other")]
    async with house(models=models) as running:
        answer = await ask(running.port, b'{"model":"m","messages":[],' + second + b':"other"}')

        if answer.status == 200:
            assert running.upstream.requests[-1].json["model"] in ("real-m", "real-other")
        else:
            assert refused(answer, 400)


async def test_bodies_are_decoded_by_their_encoding(served: House) -> None:
    import gzip

    squeezed = gzip.compress(chat())
    answer = await raw(served, post(squeezed, "/v1/chat/completions", "Content-Encoding: gzip"))

    assert refused(answer, 400, 415)
    assert "gzip" in answer.error["message"] or "encoding" in answer.error["message"].lower()


async def test_a_large_body_is_refused_unread(served: House) -> None:
    head = post(b"", "/v1/chat/completions", f"Content-Length: {100 * MIB}")
    async with bare(served.port) as client:
        await client.send(head)
        answer = await client.answer()

    assert refused(answer, 413)
    assert answer.error["code"] == "request_too_large"
    assert answer.headers["Connection"] == "close"


async def test_a_large_body_without_a_length_is_refused() -> None:
    async with house(server={"body_limit_mb": 1}) as running:
        async with bare(running.port) as client:
            await client.send(post(b"", "/v1/chat/completions", "Transfer-Encoding: chunked"))
            try:
                for _ in range(200):
                    await client.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            except ConnectionError:
                pass
            answer = await client.answer()
        await running.idle()

        assert refused(answer, 413)
        assert await running.answers()


async def test_the_sdk_is_told_that_its_request_is_too_large() -> None:
    async with house(server={"body_limit_mb": 1}) as running:
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
            huge: Any = [{"role": "user", "content": "x" * (20 * MIB)}]
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(model="m", messages=huge)

        assert caught.value.status_code == 413
        assert await running.answers()


async def test_a_hundred_megabytes_pass_where_they_are_allowed() -> None:
    async with house("fine", server={"body_limit_mb": 128}) as running:
        body = chat(filler="x" * (100 * MIB))
        answer = await ask(running.port, body)
        arrived = running.upstream.requests[-1].body

        assert answer.status == 200
        assert len(arrived) == len(body)
        assert arrived == body


@pytest.mark.parametrize(
    "lines",
    [
        [f"X-Header-{number}: value" for number in range(10_000)],
        ["X-Large: " + "x" * 1_000_000],
        ["Cookie: " + "a=b; " * 100_000],
        ["X-Bad Name: 1"],
        [": no name"],
        ["X-No-Colon"],
        ["X-Nul: a\x00b"],
        [" folded: 1"],
    ],
    ids=["10,000 headers", "1 MB header", "cookies", "space in name", "no name", "no colon", "nul", "folded"],
)
async def test_headers_that_are_none_are_refused(lines: list[str], served: House) -> None:
    async with bare(served.port) as client:
        try:
            await client.send(post(chat(), "/v1/chat/completions", *lines))
        except ConnectionError:
            pass
        answer = await client.answer()
    await served.idle()

    assert refused(answer, 400, 431)
    assert served.upstream.counts.requests == 0
    assert await served.answers()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(128, 256)) + b"\r\n\r\n",
        b"POST /v1/chat/completions\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(range(1, 256)) * 20 + b"\r\n\r\n",
    ],
    ids=["version", "words", "tls", "no version", "http2", "long path", "bytes"],
)
async def test_what_is_not_http_is_400(data: bytes, served: House) -> None:
    answer = await raw(served, data)

    assert refused(answer, 400, 414, 431, 505)


SMUGGLING = {
    "length and chunks": ["Content-Length: 4", "Transfer-Encoding: chunked"],
    "two lengths": ["Content-Length: 4", "Content-Length: 5"],
    "lengths in a list": ["Content-Length: 4, 5"],
    "a signed length": ["Content-Length: +4"],
    "a negative length": ["Content-Length: -4"],
    "a length with an underscore": ["Content-Length: 1_0"],
    "a coding that is none": ["Transfer-Encoding: xchunked"],
    "chunks that are not last": ["Transfer-Encoding: chunked, identity"],
    "two codings": ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    "a space before the colon": ["Transfer-Encoding : chunked"],
    "a tab before the value": ["Transfer-Encoding:\x0bchunked"],
}


@pytest.mark.parametrize("lines", SMUGGLING.values(), ids=SMUGGLING)
async def test_a_body_of_two_lengths_is_refused(lines: list[str], served: House) -> None:
    """What comes after such a head must not be taken for another request."""
    smuggled = b"0\r\n\r\n" + post(chat(user="smuggled"))
    async with bare(served.port) as client:
        await client.send(post(b"", "/v1/chat/completions", *lines) + smuggled)
        answer = await client.answer()
        rest = await client.closed()
    await served.idle()

    assert refused(answer, 400, 501)
    assert rest == b""
    assert served.upstream.counts.requests == 0
    assert await served.answers()


@pytest.mark.parametrize("chunk", [b"zz\r\n{}\r\n", b"-1\r\n", b"5\r\n{}", b"ffffffffffffffffff\r\n"], ids=repr)
async def test_a_bad_chunk_is_an_error(chunk: bytes, served: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BODY_TIMEOUT_S", 0.2)
    async with bare(served.port) as client:
        await client.send(post(b"", "/v1/chat/completions", "Transfer-Encoding: chunked") + chunk)
        answer = await client.answer()
    await served.idle()

    assert refused(answer, 400, 408, 413)
    assert await served.answers()


async def test_chunked_bodies_are_put_together(served: House) -> None:
    body = chat(user="x" * 5000)
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    chunked = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-Trailer: 1\r\n\r\n"
    answer = await raw(served, post(b"", "/v1/chat/completions", "Transfer-Encoding: chunked") + chunked)

    assert answer.status == 200
    assert served.upstream.requests[0].body == body


async def test_a_client_that_expects_100_is_told_to_go_on(served: House) -> None:
    body = chat()
    async with bare(served.port) as client:
        await client.send(post(b"", "/v1/chat/completions", f"Content-Length: {len(body)}", "Expect: 100-continue"))
        began = perf_counter()
        status, _ = await client.head()
        await client.send(body)
        answer = await client.answer()

    assert status == 100
    assert perf_counter() - began < 3
    assert answer.status == 200
    assert "Expect" not in served.upstream.requests[-1].headers


async def test_a_client_that_expects_100_for_too_much_is_refused_first(served: House) -> None:
    lines = (f"Content-Length: {100 * MIB}", "Expect: 100-continue")
    answer = await raw(served, post(b"", "/v1/chat/completions", *lines))

    assert refused(answer, 413)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with house(choose=lambda received: f"said {received.text}") as running:
        bodies = [chat(messages=[{"role": "user", "content": str(number)}]) for number in range(5)]
        async with bare(running.port) as client:
            await client.send(b"".join(post(body) for body in bodies))
            answers = [await client.answer() for _ in bodies]
        said = [answer.json["choices"][0]["message"]["content"] for answer in answers]

        assert said == [f"said {number}" for number in range(5)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_http_1_0_is_served_until_the_connection_ends(stream: bool, served: House) -> None:
    request = post(chat(stream=stream)).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with bare(served.port) as client:
        await client.send(request)
        received = await client.closed()
    head, _, body = received.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.0 200") or head.startswith(b"HTTP/1.1 200")
    assert b"chunked" not in head.lower()
    assert body.endswith(b"data: [DONE]\n\n" if stream else b"}")


async def test_a_host_is_not_needed(served: House) -> None:
    answer = await raw(served, post(chat()).replace(b"Host: localhost\r\n", b""))

    assert answer.status in (200, 400)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_another_method_is_405(method: str, served: House) -> None:
    answer = await raw(served, post(b"").replace(b"POST", method.encode()))

    assert refused(answer, 405)
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/chat/completions",
        "/v1/chat/completions/../../admin",
        "//v1/models",
        "/v1/%2e%2e/x",
        "/v1/\u00ff",
        "*",
        "/v1",
    ],
)
async def test_another_path_is_404(path: str, served: House) -> None:
    answer = await raw(served, post(chat(), path))

    assert refused(answer, 400, 404)
    assert served.upstream.requests[-1].json["messages"][0]["content"] == "still there?"


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/comp", b"POST /v1/chat/completions HTTP/1.1\r\nX-A: 1\r\n"])
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "IDLE_CONNECTION_S", 0.3)
    async with house() as running, bare(running.port) as client:
        await client.send(sent)
        began = perf_counter()
        received = await client.closed()

        assert perf_counter() - began < 5
        assert received == b"" or received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 408"))
        assert await running.answers()


async def test_a_head_that_drips_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "IDLE_CONNECTION_S", 0.4)
    async with house() as running, bare(running.port) as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\n")
        for number in range(40):
            try:
                await client.send(b"X-Drip-%d: 1\r\n" % number)
                async with asyncio.timeout(0.1):
                    if not await client.reader.read(1):
                        break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection was kept for ten times as long as an idle one")

        assert await running.answers()


async def test_a_body_that_drips_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BODY_TIMEOUT_S", 0.3)
    async with house() as running, bare(running.port) as client:
        await client.send(post(chat())[:-10])
        answer = await client.answer()
        await running.idle()

        assert refused(answer, 408)
        assert answer.headers["Connection"] == "close"


async def test_idle_connections_between_requests_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "IDLE_CONNECTION_S", 0.2)
    async with house() as running, bare(running.port) as client:
        first = await client.ask(chat())

        assert first.status == 200
        assert await client.closed() == b""


async def test_a_flood_of_connections_is_survived(served: House) -> None:
    sockets = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(300)]
    try:
        for number, opened in enumerate(sockets):
            opened.sendall([b"", b"POST /v1", b"\x00\x01", post(chat())[:-5]][number % 4])
        answers = await asyncio.gather(*(ask(served.port, chat(stream=number % 2 > 0)) for number in range(200)))
    finally:
        for opened in sockets:
            opened.close()
    await served.idle()

    assert {answer.status for answer in answers} == {200}
    assert all(answer.whole for answer in answers)
    assert served.upstream.counts.requests == 200


async def test_a_crowd_of_attackers_leaves_nothing_behind(served: House) -> None:
    tasks = served.server._shared.tasks
    before = len(tasks), len(asyncio.all_tasks())
    for _ in range(3):
        await asyncio.gather(*(ask(served.port, body) for body, _ in BODIES.values()))
    await served.idle()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > before[1] + 2:
            await asyncio.sleep(0.01)

    assert len(tasks) == before[0]
    assert served.is_idle


async def test_a_request_id_is_taken_over_only_if_it_is_well_formed(served: House) -> None:
    async def given_back(ident: str) -> str:
        answer = await ask(served.port, chat(), "/v1/chat/completions", f"x-request-id: {ident}")
        return str(answer.headers["x-request-id"])

    assert await given_back("mine_1-A") == "mine_1-A"
    for ident in ("a b", "a" * 129, "<script>", "ä", ""):
        assert (await given_back(ident)).startswith("req_")


async def test_errors_never_repeat_the_prompt(served: House, caplog: pytest.LogCaptureFixture) -> None:
    secret = "sesame-open-1234"
    for body in (b'{"model":"m","messages":"%b' % secret.encode(), json.dumps({"messages": secret}).encode()):
        answer = await ask(served.port, body)

        assert secret not in answer.body.decode()
    assert secret not in caplog.text
