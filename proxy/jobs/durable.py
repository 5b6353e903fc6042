"""Jobs on DBOS: workflows in SQLite or PostgreSQL that survive `kill -9` and move between machines.

DBOS is one per process, so there is one engine per process. Every job is the same workflow, which looks up the function
by name when it runs; so functions may come and go with the plugins. DBOS calls us on our own event loop; what we ask of
it blocks and runs in threads of ours, with an empty context, for it keeps in the context which workflow is running.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from predawn.proxy.clock import Clock
from predawn.proxy.jobs import database, quiet
from predawn.proxy.jobs.peers import Identity, Peers, this_process
from predawn.proxy.jobs.protocol import (
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    Job,
    JobFunction,
    Json,
    State,
    Step,
)
from predawn.proxy.jobs.runs import Runs, told
from predawn.proxy.store_errors import StoreError, explained

if TYPE_CHECKING:
    from dbos import DBOS, EnqueueOptions, WorkflowStatus
    from dbos._core import ActiveWorkflowEntry
    from sqlalchemy import Engine

log = logging.getLogger("predawn.jobs")
P = ParamSpec("P")
T = TypeVar("T")

WORKFLOW = "predawn.job"
PLACES = 256
"""Jobs that DBOS would run in one process; all but `concurrency` of them are held by nobody's jobs."""
MOST_CRASHES = 50
"""A job in whose company the process died so often is given up: it may be the cause."""
_STATES: dict[str, State] = {
    "ENQUEUED": "queued",
    "DELAYED": "queued",
    "PENDING": "running",
    "SUCCESS": "done",
    "CANCELLED": "cancelled",
}


