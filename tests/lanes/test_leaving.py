"""Clients that leave at any point, and clients that do not read: both lanes notice, stop asking, and count the same."""

from __future__ import annotations

import asyncio

import pytest
from tests.acceptance.bare import chat, post
from tests.acceptance.house import until
from tests.lanes.client import Client
from tests.lanes.lane import Lane, Lanes
from tests.lanes.plays import WHOLE
from tests.lanes.thinning import thinned
from tests.lanes.upstream import turns

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
HOLDING = ["held", "held in the head", "held in the body", "stream held before the head", "stream held behind the head", "stream held", "stream held at its end"]  # fmt: skip


def ask(play: str, *, model: str = "m", stream: bool | None = None) -> bytes:
    return post(
        chat(stream=play.startswith("stream") if stream is None else stream, model=model), CHAT, f"x-play: {play}"
    )


@pytest.mark.parametrize(
    ("play", "how", "model"),
    thinned(HOLDING, ["aborts", "closes", "says that it sends no more"], ["m", "m", "thrice", "counting"], times=3),
)
async def test_a_client_that_leaves_is_noticed(play: str, how: str, model: str, both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask(play, model=model))
        await lane.held(client)
        if how == "aborts":
            client.abort()
        elif how == "closes":
            client.leave()
        else:
            client.transport.write_eof()
        await lane.quiet(client)

    seen = await both.tell(story)

    assert seen.left == 1
    assert len(seen.received) == 1
    assert seen.count("predawn_requests_total", code="499") == 1
    assert seen.count("predawn_upstream_duration_seconds", outcome="cancelled") == 1


@pytest.mark.parametrize("part", [0.01, 0.5, 0.9, 0.999])
async def test_a_client_may_leave_before_it_has_asked(part: float, both: Lanes) -> None:
    sent = ask("whole")

    async def story(lane: Lane, client: Client) -> None:
        await client.send(sent[: int(len(sent) * part)])
        await lane.quiet(client)
        client.abort()
        await lane.quiet(client)

    seen = await both.tell(story)

    assert seen.received == []
    assert seen.answers == []


async def test_a_client_may_leave_between_two_requests(both: Lanes) -> None:
    for rest in (b"", b"POST /v1/ch", ask("whole")[:-5]):

        async def story(lane: Lane, client: Client, rest: bytes = rest) -> None:
            await client.send(ask("whole") + rest)
            await client.gets(WHOLE)
            client.abort()
            await lane.quiet(client)

        seen = await both.tell(story)

        assert seen.statuses == [200]
        assert seen.count("predawn_requests_total", code="200") == 1


async def test_what_is_pipelined_behind_a_request_is_dropped_with_its_client(both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask("held") + ask("whole") + ask("whole"))
        await lane.held(client)
        client.abort()
        await lane.quiet(client)

    seen = await both.tell(story)

    assert len(seen.received) == 1
    assert seen.count("predawn_requests_total") == 1


async def test_a_request_waits_for_the_one_before(both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask("stream held"))
        await client.gets(b"hel")
        await client.send(ask("whole"), ask("whole"))
        await lane.quiet(client, busy=True)
        assert len(lane.provider.requests) == 1
        lane.provider.go()
        await client.gets(WHOLE, 2)

    seen = await both.tell(story)

    assert seen.statuses == [200] * 3
    assert seen.answers[0].whole


FLOOD = 512 * 65_536


async def test_a_client_that_does_not_read_holds_its_upstream_up(both: Lanes) -> None:
    """What the upstream has not been let write, nobody keeps in memory."""

    async def story(lane: Lane, client: Client) -> None:
        before[lane.name] = lane.provider.bytes_out
        client.transport.pause_reading()
        await client.send(ask("flood", stream=True))
        await lane.held(client)
        written[lane.name] = lane.provider.bytes_out - before[lane.name]
        client.transport.resume_reading()
        await client.gets(b"[DONE]")
        await client.gets(b"\r\n0\r\n\r\n")

    before: dict[str, int] = {}
    written: dict[str, int] = {}
    seen = await both.tell(story)

    assert seen.answer.whole
    assert len(seen.answer.body) > FLOOD
    assert max(written.values()) < FLOOD / 2  # most of it in the sockets' own buffers


async def test_a_client_that_never_reads_on_is_given_up(both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        client.transport.pause_reading()
        await client.send(post(chat(stream=True, model="hasty"), CHAT, "x-play: flood"))
        await until(lambda: lane.is_busy)
        async with asyncio.timeout(20):
            while lane.is_busy:
                await asyncio.sleep(0.01)
                await lane.clock.advance(1)  # which the lanes' sweeps go by
        client.abort()

    seen = await both.tell(story)

    assert seen.count("predawn_requests_total", code="499", model="hasty") == 1


async def test_a_paused_client_may_leave(both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        client.transport.pause_reading()
        await client.send(ask("flood", stream=True))
        await turns(500)
        client.abort()
        await lane.quiet(client)

    seen = await both.tell(story)

    assert seen.left == 1
    assert seen.count("predawn_requests_total", code="499") == 1
