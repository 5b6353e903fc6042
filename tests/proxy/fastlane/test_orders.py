"""Whatever happens in whatever order: nothing is left, and nothing was raised into the loop."""

import asyncio
from random import Random
from time import perf_counter
from typing import Any

import pytest
from tests.proxy.fastlane.sides import ANSWER, DONE, EVENT, EVENTS_HEAD, JSON_HEAD, LAST, Sides, asking, chunk

from predawn.plugins.testing.clock import settle
from predawn.proxy.app import shutting_down

SAID = [
    ANSWER,
    ANSWER.replace(b"200 OK", b"400 No"),
    JSON_HEAD % 9,
    b'{"a"',
    EVENTS_HEAD,
    EVENTS_HEAD + chunk(EVENT) + chunk(DONE) + LAST,
    chunk(EVENT),
    chunk(DONE),
    LAST,
    b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"junk\r\n",
]
EVENTS = ("ask", "say", "say", "lose", "leave", "close", "fill", "interrupt", "look", "settle")


async def play(both: Sides, random: Random) -> None:
    """So many clients and connections to the provider, and things that happen to them."""
    doors = dict(both.client() for _ in range(2))
    providers = [both.provider() for _ in range(random.randrange(3))]
    for _ in range(random.randrange(3, 25)):
        event = random.choice(EVENTS)
        door = random.choice(list(doors))
        client, provider = doors[door], random.choice(providers or [None])
        if event == "ask" and not client.closing:
            request, at = asking(stream=random.random() < 0.5), random.randrange(1, 200)
            client.brings(*filter(None, (request[:at], request[at:])))
        elif event == "say" and provider is not None and not provider.closing and not provider.is_reading_paused:
            provider.brings(random.choice(SAID))
        elif event == "lose" and provider is not None:
            provider.lose()
        elif event == "leave":
            client.lose()
        elif event == "close":
            client.closing = True
        elif event == "fill" and not client.is_lost:
            client.fill(random.choice([0, 100 << 10, 1 << 20]))
        elif event == "interrupt":
            for transit in tuple(both.service.conversations):
                transit.interrupt(shutting_down())
        elif event == "look":
            door.look_after(perf_counter() + random.choice([0, 3, 1000]))
        elif event == "settle":
            await settle()
    for wire in (*doors.values(), *providers):
        wire.lose()


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_left_of_any_story(seed: int, both: Sides) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    random = Random(seed)
    for _ in range(50):
        both.station.breaker.succeeded()
        await play(both, random)
        async with asyncio.timeout(5):
            while not both.is_idle or both.server.doors.http.connections:
                await asyncio.sleep(0)

        assert not both.server.doors.open
        assert not raised
    assert both.answered > 10
