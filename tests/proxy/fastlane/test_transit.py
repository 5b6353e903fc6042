"""One request in the fast lane ends once, in whatever order things happen."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.fastlane.sides import (
    ANSWER,
    BODY,
    DONE,
    EVENT,
    EVENTS_HEAD,
    JSON_HEAD,
    LAST,
    USAGE,
    Sides,
    Wire,
    asking,
    chunk,
    sides,
)

from predawn.plugins.testing.clock import settle
from predawn.proxy.app import shutting_down
from predawn.proxy.http_server import Connection
from predawn.proxy.upstreams.answer import AnswerReader, framed
from predawn.proxy.upstreams.connection import UpstreamConnection

NOTHING = (0, 0, 0)
FAILING = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}"


def calls(both: Sides, outcome: str) -> int:
    """How many calls ended so."""
    return sum(both.metrics.upstream_durations.of("up", "m", outcome).counts)


def requests(both: Sides, code: str) -> float:
    """How many requests ended with this status."""
    children = both.metrics.requests.children.items()
    return sum(counter.value for values, counter in children if values[3] == code)


async def test_an_answer_ends_it(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking())
    before = both.left
    provider.brings(ANSWER)

    assert ((1, 1, 1), NOTHING) == (before, both.left)
    assert (1, 1, 1) == (both.answered, calls(both, "ok"), requests(both, "200"))


async def test_a_stream_is_passed_on_as_it_comes(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(EVENTS_HEAD)
    with_head = client.taken()
    provider.brings(chunk(EVENT))
    with_event = client.taken()
    provider.brings(chunk(DONE) + LAST)

    assert with_head == b""
    assert with_event.endswith(b"\r\n\r\n" + chunk(EVENT))
    assert client.taken() == chunk(DONE) + LAST
    assert (NOTHING, 1, 1) == (both.left, both.answered, calls(both, "ok"))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([EVENTS_HEAD, chunk(EVENT), chunk(DONE) + LAST], [chunk(EVENT), chunk(DONE) + LAST]),
        ([EVENTS_HEAD + chunk(EVENT), chunk(EVENT), chunk(DONE), LAST], [chunk(EVENT)] * 2 + [chunk(DONE), LAST]),
        ([EVENTS_HEAD + chunk(EVENT) + chunk(DONE) + LAST], [chunk(EVENT + DONE) + LAST]),
        ([EVENTS_HEAD, chunk(EVENT[:9]), chunk(EVENT[9:]), chunk(DONE) + LAST], [b"", chunk(EVENT), chunk(DONE) + LAST]),
        ([EVENTS_HEAD + chunk(EVENT), chunk(DONE[:-1]) + LAST], [chunk(EVENT), chunk(DONE[:-1]) + LAST]),
        ([EVENTS_HEAD + chunk(EVENT + DONE + b":") + LAST], [chunk(EVENT + DONE) + chunk(b":") + LAST]),
        ([EVENTS_HEAD, chunk(EVENT * 2), chunk(DONE) + b"0\r\nX-Late: 1\r\n\r\n"], [chunk(EVENT * 2), chunk(DONE) + LAST]),
        ([EVENTS_HEAD + chunk(EVENT), b"%x;x=y" % len(EVENT) + chunk(EVENT)[2:], chunk(DONE) + LAST], [chunk(EVENT)] * 2 + [chunk(DONE) + LAST]),
    ],
    ids=["as usual", "the end alone", "all at once", "half an event", "no blank line", "a rest", "trailers", "extensions"],
)  # fmt: skip
async def test_the_head_goes_with_the_first_events_and_the_end_with_the_last(
    said: list[bytes], expected: list[bytes], both: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = both.provider()
    _, client = both.client()
    writes: list[bytes] = []
    monkeypatch.setattr(client, "write", writes.append)
    client.brings(asking(stream=True))
    provider.brings(*said)
    head, blank, first = writes[0].partition(b"\r\n\r\n")

    assert (b"HTTP/1.1 200 OK", b"\r\n\r\n") == (head.partition(b"\r\n")[0], blank)
    assert expected == [first, *writes[1:]]
    assert (NOTHING, 1, 1) == (both.left, both.answered, calls(both, "ok"))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 11, 31, 64, 200])
async def test_a_stream_is_the_same_in_reads_of_any_size(size: int, both: Sides) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"\\r\\n5\\r\\nhello"}}]}\n\n'
    wire = EVENTS_HEAD + chunk(event) * 2 + chunk(event + event[:21]) + chunk(event[21:]) + chunk(DONE) + LAST
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(*(wire[at : at + size] for at in range(0, len(wire), size)))
    reader = AnswerReader()
    reader.feed(client.taken())

    assert (event * 4 + DONE, True, None) == (b"".join(reader.pieces), reader.is_over, reader.fault)
    assert (NOTHING, 1, calls(both, "ok")) == (both.left, both.answered, 1)


async def test_usage_nobody_asked_for_is_taken_out_of_whole_chunks(tmp_path: Path) -> None:
    used = b'data: {"choices":[],' + USAGE + b"}\n\n"
    async with sides(str(tmp_path / "state.db"), stream_usage=True) as both:
        provider = both.provider()
        _, client = both.client()
        client.brings(asking(stream=True))
        provider.brings(EVENTS_HEAD + chunk(EVENT), chunk(EVENT), chunk(used))
        before = client.taken()
        provider.brings(chunk(EVENT[:9]), chunk(EVENT[9:]), chunk(used + EVENT), chunk(DONE) + LAST)

        assert before.endswith(b"\r\n\r\n" + chunk(EVENT) * 2)
        assert client.taken() == chunk(EVENT) * 2 + chunk(DONE) + LAST


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ([EVENTS_HEAD + LAST], b""),
        ([EVENTS_HEAD + chunk(EVENT) + LAST], chunk(EVENT)),
        ([EVENTS_HEAD + chunk(EVENT), LAST], chunk(EVENT)),
        ([EVENTS_HEAD + chunk(EVENT) + chunk(b":x") + LAST], chunk(EVENT) + chunk(b":x")),
        ([EVENTS_HEAD + chunk(EVENT), chunk(EVENT), chunk(b":x"), LAST], chunk(EVENT) * 2 + chunk(b":x")),
    ],
)
async def test_a_stream_without_its_end_mark_is_shown_as_far_as_it_came(
    said: list[bytes], shown: bytes, both: Sides
) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(*said)
    head, _, body = client.taken().partition(b"\r\n\r\n")
    error = body.removeprefix(shown)

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert error[framed(error) :].startswith(b'data: {"error"')
    assert client.closing
    assert (NOTHING, 1, 1) == (both.left, both.answered, calls(both, "truncated"))


@pytest.mark.parametrize("came", [b"", JSON_HEAD % 9, JSON_HEAD % 9 + b"{", EVENTS_HEAD, EVENTS_HEAD + chunk(EVENT)])
async def test_a_client_may_leave_at_any_time(came: bytes, both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(*([came] if came else []))
    client.lose()

    assert provider.aborted
    assert (NOTHING, 1, 1, 1) == (both.left, both.answered, calls(both, "cancelled"), requests(both, "499"))


async def test_a_client_may_leave_while_a_connection_is_made(both: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    never: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()

    async def acquire() -> UpstreamConnection:
        return await never

    monkeypatch.setattr(both.pool, "acquire", acquire)
    _, client = both.client()
    client.brings(asking())
    await settle()
    client.lose()
    await settle()

    assert never.cancelled()
    assert (NOTHING, 1, 1) == (both.left, both.answered, calls(both, "cancelled"))


@pytest.mark.parametrize(
    "came",
    [b"", JSON_HEAD % 9 + b"{", EVENTS_HEAD, EVENTS_HEAD + chunk(EVENT[:9]), EVENTS_HEAD + chunk(EVENT)],
)
async def test_it_may_be_interrupted_at_any_time(came: bytes, both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(*([came] if came else []))
    (transit,) = both.service.conversations
    transit.interrupt(shutting_down())
    transit.interrupt(shutting_down())
    provider.lose()
    client.lose()

    said = client.taken()

    assert (1, 1) == (said.count(b"HTTP/1.1"), said.count(b"shutting_down"))
    assert (NOTHING, 1, 1, 1) == (both.left, both.answered, calls(both, "cancelled"), requests(both, "503"))


async def test_it_may_be_interrupted_while_a_connection_is_made(
    both: Sides, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    never: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()

    async def acquire() -> UpstreamConnection:
        return await never

    monkeypatch.setattr(both.pool, "acquire", acquire)
    _, client = both.client()
    client.brings(asking())
    (transit,) = both.service.conversations
    await settle()
    transit.interrupt(shutting_down())
    await settle()

    assert never.cancelled()
    assert client.taken().count(b"shutting_down") == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (NOTHING, 1) == (both.left, both.answered)


@pytest.mark.parametrize("how", ["lost", "failing", "no events"])
async def test_what_fails_before_anything_was_sent_is_the_full_lanes(how: str, both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    if how == "no events":
        provider.brings(EVENTS_HEAD)
    if how == "failing":
        provider.brings(FAILING)
    else:
        provider.lose()
    conversations, calls_left, _ = both.left
    await settle()

    assert isinstance(client.protocol, Connection)
    assert (0, 0) == (conversations, calls_left)
    assert client.taken().startswith(b"HTTP/1.1 503 " if how == "failing" else b"HTTP/1.1 502 ")
    assert (NOTHING, 0) == (both.left, both.answered)


async def test_streams_that_never_begin_open_the_breaker(both: Sides) -> None:
    for _ in range(2):
        provider = both.provider()
        _, client = both.client()
        client.brings(asking(stream=True))
        provider.brings(EVENTS_HEAD)
        provider.lose()
        await settle()

    assert both.station.breaker.state == "open"


async def test_failures_are_in_a_row_only_without_an_answer_between(both: Sides) -> None:
    for said in (FAILING, ANSWER, FAILING, EVENTS_HEAD + chunk(EVENT) + chunk(DONE) + LAST, FAILING):
        provider = both.provider()
        _, client = both.client()
        client.brings(asking(stream=True))
        provider.brings(said)
        await settle()
        client.lose()
        provider.lose()

    assert both.station.breaker.state == "closed"


@pytest.mark.parametrize("said", [FAILING, b""])
async def test_nobody_goes_on_for_a_client_that_has_left(said: bytes, both: Sides) -> None:
    """Its socket is closing, which the loop tells a moment later."""
    provider = both.provider()
    _, client = both.client()
    client.brings(asking())
    client.closing = True
    if said:
        provider.brings(said)
    else:
        provider.lose()
    client.lose()
    await settle()

    assert (NOTHING, 1, 1, 1) == (both.left, both.answered, calls(both, "cancelled"), requests(both, "499"))


async def test_what_nobody_foresaw_while_connecting_is_the_full_lanes(
    both: Sides, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def acquire() -> UpstreamConnection:
        raise LookupError("nobody foresaw this")

    monkeypatch.setattr(both.pool, "acquire", acquire)
    _, client = both.client()
    with caplog.at_level(logging.CRITICAL):
        client.brings(asking())
        await settle()

    assert client.taken().startswith(b"HTTP/1.1 500 ")
    assert (NOTHING, 0) == (both.left, both.answered)


@pytest.mark.parametrize("said", [ANSWER, ANSWER.replace(b"200 OK", b"400 No")])
async def test_a_connection_goes_on_though_its_request_could_not_be_booked(
    said: bytes, both: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def book(*_: Any) -> None:
        raise LookupError("the book is gone")

    provider = both.provider()
    _, client = both.client()
    client.brings(asking())
    with monkeypatch.context() as patch:
        patch.setattr("predawn.proxy.fastlane.transit.book", book)
        patch.setattr("predawn.proxy.fastlane.transit.close_account", book)
        with pytest.raises(LookupError, match="the book is gone"):
            provider.brings(said)
    client.taken()
    client.brings(asking())
    provider.brings(ANSWER)

    assert client.taken().endswith(BODY)
    assert both.left == NOTHING


def cut(provider: Wire) -> None:
    provider.lose()


def spoilt(provider: Wire) -> None:
    provider.brings(b"no chunk\r\n")


@pytest.mark.parametrize("fate", [cut, spoilt])
async def test_a_stream_that_is_lost_says_so_and_closes(fate: Callable[[Wire], None], both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(EVENTS_HEAD + chunk(EVENT))
    fate(provider)

    assert b'"error"' in client.taken()
    assert client.closing
    assert (NOTHING, 1, 1) == (both.left, both.answered, calls(both, "truncated"))


async def test_an_answer_that_is_cut_off_is_an_error(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking())
    provider.brings(JSON_HEAD % 9 + b"{")
    provider.lose()
    said = client.taken()

    assert said.startswith(b"HTTP/1.1 502 ")
    assert said.count(b"HTTP/1.1") == 1
    assert not client.closing
    assert (NOTHING, 1, 1) == (both.left, both.answered, calls(both, "truncated"))


async def test_a_pause_of_the_client_is_no_gap_of_the_upstream(both: Sides) -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True))
    provider.brings(EVENTS_HEAD + chunk(EVENT), chunk(EVENT))
    (transit,) = both.service.conversations
    client.fill(10 << 20)
    was_paused = provider.is_reading_paused
    time.sleep(0.5)  # noqa: ASYNC251 - nothing else may happen meanwhile
    client.fill(0)
    provider.brings(chunk(EVENT))
    transit.meter.count()

    assert (True, False) == (was_paused, provider.is_reading_paused)
    assert 3 == transit.meter.events
    assert 0 <= transit.meter.max_gap_s < 0.5


async def test_it_may_take_no_longer_than_its_time(both: Sides) -> None:
    both.provider()
    both.client()[1].brings(asking())
    (transit,) = both.service.conversations
    total_s = both.service.models.find("m").timeouts.total_s

    assert not transit.overdue(transit.began + total_s - 0.1)
    assert transit.overdue(transit.began + total_s + 0.1)


async def test_a_reload_leaves_what_is_on_its_way_alone(both: Sides) -> None:
    provider = both.provider()
    door, client = both.client()
    client.brings(asking())
    old = both.service
    settings = both.server.settings
    changed = settings.model_copy(update={"models": ()})
    assert await both.server.reload(lambda: changed)
    provider.brings(ANSWER)
    client.brings(asking())
    await settle()

    assert not old.conversations
    assert door not in both.server.doors.open
    assert b"HTTP/1.1 404 " in client.taken()
