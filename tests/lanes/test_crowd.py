"""Many clients at a time, places that are short, and TLS: what single conversations do not show."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from tests.acceptance.bare import chat, post
from tests.lanes.client import Client, connected
from tests.lanes.lane import Lane, Lanes, lanes
from tests.lanes.plays import WHOLE

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
PLAYS = ["whole", "stream", "stream with usage", "status 404", "status 429", "status 500", "stream closed in an event", "closed in the body", "whole chunked", "gzip"]  # fmt: skip
MODELS = ["m", "alias", "counting", "thrice", "falling", "clamped"]


def ask(play: str, *, model: str = "m", ident: str = "", close: bool = False) -> bytes:
    lines = [
        f"x-play: {play}",
        *([f"X-Request-ID: {ident}"] if ident else []),
        *(["Connection: close"] if close else []),
    ]
    return post(chat(model=model, stream=play.startswith("stream"), user=ident), CHAT, *lines)


async def test_a_crowd_is_served_without_mixing_anybody_up(both: Lanes) -> None:
    async def one(lane: Lane, number: int) -> list[tuple[int, str | None]]:
        told = []
        async with connected(lane.port) as client:
            for turn in range(6):
                play, model = PLAYS[(number + turn) % len(PLAYS)], MODELS[(number * 7 + turn) % len(MODELS)]
                before = len(client.answers[0])
                await client.send(ask(play, model=model, ident=f"c{number}-{turn}"))
                async with asyncio.timeout(20):
                    while not (found := client.answers)[0][before:] or not (found[0][-1].whole or client.is_closed):
                        await asyncio.sleep(0.001)
                told.append((found[0][-1].status, found[0][-1].value("x-request-id")))
                if client.is_closed:
                    break
        return told

    async def story(lane: Lane, client: Client) -> None:
        told = await asyncio.gather(*[one(lane, number) for number in range(40)])
        said[lane.name] = told

    said: dict[str, list[list[tuple[int, str | None]]]] = {}
    seen = await both.tell(story, again=False)

    assert all(
        ident == f"c{number}-{turn}" for number, told in enumerate(said["fast"]) for turn, (_, ident) in enumerate(told)
    )
    assert [len(told) for told in said["fast"]] == [len(told) for told in said["full"]]
    assert seen.took_fast > 50


async def test_who_comes_first_to_a_narrow_upstream_is_served_first(both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        async with connected(lane.port) as second, connected(lane.port) as gone, connected(lane.port) as third:
            await client.send(ask("held", model="narrow", ident="one"))
            await lane.held(client)
            for waiting, ident in ((second, "two"), (gone, "none"), (third, "three")):
                await waiting.send(ask("whole", model="narrow", ident=ident))
                await lane.quiet(waiting, busy=True)
            assert len(lane.provider.requests) == 1
            gone.abort()
            await lane.quiet(client, busy=True)
            lane.provider.go()
            await second.gets(WHOLE)
            await third.gets(WHOLE)
            order[lane.name] = [
                b'"%b"' % ident in asked.body
                for asked, ident in zip(lane.provider.requests, [b"one", b"two", b"three"], strict=True)
            ]

    order: dict[str, list[bool]] = {}
    seen = await both.tell(story)

    assert seen.statuses == [200]
    assert order == {"fast": [True] * 3, "full": [True] * 3}
    assert seen.count("predawn_requests_total", code="499") == 1


@pytest.mark.parametrize("play", ["500, then held", "closed, then held"])
async def test_a_client_may_leave_during_the_second_try(play: str, both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask(play, model="thrice"))
        await client_waits(lane, client)
        client.abort()
        await lane.quiet(client)

    async def client_waits(lane: Lane, client: Client) -> None:
        async with asyncio.timeout(10):
            while len(lane.provider.requests) < 2:
                await asyncio.sleep(0.001)
        await lane.held(client)

    seen = await both.tell(story)

    assert len(seen.received) == 2
    assert seen.left == 1
    assert seen.count("predawn_requests_total", code="499") == 1
    assert seen.count("predawn_upstream_retries_total") == 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lanes]:
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    made.cert_chain_pems[0].write_to_path(folder / "crt")
    made.private_key_pem.write_to_path(folder / "key")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with lanes(server={"tls": {"cert_file": str(folder / "crt"), "key_file": str(folder / "key")}}) as running:
        for lane in running.each:
            lane.tls = context
        yield running


async def test_the_same_holds_over_tls(secured: Lanes) -> None:
    odd = post(chat(), CHAT + "?a=b", "x-play: whole")
    cut = ask("stream with usage", model="counting")
    mixed = await secured.say(ask("whole") + cut, odd, cut[:50], cut[50:] + ask("status 429"), ask("whole"))
    broken = await secured.say(ask("whole"), ask("stream closed in an event"))
    retried = await secured.say(ask("once 503", model="thrice"), ask("whole", close=True))
    refused = await secured.say(ask("whole") + b"FOO\r\n\r\n")
    in_bytes = await secured.say(*[bytes([byte]) for byte in ask("whole") + odd])

    assert mixed.statuses == [200, 200, 200, 200, 429, 200]
    assert mixed.took_fast == 2
    assert broken.statuses == [200, 200]
    assert not broken.answers[1].whole
    assert retried.statuses == [200, 200]
    assert not retried.is_open
    assert refused.statuses == [200, 400]
    assert in_bytes.statuses == [200, 200]


async def test_a_large_answer_passes_over_tls_and_a_client_may_leave(secured: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask("stream held"))
        await client.gets(b"hel")
        client.abort()
        await lane.quiet(client)

    giant = await secured.say(ask("giant whole"))
    left = await secured.tell(story)

    assert len(giant.answer.body) == 3_000_000
    assert left.count("predawn_requests_total", code="499") == 1
    assert left.left == 1
