"""What a supervisor does about workers that die, hang, refuse and linger, with real processes and a clock of our own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.house import until

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.problems import Problem, SettingsError
from predawn.proxy.settings import Settings
from predawn.proxy.tasks import Tasks
from predawn.proxy.workers.plan import Plan
from predawn.proxy.workers.supervisor import FAILED_STARTS, Supervisor

SCRIPT = Path(__file__).with_name("scripted_worker.py")


def plan(parts: dict[str, str], workers: int = 2, **server: Any) -> Plan:
    settings = Settings.model_validate({"server": {"port": 0, "workers": workers, **server}, "state": "state.db"})
    return Plan.read(json.dumps(parts).encode(), settings)


class Fleet:
    """A supervisor at work; `next` is what it reads at its next reload."""

    def __init__(self, supervisor: Supervisor, clock: ManualClock, run: asyncio.Task[int]) -> None:
        self.supervisor = supervisor
        self.clock = clock
        self.run = run
        self.next: Plan | Exception = supervisor.plan

    @property
    def pids(self) -> dict[int, int]:
        """The processes that serve, by number."""
        return {number: one.process.pid for number, one in sorted(self.supervisor.workers.items()) if one.is_serving}

    async def serve(self, count: int) -> dict[int, int]:
        """Wait until so many serve; time goes on meanwhile."""
        await until(lambda: len(self.pids) == count)
        return self.pids

    async def restarted(self, numbers: set[int], before: dict[int, int]) -> None:
        """Wait until these were replaced."""

        def replaced() -> bool:
            now = self.pids
            return now.keys() >= numbers and all(now[number] != before.get(number) for number in numbers)

        async with asyncio.timeout(10):
            while not replaced():
                await self.clock.jump()
                await asyncio.sleep(0.005)

    async def ended(self) -> int:
        async with asyncio.timeout(10):
            while not self.run.done():
                await self.clock.jump()
                await asyncio.sleep(0.005)
        return await self.run


@pytest.fixture
def fleet(tmp_path: Path) -> Callable[[Plan], Any]:
    @asynccontextmanager
    async def start(first: Plan) -> AsyncIterator[Fleet]:
        clock, tasks, spawned = ManualClock(), Tasks(), Tasks()
        made: list[Fleet] = []

        def read() -> Plan:
            found = made[0].next
            if isinstance(found, Exception):
                raise found
            return found

        command = [sys.executable, "-I", "-S", str(SCRIPT), str(tmp_path)]
        supervisor = Supervisor(command, first.bound(), read, clock, tasks)
        made.append(Fleet(supervisor, clock, spawned.spawn(supervisor.run(), "supervisor")))
        try:
            yield made[0]
        finally:
            for worker in supervisor.every:
                worker.send(signal.SIGKILL)
            supervisor.stop(signal.SIGTERM)
            await made[0].ended()

    return start


async def test_a_worker_that_is_killed_is_replaced_and_the_others_are_not(fleet: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        os.kill(before[1], signal.SIGKILL)
        await running.restarted({1}, before)

        assert running.pids[2] == before[2]


async def test_what_keeps_the_first_worker_from_serving_ends_the_whole_at_once(fleet: Any) -> None:
    async with fleet(plan({"1": "die"})) as running:
        status = await running.ended()

        assert status == 1
        assert running.supervisor.failed_starts == 0


async def test_where_no_process_can_be_started_the_first_ends_the_whole(fleet: Any, caplog: Any) -> None:
    async with fleet(plan({})) as running:
        running.supervisor._command = ["/no/such/program"]

        assert await running.ended() == 1
        assert "worker 1 cannot be started: " in caplog.text


async def test_where_no_process_can_be_started_it_is_tried_again(fleet: Any, caplog: Any) -> None:
    async with fleet(plan({}, hang_s=1000)) as running:
        before = await running.serve(2)
        command, running.supervisor._command = running.supervisor._command, ["/no/such/program"]
        os.kill(before[2], signal.SIGKILL)
        async with asyncio.timeout(10):
            while running.supervisor.failed_starts < 2:
                await running.clock.jump()
                await asyncio.sleep(0.005)
        running.supervisor.order("restart")
        await until(lambda: "the successor of worker 1 did not come to serve" in caplog.text)
        running.supervisor._command = command
        await running.restarted({2}, before)
        running.supervisor.order("restart")
        await running.restarted({1, 2}, before)


async def test_workers_that_never_come_to_serve_are_given_up(fleet: Any) -> None:
    async with fleet(plan({"all": "once"})) as running:
        for pid in (await running.serve(2)).values():
            os.kill(pid, signal.SIGKILL)
        status = await running.ended()

        assert status == 1
        assert running.supervisor.failed_starts >= FAILED_STARTS


async def test_one_that_never_comes_to_serve_does_not_end_the_others(fleet: Any) -> None:
    async with fleet(plan({"2": "once"}, hang_s=1000)) as running:
        before = await running.serve(2)
        places = [one.api for one in running.supervisor.plan.sockets]
        os.kill(before[2], signal.SIGKILL)
        async with asyncio.timeout(10):
            while running.supervisor.failed_starts <= FAILED_STARTS:
                await running.clock.jump()
                await asyncio.sleep(0.005)

        assert running.pids == {1: before[1]}
        assert [one.api is place for one, place in zip(running.supervisor.plan.sockets, places, strict=True)] == [
            True,
            False,
        ]


async def test_a_worker_that_serves_and_dies_again_and_again_is_not_given_up(fleet: Any) -> None:
    async with fleet(plan({})) as running:
        await running.serve(2)
        for _ in range(FAILED_STARTS + 1):
            before = running.pids
            os.kill(before[2], signal.SIGKILL)
            await running.restarted({2}, before)

        assert not running.run.done()


async def test_a_worker_that_gives_no_sign_of_life_is_replaced(fleet: Any) -> None:
    async with fleet(plan({"2": "mute"}, hang_s=2)) as running:
        before = await running.serve(2)
        os.kill(before[2], signal.SIGSTOP)  # it would die of SIGABRT, else
        await running.clock.advance(1)
        running.supervisor.workers[1].silent_s = -1000
        await running.restarted({2}, before)

        assert running.pids[1] == before[1]


async def test_settings_come_into_force_when_all_workers_are_ready_for_them(fleet: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        running.next = plan({"all": "stay"})
        running.supervisor.order("reload")
        await until(lambda: running.supervisor.plan.raw == running.next.raw)

        assert running.pids == before


async def test_settings_that_one_worker_refuses_come_into_force_nowhere(fleet: Any, caplog: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        old = running.supervisor.plan
        running.next = plan({"2": "refuse"})
        running.supervisor.order("reload")
        await until(lambda: "1 of 2 workers cannot serve with it" in caplog.text)

        assert running.supervisor.plan is old
        assert running.pids == before


async def test_a_worker_that_agreed_to_settings_and_fails_is_replaced_by_one_that_has_them(fleet: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        running.next = plan({"1": "lapse"})
        running.supervisor.order("reload")
        await running.restarted({1}, before)

        assert running.supervisor.plan.raw == running.next.raw
        assert running.pids[2] == before[2]


async def test_settings_that_do_not_load_are_refused_once(fleet: Any, caplog: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        running.next = SettingsError("predawn.yaml", [Problem(("modells",), "unknown")])
        running.supervisor.order("reload")
        await until(lambda: "reload: predawn.yaml: modells: unknown" in caplog.text)

        assert caplog.text.count("reload failed") == 1
        assert running.pids == before


async def test_a_worker_that_is_started_again_has_the_settings_in_force_whatever_the_file_says(fleet: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        running.next = plan({"1": "die"})
        os.kill(before[1], signal.SIGKILL)
        await running.restarted({1}, before)

        assert len(running.pids) == 2


async def test_what_a_reload_cannot_change_makes_new_workers(fleet: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        running.next = plan({}, body_limit_mb=1)
        running.supervisor.order("reload")
        await running.restarted({1, 2}, before)
        await until(lambda: not running.supervisor.others)

        assert running.supervisor.plan.settings.server.body_limit_mb == 1


async def test_a_successor_that_does_not_serve_leaves_everything_as_it_was(fleet: Any, caplog: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        old = running.supervisor.plan
        running.next = plan({"1": "stay", "2": "die"}, body_limit_mb=1)
        running.supervisor.order("reload")
        await until(lambda: "the old settings stay in force" in caplog.text)

        def taken_back() -> bool:
            """The one that had the new settings drains, and a third serves in its place."""
            leaving = {one.process.pid for one in running.supervisor.others if one.is_leaving} - {before[1]}
            return len(leaving) == 1 and running.pids.get(1) not in {None, before[1], *leaving}

        await until(taken_back)

        assert running.supervisor.plan is old
        assert running.pids[2] == before[2]
        assert all(one.fileno() > 0 for one in old.every)


@pytest.mark.parametrize("count", [1, 3])
async def test_the_number_of_workers_can_be_changed(count: int, fleet: Any) -> None:
    async with fleet(plan({})) as running:
        await running.serve(2)
        first = running.supervisor.plan.sockets[0].admin[0].getsockname()
        running.next = plan({}, workers=count)
        running.supervisor.order("reload")
        await until(lambda: len(running.supervisor.plan.sockets) == count and len(running.pids) == count)
        await until(lambda: not running.supervisor.others)

        assert running.supervisor.plan.sockets[0].admin[0].getsockname() == first


async def test_a_port_that_is_taken_refuses_the_reload(fleet: Any, caplog: Any) -> None:
    other = plan({}).bound()
    with other.sockets[0].api[0] as taken:
        taken.listen()
        async with fleet(plan({})) as running:
            before = await running.serve(2)
            running.next = plan({}, port=taken.getsockname()[1])
            running.supervisor.order("reload")
            await until(lambda: "by another program" in caplog.text)

            assert running.pids == before
    other.close()


async def test_a_worker_that_still_drains_is_spared_the_signal_that_would_cut_it_short(fleet: Any) -> None:
    async with fleet(plan({"1": "stay"})) as running:
        before = await running.serve(2)
        running.supervisor.order("restart")
        await running.restarted({1, 2}, before)
        running.supervisor.stop(signal.SIGTERM)
        await until(lambda: [one.process.pid for one in running.supervisor.every] == [before[1]])
        running.supervisor.stop(signal.SIGTERM)

        assert await running.ended() == 0


async def test_a_worker_that_somebody_else_told_to_stop_is_replaced(fleet: Any) -> None:
    async with fleet(plan({})) as running:
        before = await running.serve(2)
        os.kill(before[2], signal.SIGTERM)
        await running.restarted({2}, before)

        assert running.pids[1] == before[1]


async def test_orders_that_pile_up_are_carried_out_once(fleet: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    async with fleet(plan({})) as running:
        for _ in range(50):
            running.supervisor.order("reload")
        await until(lambda: "2 workers reloaded" in caplog.text)
        await running.serve(2)
        await running.clock.advance(1)

        assert caplog.text.count("2 workers reloaded") == 1


async def test_a_signal_while_they_start_ends_them_all(fleet: Any) -> None:
    async with fleet(plan({})) as running:
        await until(lambda: bool(running.supervisor.every))
        running.supervisor.stop(signal.SIGTERM)

        assert await running.ended() == 0
        assert running.supervisor.every == []
