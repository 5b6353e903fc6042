"""Engines to test: the twin in memory, and DBOS on SQLite and PostgreSQL. Each can be ended and opened again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.states import empty_state

from predawn.proxy.clock import SystemClock
from predawn.proxy.jobs.durable import DurableJobEngine
from predawn.proxy.jobs.memory import MemoryJobEngine, MemoryJobs
from predawn.proxy.tasks import Tasks

POLL_S = 0.02


class House:
    """Opens engines on the same jobs, one at a time."""

    def __init__(self, open_engine: Callable[..., Awaitable[Any]]) -> None:
        self._open = open_engine
        self.engine: Any = None

    async def open(self, **options: Any) -> Any:
        await self.close()
        self.engine = await self._open(**options)
        return self.engine

    async def close(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            await engine.aclose()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def house(request: pytest.FixtureRequest, tasks: Tasks, tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            kept = MemoryJobs()

            async def open_engine(**options: Any) -> Any:
                return MemoryJobEngine(SystemClock(), tasks, kept=kept, **options)
        else:
            state = await stack.enter_async_context(empty_state(request.param, tmp_path))

            async def open_engine(**options: Any) -> Any:
                engine = await DurableJobEngine.open(state, SystemClock(), poll_s=POLL_S, **options)
                await engine.take_over()  # as the reaper does: the one before may have taken a job while it ended
                return engine

        house = House(open_engine)
        stack.push_async_callback(house.close)
        yield house
