"""One answer, read by iteration or by listening, from a provider played by hand."""

import asyncio
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proxy.upstreams.raw import ASKED, OK, Heard, pool_to, provider

from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.answer_head import AnswerHead
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.source import MAX_UNREAD_BYTES, AnswerSource

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def far():
    async with provider() as made:
        yield made


@pytest.fixture
async def pool(far):
    async with pool_to(far.port) as made:
        yield made


@pytest.fixture
async def asked(pool, far):
    """A source whose connection was asked, and the other end."""
    connection = await pool.acquire()
    source = AnswerSource(connection, "u", 300)
    connection.ask(source, ASKED, b"{}")
    peer = await far.peer()
    await peer.asked()
    return source, peer


async def all_of(source):
    async with asyncio.timeout(5):
        return b"".join([data async for data in source])


async def test_a_short_answer_is_there_at_once(asked, pool):
    source, peer = asked
    peer.say(OK)
    await source.begin()

    assert (200, True, False) == (source.head.status, source.is_complete, source.at_end)
    assert (b"{}", b"", True) == (source.read_nowait(), source.read_nowait(), source.at_end)
    assert pool.take() is not None


async def test_closing_a_complete_answer_leaves_its_connection_alone(asked, pool):
    source, peer = asked
    peer.say(OK)
    await source.begin()
    await source.aclose()
    await source.aclose()
    connection = pool.take()

    assert (True, None) == (connection.is_usable, source.error)


async def test_closing_an_unfinished_answer_hangs_up(asked, pool):
    source, peer = asked
    peer.say(CHUNKED + b"1\r\na\r\n")
    await source.begin(with_body=True)
    await source.aclose()

    assert (b"", None) == (await peer.hung_up(), pool.take())


async def test_whoever_iterates_is_told_when_it_is_given_up(asked):
    source, peer = asked
    peer.say(CHUNKED)
    reading = Tasks().spawn(all_of(source), "test")
    await source_head(source)
    await asyncio.sleep(0)
    source.abort()

    with pytest.raises(UpstreamError, match="given up"):
        await reading


async def source_head(source):
    while source.head is None:
        await asyncio.sleep(0)


async def test_what_came_before_a_loss_can_still_be_read(asked):
    source, peer = asked
    peer.say(CHUNKED + b"4\r\nfour\r\n")
    peer.writer.close()
    seen = []
    with pytest.raises(UpstreamError) as caught:
        async for data in source:
            seen.append(data)

    assert ([b"four"], "truncated", False) == (seen, caught.value.reason, caught.value.sent_nothing)
    assert (False, False) == (source.at_end, source.is_complete)


async def test_a_listener_is_told_of_every_read_and_of_the_end(asked):
    source, peer = asked
    seen = []
    over = asyncio.Event()

    def on_data():
        seen.append(source.read_nowait())
        if source.at_end:
            over.set()

    peer.say(CHUNKED)
    await source.begin()
    source.listen(on_data)
    peer.say(b"1\r\na\r\n")
    while not seen:
        await asyncio.sleep(0)
    peer.say(b"1\r\nb\r\n0\r\n\r\n")
    await over.wait()

    assert b"ab" == b"".join(seen)


async def test_an_unread_body_waits_with_the_upstream(asked):
    source, peer = asked
    size = 16 << 20
    peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    await source.begin(with_body=True)
    for _ in range(200):
        await asyncio.sleep(0)
    held = source._size

    assert MAX_UNREAD_BYTES < held < MAX_UNREAD_BYTES + (1 << 20)
    assert size == len(await all_of(source))


