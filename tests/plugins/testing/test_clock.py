from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.testing import ManualClock, settle
from predawn.proxy.clock import Clock
from predawn.proxy.tasks import Tasks


async def test_time_stands_still_until_it_is_advanced() -> None:
    clock: Clock = ManualClock(start=100)
    sleeping = Tasks().spawn(clock.sleep(5), "sleep")
    await settle()

    assert not sleeping.done()
    assert (clock.now(), clock.monotonic()) == (100, 0)


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=8))
def test_sleepers_wake_in_the_order_in_which_they_are_due(delays: list[float]) -> None:
    async def go() -> list[tuple[float, int]]:
        clock, tasks = ManualClock(), Tasks()
        woken: list[tuple[float, int]] = []

        async def sleeper(place: int, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append((clock.monotonic(), place))

        for place, seconds in enumerate(delays):
            tasks.spawn(sleeper(place, seconds), "sleeper")
        await clock.advance(10)
        return woken

    assert asyncio.run(go()) == sorted((seconds, place) for place, seconds in enumerate(delays))


async def test_whoever_sleeps_again_wakes_again_within_one_advance() -> None:
    clock, tasks = ManualClock(), Tasks()
    times: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(2)
            times.append(clock.monotonic())

    tasks.spawn(tick(), "tick")
    await clock.advance(7)
    await tasks.cancel()

    assert times == [2, 4, 6]
    assert clock.monotonic() == 7


async def test_a_cancelled_sleeper_is_not_waited_for() -> None:
    clock, tasks = ManualClock(), Tasks()
    tasks.spawn(clock.sleep(3), "sleep")
    await settle()
    await tasks.cancel()

    assert clock.next_due is None
    assert not await clock.jump()


async def test_jump_moves_to_whoever_is_due_first() -> None:
    clock, tasks = ManualClock(), Tasks()
    later, sooner = tasks.spawn(clock.sleep(9), "later"), tasks.spawn(clock.sleep(4), "sooner")
    await settle()

    assert await clock.jump()
    assert (sooner.done(), later.done(), clock.monotonic()) == (True, False, 4)
    assert repr(clock) == "<ManualClock 4 s, 1 asleep>"
    await tasks.cancel()


async def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        await ManualClock().advance(-1)
