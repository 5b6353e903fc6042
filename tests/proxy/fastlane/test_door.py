"""One client connection, its socket played by hand."""

from pathlib import Path
from time import perf_counter

import pytest
from tests.proxy.fastlane.sides import ANSWER, BODY, EVENT, EVENTS_HEAD, LAST, Sides, asking, chunk, sides

from predawn.plugins.testing.clock import settle
from predawn.proxy.fastlane.door import MOST_AHEAD, Door
from predawn.proxy.fastlane.heads import LONGEST_HEAD
from predawn.proxy.http_server import IDLE_CONNECTION_S, Connection


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
async def test_a_request_may_come_in_any_pieces(size: int, both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(*pieces(asking(), size))
    provider.brings(ANSWER)

    assert client.taken().endswith(BODY)
    assert provider.taken().endswith(b'{"model": "m", "messages": []}')
    assert (1, (0, 0, 0)) == (both.answered, both.left)


async def test_a_pipelined_request_waits_for_the_answer_before(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(n=1) + asking(n=2)[:30], asking(n=2)[30:])
    asked_first = provider.taken()
    provider.brings(ANSWER)

    assert b'"n": 1}' in asked_first
    assert b'"n": 2}' not in asked_first
    assert provider.taken().endswith(b'"n": 2}')
    assert (1, (1, 1, 1)) == (both.answered, both.left)


async def test_of_what_is_sent_ahead_only_so_much_is_read(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(), asking(), b"x" * MOST_AHEAD)
    was_paused = client.is_reading_paused
    provider.brings(ANSWER)

    assert was_paused
    assert not client.is_reading_paused


async def test_what_is_unusual_is_handed_on_with_all_that_came(both: Sides) -> None:
    provider = both.provider()
    door, client = both.client()
    client.brings(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" + asking())
    await settle()

    assert isinstance(client.protocol, Connection)
    assert door not in both.server.doors.open
    assert client.taken().startswith(b"HTTP/1.1 200 OK\r\n")
    assert provider.taken().endswith(b'"messages": []}')


async def test_who_takes_a_connection_over_hears_that_it_is_full(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking())
    provider.brings(ANSWER)
    client.fill(100 << 10)  # less than the fast lane's limit, more than the full lane's
    client.brings(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
    handler = client.protocol
    assert isinstance(handler, Connection)
    was_paused = handler.writing_paused
    client.fill(0)

    assert was_paused
    assert not handler.writing_paused


async def test_who_takes_a_request_over_hears_that_its_client_reads_nothing(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking())
    client.fill(1 << 20)
    provider.lose()
    handler = client.protocol
    assert isinstance(handler, Connection)
    was_paused = handler.writing_paused
    client.fill(0)

    assert was_paused
    assert not handler.writing_paused


async def test_a_request_that_is_slow_to_arrive_is_handed_on(both: Sides) -> None:
    for sent in (asking()[:20], asking()[:-3]):
        door, client = both.client()
        client.brings(sent)
        door.look_after(perf_counter() + 1)
        was_patient = client.protocol is door
        door.look_after(perf_counter() + 3)

        assert was_patient
        assert isinstance(client.protocol, Connection)


async def test_an_idle_connection_is_closed_after_a_while(both: Sides) -> None:
    door, client = both.client()
    door.look_after(perf_counter() + IDLE_CONNECTION_S - 1)
    was_open = not client.closing
    door.look_after(perf_counter() + IDLE_CONNECTION_S + 1)

    assert was_open
    assert client.aborted


async def test_a_client_that_still_reads_a_long_answer_is_not_idle(both: Sides) -> None:
    provider = both.provider()
    door, client = both.client()
    client.brings(asking())
    provider.brings(ANSWER)
    now, unsent = perf_counter(), 1 << 20
    for _ in range(4):
        unsent -= 1000
        client.fill(unsent)
        now += IDLE_CONNECTION_S - 1
        door.look_after(now)
    was_open = not client.closing
    door.look_after(now + IDLE_CONNECTION_S + 1)

    assert was_open
    assert client.aborted


async def test_a_client_that_does_not_read_is_asked_for_no_more(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking())
    client.fill(1 << 20)
    client.brings(asking(n=2))
    provider.brings(ANSWER)
    client.brings(asking(n=3))
    answered, asked = both.answered, provider.taken()
    client.fill(0)
    provider.brings(ANSWER)

    assert (1, 1) == (answered, asked.count(b"POST"))
    assert b'"n": 2}' in (then := provider.taken())
    assert then.endswith(b'"n": 3}')


async def test_a_stream_waits_for_a_client_that_does_not_read(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(EVENTS_HEAD + chunk(EVENT))
    client.fill(1 << 20)
    was_paused = provider.is_reading_paused
    client.fill(0)

    assert was_paused
    assert not provider.is_reading_paused


async def test_a_client_that_never_reads_on_is_given_up(both: Sides) -> None:
    provider = both.provider()
    door, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(EVENTS_HEAD + chunk(EVENT))
    client.fill(1 << 20)
    idle_s = both.pool.idle_s
    door.look_after(perf_counter() + idle_s - 1)
    was_open = not client.closing
    door.look_after(perf_counter() + idle_s + 1)

    assert was_open
    assert client.aborted
    assert provider.aborted
    assert both.left == (0, 0, 0)


async def test_after_an_error_in_a_stream_nothing_more_is_heard(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(EVENTS_HEAD + chunk(EVENT) + LAST)

    assert b'"error"' in client.taken()
    assert client.closing
    assert client.is_reading_paused
    assert (1, (0, 0, 0)) == (both.answered, both.left)


async def test_bodies_beyond_the_limit_of_the_settings_are_for_the_full_lane(tmp_path: Path) -> None:
    async with sides(str(tmp_path / "state.db"), body_limit_mb=0.001) as both:
        provider = both.provider()
        _, small = both.client()
        small.brings(asking())
        provider.brings(ANSWER)
        _, large = both.client()
        large.brings(asking(prompt="x" * 2000))
        await settle()

        assert isinstance(small.protocol, Door)
        assert b"xxx" not in provider.taken()
        assert large.taken().startswith(b"HTTP/1.1 413 ")


async def test_a_server_that_refuses_says_so_on_connections_it_has(both: Sides) -> None:
    both.provider()
    _, client = both.client()
    both.server.app.refuses = True
    client.brings(asking())
    await settle()

    assert client.taken().startswith(b"HTTP/1.1 503 ")


async def test_a_head_is_waited_for_only_while_it_may_be_a_plain_one(both: Sides) -> None:
    _, plain = both.client()
    plain.brings(b"PO", b"ST /v1/cha")
    _, other = both.client()
    other.brings(b"PO", b"TATO")
    _, long = both.client()
    long.brings(b"POST /v1/" + b"x" * LONGEST_HEAD)

    assert isinstance(plain.protocol, Door)
    assert isinstance(other.protocol, Connection)
    assert isinstance(long.protocol, Connection)
