"""What is there together leaves together, and nothing waits for what is not there yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import TYPE_CHECKING

import pytest

from predawn.proxy.joining import MOST_BYTES, JoinedWrites, Passing, Unhurried, listening_to
from predawn.proxy.tasks import Tasks

if TYPE_CHECKING:
    from predawn.proxy.joining import Take


class Client:
    """Keeps each write; may be gone."""

    def __init__(self) -> None:
        self.wrote: list[bytes] = []
        self.saw_all: list[bytes] = []
        self.is_gone = False

    def write(self, data: bytes) -> None:
        if self.is_gone:
            raise ConnectionResetError("the client is gone")
        self.wrote.append(data)

    def saw(self, data: bytes) -> None:
        self.saw_all.append(data)


async def said(*steps: bytes | asyncio.Future[None]) -> AsyncIterator[bytes]:
    for step in steps:
        if isinstance(step, bytes):
            yield step
        else:
            await step


async def pump(client: Client, items: AsyncIterator[bytes]) -> None:
    with JoinedWrites(client, client) as writes:
        async for item in Unhurried(items, writes.flush_before_waiting):
            writes.add(item, is_shown=item != b"usage")


async def test_what_is_there_together_leaves_in_one_write_before_anybody_waits() -> None:
    client, later = Client(), asyncio.get_running_loop().create_future()
    task = Tasks().spawn(pump(client, said(b"a", b"b", later, b"c", b"d")), "pump")
    await asyncio.sleep(0)
    before = list(client.wrote)
    later.set_result(None)
    await task

    assert (before, client.wrote) == ([b"ab"], [b"ab", b"cd"])


async def test_the_meter_sees_what_the_client_does_not() -> None:
    client = Client()
    await pump(client, said(b"a", b"usage", b"b"))

    assert (client.wrote, client.saw_all) == ([b"ab"], [b"ausageb"])


async def test_what_came_before_an_error_goes_before_it() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise ValueError("no more")

    client = Client()
    with pytest.raises(ValueError, match="no more"):
        await pump(client, broken())

    assert client.wrote == [b"a"]


async def test_a_client_that_is_gone_is_noticed_and_never_by_the_plugin_that_waits() -> None:
    later, seen = asyncio.get_running_loop().create_future(), list[BaseException]()

    async def waiting() -> AsyncIterator[bytes]:
        yield b"a"
        try:
            await later
        except BaseException as exc:
            seen.append(exc)
            raise
        yield b"b"

    client = Client()
    client.is_gone = True
    task = Tasks().spawn(pump(client, waiting()), "pump")
    await asyncio.sleep(0)
    later.set_result(None)
    with pytest.raises(ConnectionResetError):
        await task

    assert seen == []


async def test_cancelling_reaches_whoever_waits_and_writes_nothing_more() -> None:
    later, seen = asyncio.get_running_loop().create_future(), list[BaseException]()

    async def waiting() -> AsyncIterator[bytes]:
        yield b"a"
        try:
            await later
        finally:
            seen.append(asyncio.CancelledError())
            await asyncio.sleep(0)  # closing may take some waiting of its own

    client = Client()
    task = Tasks().spawn(pump(client, waiting()), "pump")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (client.wrote, len(seen)) == ([b"a"], 1)


async def test_an_awaitable_may_swallow_a_cancellation() -> None:
    later = asyncio.get_running_loop().create_future()

    async def stubborn() -> AsyncIterator[bytes]:
        try:
            await later
        except asyncio.CancelledError:
            yield b"all the same"

    client = Client()
    task = Tasks().spawn(pump(client, stubborn()), "pump")
    await asyncio.sleep(0)
    task.cancel()
    await task

    assert client.wrote == [b"all the same"]


def test_a_flood_of_tiny_events_is_written_as_soon_as_a_large_one() -> None:
    client = Client()
    with JoinedWrites(client, client) as writes:
        for _ in range(1025):
            writes.add(b"\n\n")

        assert writes.size > MOST_BYTES

    assert client.wrote == [b"\n\n" * 1025]


class Mouth:
    """Says what it is told to, to whoever takes it or iterates."""

    def __init__(self) -> None:
        self.take: Take[str] | None = None
        self.said: list[str] = []
        self.more: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.items = Passing(self._say(), self.listen)

    def listen(self, take: Take[str] | None) -> None:
        self.take = take

    def say(self, *words: str) -> None:
        self.said += words
        if self.take is not None and self.take(self.said):
            self.said.clear()
        else:
            self.more.set_result(None)

    async def _say(self) -> AsyncGenerator[str, None]:
        while True:
            await self.more
            self.more = asyncio.get_running_loop().create_future()
            while self.said:
                yield self.said.pop(0)


async def test_what_is_taken_is_not_iterated_over_and_what_is_refused_is() -> None:
    mouth, taken, iterated = Mouth(), list[str](), list[str]()

    def take(words: Collection[str]) -> bool:
        if "no" in words:
            return False
        taken.extend(words)
        return True

    async def iterate() -> None:
        async for word in mouth.items:
            iterated.append(word)

    listen = listening_to(mouth.items)
    assert listen is not None
    listen(take)
    tasks = Tasks()
    tasks.spawn(iterate(), "iterate")
    await asyncio.sleep(0)
    mouth.say("a", "b")
    mouth.say("no", "c")
    for _ in range(3):
        await asyncio.sleep(0)
    mouth.say("d")
    await tasks.cancel()
    await mouth.items.aclose()

    assert taken == ["a", "b", "d"]
    assert iterated == ["no", "c"]


async def test_what_only_can_be_iterated_over_is_listened_to_by_nobody() -> None:
    assert listening_to(said(b"a")) is None
