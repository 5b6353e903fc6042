"""Jobs of real processes: killed at any moment, stopped in good order, taken over by others."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.house import until, upstream_settings
from tests.acceptance.jobs_process import STEPS
from tests.acceptance.process import Predawn, predawn, write_settings
from tests.proxy.states import empty_state

from predawn.proxy.clock import SystemClock
from predawn.proxy.jobs.durable import DurableJobEngine
from predawn.proxy.upstreams.scripted import Answer
from predawn.proxy.upstreams.scripted.server import ScriptedServer, scripted_server

JOBS = 50
KILLS = 20
CONCURRENCY = 2


def config(folder: Path, state: str, provider: ScriptedServer, **settings: Any) -> Path:
    return write_settings(
        folder / "predawn.yaml",
        {
            "state": state,
            "server": {"host": "127.0.0.1", "port": 0, "admin_port": 0, "drain_grace_s": 0},
            "upstreams": [upstream_settings(provider.base_url)],
            "models": [{"name": "m", "upstream": "up"}],
            "plugins": ["asking"],
            "jobs": {"concurrency": CONCURRENCY},
            "access": {"secret": "0123456789abcdef0123456789abcdef"},
            **settings,
        },
    )


@asynccontextmanager
async def working(folder: Path, settings: Path, name: str = "log", command: str = "worker") -> AsyncIterator[Predawn]:
    arguments = (command, "--config", settings)
    async with predawn(folder, *arguments, module="tests.acceptance.jobs_process", log_name=name) as started:
        yield started


@asynccontextmanager
async def submitting(state: str) -> AsyncIterator[DurableJobEngine]:
    """An engine in this process that runs nothing."""
    engine = await DurableJobEngine.open(state, SystemClock(), run=False)
    try:
        yield engine
    finally:
        await engine.aclose()


async def all_done(engine: DurableJobEngine, ids: list[str], *, seconds: float = 60) -> list[Any]:
    async with asyncio.timeout(seconds):
        while True:
            states = [await engine.state(job_id) for job_id in ids]
            if all(job is not None and job.state not in ("queued", "running") for job in states):
                return states
            await asyncio.sleep(0.1)


def asked(provider: ScriptedServer) -> list[tuple[str, int]]:
    """Job and step of each call, in order."""
    return [(job, int(step)) for job, step in (received.text.split() for received in provider.requests)]


def again_after_the_next(calls: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Calls of a step after a later one of its job: it had finished before."""
    latest: dict[str, int] = {}
    found = []
    for job, step in calls:
        if step < latest.get(job, 0):
            found.append((job, step))
        latest[job] = max(step, latest.get(job, 0))
    return found


@pytest.mark.timeout(400)
async def test_after_any_kill_every_job_completes_and_no_finished_step_is_called_again(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    draw = random.Random(int(os.environ.get("PREDAWN_TEST_SEED", "4")))
    ids = [f"job-{number}" for number in range(JOBS)]
    async with scripted_server(Answer(text="yes", first_byte_ms=20)) as provider, submitting(state) as engine:
        settings = config(tmp_path, state, provider)
        for job_id in ids:
            await engine.submit("asking", job_id, None)
        kills = 0
        for round_number in range(KILLS):
            before = len(provider.requests)
            async with working(tmp_path, settings, f"log-{round_number}") as worker:
                wanted = before + draw.randrange(1, 2 * JOBS * STEPS // KILLS - 4)
                await until(lambda wanted=wanted: len(provider.requests) >= wanted, seconds=40)
                await asyncio.sleep(draw.random() * 0.04)
                worker.signal(signal.SIGKILL)
                await worker.ended()
                kills += 1
        async with working(tmp_path, settings, "log-last"):
            jobs = await all_done(engine, ids)
        calls = asked(provider)

    assert kills == KILLS
    assert {job.state for job in jobs} == {"done"}
    assert all(job.result == ["yes"] * STEPS for job in jobs)
    assert again_after_the_next(calls) == []
    repeated = sum(times - 1 for times in Counter(calls).values())
    assert repeated <= KILLS * CONCURRENCY
    assert len(set(calls)) == JOBS * STEPS


async def test_a_stopped_worker_hands_its_jobs_back_at_once(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    answers = Answer(text="yes", first_byte_ms=60_000)
    async with scripted_server(answers) as provider, submitting(state) as engine:
        settings = config(tmp_path, state, provider)
        await engine.submit("asking", "job", None)
        async with working(tmp_path, settings) as worker:
            await until(lambda: len(provider.requests) == 1, seconds=30)
            worker.signal(signal.SIGTERM)

            assert await worker.ended() == 0

        job = await engine.state("job")
        log = worker.log

    assert job is not None
    assert job.state == "queued"
    assert '"level":"error"' not in log.replace(" ", "")
    assert "Traceback" not in log


async def test_a_server_does_jobs_itself(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    async with scripted_server("yes") as provider, submitting(state) as engine:
        settings = config(tmp_path, state, provider)
        await engine.submit("asking", "job", None)
        async with working(tmp_path, settings, command="serve"):
            (job,) = await all_done(engine, ["job"])

    assert job.result == ["yes"] * STEPS


async def test_a_server_leaves_jobs_to_workers_if_told_so(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    async with scripted_server("yes") as provider, submitting(state) as engine:
        settings = config(tmp_path, state, provider, jobs={"in_servers": False})
        await engine.submit("asking", "job", None)
        async with working(tmp_path, settings, "log-server", command="serve") as server:
            await server.says("serving on")
            await asyncio.sleep(1.5)

            assert provider.requests == []

            async with working(tmp_path, settings, "log-worker"):
                (job,) = await all_done(engine, ["job"])

    assert job.result == ["yes"] * STEPS


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.timeout(180)
async def test_a_dead_workers_job_is_taken_over_within_30_seconds(tmp_path: Path, kind: str) -> None:
    async with (
        empty_state(kind, tmp_path) as state,
        scripted_server(Answer(first_byte_ms=100_000)) as provider,
        submitting(state) as engine,
    ):
        settings = config(tmp_path, state, provider)
        await engine.submit("asking", "job", None)
        async with working(tmp_path, settings, "log-1") as first:
            await until(lambda: len(provider.requests) == 1, seconds=30)
            async with working(tmp_path, settings, "log-2") as second:
                await second.says("working on jobs")
                first.signal(signal.SIGKILL)
                await first.ended()
                await until(lambda: len(provider.requests) == 2, seconds=30)

    assert asked(provider) == [("job", 0), ("job", 0)]


async def test_a_worker_without_jobs_says_so(tmp_path: Path) -> None:
    async with scripted_server("yes") as provider:
        settings = config(tmp_path, str(tmp_path / "state.db"), provider, plugins=["record"])
        async with working(tmp_path, settings) as worker:
            status = await worker.ended()

    assert status == 1
    assert "no plugin of these settings has jobs" in worker.log
