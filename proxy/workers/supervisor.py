"""The parent of the workers: starts, replaces, reloads and stops them, and serves nobody itself."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from predawn.proxy import logs
from predawn.proxy.clock import SystemClock
from predawn.proxy.problems import SettingsError
from predawn.proxy.restarts import fixed
from predawn.proxy.tasks import Tasks
from predawn.proxy.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from predawn.proxy.clock import Clock
    from predawn.proxy.workers.plan import Plan

log = logging.getLogger("predawn.workers")
RESTART_PAUSE_S: Final = 1.0
YOUNG_S: Final = 5.0
"""A worker that dies younger than this is started again after a pause only."""
LONGEST_PAUSE_S: Final = 30.0
FAILED_STARTS: Final = 5
"""So many starts in a row that came to nothing while no worker serves, and the supervisor gives up."""


class Supervisor:
    """Built on a running loop, with a plan that has its sockets."""

    def __init__(
        self,
        command: Sequence[str],
        plan: Plan,
        read: Callable[[], Plan],
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self.plan = plan
        self.workers: dict[int, Worker] = {}
        """By number, counted from 1: those that serve, or are being started to."""
        self.others: set[Worker] = set()
        """Successors that do not serve yet, and predecessors that still have streams."""
        self._command = command
        self._read = read
        self._clock = clock
        self._tasks = tasks
        self._stopping = False
        self.failed_starts = 0
        self._orders: asyncio.Queue[str] = asyncio.Queue()
        self._done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._status = 0

    @property
    def every(self) -> list[Worker]:
        """All processes."""
        return [*self.workers.values(), *self.others]

    async def run(self) -> int:
        """Supervise until a signal ends it, and all workers are gone. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGHUP, self.order, "reload")
        loop.add_signal_handler(signal.SIGUSR2, self.order, "restart")
        self._tasks.spawn(self._tick(), "hearts")
        self._tasks.spawn(self._follow(), "orders")
        try:
            return await self._done
        finally:
            await self._tasks.cancel()
            self.plan.close()

    # -- signals

    def order(self, order: str) -> None:
        """Do something next: `reload`, or `restart` all workers."""
        if self._orders.empty():  # what is asked for again before it was begun needs to be done once
            self._orders.put_nowait(order)
        elif order == "restart":
            self._orders.get_nowait()
            self._orders.put_nowait(order)

    def stop(self, number: int) -> None:
        """End all workers by this signal; the second time at once."""
        again, self._stopping = self._stopping, True
        if not again:
            log.info("stopping the workers")
            self.plan.close()  # theirs stay open for as long as they accept
        for worker in self.every:
            if again or not worker.is_leaving:  # to one that leaves it would be the second signal
                worker.signal(number)
        self._reap()

    def _reap(self) -> None:
        for worker in self.every:
            if worker.ended():
                self._gone(worker)
        if self._stopping and not self.every and not self._done.done():
            self._done.set_result(self._status)

    def _gone(self, worker: Worker) -> None:
        self.others.discard(worker)
        is_missed = self.workers.get(worker.number) is worker
        if is_missed:
            del self.workers[worker.number]
        status = worker.process.returncode
        if self._stopping or (worker.is_leaving and status == 0):
            log.info("%r ended", worker)
        elif not worker.served.result():  # whoever started it is told
            log.error("%r ended with %d before it served", worker, status)
        elif is_missed:
            log.error("%r ended with %d; starting another", worker, status)
            pause_s = RESTART_PAUSE_S if worker.age_s < YOUNG_S else 0.0
            self._tasks.spawn(self._keep(worker.number, pause_s), f"worker-{worker.number}")
        else:
            log.error("%r ended with %d while it drained", worker, status)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(1.0)
            for worker in self.every:
                if worker.tick(self.plan.settings.server.hang_s):
                    log.error("%r gave no sign of life for %d s; killing it", worker, worker.silent_s - 1)
            self._reap()

    # -- workers

    async def _start(self, number: int, plan: Plan) -> Worker | None:
        """`None` where there can be no process: no memory for one, or too many already."""
        try:
            worker = await Worker.start(self._command, number, plan.sockets[number - 1], plan.raw, self._leaves)
        except OSError as exc:
            log.error("worker %d cannot be started: %s", number, exc)
            return None
        if self._stopping:
            worker.signal(signal.SIGTERM)
        return worker

    def _leaves(self, worker: Worker) -> None:
        """Somebody else told this worker to stop: another takes its place while it drains."""
        if self._stopping or self.workers.get(worker.number) is not worker:
            return
        log.warning("%r was told to stop by somebody else; starting another", worker)
        del self.workers[worker.number]
        self.others.add(worker)
        self._tasks.spawn(self._keep(worker.number, 0.0), f"worker-{worker.number}")

    async def _keep(self, number: int, pause_s: float) -> None:
        """Start a worker, again and again if it must be; give up after so many failures in a row."""
        while not self._stopping:
            await self._clock.sleep(pause_s)
            if self._stopping or number in self.workers or number > len(self.plan.sockets):
                return
            worker = await self._start(number, self.plan)
            if worker is not None:
                self.workers[number] = worker
            if worker is not None and await worker.served:
                self.failed_starts = 0
                for other in self.others:
                    if other.number == number and other.is_leaving:
                        other.retire()  # it accepts no more where this one does
                return
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS and not any(worker.is_serving for worker in self.every):
                self._give_up("workers end before they serve")
                return
            with suppress(OSError):  # the sockets stay as they are
                self.plan.leave(number)
            pause_s = min(2 * pause_s or RESTART_PAUSE_S, LONGEST_PAUSE_S)

    def _give_up(self, why: str) -> None:
        if not self._stopping:
            log.error("%s; giving up", why)
            self._status = 1
            self.stop(signal.SIGTERM)

    # -- orders

    async def _follow(self) -> None:
        if not await self._begin():
            return
        while True:
            order = await self._orders.get()
            if self._stopping:
                return
            if order == "reload":
                await self._reload()
            else:
                log.info("restarting all workers, one by one")
                await self._roll(self.plan)

    async def _begin(self) -> bool:
        """Start the first alone: what keeps it from serving would keep all, and what it sets up is ready for them."""
        worker = await self._start(1, self.plan)
        if worker is not None:
            self.workers[1] = worker
        if worker is None or not await worker.served:
            self._give_up("the first worker did not come to serve")
            self._reap()
            return False
        count = len(self.plan.sockets)
        others = [self._tasks.spawn(self._keep(number, 0.0), f"worker-{number}") for number in range(2, count + 1)]
        if others:
            await asyncio.wait(others)
        if not self._stopping:
            log.info("%s", self.plan)
        return True

    async def _reload(self) -> None:
        try:
            plan = await asyncio.to_thread(self._read)
            late = fixed(self.plan.settings, plan.settings)
            bound = await asyncio.to_thread(plan.bound, self.plan)
        except (SettingsError, OSError, ImportError) as exc:
            self._refuse(str(exc))
            return
        if late:
            log.info("changes of %s: restarting all workers, one by one", ", ".join(late))
            await self._roll(bound)
        else:
            await self._agree(bound)

    def _refuse(self, why: str) -> None:
        log.error("reload failed, the old settings stay in force")
        for line in why.splitlines():
            log.error("reload: %s", line)
        for worker in self.workers.values():
            worker.tell("failed")

    async def _agree(self, plan: Plan) -> None:
        """Reload everywhere or nowhere: each worker prepares, and the settings come into force when all are ready."""
        asked = [worker for worker in self.workers.values() if worker.is_serving]
        text = plan.raw.decode("utf-8", "surrogateescape")
        answers = await asyncio.gather(*(worker.ask("load", text) for worker in asked))
        if set(answers) - {"prepared"}:
            waiting = [worker for worker, answer in zip(asked, answers, strict=True) if answer == "prepared"]
            await asyncio.gather(*(worker.ask("abort") for worker in waiting))
            log.error("reload failed: %d of %d workers cannot serve with it", len(asked) - len(waiting), len(asked))
            return
        answers = await asyncio.gather(*(worker.ask("commit") for worker in asked))
        self._take(plan)
        log.info("%d workers reloaded", answers.count("reloaded"))
        current = {worker for worker, answer in zip(asked, answers, strict=True) if answer == "reloaded"}
        if stale := [number for number, worker in self.workers.items() if worker not in current]:
            await self._roll(plan, stale)

    def _take(self, plan: Plan) -> None:
        old, self.plan = self.plan, plan
        old.close(unlike=plan)
        logs.configure(plan.settings.server.log, secrets=logs.secrets_in(plan.settings))

    # -- one after the other

    async def _roll(self, plan: Plan, numbers: Sequence[int] = ()) -> None:
        """Replace workers by successors that serve by `plan`; the old plan stays in force if one of them fails."""
        old = self.plan
        replaced: list[int] = []
        for number in numbers or range(1, len(plan.sockets) + 1):
            if not await self._replace(number, plan):
                if not self._stopping:
                    log.error("the successor of worker %d did not come to serve; the others stay as they are", number)
                break
            replaced.append(number)
        else:
            for number in [number for number in self.workers if number > len(plan.sockets)]:
                self._retire(number)
            if plan is not old:
                self._take(plan)
            log.info("%s", plan)
            return
        if plan is not old and not self._stopping:
            log.error("reload failed, the old settings stay in force")
            for number in replaced:
                if number > len(old.sockets):
                    self._retire(number)
                else:
                    await self._replace(number, old)
            plan.close(unlike=old)

    async def _replace(self, number: int, plan: Plan) -> bool:
        if self._stopping:
            return False
        successor = await self._start(number, plan)
        if successor is None:
            return False
        self.others.add(successor)
        if not await successor.served:
            return False
        self.others.discard(successor)
        if number in self.workers:
            self._retire(number)
        self.workers[number] = successor
        return True

    def _retire(self, number: int) -> None:
        worker = self.workers.pop(number)
        self.others.add(worker)
        worker.retire()


async def supervise(command: Sequence[str], plan: Plan, read: Callable[[], Plan]) -> int:
    """Run the workers of a plan without sockets until a signal ends them; the exit status. Raises `OSError`.

    `command` starts a worker when `--worker N` is put behind it; `read` reads the settings again.
    """
    return await Supervisor(command, plan.bound(), read, SystemClock(), Tasks()).run()
