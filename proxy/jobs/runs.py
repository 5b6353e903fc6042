"""Jobs in progress in this process: how their steps begin, wait while a queue is paused, and are interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import msgspec

from predawn.proxy.clock import Clock
from predawn.proxy.jobs.protocol import JobFunction, Json, Postponed, Step, StepError

log = logging.getLogger("predawn.jobs")
Record: TypeAlias = "Callable[[str, Step], Awaitable[Json]]"
"""Returns what is stored of a step, or calls it and stores the result; `StepError` counts as a result."""

STOP_S = 5.0
"""How long an interrupted job may take to end its step before its own task is cancelled."""


@dataclass(slots=True, eq=False)
class Run:
    """One execution of a job."""

    job_id: str
    queue: str
    task: asyncio.Task[Any]
    interruptible: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])
    """Tasks that are inside of a step's function or wait for their turn; those that store a result are not."""
    stopped: bool = False

    @contextmanager
    def may_be_interrupted(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        if self.stopped:
            raise asyncio.CancelledError
        self.interruptible.add(task)
        try:
            yield
        finally:
            self.interruptible.discard(task)

    def stop(self) -> None:
        """End at the step it is in: a result that is being stored is stored, and a step that asks for it ends first."""
        if not self.stopped:
            self.stopped = True
            for task in self.interruptible - {asyncio.current_task()}:
                task.cancel()


class Runs:
    """All executions of this process and what they have in common."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.functions: dict[str, JobFunction] = {}
        self._started = asyncio.Event()
        self._queues: dict[str, asyncio.Event] = {}
        self._running: set[Run] = set()
        self._is_draining = False
        self.orphans: set[str] = set()
        """Jobs that wait for somebody to register what does them."""

    def start(self) -> None:
        self._started.set()

    def adopt(self) -> frozenset[str]:
        """The orphans, which are none from now on: their functions may be there by now."""
        adopted = frozenset(self.orphans)
        self.orphans.clear()
        return adopted

    def pause(self, queue: str) -> None:
        self._queue(queue).clear()

    def resume(self, queue: str) -> None:
        self._queue(queue).set()

    def _queue(self, queue: str) -> asyncio.Event:
        if queue not in self._queues:
            self._queues[queue] = asyncio.Event()
            self._queues[queue].set()
        return self._queues[queue]

    @property
    def ids(self) -> frozenset[str]:
        """The jobs that run here."""
        return frozenset(run.job_id for run in self._running if not run.stopped)

    async def work(self, job_id: str, name: str, queue: str, arguments: Json, record: Record) -> Json:
        """Do a job in the current task. Cancelled when it must go on later or elsewhere."""
        task = asyncio.current_task()
        assert task is not None
        run = Run(job_id, queue, task, stopped=self._is_draining)
        self._running.add(run)
        try:
            await self.turn(run)
            function = self.functions.get(name)
            if function is None:
                log.warning("job %s waits: no plugin here does jobs called %r", job_id, name)
                self.orphans.add(job_id)
                raise asyncio.CancelledError
            self.orphans.discard(job_id)
            return plain(await function(RunningSteps(self, run, record), arguments))
        finally:
            self._running.discard(run)

    async def turn(self, run: Run) -> None:
        """Wait until the run may go on."""
        with run.may_be_interrupted():
            await self._started.wait()
            while not (queue := self._queue(run.queue)).is_set():
                await queue.wait()

    async def interrupt(self, job_ids: Collection[str] | None = None) -> None:
        """Stop these jobs, or all, and wait until they have ended."""
        stopping = [run for run in self._running if job_ids is None or run.job_id in job_ids]
        for run in stopping:
            run.stop()
        asking = asyncio.current_task()
        tasks = {run.task for run in stopping if asking not in run.interruptible}
        if not tasks:
            return
        _, slow = await asyncio.wait(tasks, timeout=STOP_S)
        for task in slow:
            task.cancel()
        if slow:
            await asyncio.wait(slow, timeout=STOP_S)

    async def drain(self) -> None:
        """Stop all jobs, those that come later included."""
        self._is_draining = True
        await self.interrupt()


class RunningSteps:
    """The `Steps` of one run."""

    def __init__(self, runs: Runs, run: Run, record: Record) -> None:
        self._runs = runs
        self._run = run
        self._record = record
        self._names: set[str] = set()

    @property
    def job_id(self) -> str:
        return self._run.job_id

    async def run(self, name: str, function: Step) -> Any:
        """See `Steps.run`."""
        if name in self._names:
            raise ValueError(f"job {self.job_id}: two steps are called {name!r}; stored results are told apart by name")
        self._names.add(name)
        try:
            return await self._record(name, partial(self._call, function))
        except StepError as exc:
            raise StepError(str(exc), kind=exc.kind) from exc

    async def _call(self, function: Step) -> Json:
        while True:
            await self._runs.turn(self._run)
            try:
                with self._run.may_be_interrupted():
                    result = plain(await function())
                if self._run.stopped:  # it has ended its own job: there is nobody left to keep the result for
                    raise asyncio.CancelledError
                return result
            except Postponed as exc:
                with self._run.may_be_interrupted():
                    await self._runs.clock.sleep(exc.seconds)


def plain(value: Any) -> Json:
    """A value as it comes back from the store, so that the first time is like the others. Raises `TypeError`."""
    decoded: Json = msgspec.json.decode(msgspec.json.encode(value))
    return decoded


def told(exc: BaseException) -> str:
    """Why a job failed, in a line."""
    kind = exc.kind if isinstance(exc, StepError) else type(exc).__name__
    return f"{kind}: {exc}" if str(exc) else kind