async def test_reading_does_not_undo_a_pause(asked):
    source, peer = asked
    peer.say(CHUNKED + b"1\r\na\r\n")
    await source.begin(with_body=True)
    source.pause()
    size = MAX_UNREAD_BYTES * 8
    peer.say(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
    for _ in range(50):
        await asyncio.sleep(0)
    while_paused = source.read_nowait()
    for _ in range(50):
        await asyncio.sleep(0)
    after = source.read_nowait()
    source.resume()

    assert (b"a", b"", size) == (while_paused, after, len(await all_of(source)))


async def test_an_answer_may_be_taken_over_at_its_head(pool, far):
    adopted = []

    class First(Heard):
        def on_head(self, head):
            adopted.append(AnswerSource.adopt(connection, head, "u", 300))

    connection = await pool.acquire()
    connection.ask(First(), ASKED, b"{}")
    peer = await far.peer()
    await peer.asked()
    peer.say(CHUNKED + b"2\r\n{}\r\n0\r\n\r\n")
    while not adopted:
        await asyncio.sleep(0)

    assert (200, b"{}") == (adopted[0].head.status, await all_of(adopted[0]))


async def test_no_head_is_an_error_to_who_waits_for_it(asked):
    source, peer = asked
    peer.writer.close()
    with pytest.raises(UpstreamError) as caught:
        await source.begin()

    assert ("connect", True) == (caught.value.reason, caught.value.sent_nothing)


async def test_a_head_alone_has_sent_nothing(asked):
    source, peer = asked
    peer.say(CHUNKED)
    await source.begin()
    peer.writer.close()
    with pytest.raises(UpstreamError) as caught:
        await source.begin(with_body=True)

    assert ("truncated", True) == (caught.value.reason, caught.value.sent_nothing)


async def test_a_body_that_is_bad_behind_its_head_was_sent(asked):
    source, peer = asked
    peer.say(CHUNKED + b"zz\r\n")
    await source.begin()
    while source.error is None:
        await asyncio.sleep(0)
    await source.begin()
    with pytest.raises(UpstreamError) as caught:
        await all_of(source)

    assert ("truncated", False) == (caught.value.reason, caught.value.sent_nothing)


class Nowhere:
    """A connection to feed a source without."""

    def pause(self):
        pass

    resume = abort = pause


class Noted(Nowhere):
    """Notes what it is asked to do."""

    def __init__(self):
        self.asked = []

    def pause(self):
        self.asked.append("pause")

    def resume(self):
        self.asked.append("resume")


def test_reading_goes_on_only_when_both_the_reader_and_the_buffer_can_take_more():
    connection = Noted()
    source = AnswerSource(connection, "u", 300)
    source.on_body(bytes(MAX_UNREAD_BYTES + 1))
    source.pause()
    source.read_nowait()
    while_held = list(connection.asked)
    source.resume()
    source.on_body(bytes(MAX_UNREAD_BYTES + 1))
    source.resume()
    while_full = connection.asked[3:]
    source.read_nowait()

    assert (["pause", "pause"], ["pause"], "resume") == (while_held, while_full, connection.asked[-1])


def inflated(coding, wire, cuts=()):
    """What a reader of a compressed answer gets, and the error."""
    source = AnswerSource(Nowhere(), "u", 300)
    source.on_head(AnswerHead(200, [(b"Content-Encoding", coding)]))
    got = b""
    marks = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    for start, end in zip(marks, marks[1:], strict=False):
        if end > start:
            source.on_body(wire[start:end])
            got += source.read_nowait()
    source.on_end()
    while source._size and source.error is None:
        got += source.read_nowait()
    return got, source


def raw_deflate(data):
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


CODINGS = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"GZIP": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    b"deflate": zlib.compress,
    b" deflate ": raw_deflate,
    b"identity": bytes,
}


@pytest.mark.parametrize("coding", CODINGS)
@given(body=st.binary(max_size=200), cuts=st.sets(st.integers(1, 200), max_size=5))
def test_a_compressed_answer_is_read_plain_in_any_split(coding, body, cuts):
    got, source = inflated(coding, CODINGS[coding](body), cuts)

    assert (body, None, True, True) == (got, source.error, source.at_end, source.is_complete)


def test_a_second_part_may_begin_anywhere_in_a_read():
    first, second = gzip.compress(b"a"), gzip.compress(b"b")
    cuts = range(len(first) - 1, len(first) + 4)

    assert [b"ab"] * 5 == [inflated(b"gzip", first + second, {len(first), cut})[0] for cut in cuts]


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
@given(body=st.binary(min_size=1, max_size=100), lost=st.integers(1, 5), cuts=st.sets(st.integers(1, 100), max_size=3))
def test_a_compressed_answer_that_is_not_whole_is_an_error(coding, body, lost, cuts):
    _, source = inflated(coding, CODINGS[coding](body)[:-lost], cuts)

    assert source.error is not None
    assert ("protocol", False) == (source.error.reason, source.at_end)


@pytest.mark.parametrize(("coding", "wire"), [(b"gzip", b"not  gzip"), (b"deflate", b"\x78\x00x"), (b"br", b"xx")])
def test_what_cannot_be_inflated_is_an_error(coding, wire):
    got, source = inflated(coding, wire)

    assert (b"", "protocol", False) == (got, source.error and source.error.reason, source.is_complete)


def test_an_answer_that_inflates_a_thousandfold_is_handed_out_in_parts():
    source = AnswerSource(Nowhere(), "u", 300)
    source.on_head(AnswerHead(200, [(b"content-encoding", b"gzip")]))
    size = 16 << 20
    source.on_body(gzip.compress(bytes(size)))
    source.on_end()
    parts = []
    while not source.at_end:
        parts.append(len(source.read_nowait()))

    assert (size, True) == (sum(parts), max(parts) <= (1 << 20) + (64 << 10))
