"""Attacks by load, run by hand: `make attack-lanes`. Prints what each did to memory, and to those who behave.

A server with the fast lane (or, with `--full`, without) runs as a process of its own before a provider in this one;
`--crowd` says how many connections attack at a time. Exit code 1: somebody who behaved was not served.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import uvloop
from tests.acceptance.bare import ask, chat, post
from tests.acceptance.process import Predawn, serving
from tests.lanes.client import Client
from tests.lanes.lane import usual_stage
from tests.lanes.plays import SCENE
from tests.lanes.upstream import Recorder, recording

from predawn.proxy.tasks import Tasks

CHAT = "/v1/chat/completions"
HEAD = post(chat())[:-60]


class Field:
    """The server under attack, the provider behind it, and the tasks of those who attack."""

    def __init__(self, server: Predawn, provider: Recorder, crowd: int, tasks: Tasks) -> None:
        self.server = server
        self.provider = provider
        self.crowd = crowd
        self.tasks = tasks

    async def connect(self, count: int) -> list[Client]:
        loop = asyncio.get_running_loop()
        found: list[Client] = []
        while len(found) < count:
            size = min(200, count - len(found))
            made = [loop.create_connection(Client, "127.0.0.1", self.server.port) for _ in range(size)]
            found += [client for _, client in await asyncio.gather(*made)]
        return found


@asynccontextmanager
async def attackers(field: Field, count: int) -> AsyncIterator[list[Client]]:
    clients = await field.connect(count)
    try:
        yield clients
    finally:
        for client in clients:
            client.abort()


async def idle(field: Field) -> None:
    """Connections that say nothing."""
    async with attackers(field, field.crowd):
        await asyncio.sleep(3)


async def half_open(field: Field) -> None:
    """Part of a head, part of a body, and then nothing."""
    async with attackers(field, field.crowd) as clients:
        for number, client in enumerate(clients):
            client.transport.write(
                [HEAD, b"P", post(chat())[:40], post(b"", CHAT, "Transfer-Encoding: chunked") + b"5\r\n"][number % 4]
            )
        await asyncio.sleep(4)


async def slow_loris(field: Field) -> None:
    """One byte of a head at a time."""
    async with attackers(field, field.crowd // 4) as clients:
        for at in range(40):
            for client in clients:
                if not client.transport.is_closing():
                    client.transport.write(HEAD[at : at + 1])
            await asyncio.sleep(0.1)


async def does_not_read(field: Field) -> None:
    """Streams of 32 MB each that nobody takes off the socket."""
    async with attackers(field, 40) as clients:
        for client in clients:
            client.transport.pause_reading()
            client.transport.write(post(chat(stream=True), CHAT, "x-play: flood"))
        await asyncio.sleep(4)


async def pipelines(field: Field) -> None:
    """A thousand requests at a time on each of a hundred connections, and never an answer taken."""
    async with attackers(field, 100) as clients:
        for client in clients:
            client.transport.pause_reading()
            client.transport.write(post(chat()) * 1000)
        await asyncio.sleep(4)


async def big_bodies(field: Field) -> None:
    """Bodies of 2 MiB, short of their last byte."""
    body = chat(user="x" * (2 << 20))[: (2 << 20) - 100]
    async with attackers(field, 100) as clients:
        for client in clients:
            client.transport.write(post(body)[:-1])
        await asyncio.sleep(4)


async def streams_that_are_left(field: Field) -> None:
    """Clients that leave in the middle of their streams, again and again."""
    for _ in range(10):
        async with attackers(field, field.crowd // 10) as clients:
            for client in clients:
                client.transport.write(post(chat(stream=True), CHAT, "x-play: stream held"))
            await asyncio.sleep(0.3)


async def upstream_dies(field: Field) -> None:
    """The provider cuts all its connections, ten times, while a crowd is served."""

    async def talk() -> None:
        for number in range(20):
            stream = number % 2 > 0
            answer = await ask(
                field.server.port, chat(stream=stream), CHAT, f"x-play: {'stream' if stream else 'whole'}"
            )
            told[f"{answer.status}{'' if answer.whole else ' broken'}"] += 1

    told: Counter[str] = Counter()
    crowd = [field.tasks.spawn(talk(), "talk") for _ in range(50)]
    for _ in range(10):
        await asyncio.sleep(0.1)
        for peer in tuple(field.provider.open):
            peer.transport.abort()
    await asyncio.wait(crowd)
    print(f"    while it died: {dict(told)}")


ATTACKS: Sequence[Callable[[Field], Awaitable[None]]] = (
    idle, half_open, slow_loris, does_not_read, pipelines, big_bodies, streams_that_are_left, upstream_dies,
)  # fmt: skip


async def behave(field: Field, took: list[float], wrong: list[str]) -> None:
    """Ask as others do, one request after another."""
    while True:
        began = perf_counter()
        try:
            async with asyncio.timeout(20):
                answer = await ask(field.server.port, chat(), CHAT, "x-play: whole")
            if answer.status != 200:
                wrong.append(str(answer.status))
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as exc:
            wrong.append(type(exc).__name__)
        took.append(perf_counter() - began)
        await asyncio.sleep(0.01)


async def fight(field: Field, attack: Callable[[Field], Awaitable[None]]) -> bool:
    """One attack, while somebody behaves; true if he was served."""
    took: list[float] = []
    wrong: list[str] = []
    before, most = field.server.resident_mb, 0.0
    behaving = field.tasks.spawn(behave(field, took, wrong), "behave")
    attacking: asyncio.Task[Any] = field.tasks.spawn(_run(attack, field), "attack")
    while not attacking.done():
        most = max(most, field.server.resident_mb)
        await asyncio.sleep(0.05)
    behaving.cancel()
    await asyncio.sleep(2.5)
    held = field.server.resident_mb
    parts = quantiles([*took, *took], n=100)
    p50, p99 = parts[49], parts[98]
    expected = attack is upstream_dies
    print(
        f"{attack.__name__:24} {before:6.0f} MB before, {most:6.0f} at most, {held:6.0f} after;"
        f" {len(took):4} served, p50 {p50 * 1e3:6.1f} ms, p99 {p99 * 1e3:7.1f} ms; wrong: {dict(Counter(wrong))}"
    )
    return not wrong or expected


async def _run(attack: Callable[[Field], Awaitable[None]], field: Field) -> None:
    await attack(field)


async def main(crowd: int, *, fast_lane: bool) -> int:
    tasks = Tasks()
    with tempfile.TemporaryDirectory(prefix="predawn-attack-") as folder:
        async with recording(SCENE) as provider:
            stage = usual_stage(provider.base_url)
            server = {"port": 0, "admin_port": 0, "fast_lane": fast_lane, "body_limit_mb": 4}
            settings = {
                "server": server,
                "state": f"{folder}/state.db",
                "upstreams": stage.upstreams,
                "models": stage.models,
            }
            async with serving(Path(folder), settings) as running:
                field = Field(running, provider, crowd, tasks)
                served = [await fight(field, attack) for attack in ATTACKS]
                errors = [line for line in running.log.splitlines() if '"error"' in line[:200]]
                print(f"{len(errors)} errors in the log", *errors[:3], sep="\n")
        await tasks.cancel()
    return 0 if all(served) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crowd", type=int, default=5000)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main(options.crowd, fast_lane=not options.full)))
