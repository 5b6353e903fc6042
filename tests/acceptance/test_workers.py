"""Several workers on one port, as an operator knows them: killed, hung, reloaded, replaced and stopped under requests."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.acceptance.bare import Bare, ask, bare, chat, post
from tests.acceptance.house import until, upstream_settings
from tests.acceptance.process import Predawn, predawn, serving, write_settings

from predawn.proxy.upstreams.scripted.server import ScriptedServer, scripted_server

SHARE = "workers share"


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


class Fleet:
    """Two workers, and where they are."""

    def __init__(self, server: Predawn, told: dict[str, Any], folder: Path) -> None:
        self.server = server
        self.told = told
        self.port: int = told["server"]["port"]
        self.admin: int = told["server"]["admin_port"]
        self._config = folder / "predawn.yaml"

    def write(self, **over: Any) -> None:
        """Change the settings file: parts of `server`, or others."""
        server = {**self.told["server"], **over.pop("server", {})}
        self.told = {**self.told, **over, "server": server}
        write_settings(self._config, self.told)

    def break_settings(self) -> None:
        self._config.write_text("modells: []\n")

    async def replaced(self, before: list[int]) -> None:
        """Wait until none of these processes is left."""
        await until(lambda: not set(before) & set(self.server.children), seconds=20)


@pytest.fixture
async def fleet(provider: ScriptedServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with two_workers(provider, tmp_path) as started:
        yield started


@asynccontextmanager
async def two_workers(provider: ScriptedServer, folder: Path, **server: Any) -> AsyncIterator[Fleet]:
    first = free_ports(3)
    ports = {"port": first, "admin_port": first + 1}
    told = {
        "server": {**ports, "workers": 2, "drain_grace_s": 0.3, "drain_timeout_s": 10, "hang_s": 2, **server},
        "state": str(folder / "state.db"),
        "upstreams": [upstream_settings(provider.base_url)],
        "models": [{"name": "m", "upstream": "up"}],
    }
    async with serving(folder, told) as started:
        await started.says(SHARE)
        yield Fleet(started, told, folder)


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, below those that connections are given."""
    while True:
        first = random.randrange(20_000, 30_000)
        if all(is_free(first + more) for more in range(count)):
            return first


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def scrape(admin_port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{admin_port}/metrics") as reply:
        return await reply.text()


def answered(metrics: str) -> int:
    """Requests that ended well, by a worker's count."""
    counts = re.findall(r'^predawn_requests_total\{.*code="200".*\} (\d+)', metrics, re.MULTILINE)
    return sum(map(int, counts))


def pid(metrics: str) -> float:
    """When the process that was asked began: another number after a restart."""
    found = re.search(r"^process_start_time_seconds (\S+)", metrics, re.MULTILINE)
    assert found
    return float(found[1])


@asynccontextmanager
async def streams(port: int, count: int, chunks: int) -> AsyncIterator[list[Bare]]:
    """So many slow streams, begun; 40 chunks take a second."""
    script = f"x-script: interval_ms=25, chunks={chunks}"
    async with AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(bare(port)) for _ in range(count)]
        for client in clients:
            await client.send(post(chat(stream=True), "/v1/chat/completions", script))
            status, _ = await client.head()
            assert status == 200
        yield clients


async def whole(client: Bare) -> bool:
    """Read a stream to its end; False if it was cut."""
    received = b""
    try:
        async with asyncio.timeout(20):
            while (piece := await client.chunk()) is not None:
                received += piece
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    return received.endswith(b"data: [DONE]\n\n")


async def test_a_killed_worker_takes_nobody_with_it_but_its_own_requests(fleet: Fleet) -> None:
    async with streams(fleet.port, 12, 40) as clients, asyncio.TaskGroup() as group:
        shares = [in_flight(await scrape(fleet.admin + worker)) for worker in range(2)]
        began = [pid(await scrape(fleet.admin + worker)) for worker in range(2)]
        os.kill(fleet.server.children[0], signal.SIGKILL)
        waiting = [group.create_task(ask(fleet.port, chat())) for _ in range(20)]
        outcomes = [await whole(client) for client in clients]
        answers = [await one for one in waiting]
    await fleet.server.says("serving on", times=3)
    again = [pid(await scrape(fleet.admin + worker)) for worker in range(2)]
    fleet.server.signal(signal.SIGTERM)

    assert await fleet.server.ended() == 0
    assert min(shares) > 0
    assert sorted([outcomes.count(True), outcomes.count(False)]) == sorted(shares)
    assert {answer.status for answer in answers} == {200}  # those that the dead one was to accept, too
    assert [one == other for one, other in zip(began, again, strict=True)].count(False) == 1
    assert "starting another" in fleet.server.log


