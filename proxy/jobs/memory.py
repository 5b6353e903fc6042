"""Jobs kept in memory: the twin of `durable.py` for tests, and the place to read what its behaviour is."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from predawn.proxy.clock import Clock
from predawn.proxy.jobs.protocol import DEFAULT_PRIORITY, DEFAULT_QUEUE, Job, JobFunction, Json, Step, StepError
from predawn.proxy.jobs.runs import Runs, plain, told
from predawn.proxy.tasks import Tasks


@dataclass(slots=True)
class Kept:
    """A job as it outlives the engine that runs it."""

    job: Job
    arguments: Json
    rank: tuple[int, int]
    steps: dict[str, Json | StepError] = field(default_factory=dict[str, "Json | StepError"])


@dataclass(slots=True)
class MemoryJobs:
    """What a database would hold; hand it to a second engine to try out a restart."""

    jobs: dict[str, Kept] = field(default_factory=dict[str, Kept])
    numbers: count[int] = field(default_factory=count)


class MemoryJobEngine:
    """A `JobEngine` whose jobs are forgotten with the process."""

    def __init__(self, clock: Clock, tasks: Tasks, *, concurrency: int = 2, kept: MemoryJobs | None = None) -> None:
        self._runs = Runs(clock)
        self._tasks = tasks
        self._kept = kept if kept is not None else MemoryJobs()
        self._concurrency = concurrency
        self._paused: set[str] = set()
        self._busy: Counter[str] = Counter()
        self._is_started = False

    async def start(self) -> None:
        """Begin with the jobs; again after more functions were registered."""
        self._runs.start()
        self._is_started = True
        self._dispatch()

    def register(self, name: str, function: JobFunction) -> None:
        self._runs.functions[name] = function

    async def submit(
        self,
        name: str,
        job_id: str,
        arguments: Json,
        queue: str = DEFAULT_QUEUE,
        priority: int = DEFAULT_PRIORITY,
    ) -> None:
        if job_id not in self._kept.jobs:
            rank = (priority, next(self._kept.numbers))
            self._kept.jobs[job_id] = Kept(Job(job_id, name, queue, "queued"), plain(arguments), rank)
            self._dispatch()

    async def cancel(self, job_ids: Collection[str]) -> None:
        for kept in (self._kept.jobs.get(job_id) for job_id in job_ids):
            if kept is not None and kept.job.state in ("queued", "running"):
                kept.job = replace(kept.job, state="cancelled")
        await self._runs.interrupt(job_ids)

    async def purge(self, job_ids: Collection[str]) -> None:
        await self.cancel(job_ids)
        for job_id in job_ids:
            self._kept.jobs.pop(job_id, None)

    async def state(self, job_id: str) -> Job | None:
        kept = self._kept.jobs.get(job_id)
        return kept.job if kept is not None else None

    def pause(self, queue: str = DEFAULT_QUEUE) -> None:
        self._paused.add(queue)
        self._runs.pause(queue)

    def resume(self, queue: str = DEFAULT_QUEUE) -> None:
        self._paused.discard(queue)
        self._runs.resume(queue)
        self._dispatch()

    async def drain(self) -> None:
        """Stop the jobs that run; another engine goes on with them."""
        self._is_started = False
        await self._runs.drain()

    async def aclose(self) -> None:
        await self.drain()

    def _dispatch(self) -> None:
        """Begin what may begin, by priority and age."""
        queued = [kept for kept in self._kept.jobs.values() if kept.job.state == "queued"]
        for kept in sorted(queued, key=lambda kept: kept.rank):
            queue = kept.job.queue
            may_begin = self._is_started and queue not in self._paused and kept.job.name in self._runs.functions
            if may_begin and self._busy[queue] < self._concurrency:
                self._busy[queue] += 1
                kept.job = replace(kept.job, state="running")
                task = self._tasks.spawn(self._work(kept, kept.job), f"job.{kept.job.id}")
                task.add_done_callback(partial(self._ended, kept))

    async def _work(self, kept: Kept, job: Job) -> Json:
        return await self._runs.work(job.id, job.name, job.queue, kept.arguments, partial(_recorded, kept))

    def _ended(self, kept: Kept, task: asyncio.Task[Json]) -> None:
        job = kept.job
        if job.state != "running":  # cancelled meanwhile
            pass
        elif task.cancelled():
            kept.job = replace(job, state="queued")
        elif (exc := task.exception()) is not None:
            kept.job = replace(job, state="failed", error=told(exc))
        else:
            kept.job = replace(job, state="done", result=task.result())
        self._busy[job.queue] -= 1
        self._dispatch()


async def _recorded(kept: Kept, name: str, step: Step) -> Json:
    if name not in kept.steps:
        try:
            kept.steps[name] = await step()
        except StepError as exc:
            kept.steps[name] = exc
    stored = kept.steps[name]
    if isinstance(stored, StepError):
        raise stored
    return copy.deepcopy(stored)
