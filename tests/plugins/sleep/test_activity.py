"""Processes on one store hear of each other's requests."""

import pytest

from predawn.plugins.sleep.activity import EVERY_S, Activity
from predawn.plugins.sleep.gate import Gate, GateRules
from predawn.proxy.store_errors import StoreError
from predawn.proxy.tasks import Tasks


class Process:
    """One process's gate and what it tells the others."""

    def __init__(self, store, clock, idle_s=5):
        self.gate = Gate(GateRules(idle_s=idle_s), clock)
        self.activity = Activity(store, self.gate)

    def begins(self, place="up"):
        self.gate.began(place)
        self.activity.came(place)


@pytest.fixture
async def two(store, clock):
    processes = [Process(store, clock) for _ in range(2)]
    for process in processes:
        await process.activity.look()
    return processes


async def test_a_request_closes_the_gates_of_other_processes_and_ends_their_calls(two):
    here, there = two
    ended = []
    there.gate.enter("up", lambda: ended.append("call"))
    here.begins()
    await here.activity.look()
    await there.activity.look()

    assert ended == ["call"]
    assert there.gate.closed("up").why == "quiet"
    assert there.gate.closed("elsewhere") is None


async def test_a_request_that_was_over_between_two_looks_is_heard_of(two):
    here, there = two
    here.begins()
    here.gate.ended("up")
    await here.activity.look()
    await there.activity.look()

    assert there.gate.closed("up") is not None


async def test_what_could_not_be_told_is_told_by_the_next_look(two, store, monkeypatch):
    async def away(trip):
        raise StoreError("away")

    here, there = two
    here.begins()
    here.gate.ended("up")
    monkeypatch.setattr(type(store), "visit", lambda _store, trip: away(trip))
    with pytest.raises(StoreError):
        await here.activity.look()
    monkeypatch.undo()
    await here.activity.look()
    await there.activity.look()

    assert there.gate.closed("up") is not None


async def test_a_request_that_lasts_keeps_the_gates_closed(two, clock):
    here, there = two
    here.begins()
    for _ in range(5):
        await clock.advance(4)
        await here.activity.look()
        await there.activity.look()

    assert there.gate.closed("up") is not None
    here.gate.ended("up")
    await here.activity.look()
    await there.activity.look()
    await clock.advance(6)
    assert there.gate.closed("up") is None


async def test_nobody_hears_himself(two, clock):
    here, _ = two
    here.begins()
    await here.activity.look()
    here.gate.ended("up")
    await clock.advance(6)
    await here.activity.look()

    assert here.gate.closed("up") is None


async def test_what_happened_before_a_start_is_not_news(two, store, clock):
    two[0].begins()
    await two[0].activity.look()
    late = Process(store, clock)
    await late.activity.look()

    assert late.gate.closed("up") is None


async def test_both_hear_each_other(two, clock):
    here, there = two
    for process in two:
        process.begins()
    await here.activity.look()
    await there.activity.look()
    for process in two:
        process.gate.ended("up")
    await clock.advance(6)
    await here.activity.look()

    assert here.gate.closed("up").why == "quiet"


@pytest.mark.parametrize("why", ["nothing", "a brief quiet", "call", "call that ended", "request", "brief request"])
async def test_where_there_is_nothing_to_tell_and_no_call_to_end_it_looks_seldom(store, clock, monkeypatch, why):
    here = Process(store, clock, idle_s=1.2 if why == "a brief quiet" else 1.25)
    looks = []

    async def look():
        looks.append(clock.monotonic())
        here.activity._came.clear()

    def end():
        """End the call."""

    monkeypatch.setattr(here.activity, "look", look)
    if why == "call that ended":
        here.gate.enter("up", end)
        here.gate.leave("up", end)
    running = Tasks().spawn(here.activity.run(clock), "activity")
    try:
        await clock.advance(0)
        if why == "call":
            here.gate.enter("up", end)
        elif why == "request":
            here.gate.began("up")
        elif why == "brief request":
            here.activity.came("up")
        for _ in range(8):
            await clock.advance(EVERY_S)
    finally:
        running.cancel()

    often = {"a brief quiet", "call", "request"}
    assert len(looks) == (9 if why in often else 3)
    assert (looks[1] - looks[0] < 2 * EVERY_S) == (why in {*often, "brief request"})
