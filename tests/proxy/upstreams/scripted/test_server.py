"""The scripted server over real sockets, with the official clients and with bare ones."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import httpx
import openai
import pytest

from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamRequest
from predawn.proxy.upstreams.scripted import Answer, Script, ScriptedUpstream
from predawn.proxy.upstreams.scripted.server import ScriptedServer, scripted_server

USER = [{"role": "user", "content": "one two three"}]
CHAT = {"model": "m", "messages": USER}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server(Script(text="hello there")) as running:
        yield running


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="key", max_retries=0) as opened:
        yield opened


@pytest.fixture
async def http(server: ScriptedServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url, auto_decompress=False) as session:
        yield session


async def raw_reply(server: ScriptedServer, fault: str, *, stream: bool = True) -> bytes:
    """Everything the server sends on one connection until it is closed, or nothing comes for a while."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"model":"m","messages":[],"stream":%s}' % (b"true" if stream else b"false")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-script: {fault}\r\nConnection: close\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    received = b""
    try:
        while data := await reader.read(1 << 16):
            received += data
    except ConnectionResetError:
        pass
    writer.close()
    return received


async def test_the_official_client_chats(client: openai.AsyncOpenAI, server: ScriptedServer) -> None:
    answer = await client.chat.completions.create(model="m", messages=USER)

    assert answer.choices[0].message.content == "hello there"
    assert answer.usage
    assert answer.usage.total_tokens == 5
    assert server.requests[-1].headers["Authorization"] == "Bearer key"


async def test_the_official_client_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello there"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 2


async def test_the_official_client_uses_the_other_endpoints(client: openai.AsyncOpenAI) -> None:
    completion = await client.completions.create(model="m", prompt="x")
    embedding = await client.embeddings.create(model="m", input=["a", "b"], dimensions=5)
    response = await client.responses.create(model="m", input="x")
    models = [model.id async for model in client.models.list()]

    assert completion.choices[0].text == "hello there"
    assert [len(item.embedding) for item in embedding.data] == [5, 5]
    assert response.output_text == "hello there"
    assert models == ["scripted"]
    assert (await client.models.retrieve("scripted")).id == "scripted"


async def test_the_official_client_streams_responses(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="m", input="x") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()

    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_text == "hello there"


async def test_anthropics_client_is_answered_and_streamed(server: ScriptedServer) -> None:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="key", max_retries=0) as client:
        answer = await client.messages.create(model="m", max_tokens=100, messages=USER)  # type: ignore[arg-type]
        async with client.messages.stream(model="m", max_tokens=100, messages=USER) as stream:  # type: ignore[arg-type]
            text = "".join([piece async for piece in stream.text_stream])
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(model="script:status=429", max_tokens=9, messages=USER)  # type: ignore[arg-type]

    assert answer.content[0].text == text == "hello there"  # type: ignore[union-attr]
    assert caught.value.body["type"] == "error"  # type: ignore[index]


async def test_the_last_request_is_shown_byte_for_byte(http: aiohttp.ClientSession) -> None:
    body = b'{ "model":"m",\t"messages":[],  "odd":1.0 , "odd":2}\n'
    async with http.post("/v1/chat/completions", data=body, headers={"X-Odd-CASE": "a", "x-other": "\u00e9"}):
        pass
    async with http.get("/last-request") as reply:
        last = await reply.json()

    assert base64.b64decode(last["body"]) == body
    assert ["X-Odd-CASE", "a"] in last["headers"]
    assert last["path"] == "/v1/chat/completions"


async def test_counts_are_told_over_http(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", json={**CHAT, "stream": True}) as reply:
        await reply.read()
    async with http.get("/counts") as reply:
        counts = await reply.json()

    assert (counts["requests"], counts["finished"], counts["output_tokens"], counts["in_flight"]) == (1, 1, 2, 0)
    assert counts["statuses"] == {"200": 1}


async def test_other_paths_echo_their_body(http: aiohttp.ClientSession) -> None:
    body = bytes(range(256)) * 4
    async with http.put("/v1/files?purpose=x", data=body, headers={"Content-Type": "application/x-thing"}) as reply:
        echoed = await reply.read()

    assert echoed == body
    assert reply.headers["x-echo-path"] == "/files?purpose=x"
    assert (reply.headers["x-echo-method"], reply.content_type) == ("PUT", "application/x-thing")


async def test_a_client_that_goes_away_is_counted_at_once(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    reply = await http.post("/v1/chat/completions", json={**CHAT, "stream": True, "script": "stall_mid_stream"})
    await reply.content.readany()
    assert server.counts.in_flight == 1

    reply.close()
    async with asyncio.timeout(5):
        while server.counts.in_flight:
            await asyncio.sleep(0)

    assert server.counts.cut == 1


@pytest.mark.parametrize(
    "style", ["crlf", "data_lines", "no_space", "comments", "byte_by_byte", "one_write", "huge_event", "http10"]
)
async def test_odd_styles_say_the_same(client: openai.AsyncOpenAI, style: str) -> None:
    for asked in ({"stream": True}, {}):
        answer: Any = await client.chat.completions.create(**CHAT, **asked, extra_headers={"x-script": style})  # type: ignore[call-overload]
        if asked:
            said = "".join([c.choices[0].delta.content or "" async for c in answer if c.choices])
        else:
            said = answer.choices[0].message.content

        assert said == "hello there"


async def test_gzip_comes_although_nobody_asked(http: aiohttp.ClientSession) -> None:
    for stream in (True, False):
        override = {"x-script": "gzip"}
        async with http.post("/v1/chat/completions", json={**CHAT, "stream": stream}, headers=override) as reply:
            assert reply.headers["Content-Encoding"] == "gzip"
            said = gzip.decompress(await reply.read())

        assert b"hello" in said


async def test_dying_in_an_event_ends_in_the_middle_of_it(server: ScriptedServer) -> None:
    received = await raw_reply(server, "die_mid_event, after=1")
    body = received.partition(b"\r\n\r\n")[2]

    assert body.count(b"data: ") == 2
    assert not received.endswith((b"\n\n\r\n", b"0\r\n\r\n"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["refuse", "die_first_byte", "die_mid_event"])
async def test_a_dying_connection_is_an_error_of_the_client(
    client: openai.AsyncOpenAI, server: ScriptedServer, fault: str, stream: bool
) -> None:
    async def ask() -> None:
        answer: Any = await client.chat.completions.create(**CHAT, stream=stream, extra_headers={"x-script": fault})  # type: ignore[call-overload]
        [chunk async for chunk in answer]

    with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError, httpx.ReadError)):
        await ask()

    assert server.counts.failed == 1


async def test_lying_lengths_are_on_the_wire(server: ScriptedServer) -> None:
    for fault, compare in (("length_too_long", -64), ("length_too_short", 1)):
        received = await raw_reply(server, fault, stream=False)
        head, _, body = received.partition(b"\r\n\r\n")
        claimed = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])

        assert len(body) - claimed == compare if compare < 0 else len(body) > claimed


