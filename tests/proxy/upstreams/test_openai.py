"""The native upstream over what acceptance tests do not use: TLS, HTTP proxies, large bodies, no connection at all."""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from tests.proxy.upstreams import raw

from predawn.plugins.testing import scripted_server
from predawn.proxy.clock import SystemClock
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.openai import OpenAIUpstream

ANSWER = b'{"ok":true}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"


def request(body=b'{"model":"m"}', path="/chat/completions"):
    return UpstreamRequest("chat", "POST", path, "m", body, {"X-Kept": "yes"}, stream=False, decoded=dict)


@asynccontextmanager
async def upstream(base_url, **settings):
    opened = OpenAIUpstream(UpstreamSettings(name="u", base_url=base_url, api_key="sk-u", **settings), SystemClock())
    await opened.open()
    try:
        yield opened
    finally:
        await opened.aclose()


@asynccontextmanager
async def provider(tls=None):
    """Answers each request with `ANSWER`; yields its port and the heads it was sent."""
    heads = []

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                heads.append(head.decode())
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                writer.write(HEAD + ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, limit=1 << 22)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        await asyncio.sleep(0)


async def body_of(reply):
    try:
        return b"".join([data async for data in reply.source])
    finally:
        await reply.source.aclose()


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


async def test_tls_with_a_certificate_of_ones_own(authority, tls, tmp_path):
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    async with provider(tls) as (port, heads), upstream(f"https://127.0.0.1:{port}/v1", ca_file=trusted) as up:
        bodies = [await body_of(await up.send(request())) for _ in range(3)]

    assert [ANSWER] * 3 == bodies
    assert "Authorization: Bearer sk-u" in heads[0]


async def test_tls_with_an_unknown_certificate_is_refused(tls):
    async with provider(tls) as (port, heads), upstream(f"https://127.0.0.1:{port}/v1") as up:
        with pytest.raises(UpstreamError) as caught:
            await up.send(request())

    assert ("connect", []) == (caught.value.reason, heads)


async def test_tls_is_not_checked_where_the_settings_say_so(tls):
    async with provider(tls) as (port, _), upstream(f"https://127.0.0.1:{port}/v1", verify_tls=False) as up:
        assert ANSWER == await body_of(await up.send(request()))


async def test_an_http_proxy_is_asked_in_its_own_form():
    async with provider() as (port, heads):
        async with upstream("http://model.test/v1", http_proxy=f"http://127.0.0.1:{port}") as up:
            assert ANSWER == await body_of(await up.send(request()))

    assert heads[0].startswith("POST http://model.test/v1/chat/completions HTTP/1.1\r\nHost: model.test\r\n")
    assert "X-Kept: yes" in heads[0]


@pytest.mark.parametrize("size", [10, 200_000, 3 << 20])
async def test_a_body_of_any_size_arrives_whole(size):
    sent = json.dumps({"model": "m", "messages": [], "x": "y" * size}).encode()
    async with scripted_server() as server, upstream(server.base_url) as up:
        await body_of(await up.send(request(sent)))

        assert sent == server.requests[-1].body


async def test_settings_headers_take_the_place_of_the_clients():
    async with provider() as (port, heads):
        async with upstream(f"http://127.0.0.1:{port}/v1", headers={"x-kept": "ours"}, auth="x-api-key") as up:
            await body_of(await up.send(request()))

    lines = heads[0].lower().split("\r\n")
    assert ["x-kept: ours"] == [line for line in lines if line.startswith("x-kept")]
    assert "x-api-key: sk-u" in lines


async def test_a_host_of_another_script_is_asked_for_as_dns_knows_it():
    async with upstream("http://bücher.test:8000/v1/ä%20b") as up:
        _, after = up.head_around_length("/x", {})

        assert after.endswith(b"\r\nHost: xn--bcher-kva.test:8000\r\n\r\n")
        assert ("xn--bcher-kva.test", "/v1/ä%20b/x") == (up.pool._origin.host, up.target("/x"))


async def test_nobody_listening_is_a_connect_error():
    async with provider() as (port, _):
        pass
    async with upstream(f"http://127.0.0.1:{port}/v1") as up:
        with pytest.raises(UpstreamError) as caught:
            await up.send(request())

    assert ("connect", True) == (caught.value.reason, caught.value.sent_nothing)


