"""Checks beside the generation: bounded, timed, isolated, and never without an end."""

import asyncio

import pytest
from tests.plugins.verify.test_trace import registered
from tests.plugins.verify.wary import PASS, Does

from predawn.plugins import Exchange, Verdict
from predawn.plugins.testing import settle
from predawn.plugins.verify import runner
from predawn.plugins.verify.reading import CONTENT, Piece
from predawn.plugins.verify.runner import Checks, Runner, RunnerLimits
from predawn.plugins.verify.trace import Trace
from predawn.proxy.extensions import RegisteredVerifier
from predawn.proxy.tasks import Tasks


class Counting:
    def __init__(self):
        self.seen = []

    def checked(self, check):
        self.seen.append(check.why or check.verdict.outcome)


class Desk:
    """A runner, and an answer of so many steps for it."""

    def __init__(self, verifier, **limits):
        self.tasks = Tasks()
        self.meters = Counting()
        self.runner = Runner(self.tasks, RunnerLimits(**limits), self.meters)
        self.verifier = verifier
        self.settled = []

    def answer(self, steps=3):
        checks = Checks(self.runner, Exchange(b"{}"), self.settled.append)
        trace = Trace([self.verifier])
        made = trace.feed(Piece(CONTENT, "".join(f"Step {number}. " for number in range(steps))))
        for check in made:
            checks.add(check)
        return checks

    @property
    def outcomes(self):
        return [check.verdict.outcome for check in self.settled]


def does(what, **more):
    made = registered(Does("does", what))
    kept = {"timeout_s": more.get("timeout_s", 5.0), "fails": more.get("fails", "open")}
    return RegisteredVerifier(made.name, made.boundary, made.verify, made.reads, **kept)


async def test_verdicts_come_with_the_name_of_their_verifier():
    desk = Desk(does(lambda step, _: PASS))
    desk.answer()
    await settle()

    assert desk.outcomes == ["pass"] * 3
    assert {check.verdict.verifier for check in desk.settled} == {"does"}


async def test_only_so_many_checks_of_an_answer_run_at_a_time():
    running, gate = [], asyncio.Event()

    async def wait(step):
        running.append(step.index)
        await gate.wait()
        return PASS

    desk = Desk(does(lambda step, _: wait(step)), per_answer=2)
    desk.answer(5)
    await settle()

    assert running == [0, 1]
    gate.set()
    await settle()
    assert running == [0, 1, 2, 3, 4]
    assert len(desk.settled) == 5


async def test_answers_take_turns():
    order, gate = [], asyncio.Event()

    async def wait(exchange):
        order.append(exchange)
        await gate.wait()
        return PASS

    desk = Desk(does(lambda _, exchange: wait(exchange)), at_once=4)
    first, second = desk.answer(3), desk.answer(3)
    await settle()

    assert [exchange is first.exchange for exchange in order] == [True, False, True, False]
    gate.set()
    await settle()
    assert len(order) == 6
    assert second.is_idle


async def test_beyond_the_limit_the_oldest_is_passed_over():
    gate = asyncio.Event()

    async def wait():
        await gate.wait()
        return PASS

    desk = Desk(does(lambda *_: wait()), at_once=1, waiting=2)
    desk.answer(6)
    await settle()

    assert [check.step.index for check in desk.settled] == [0, 1, 2, 3]
    assert desk.outcomes == ["unsure"] * 4
    gate.set()
    await settle()
    assert desk.outcomes == ["unsure"] * 4 + ["pass"] * 2
    assert desk.runner.shed == 4


@pytest.mark.parametrize(("fails", "outcome"), [("open", "unsure"), ("closed", "violation")])
async def test_a_verifier_that_raises_harms_nobody_else(fails, outcome, caplog):
    def raises(step, _):
        if step.index == 1:
            raise RuntimeError("no")
        return PASS

    desk = Desk(does(raises, fails=fails))
    desk.answer()
    await settle()

    assert sorted(desk.outcomes) == sorted(["pass", outcome, "pass"])
    assert "error" in desk.meters.seen
    assert "verifier does failed" in caplog.text


async def test_a_verifier_that_takes_too_long_is_ended():
    over = asyncio.Event()

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    desk = Desk(does(lambda *_: forever(), timeout_s=0.01))
    desk.answer(1)
    async with asyncio.timeout(5):
        await over.wait()
    await settle()

    assert desk.meters.seen == ["timeout"]


@pytest.mark.parametrize("nonsense", [None, "pass", True])
async def test_what_is_no_verdict_is_a_failure(nonsense):
    desk = Desk(does(lambda *_: nonsense))
    desk.answer(1)
    await settle()

    assert desk.meters.seen == ["error"]


async def test_dropped_checks_are_cancelled_and_not_told_of():
    ended = []

    async def forever(step):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(step.index)

    desk = Desk(does(lambda step, _: forever(step)), per_answer=2)
    checks = desk.answer(4)
    await settle()
    checks.close()
    await settle()

    assert ended == [0, 1]
    assert desk.settled == []
    assert checks.is_idle
    assert len(desk.tasks) == 0


async def test_a_flood_of_feedback_is_cut():
    desk = Desk(does(lambda *_: Verdict("violation", feedback="x" * 100_000)))
    desk.answer(1)
    await settle()

    assert len(desk.settled[0].verdict.feedback) == 2000


