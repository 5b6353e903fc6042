"""One connection, between a receiver and a provider played by hand."""

import asyncio

import pytest
from tests.proxy.upstreams.raw import ASKED, OK, Heard, pool_to, provider

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.stream_meter import MOST_NOTED, StreamMeter
from predawn.proxy.upstreams import answer_head, header_line
from predawn.proxy.upstreams.connection import Passage, UpstreamConnection
from predawn.proxy.upstreams.pool import Pool

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def far():
    async with provider() as made:
        yield made


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def pool(far, clock):
    async with pool_to(far.port, clock=clock) as made:
        yield made


async def asked(pool, far, heard):
    """A connection that was asked, and its other end, which has read what it was asked."""
    connection = await pool.acquire()
    connection.ask(heard, ASKED, b"{}")
    peer = await far.peer()
    assert ASKED + b"{}" == await peer.asked()
    return connection, peer


async def test_an_answer_is_told_in_order_and_the_connection_is_kept(pool, far):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    peer.say(OK)
    await heard.over()

    assert (["head", "body", "end"], b"{}") == (heard.told, heard.body)
    assert connection is pool.take()
    assert connection.is_used


async def test_what_one_read_brings_is_told_at_once(pool, far):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    peer.say(CHUNKED + b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n")
    await heard.over()

    assert (["head", "body", "end"], b"abc") == (heard.told, heard.body)


async def test_an_answer_that_one_read_brings_is_read_without_the_parser_and_one_in_parts_with_it(pool, far):
    told = []
    data = OK.replace(b"\r\n", b"\r\nX: a\r\n", 1)
    for parts in ([data], [data[:20], data[20:]], [data]):
        header_line.known.clear()
        answer_head.kept.clear()
        answer_head.shapes.clear()
        heard = Heard()
        connection = await pool.acquire()
        connection.ask(heard, ASKED, b"{}")
        for part in parts:
            connection.data_received(part)
        told.append((heard.told, heard.body, connection.is_usable, bool(header_line.known)))

    assert [(["head", "body", "end"], b"{}", True, is_known) for is_known in (True, False, True)] == told


async def test_the_connection_is_back_before_the_end_is_told(pool, far):
    class Next(Heard):
        def on_end(self):
            self.next = pool.take()
            super().on_end()

    heard = Next()
    connection, peer = await asked(pool, far, heard)
    peer.say(OK)
    await heard.over()

    assert connection is heard.next


async def test_an_answer_that_closes_ends_the_connection(pool, far):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    peer.say(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await heard.over()

    assert (["head", "body", "end"], True, None) == (heard.told, connection.is_closed, pool.take())


async def test_a_body_may_end_with_the_connection(pool, far):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    peer.say(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    peer.writer.close()
    await heard.over()

    assert (b"all of it", "end", None) == (heard.body, heard.told[-1], heard.error)


async def test_a_body_that_must_end_otherwise_is_cut_off_by_it(pool, far):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    peer.say(OK[:-1])
    peer.writer.close()
    await heard.over()

    assert (b"{", ("truncated", False)) == (heard.body, heard.outcome)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_a_connection_closed_before_the_head_sent_nothing(pool, far, said):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    peer.say(said)
    peer.writer.close()
    await heard.over()

    assert (["lost"], ("connect", True)) == (heard.told, heard.outcome)


async def test_what_is_not_http_is_a_protocol_error_that_quotes_nothing(pool, far):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    peer.say(b"HTTP/1.1 200 OK\r\nX: sk-secret\0\r\n\r\n")
    await heard.over()

    assert (["lost"], ("protocol", True), True) == (heard.told, heard.outcome, connection.is_closed)
    assert "secret" not in str(heard.error)


async def test_a_fault_within_a_body_cuts_it_off_behind_what_was_good(pool, far):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    peer.say(CHUNKED + b"1\r\na\r\nzz\r\n")
    await heard.over()

    assert (["head", "body", "lost"], b"a", ("truncated", False)) == (heard.told, heard.body, heard.outcome)


async def test_another_receiver_may_take_over_within_the_head(pool, far):
    second = Heard()

    class First(Heard):
        def on_head(self, head):
            super().on_head(head)
            connection.receiver = second

    first = First()
    connection, peer = await asked(pool, far, first)
    peer.say(OK)
    await second.over()

    assert (["head"], ["body", "end"], b"{}") == (first.told, second.told, second.body)


@pytest.mark.parametrize("when", ["head", "body"])
async def test_after_an_abort_nothing_is_told(pool, far, when):
    class Leaves(Heard):
        def _note(self, what):
            super()._note(what)
            if what == when:
                connection.abort()

    heard = Leaves()
    connection, peer = await asked(pool, far, heard)
    peer.say(OK)
    await peer.hung_up()

    assert when == heard.told[-1]
    assert (True, None) == (connection.is_closed, pool.take())


@pytest.mark.parametrize(("uses", "after_s", "is_stale"), [(1, 0.9, True), (1, 1, False), (0, 0, False)])
async def test_a_kept_connection_that_closes_at_once_may_have_been_closed_before(
    pool, far, clock, uses, after_s, is_stale
):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    for _ in range(uses):
        peer.say(OK)
        await heard.over()
        heard = Heard()
        pool.take().ask(heard, ASKED, b"{}")
        await peer.asked()
    await clock.advance(after_s)
    peer.writer.close()
    await heard.over()

    assert (is_stale, True) == (heard.error.is_stale, connection.is_closed)


async def test_an_abort_before_the_answer_hangs_up(pool, far):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    connection.abort()

    assert b"" == await peer.hung_up()
    assert [] == heard.told


async def test_bytes_on_an_idle_connection_close_it(pool, far):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    peer.say(OK)
    await heard.over()
    peer.say(OK)
    await peer.hung_up()

    assert (True, None, ["head", "body", "end"]) == (connection.is_closed, pool.take(), heard.told)


async def test_a_second_answer_at_once_is_told_to_nobody(pool, far):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    peer.say(OK + OK)
    await heard.over()

    assert (["head", "body", "end"], b"{}", True) == (heard.told, heard.body, connection.is_closed)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENT = b"data: {}\n\n"


class Passing(Heard):
    """A receiver that lets through what it may."""

    def __init__(self, connection: UpstreamConnection, *, hides: bool = False) -> None:
        super().__init__()
        self.meter = StreamMeter()
        self.passed: list[bytes] = []
        self._connection = connection
        self._passage = Passage(self.passed.append, self.meter, hides=hides)

    def on_body(self, data: bytes, is_last: bool) -> None:
        super().on_body(data, is_last)
        self._connection.let_pass(self._passage)


async def passing(pool: Pool, *, hides: bool = False) -> tuple[UpstreamConnection, Passing]:
    connection = await pool.acquire()
    heard = Passing(connection, hides=hides)
    connection.ask(heard, ASKED, b"{}")
    connection.data_received(EVENTS + chunk(EVENT))
    return connection, heard


async def test_whole_events_pass_without_their_receiver(pool):
    connection, heard = await passing(pool)
    for _ in range(MOST_NOTED + 3):
        connection.data_received(chunk(EVENT))
    waiting = len(heard.meter.chunks)
    heard.meter.count()
    connection.data_received(chunk(EVENT) + b"0\r\n\r\n")

    assert [chunk(EVENT)] * (MOST_NOTED + 3) == heard.passed
    assert waiting == 3
    assert (MOST_NOTED + 3, EVENT * (MOST_NOTED + 3)) == (heard.meter.reads, heard.meter.tail)
    assert (["head", "body", "body", "end"], EVENT * 2) == (heard.told, heard.body)


@pytest.mark.parametrize(
    "data",
    [
        chunk(b"data: "),
        chunk(EVENT) * 2,
        chunk(b"\n"),
        chunk(EVENT)[:-1],
        b"A;x" + chunk(EVENT)[1:],
        b"0" + chunk(EVENT),
        chunk(b"data: " + b"x" * 5000 + b"\n\n"),
        chunk(b'data: {"usage":1}\n\n'),
    ],
)
async def test_what_is_not_just_one_whole_event_is_told(data, pool):
    connection, heard = await passing(pool, hides=True)
    connection.data_received(data)

    assert ([], ["head", "body", "body"]) == (heard.passed, heard.told)


async def test_sizes_may_be_written_in_large_digits(pool):
    connection, heard = await passing(pool)
    event = b"data: " + b"x" * 0xA0 + b"\n\n"
    large, mixed = (size % len(event) + b"\r\n" + event + b"\r\n" for size in (b"%X", b"0%X"))
    connection.data_received(large)
    connection.data_received(mixed)

    assert ([large], ["head", "body", "body"]) == (heard.passed, heard.told)


async def test_what_follows_part_of_a_chunk_is_told(pool):
    connection, heard = await passing(pool)
    like_one = chunk(b"x" * 11 + b"\n\n")[:-2]
    connection.data_received(chunk(EVENT) + b"10\r\n")
    connection.data_received(like_one + b"\r\n")

    assert ([], EVENT * 2 + like_one) == (heard.passed, heard.body)


@pytest.mark.parametrize("how", ["aborted", "failed", "overdue"])
async def test_nothing_passes_after_an_end(how, pool):
    connection, heard = await passing(pool)
    connection.data_received(chunk(EVENT))
    if how == "aborted":
        connection.abort()
    elif how == "failed":
        connection.fail("over")
    else:
        connection.overdue(connection.read_at + 1000, first_byte_s=900, idle_s=900)
    connection.data_received(chunk(EVENT))

    assert [chunk(EVENT)] == heard.passed


async def test_what_passes_starts_the_idle_time_anew(pool, clock):
    connection, heard = await passing(pool)
    for _ in range(3):
        await clock.advance(pool.idle_s - 1)
        connection.data_received(chunk(EVENT))
        pool.sweep()

    assert heard.error is None
    assert len(heard.passed) == 3


async def test_a_paused_connection_reads_nothing_and_goes_on_where_it_was(pool, far):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    peer.say(CHUNKED)
    await heard.news()
    connection.pause()
    connection.pause()
    size = 20 << 20
    peer.say(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
    for _ in range(20):
        await asyncio.sleep(0)
    held = heard.body
    connection.resume()
    connection.resume()
    await heard.over()

    assert (b"", size, "end") == (held, len(heard.body), heard.told[-1])


async def test_a_connection_that_was_paused_in_its_last_read_is_kept_reading(pool, far):
    class Full(Heard):
        def on_body(self, data, is_last):
            super().on_body(data, is_last)
            connection.pause()

    first, second = Full(), Heard()
    connection, peer = await asked(pool, far, first)
    peer.say(OK)
    await first.over()
    pool.take().ask(second, ASKED, b"{}")
    await peer.asked()
    peer.say(OK)
    await second.over()

    assert (b"{}", b"{}", False) == (first.body, second.body, connection.is_paused)


async def test_no_answer_in_time_is_given_up(pool, far, clock):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    await clock.advance(59)
    pool.sweep()
    before = list(heard.told)
    await clock.advance(1)
    pool.sweep()

    assert ([], ["lost"], ("timeout_ttft", True)) == (before, heard.told, heard.outcome)
    assert b"" == await peer.hung_up()


async def test_a_stream_has_begun_once_its_body_has(pool, far, clock):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    peer.say(EVENTS)
    await heard.news()
    await clock.advance(60)
    pool.sweep()

    assert (["head", "lost"], ("timeout_ttft", False)) == (heard.told, heard.outcome)


async def test_a_body_that_does_not_stream_may_come_later_than_its_head(pool, far, clock):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    peer.say(CHUNKED)
    await heard.news()
    await clock.advance(299)
    pool.sweep()
    before = list(heard.told)
    await clock.advance(1)
    pool.sweep()

    assert (["head"], ("timeout_idle", False)) == (before, heard.outcome)


async def test_an_answer_that_began_during_its_upload_is_not_idle_while_that_goes_on(pool, far, clock):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    peer.say(CHUNKED)
    await heard.news()
    await clock.advance(299)
    connection.write(b"more")
    await clock.advance(299)
    pool.sweep()
    before = heard.error
    await clock.advance(1)
    pool.sweep()

    assert (None, ("timeout_idle", False)) == (before, heard.outcome)


async def test_every_piece_of_a_body_starts_the_idle_time_anew(pool, far, clock):
    heard = Heard()
    _, peer = await asked(pool, far, heard)
    peer.say(EVENTS)
    await heard.news()
    for _ in range(3):
        peer.say(b"1\r\na\r\n")
        await heard.news()
        await clock.advance(299)
        pool.sweep()
    before = heard.error
    await clock.advance(1)
    pool.sweep()

    assert (None, ("timeout_idle", False)) == (before, heard.outcome)


async def test_a_paused_connection_is_not_idle(pool, far, clock):
    heard = Heard()
    connection, peer = await asked(pool, far, heard)
    peer.say(EVENTS + b"1\r\na\r\n")
    await heard.news()
    connection.pause()
    await clock.advance(1000)
    pool.sweep()
    connection.resume()
    await clock.advance(299)
    pool.sweep()
    before = heard.error
    await clock.advance(1)
    pool.sweep()

    assert (None, "timeout_idle") == (before, heard.error and heard.error.reason)


async def test_an_answer_to_head_ends_with_its_head(pool, far):
    heard = Heard()
    connection = await pool.acquire()
    connection.ask(heard, b"HEAD / HTTP/1.1\r\n\r\n", b"", is_head=True)
    peer = await far.peer()
    await peer.asked()
    peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    await heard.over()

    assert (["head", "end"], b"") == (heard.told, heard.body)


async def test_a_large_body_is_written_whole(pool, far):
    connection = await pool.acquire()
    body = b"x" * 900_000
    connection.ask(Heard(), b"POST / HTTP/1.1\r\nContent-Length: 900000\r\n\r\n", body)
    peer = await far.peer()

    assert (await peer.asked()).endswith(b"\r\n\r\n" + body)
    assert "asked" in repr(connection)
