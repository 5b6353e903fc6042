"""Request bodies that are sent piece by piece, to a provider played by hand."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp.web_protocol import RequestPayloadError
from tests.proxy.upstreams.raw import OK, provider

from predawn.proxy.clock import SystemClock
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.openai import OpenAIUpstream


@pytest.fixture
async def far():
    async with provider() as made:
        yield made


@asynccontextmanager
async def upstream(far, **settings):
    made = OpenAIUpstream(
        UpstreamSettings(name="u", base_url=f"http://127.0.0.1:{far.port}/v1", **settings), SystemClock()
    )
    await made.open()
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def up(far):
    async with upstream(far) as made:
        yield made


class Body:
    """A body that comes while it is sent; notes how much of it was taken."""

    def __init__(self, *pieces, then=None):
        self.pieces = pieces
        self.then = then
        self.taken = 0

    async def __aiter__(self):
        for piece in self.pieces:
            self.taken += 1
            yield piece
        if isinstance(self.then, asyncio.Event):
            await self.then.wait()
            yield b"!"
        elif self.then is not None:
            raise self.then


def sending(up, body, length=None):
    headers = {} if length is None else {"Content-Length": str(length)}
    return Tasks().spawn(
        up.send(UpstreamRequest("raw", "POST", "/files", "", body, headers, stream=False, decoded=dict)), "send"
    )


async def read(reply):
    try:
        return b"".join([data async for data in reply.source])
    finally:
        await reply.source.aclose()


async def test_a_body_of_known_length_is_sent_as_it_comes(far, up):
    task = sending(up, Body(b"one ", b"", b"two"), 7)
    head = await (peer := await far.peer()).asked()
    peer.say(OK)

    assert b"{}" == await read(await task)
    assert head.endswith(b"\r\n\r\none two")
    assert 1 == head.lower().count(b"content-length")
    assert b"transfer-encoding" not in head.lower()
    assert up.pool.take().is_used


async def test_a_body_of_unknown_length_is_sent_in_chunks(far, up):
    task = sending(up, Body(b"one ", b"", b"twelve bytes"))
    peer = await far.peer()
    wire = await peer.reader.readuntil(b"0\r\n\r\n")
    peer.say(OK)

    assert b"{}" == await read(await task)
    assert wire.endswith(b"\r\n\r\n4\r\none \r\nc\r\ntwelve bytes\r\n0\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in wire
    assert b"content-length" not in wire.lower()


async def test_no_more_is_taken_than_the_upstream_reads(far, up):
    body = Body(*[b"x" * (1 << 20)] * 64)
    task = sending(up, body, 64 << 20)
    peer = await far.peer()
    for _ in range(200):
        await asyncio.sleep(0)
    taken = body.taken
    peer.reader._limit = 1 << 26
    await peer.asked()
    peer.say(OK)

    assert b"{}" == await read(await task)
    assert (64, True) == (body.taken, taken < 32)


async def test_an_upstream_may_answer_before_it_has_read_the_body(far, up):
    never = asyncio.Event()
    task = sending(up, Body(b"x" * 100, then=never), 101)
    peer = await far.peer()
    await peer.reader.readuntil(b"\r\n\r\n")
    peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
    reply = await task

    assert (413, b"{}") == (reply.status, await read(reply))
    assert (None, b"x" * 100) == (up.pool.take(), await peer.hung_up())
    assert 0 == len(up._uploads)


async def test_an_answer_may_come_while_the_body_goes(far, up):
    more = asyncio.Event()
    task = sending(up, Body(b"x", then=more), 2)
    peer = await far.peer()
    await peer.reader.readuntil(b"\r\n\r\nx")
    peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
    reply = await task
    more.set()
    rest = await peer.reader.readexactly(1)
    peer.say(b"}")

    assert (b"!", b"{}") == (rest, await read(reply))
    assert up.pool.take() is not None


@pytest.mark.parametrize(("pieces", "length"), [([b"abc"], 2), ([b"a", b"bc"], 2), ([b"a"], 2), ([], 1)])
async def test_a_body_that_is_not_as_long_as_announced_is_given_up(far, up, pieces, length):
    task = sending(up, Body(*pieces), length)
    peer = await far.peer()
    with pytest.raises(UpstreamError, match="than announced") as caught:
        await task
    wire = await peer.hung_up()

    assert "connect" == caught.value.reason
    assert len(wire.partition(b"\r\n\r\n")[2]) <= length
    assert up.pool.take() is None


@pytest.mark.parametrize("exc", [ConnectionResetError("gone"), RequestPayloadError("gone")], ids=repr)
async def test_a_body_that_is_lost_on_its_way_here_ends_the_request(far, up, exc):
    task = sending(up, Body(b"a", then=exc), 2)
    peer = await far.peer()
    with pytest.raises(UpstreamError, match="body was cut off"):
        await task

    assert (await peer.hung_up()).endswith(b"\r\n\r\na")


async def test_an_upload_that_is_given_up_stops(far, up):
    never = asyncio.Event()
    body = Body(b"a", then=never)
    task = sending(up, body, 2)
    peer = await far.peer()
    await peer.reader.readuntil(b"\r\n\r\na")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await up._uploads.wait(1)

    assert (b"", 0) == (await peer.hung_up(), len(up._uploads))


async def test_an_upload_that_nobody_reads_is_given_up_in_time(far):
    async with upstream(far, timeouts={"first_byte_s": 0.05}) as up:
        task = sending(up, Body(*[b"x" * (1 << 20)] * 64), 64 << 20)
        with pytest.raises(UpstreamError) as caught:
            await task

    assert "timeout_ttft" == caught.value.reason


async def test_an_upstream_that_hangs_up_ends_the_upload(far, up):
    body = Body(*[b"x" * (1 << 20)] * 64)
    task = sending(up, body, 64 << 20)
    peer = await far.peer()
    peer.writer.transport.abort()
    with pytest.raises(UpstreamError) as caught:
        await task
    await up._uploads.wait(1)

    assert ("connect", 0) == (caught.value.reason, len(up._uploads))