async def test_connections_are_used_again():
    peers = set()

    async def serve(reader, writer):
        peers.add(writer.get_extra_info("peername"))
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(13)
                writer.write(HEAD + ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as up:
        for _ in range(5):
            await body_of(await up.send(request()))
    server.close()

    assert 1 == len(peers)


@asynccontextmanager
async def played(**settings):
    """A provider played by hand, and the upstream before it."""
    async with raw.provider() as far, upstream(f"http://127.0.0.1:{far.port}/v1", **settings) as up:
        yield far, up


def sending(up, method="POST"):
    body = b"{}" if method == "POST" else b""
    asked = UpstreamRequest("raw", method, "/x", "", body, {}, stream=False, decoded=dict)
    return Tasks().spawn(up.send(asked), "test")


async def test_the_request_is_written_as_it_is_promised():
    async with played(auth="api-key", headers={"X-Ours": "1"}) as (far, up):
        asked = UpstreamRequest("raw", "POST", "/x?a=b", "", b"{}", {"x-OURS": "2", "X-T": "ü"}, False, dict)
        task = Tasks().spawn(up.send(asked), "test")
        peer = await far.peer()
        wire = await peer.asked()
        peer.say(raw.OK)
        await body_of(await task)
        before, after = up.head_around_length("/x?a=b", {"x-OURS": "2", "X-T": "ü"})

    expected = (
        "POST /v1/x?a=b HTTP/1.1\r\nX-T: ü\r\nContent-Length: 2\r\nAccept-Encoding: identity\r\nX-Ours: 1\r\n"
        f"api-key: sk-u\r\nHost: 127.0.0.1:{far.port}\r\n\r\n"
    )
    assert expected.encode() + b"{}" == wire
    assert expected.encode() == before + b"2" + after
    assert "/v1/x" == up.target("/x")


async def test_a_get_is_sent_again_where_a_kept_connection_proves_dead():
    async with played() as (far, up):
        first = sending(up, "GET")
        peer = await far.peer()
        await peer.asked()
        peer.say(raw.OK)
        await body_of(await first)
        second = sending(up, "GET")
        await peer.asked()
        peer.writer.close()  # without an answer, as if it had closed before it was asked
        other = await far.peer()
        await other.asked()
        other.say(raw.OK)

        assert b"{}" == await body_of(await second)


@pytest.mark.parametrize(("method", "is_kept"), [("POST", True), ("GET", False)])
async def test_what_may_have_been_done_is_not_sent_again(method, is_kept):
    async with played() as (far, up):
        peer = None
        if is_kept:
            first = sending(up, method)
            peer = await far.peer()
            await peer.asked()
            peer.say(raw.OK)
            await body_of(await first)
        task = sending(up, method)
        peer = peer or await far.peer()
        await peer.asked()
        peer.writer.close()
        with pytest.raises(UpstreamError) as caught:
            await task

        assert ("connect", True, True) == (caught.value.reason, caught.value.sent_nothing, far.peers.empty())
        assert is_kept == caught.value.is_stale


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_refused(status):
    async with played() as (far, up):
        task = sending(up)
        peer = await far.peer()
        await peer.asked()
        peer.say(b"HTTP/1.1 %d x\r\nLocation: http://elsewhere/\r\nContent-Length: 9\r\n\r\n" % status)
        with pytest.raises(UpstreamError, match=f"{status}.*not followed"):
            await task

        assert b"" == await peer.hung_up()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"], ids=["", "head"])
async def test_a_request_may_be_given_up_before_its_answer(said):
    async with played() as (far, up):
        task = sending(up)
        peer = await far.peer()
        await peer.asked()
        peer.say(said)
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        rest = await peer.hung_up()
        while up.pool.connections:
            await asyncio.sleep(0)
        fresh = await up.pool.acquire()

        assert (b"", True) == (rest, fresh.is_usable)


async def test_an_adopted_answer_becomes_the_reply_that_send_would_have_returned():
    class First(raw.Heard):
        def on_head(self, head):
            opened.append(up.adopt(connection, head))

    opened = []
    async with played() as (far, up):
        connection = await up.pool.acquire()
        connection.ask(First(), raw.ASKED, b"{}")
        peer = await far.peer()
        await peer.asked()
        peer.say(b"HTTP/1.1 503 x\r\nRetry-After: 1\r\nX-Request-ID: r\r\nSet-Cookie: a\r\nContent-Length: 2\r\n\r\n{}")
        while not opened:
            await asyncio.sleep(0)
        reply = await opened[0].reply()
        body = await body_of(reply)

    assert (503, b"{}") == (reply.status, body)
    assert {"Retry-After": "1", "x-upstream-request-id": "r"} == dict(reply.headers)


async def test_an_adopted_answer_that_nobody_wants_hangs_up():
    class First(raw.Heard):
        def on_head(self, head):
            up.adopt(connection, head).abort()
            super().on_head(head)

    async with played() as (far, up):
        connection = await up.pool.acquire()
        heard = First()
        connection.ask(heard, raw.ASKED, b"{}")
        peer = await far.peer()
        await peer.asked()
        peer.say(b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n")

        assert b"" == await peer.hung_up()
        assert ["head"] == heard.told


async def test_a_stream_behind_an_http_proxy_is_read_to_its_end():
    async with raw.provider() as far:
        async with upstream("http://model.test/v1", http_proxy=f"http://127.0.0.1:{far.port}") as up:
            task = sending(up)
            peer = await far.peer()
            await peer.asked()
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
            reply = await task
            peer.say(b"data: 2\n\n")
            peer.writer.close()

            assert b"data: 1\n\ndata: 2\n\n" == await body_of(reply)
            assert up.pool is None


async def test_an_http_proxy_that_is_not_there_is_a_connect_error():
    async with raw.provider() as gone:
        pass
    async with upstream("http://model.test/v1", http_proxy=f"http://127.0.0.1:{gone.port}") as up:
        with pytest.raises(UpstreamError) as caught:
            await sending(up)

    assert ("connect", True) == (caught.value.reason, caught.value.sent_nothing)
