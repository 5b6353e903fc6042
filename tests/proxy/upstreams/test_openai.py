"""The native upstream over what acceptance tests do not use: TLS, HTTP proxies, large bodies, no connection at all."""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme

from predawn.plugins.testing import scripted_server
from predawn.proxy.clock import SystemClock
from predawn.proxy.settings import UpstreamSettings
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