def in_flight(metrics: str) -> int:
    found = re.findall(r"^predawn_requests_in_flight(?:\{.*\})? (\d+)", metrics, re.MULTILINE)
    return sum(map(int, found))


async def test_a_restart_one_by_one_drops_nothing(fleet: Fleet) -> None:
    before = fleet.server.children
    statuses: list[int] = []
    over = asyncio.Event()

    async def keep_asking() -> None:
        """As a client with a connection pool: a new one where the answer said that it was the last."""
        while not over.is_set():
            async with bare(fleet.port) as client:
                closes = False
                while not closes and not over.is_set():
                    answer = await client.ask(chat())
                    statuses.append(answer.status)
                    closes = answer.headers.get("Connection", "").lower() == "close"

    async with streams(fleet.port, 6, 90) as clients, asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(keep_asking())
        fleet.server.signal(signal.SIGUSR2)
        await fleet.server.says(SHARE, times=2)
        others = set(fleet.server.children) - set(before)
        outcomes = [await whole(client) for client in clients]
        await fleet.replaced(before)
        over.set()
    for _ in range(20):
        statuses.append((await ask(fleet.port, chat())).status)
    shares = [answered(await scrape(fleet.admin + worker)) for worker in range(2)]

    assert len(others) == 2
    assert outcomes == [True] * 6
    assert set(statuses) == {200}
    assert min(shares) > 0


async def counted(admin_port: int, sample: str) -> bool:
    return sample in await scrape(admin_port)


async def until_async(true: Any) -> None:
    async with asyncio.timeout(10):
        while not await true():
            await asyncio.sleep(0.01)


async def test_reloads_reach_every_worker_and_no_stream_and_a_broken_file_none(fleet: Fleet) -> None:
    before = fleet.server.children
    async with streams(fleet.port, 4, 90) as clients:
        fleet.write(models=[*fleet.told["models"], {"name": "new", "upstream": "up", "model": "real"}])
        for _ in range(20):
            fleet.server.signal(signal.SIGHUP)
        await fleet.server.says("2 workers reloaded")
        known = [(await ask(fleet.port, chat(model="new"))).status for _ in range(10)]

        other = free_ports(1)
        fleet.write(server={"port": other})
        fleet.server.signal(signal.SIGHUP)
        await fleet.server.says(SHARE, times=2)
        moved = [(await ask(other, chat(model="new"))).status for _ in range(5)]
        outcomes = [await whole(client) for client in clients]
    await fleet.replaced(before)

    assert set(known) == {200}
    assert set(moved) == {200}
    assert outcomes == [True] * 4
    assert is_free(fleet.port)

    fleet.break_settings()
    fleet.server.signal(signal.SIGHUP)
    await fleet.server.says("reload failed")
    for worker in range(2):
        failed = 'predawn_config_reloads_total{outcome="failed"} 1'
        await until_async(lambda worker=worker: counted(fleet.admin + worker, failed))
    starts = fleet.server.log.count("serving on")
    os.kill(fleet.server.children[1], signal.SIGKILL)
    await fleet.server.says("serving on", times=starts + 1)
    kept = [(await ask(other, chat(model="new"))).status for _ in range(10)]

    assert fleet.server.log.count("reload failed") == 1
    assert "modells" in fleet.server.log
    assert set(kept) == {200}


async def test_workers_that_lost_their_supervisor_finish_their_streams_and_end(fleet: Fleet) -> None:
    workers = fleet.server.children
    async with streams(fleet.port, 4, 40) as clients:
        fleet.server.signal(signal.SIGKILL)
        outcomes = [await whole(client) for client in clients]
    await until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), seconds=20)

    assert outcomes == [True] * 4
    assert "the supervisor is gone" in fleet.server.log
    assert is_free(fleet.port)


async def test_a_worker_that_hangs_is_replaced_and_a_port_in_use_refused(fleet: Fleet, tmp_path: Path) -> None:
    victim, other = fleet.server.children
    os.kill(victim, signal.SIGSTOP)
    second = tmp_path / "second"
    second.mkdir()
    config = write_settings(second / "predawn.yaml", {**fleet.told, "state": str(second / "state.db")})
    async with predawn(second, "serve", "--config", config) as refused:
        status = await refused.ended()
    await fleet.server.says("serving on", times=3)
    answers = [await ask(fleet.port, chat()) for _ in range(10)]

    assert status == 1
    assert f"127.0.0.1:{fleet.port}" in refused.log
    assert "by another program" in refused.log
    assert "gave no sign of life" in fleet.server.log
    assert victim not in fleet.server.children
    assert other in fleet.server.children
    assert {answer.status for answer in answers} == {200}
