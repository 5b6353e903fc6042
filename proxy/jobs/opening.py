"""Opens the jobs when a plugin first asks for them, and starts them when all plugins are open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from predawn.proxy.jobs.protocol import JobEngine, JobsError

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.jobs.durable import DurableJobEngine
    from predawn.proxy.settings import Settings
    from predawn.proxy.tasks import Tasks


async def no_jobs() -> JobEngine:
    """What `App.jobs` is where nothing keeps jobs."""
    raise JobsError("there are no jobs here")


@dataclass(slots=True)
class JobsOpener:
    """The jobs of one process."""

    settings: Settings
    clock: Clock
    tasks: Tasks
    runs: bool
    """False in a process that only submits."""
    _engine: DurableJobEngine | None = None
    _keeper: asyncio.Task[None] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_open(self) -> bool:
        """True once a plugin has asked for jobs."""
        return self._engine is not None

    async def __call__(self) -> JobEngine:
        """Open them on first use. Raises `JobsError`."""
        async with self._lock:
            if self._engine is None:
                self._engine = await self._open()
        return self._engine

    async def _open(self) -> DurableJobEngine:
        try:
            await asyncio.to_thread(__import__, "dbos")  # a third of a second in which requests go on
        except ModuleNotFoundError as exc:
            raise JobsError(f"jobs need the package {exc.name}: pip install 'predawn[jobs]'") from exc
        from predawn.proxy.jobs.durable import DurableJobEngine
        from predawn.proxy.jobs.reaper import keep

        jobs = self.settings.jobs
        engine = await DurableJobEngine.open(
            self.settings.state, self.clock, concurrency=jobs.concurrency, run=self.runs
        )
        self._keeper = self.tasks.spawn(keep(engine, self.clock, jobs.keep_finished_h * 3600), "jobs")
        return engine

    async def start(self) -> None:
        """Begin with the jobs, if any plugin has opened them. Called again after each reload."""
        if self._engine is not None:
            await self._engine.start()

    async def drain(self) -> None:
        """Stop what runs; others go on with it at once."""
        if self._engine is not None:
            await self._engine.drain()

    async def aclose(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._engine is not None:
            await self._engine.aclose()
            self._engine = None