async def test_a_verifier_that_does_not_end_loses_its_place():
    gate = asyncio.Event()

    async def stubborn(step):
        while step.index == 0 and not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return PASS

    desk = Desk(does(lambda step, _: stubborn(step), timeout_s=0.01), at_once=1)
    desk.answer(2)
    async with asyncio.timeout(5):
        while len(desk.settled) < 2:
            await asyncio.sleep(0)

    assert desk.meters.seen == ["timeout", "pass"]
    gate.set()
    await settle()
    assert len(desk.settled) == 2
    assert len(desk.tasks) == 0


@pytest.mark.parametrize(
    "nonsense", [Verdict("maybe"), Verdict("violation", None), Verdict("violation", "", "", "x" * (1 << 20))]
)
async def test_a_verdict_that_nobody_could_use_is_a_failure(nonsense):
    desk = Desk(does(lambda *_: nonsense))
    desk.answer(1)
    await settle()

    assert desk.meters.seen == ["error"]


async def test_what_was_dropped_takes_no_room_among_those_that_wait():
    gate = asyncio.Event()

    async def wait():
        await gate.wait()
        return PASS

    desk = Desk(does(lambda *_: wait()), at_once=1, waiting=3)
    desk.answer(1)
    await settle()
    desk.answer(3).close()
    desk.answer(3)
    await settle()

    assert desk.runner.shed == 0
    gate.set()
    await settle()
    assert desk.outcomes == ["pass"] * 4


async def test_one_that_waits_long_does_not_make_the_others_pile_up():
    gate = asyncio.Event()

    async def wait(step):
        if step.choice == 0:
            await gate.wait()
        return PASS

    desk = Desk(does(lambda step, _: wait(step)), per_answer=1, at_once=2)
    desk.answer(2)
    other = Checks(desk.runner, Exchange(b"{}"), desk.settled.append)
    for number in range(500):
        (check,) = Trace([desk.verifier], 1).feed(Piece(CONTENT, f"Step {number}. "))
        other.add(check)
        await settle()

    assert len(desk.settled) == 500
    assert len(desk.runner._waiting) == 1
    gate.set()
    await settle()


async def test_what_is_over_keeps_no_text():
    def reads(step, _):
        assert len(step.before) == step.start
        return PASS

    desk = Desk(does(reads))
    desk.answer(100)
    await settle()
    while len(desk.settled) < 100:
        await settle()

    assert desk.outcomes == ["pass"] * 100
    assert [check for check in desk.settled if check.cut._step is not None] == []
    assert not desk.runner._waiting


async def test_a_flood_costs_nobody_else_their_word():
    gate = asyncio.Event()

    async def wait():
        await gate.wait()
        return PASS

    desk = Desk(does(lambda *_: wait()), at_once=1, waiting=10)
    desk.answer(1)
    await settle()
    quiet = desk.answer(2)
    flood = desk.answer(100)

    assert {check.why for check in desk.settled} == {"shed"}
    assert (quiet.wanted, flood.wanted) == (2, 8)
    gate.set()
    while not (quiet.is_idle and flood.is_idle):
        await settle()
    assert desk.outcomes.count("pass") == 11


async def test_long_steps_are_passed_over_sooner(monkeypatch):
    monkeypatch.setattr(runner, "MOST_CHARS", 30)
    gate = asyncio.Event()

    async def wait():
        await gate.wait()
        return PASS

    desk = Desk(does(lambda *_: wait()), at_once=1)
    checks = desk.answer(10)  # steps of 7 or 8 characters

    assert desk.outcomes == ["unsure"] * 7
    assert checks.wanted == 3
    checks.close()
    assert desk.runner._chars == 0


async def test_a_verifier_whose_own_work_is_cancelled_has_failed():
    async def cancelled():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    desk = Desk(does(lambda *_: cancelled()))
    checks = desk.answer(1)
    await settle()

    assert desk.meters.seen == ["error"]
    assert checks.is_idle


async def test_a_server_that_stops_leaves_no_check_behind():
    desk = Desk(does(lambda *_: asyncio.Event().wait()), per_answer=2)
    checks = desk.answer(7)
    await settle()
    await desk.tasks.cancel()
    await settle()

    assert len(desk.tasks) == 0
    assert checks.is_idle
    assert desk.meters.seen == ["shed"] * 7


async def test_checks_that_wait_begin_together():
    begun, turns, gate = [], 0, asyncio.Event()

    async def wait(step):
        begun.append(turns)
        await gate.wait()
        return PASS

    desk = Desk(does(lambda step, _: wait(step)), per_answer=8)
    for _ in range(40):
        desk.answer(1)
    while len(begun) < 40 and turns < 100:
        await asyncio.sleep(0)
        turns += 1
    gate.set()
    await settle()

    assert len(begun) == len(desk.settled) == 40
    assert turns <= 8  # of the event loop: one for each of them would be 40


async def test_checks_that_work_share_one_slice(monkeypatch):
    now, turns, work = 0.0, 0, []

    def worked(*_):
        nonlocal now
        now += 0.6 * runner.SLICE_S
        work.append(turns)
        return PASS

    monkeypatch.setattr(runner, "perf_counter", lambda: now)
    desk = Desk(does(worked), per_answer=8)
    for _ in range(30):
        desk.answer(1)
    while len(work) < 30 and turns < 200:
        await asyncio.sleep(0)
        turns += 1
    await settle()

    assert len(desk.settled) == 30
    assert max(work.count(turn) for turn in work) <= 2  # the second one ends the slice


async def test_no_task_begins_for_an_answer_that_is_over():
    desk = Desk(does(lambda *_: PASS))
    for _ in range(3):
        desk.answer(2).close()
    await asyncio.sleep(0)

    assert len(desk.tasks) == 0
    await settle()
    assert desk.settled == []