async def test_a_clean_end_without_its_marker(server: ScriptedServer) -> None:
    received = await raw_reply(server, "no_done")
    cut = await raw_reply(server, "no_done, after=2")

    assert b"[DONE]" not in received
    assert received.endswith(b"0\r\n\r\n")
    assert cut.count(b"data: ") == 2
    assert cut.endswith(b"0\r\n\r\n")


async def test_garbage_bad_utf8_error_events_and_redirects(server: ScriptedServer) -> None:
    assert b"data: {broken" in await raw_reply(server, "garbage")
    assert b"\xff\xfe" in await raw_reply(server, "invalid_utf8")
    assert b"\xff\xfe" in await raw_reply(server, "invalid_utf8", stream=False)
    assert b'data: {"error":' in await raw_reply(server, "error_event")
    assert b"302" in (await raw_reply(server, "redirect")).partition(b"\r\n")[0]


async def test_http_1_0_ends_with_the_connection(server: ScriptedServer) -> None:
    received = await raw_reply(server, "http10")

    assert received.startswith(b"HTTP/1.0 200")
    assert b"Transfer-Encoding" not in received
    assert received.endswith(b"data: [DONE]\n\n")


async def test_the_next_request_works_after_every_fault() -> None:
    from predawn.proxy.upstreams.scripted.script import FAULTS

    async with scripted_server("fine") as server, aiohttp.ClientSession(server.url) as http:
        for fault in FAULTS:
            try:
                async with asyncio.timeout(0.05 if fault.startswith("stall") else 5):
                    async with http.post("/v1/chat/completions", json={**CHAT, "stream": True, "script": fault}) as bad:
                        await bad.read()
            except (aiohttp.ClientError, TimeoutError):
                pass
            async with http.post("/v1/chat/completions", json=CHAT) as good:
                answer = await good.json()

            assert answer["choices"][0]["message"]["content"] == "fine"
        async with asyncio.timeout(5):
            while server.counts.in_flight:
                await asyncio.sleep(0)

        assert server.counts.opened == server.counts.closed


async def test_closing_the_server_ends_what_stalls() -> None:
    async with scripted_server(Answer(fault="stall_headers")) as server, aiohttp.ClientSession(server.url) as http:
        closing = Tasks().spawn(_close_when_busy(server), "close")
        with pytest.raises(aiohttp.ClientError):
            await http.post("/v1/chat/completions", json=CHAT)
        await closing

    assert server.counts.in_flight == 0


async def _close_when_busy(server: ScriptedServer) -> None:
    while not server.counts.in_flight:
        await asyncio.sleep(0)
    await server.aclose()


async def test_a_taken_port_is_an_error() -> None:
    async with scripted_server("a") as first:
        port = int(first.url.rpartition(":")[2])

        with pytest.raises(OSError, match="address already in use"):
            async with scripted_server("b", port=port):
                pass


SAME = [
    "no_done",
    "garbage",
    "invalid_utf8",
    "error_event",
    "crlf",
    "data_lines",
    "comments",
    "trickle",
    "gzip",
    "no_usage",
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("override", ["", *SAME, "status=503", "reasoning=let me see"])
async def test_the_fake_in_process_says_the_same_bytes(
    server: ScriptedServer, http: aiohttp.ClientSession, override: str, stream: bool
) -> None:
    body = json.dumps({**CHAT, "stream": stream}).encode()
    async with http.post("/v1/chat/completions", data=body, headers={"x-script": override}) as reply:
        over_http = await reply.read()
    sent = UpstreamRequest("chat", "POST", "/chat/completions", "m", body, {"x-script": override}, stream, dict)
    told = await ScriptedUpstream("hello there").send(sent)
    assert told.source is not None
    in_process = b"".join([data async for data in told.source])

    assert (gzip.decompress(over_http) if override == "gzip" else over_http) == in_process
    assert reply.status == told.status
    assert reply.headers["Content-Type"] == told.headers["Content-Type"]
