"""Jobs are opened when asked for, tended while open, and explain what they lack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from predawn.plugins.testing.clock import ManualClock, settle
from predawn.proxy.clock import SystemClock
from predawn.proxy.jobs import reaper
from predawn.proxy.jobs.opening import JobsOpener, no_jobs
from predawn.proxy.jobs.protocol import JobsError
from predawn.proxy.settings import Settings
from predawn.proxy.store_errors import StoreError
from predawn.proxy.tasks import Tasks


def opener(tmp_path: Path, tasks: Tasks) -> JobsOpener:
    return JobsOpener(Settings(state=str(tmp_path / "state.db")), SystemClock(), tasks, runs=True)


async def test_what_nobody_asks_for_is_not_opened(tmp_path: Path, tasks: Tasks) -> None:
    jobs = opener(tmp_path, tasks)

    await jobs.start()
    await jobs.drain()
    await jobs.aclose()

    assert not jobs.is_open
    assert list(tmp_path.iterdir()) == []


async def test_all_who_ask_get_the_same_engine(tmp_path: Path, tasks: Tasks) -> None:
    jobs = opener(tmp_path, tasks)
    try:
        assert await jobs() is await jobs()
        assert jobs.is_open
    finally:
        await jobs.aclose()


async def test_a_missing_package_is_named(tmp_path: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dbos", None)

    with pytest.raises(JobsError, match=r"pip install 'predawn\[jobs\]'"):
        await opener(tmp_path, tasks)()


async def test_where_nothing_keeps_jobs_that_is_said() -> None:
    with pytest.raises(JobsError):
        await no_jobs()


class Tended:
    """Counts what is done to it; its store is away while `is_away`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.before: list[float] = []
        self.is_away = False

    async def tend(self) -> None:
        if self.is_away:
            raise StoreError("away")
        self.done.append("tend")

    async def take_over(self) -> None:
        self.done.append("look")

    async def forget_finished(self, before: float) -> int:
        self.before.append(before)
        return 0


async def tended(clock: ManualClock, tasks: Tasks) -> Any:
    engine: Any = Tended()
    tasks.spawn(reaper.keep(engine, clock, keep_finished_s=100), "keep")
    await settle()
    return engine


async def test_the_living_show_themselves_every_three_seconds(clock: ManualClock, tasks: Tasks) -> None:
    engine = await tended(clock, tasks)
    await clock.advance(30)

    assert engine.done.count("look") == 11
    assert engine.done.count("tend") == 31


async def test_finished_jobs_are_forgotten_once_a_minute(clock: ManualClock, tasks: Tasks) -> None:
    began = clock.now()
    engine = await tended(clock, tasks)
    await clock.advance(120)

    assert engine.before == [began - 100, began - 40, began + 20]


async def test_a_store_that_is_away_is_told_once_and_tried_again(
    clock: ManualClock, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await tended(clock, tasks)
    engine.is_away = True
    await clock.advance(10)
    engine.is_away = False
    engine.done.clear()
    await clock.advance(4)

    assert [record.getMessage() for record in caplog.records] == ["jobs: away"]
    assert engine.done.count("look") >= 1