class DurableJobEngine:
    """A `JobEngine` whose jobs outlive the process. Made by `open`."""

    def __init__(
        self, engine: Engine, clock: Clock, *, place: str, concurrency: int, poll_s: float, me: Identity
    ) -> None:
        self._engine = engine
        self._place = place
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._runs = Runs(clock)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="predawn-jobs")
        self._queues: set[str] = set()
        self._holds: dict[str, list[ActiveWorkflowEntry]] = {}
        """Places taken while a queue is paused."""
        self._idle: Counter[str] = Counter()
        """Looks at which a job of ours did not run."""
        self.peers = Peers(engine, None if engine.dialect.name == "sqlite" else database.SCHEMA, me)
        self._dbos: DBOS | None = None
        self._is_drained = False
        self._has_rests = False
        """Whether something of purged jobs may still stand in SQLite's log."""

    @classmethod
    async def open(
        cls,
        state: str,
        clock: Clock,
        *,
        concurrency: int = 2,
        run: bool = True,
        poll_s: float = 1.0,
        me: Identity | None = None,
    ) -> DurableJobEngine:
        """Open the jobs that belong to a `state`, and take part in doing them if `run`. Raises `JobsError`."""
        engine = await asyncio.to_thread(database.connect, state)
        made = cls(
            engine,
            clock,
            place=database.place(state),
            concurrency=concurrency,
            poll_s=poll_s,
            me=me if me is not None else this_process(),
        )
        try:
            await made.apart(made._prepare)
            made._launch(run=run)
        except BaseException:
            await made._dispose()
            raise
        return made

    def _prepare(self) -> None:
        """What takes time: imports and the schema."""
        from dbos import DBOS, DBOSClient

        quiet.hush()
        quiet.unpickle_nothing()
        url = self._engine.url.render_as_string(hide_password=False)
        DBOS.migrate(url, schema=database.SCHEMA)
        self.peers.prepare()
        # a queue that is there when DBOS starts is listened to at once, others within a second
        client = DBOSClient(
            system_database_engine=self._engine, dbos_system_schema=database.SCHEMA, application_name=quiet.NAME
        )
        client.register_queue(DEFAULT_QUEUE, worker_concurrency=PLACES, polling_interval_sec=self._poll_s)
        client.destroy()

    def _launch(self, *, run: bool) -> None:
        """Start DBOS from our event loop, which is where it will run the jobs: some 20 ms."""
        from dbos import DBOS

        dbos = DBOS(
            config={
                "name": quiet.NAME,
                "system_database_engine": self._engine,
                "dbos_system_schema": database.SCHEMA,
                "application_version": quiet.VERSION,
                "executor_id": self.peers.me.id,
                "serializer": quiet.serializer(),
                "log_level": "WARNING",
                "enable_otlp": False,
                "run_migrations": False,
                "notification_listener_polling_interval_sec": 0.5,
            }
        )

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MOST_CRASHES)
        async def workflow(name: str, queue: str, arguments: Json) -> Json:
            return await self._work(name, queue, arguments)

        if not run:
            DBOS.listen_queues([])
        self._dbos = dbos
        self._limit(DEFAULT_QUEUE)
        quiet.look_seldom(dbos)
        DBOS.launch()
        quiet.keep_our_threads(dbos)

    @property
    def dbos(self) -> DBOS:
        assert self._dbos is not None
        return self._dbos

    async def start(self) -> None:
        """Begin with the jobs; again after more functions were registered."""
        self._runs.start()
        if orphans := self._runs.adopt():
            await self._give_back(orphans)

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
        await self._add_queue(queue)
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": queue,
            "workflow_id": job_id,
            "priority": priority,
            "app_version": quiet.VERSION,
        }
        await self.ask(self.dbos.enqueue_workflow_with_options, options, name, queue, arguments)

    async def cancel(self, job_ids: Collection[str]) -> None:
        if job_ids:
            await self.ask(self.dbos.cancel_workflows, list(job_ids))
            await self._runs.interrupt(job_ids)

    async def purge(self, job_ids: Collection[str]) -> None:
        if job_ids:
            await self.cancel(job_ids)
            await self.ask(self.dbos.delete_workflows, list(job_ids))
            await self._empty_log()

    async def _empty_log(self) -> None:
        """Leave nothing of what was purged in SQLite's log; where that is in use, `tend` tries again."""
        self._has_rests = not await self.apart(database.empty_log, self._engine)

    async def state(self, job_id: str) -> Job | None:
        found = await self.list(workflow_ids=[job_id], load_input=True, load_output=True)
        return _job(found[0]) if found else None

    def pause(self, queue: str = DEFAULT_QUEUE) -> None:
        self._runs.pause(queue)
        if queue not in self._holds:
            self._holds[queue] = self._hold(queue, self._concurrency)

    def resume(self, queue: str = DEFAULT_QUEUE) -> None:
        for hold in self._holds.pop(queue, ()):
            hold.release()
        self._runs.resume(queue)

    def _limit(self, queue: str) -> None:
        """Leave as many places as jobs may run in this process."""
        self._hold(queue, PLACES - self._concurrency)
        self._queues.add(queue)

    def _hold(self, queue: str, count: int) -> list[ActiveWorkflowEntry]:
        """Take places in DBOS's count of what runs in this process; it begins no more jobs than there are places left.

        What it offers is the number in the queue's row, which is that of all machines: a pause written there would
        stop them all, and for ever if we died meanwhile.
        """
        active = self.dbos._active_workflows_set  # noqa: SLF001
        return [active.add(f"held:{queue}:{secrets.token_hex(4)}", queue) for _ in range(count)]

    async def drain(self) -> None:
        """Stop the jobs that run here and hand them back, for others to go on with or for the next start."""
        if self._is_drained:
            return
        self._is_drained = True
        for queue in self._queues:
            self.pause(queue)
        await self._runs.drain()
        try:
            await self._give_back()
        except StoreError as exc:
            log.warning("jobs: others will take them over after a while: %s", exc)

    async def aclose(self) -> None:
        """Drain and end DBOS with its threads."""
        try:
            await self.drain()
            await self.apart(self.peers.bury, [self.peers.me.id])
        except StoreError as exc:
            log.warning("jobs: %s", exc)
        finally:
            await self._dispose()

    async def tend(self) -> None:
        """Stop what runs here but was cancelled or taken over by another machine; finish what `purge` left."""
        if self._has_rests:
            await self._empty_log()
        if ids := self._runs.ids:
            found = await self.list(workflow_ids=list(ids), status="PENDING", executor_id=self.peers.me.id)
            if lost := ids - {status.workflow_id for status in found}:
                await self._runs.interrupt(lost)

    async def take_over(self) -> None:
        """Show that this process lives, and put the jobs of the dead back into their queues."""
        await self.apart(self.peers.beat)
        if dead := await self.apart(self.peers.dead):
            log.warning("jobs: no sign of life from %s", ", ".join(dead))
            await self.apart(self.peers.bury, dead)
        running = await self.list(status="PENDING")
        owners = {status.executor_id for status in running if status.executor_id} - await self.apart(self.peers.alive)
        if owners:
            # only rows that are still theirs change, so several that do this at once do no harm
            recover = self.dbos._recover_pending_workflows  # noqa: SLF001
            taken = await self.ask(recover, sorted(owners))
            log.info("jobs: %d are queued again", len(taken))
        await self._pick_up(running)

    async def forget_finished(self, before: float, limit: int = 200) -> int:
        """Purge jobs that ended before this time; returns how many."""
        moment = datetime.fromtimestamp(before, UTC).isoformat()
        over = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
        found = await self.list(status=over, completed_before=moment, limit=limit)
        if found:
            await self.ask(self.dbos.delete_workflows, [status.workflow_id for status in found])
        return len(found)

    async def list(self, *, load_input: bool = False, load_output: bool = False, **which: Any) -> list[WorkflowStatus]:
        """Jobs as DBOS describes them."""
        listing = partial(self.dbos.list_workflows, load_input=load_input, load_output=load_output, **which)
        return await self.ask(listing)

    async def apart(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what blocks, in a thread that DBOS does not take for a job. Raises `StoreError`."""
        call = partial(contextvars.Context().run, function, *args, **kwargs)
        with explained(self._place):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def ask(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `apart`, for what DBOS would try again for ever while the database is away: look first if it is there."""

        def call() -> T:
            with self._engine.connect():
                pass
            return function(*args, **kwargs)

        return await self.apart(call)

    async def _add_queue(self, queue: str) -> None:
        if queue not in self._queues:
            self._limit(queue)
            await self.ask(
                self.dbos.register_queue,
                queue,
                worker_concurrency=PLACES,
                polling_interval_sec=self._poll_s,
                on_conflict="always_update",
            )

    async def _work(self, name: str, queue: str, arguments: Json) -> Json:
        """The workflow: one job."""
        job_id = self.dbos.workflow_id
        assert job_id is not None
        return await self._runs.work(job_id, name, queue, arguments, self._record)

    async def _record(self, name: str, step: Step) -> Json:
        async def call() -> Json:
            return await step()

        return await self.dbos.run_step_async({"name": name}, call)

    async def _pick_up(self, running: Iterable[WorkflowStatus]) -> None:
        """Queue again what has been ours for three looks without running: its outcome could not be stored."""
        mine = {status.workflow_id for status in running if status.executor_id == self.peers.me.id}
        idle = mine - self._runs.ids - self._runs.orphans
        self._idle = Counter({job_id: self._idle[job_id] + 1 for job_id in idle})
        if lasting := {job_id for job_id, looks in self._idle.items() if looks >= 3}:
            await self._give_back(lasting)

    async def _give_back(self, these: Collection[str] | None = None) -> None:
        """Queue again which of these, or of all, are ours and do not run.

        What DBOS has just taken from a queue does not run either until it gets to us; given back, it would run twice.
        So "all" is for the end alone, when nothing begins to run.
        """
        from dbos import error

        for status in await self.list(status="PENDING", executor_id=self.peers.me.id):
            job_id, queue = status.workflow_id, status.queue_name or DEFAULT_QUEUE
            if job_id not in self._runs.ids and (these is None or job_id in these):
                with suppress(error.DBOSNonExistentWorkflowError):  # purged since
                    await self.ask(partial(self.dbos.resume_workflows, [job_id], queue_name=queue))

    async def _dispose(self) -> None:
        from dbos import DBOS

        loop = asyncio.get_running_loop()
        if self._dbos is not None:
            # executions that were overtaken wait for the result of another; DBOS would let them wait for ever
            await quiet.end(self._dbos)
        await loop.run_in_executor(self._threads, partial(DBOS.destroy, destroy_registry=True))
        await loop.run_in_executor(self._threads, database.disconnect, self._engine)
        await loop.run_in_executor(None, self._threads.shutdown)


def _job(status: WorkflowStatus) -> Job:
    name, queue = (status.input or {"args": ("", "")})["args"][:2]
    state = _STATES.get(status.status, "failed")
    error = ""
    if state == "failed":
        error = told(status.error) if status.error is not None else "given up: it ran whenever the process died"
    return Job(status.workflow_id, name, queue, state, status.output if state == "done" else None, error)
