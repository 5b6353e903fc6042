"""What every engine promises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from predawn.proxy.jobs.protocol import Postponed, StepError


class Work:
    """A job of steps that count their calls; a step can be held until the test lets it go."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.calls: list[str] = []
        self.results: list[Any] = []
        self.held: set[str] = set()
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()

    async def step(self, name: str) -> str:
        self.calls.append(name)
        if name in self.held:
            self.entered.set()
            await self.let_go.wait()
        return f"{name} done"

    async def __call__(self, steps: Any, arguments: Any) -> Any:
        results = [await steps.run(name, lambda name=name: self.step(name)) for name in self.names]
        self.results.append(results)
        return {"arguments": arguments, "results": results}


async def ended(engine: Any, job_id: str = "j") -> Any:
    async with asyncio.timeout(20):
        while (job := await engine.state(job_id)).state in ("queued", "running"):
            await asyncio.sleep(0.01)
    return job


async def test_a_job_does_its_steps_in_order_and_keeps_what_they_return(house):
    engine = await house.open()
    work = Work("a", "b")
    engine.register("work", work)
    await engine.start()

    await engine.submit("work", "j", {"n": 1})
    job = await ended(engine)

    assert (job.name, job.queue, job.state, job.error) == ("work", "sleep", "done", "")
    assert job.result == {"arguments": {"n": 1}, "results": ["a done", "b done"]}
    assert work.calls == ["a", "b"]


async def test_the_same_id_is_the_same_job(house):
    engine = await house.open()
    work = Work("a")
    engine.register("work", work)
    await engine.start()
    await engine.submit("work", "j", 1)
    await ended(engine)

    await engine.submit("work", "j", 2)
    job = await ended(engine)

    assert job.result["arguments"] == 1
    assert work.calls == ["a"]


async def test_an_unknown_job_has_no_state(house):
    engine = await house.open()

    assert await engine.state("nobody") is None


async def test_no_job_begins_before_the_start(house):
    engine = await house.open()
    work = Work("a")
    engine.register("work", work)
    await engine.submit("work", "j", None)
    await asyncio.sleep(0.1)

    assert work.calls == []

    await engine.start()

    assert (await ended(engine)).state == "done"


async def test_after_a_stop_a_job_goes_on_at_the_step_that_was_in_flight(house):
    engine = await house.open()
    work = Work("a", "b", "c")
    work.held = {"b"}
    engine.register("work", work)
    await engine.start()
    await engine.submit("work", "j", None)
    await work.entered.wait()
    await house.close()
    work.held = set()

    engine = await house.open()
    engine.register("work", work)
    await engine.start()
    job = await ended(engine)

    assert work.calls == ["a", "b", "b", "c"]
    assert job.result["results"] == ["a done", "b done", "c done"]


async def test_what_is_returned_again_is_what_was_returned_first(house):
    seen: list[Any] = []
    hold, held = asyncio.Event(), asyncio.Event()

    async def job(steps, arguments):
        async def value():
            return {"pair": (1, 2.5), "none": None, "text": "ä\u0000"}

        async def wait():
            held.set()
            await hold.wait()
            return None

        seen.append(await steps.run("value", value))
        seen.append(await steps.run("wait", wait))

    engine = await house.open()
    engine.register("job", job)
    await engine.start()
    await engine.submit("job", "j", None)
    await held.wait()
    engine = await house.open()
    hold.set()
    engine.register("job", job)
    await engine.start()
    await ended(engine)

    expected = {"pair": [1, 2.5], "none": None, "text": "ä\u0000"}
    assert seen == [expected, expected, None]


async def test_steps_begun_together_run_side_by_side(house):
    met = asyncio.Barrier(2)

    async def meet():
        await met.wait()
        return "met"

    async def job(steps, arguments):
        return await asyncio.gather(steps.run("a", meet), steps.run("b", meet))

    engine = await house.open()
    engine.register("job", job)
    await engine.start()
    await engine.submit("job", "j", None)

    assert (await ended(engine)).result == ["met", "met"]


class Refused(StepError):
    pass


async def test_a_step_that_failed_has_failed_for_good(house):
    calls, seen = [], []
    hold, held = asyncio.Event(), asyncio.Event()

    async def job(steps, arguments):
        async def fail():
            calls.append("fail")
            raise Refused("too large")

        async def wait():
            held.set()
            await hold.wait()

        try:
            await steps.run("fail", fail)
        except StepError as exc:
            seen.append((type(exc), exc.kind, str(exc)))
        await steps.run("wait", wait)

    engine = await house.open()
    engine.register("job", job)
    await engine.start()
    await engine.submit("job", "j", None)
    await held.wait()
    engine = await house.open()
    hold.set()
    engine.register("job", job)
    await engine.start()
    job_state = await ended(engine)

    assert job_state.state == "done"
    assert seen == [(StepError, "Refused", "too large")] * 2
    assert calls == ["fail"]


@pytest.mark.parametrize("error", [Refused("no"), KeyError("k")])
async def test_an_error_nobody_catches_ends_the_job(house, error, caplog):
    async def job(steps, arguments):
        async def fail():
            raise error

        await steps.run("fail", fail)

    engine = await house.open()
    engine.register("job", job)
    await engine.start()
    await engine.submit("job", "j", None)
    ended_job = await ended(engine)

    assert ended_job.state == "failed"
    assert ended_job.error == ("Refused: no" if isinstance(error, Refused) else "KeyError: 'k'")


async def test_a_postponed_step_is_called_again_until_it_can(house):
    answers = [Postponed(0.01), Postponed(0.01), "at last"]

    async def job(steps, arguments):
        async def ask():
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return await steps.run("ask", ask)

    engine = await house.open()
    engine.register("job", job)
    await engine.start()
    await engine.submit("job", "j", None)

    assert (await ended(engine)).result == "at last"


async def test_two_steps_of_one_name_are_refused(house):
    async def job(steps, arguments):
        async def nothing():
            return None

        await steps.run("a", nothing)
        await steps.run("a", nothing)

    engine = await house.open()
    engine.register("job", job)
    await engine.start()
    await engine.submit("job", "j", None)

    assert "two steps are called 'a'" in (await ended(engine)).error


async def test_a_paused_queue_begins_no_job_and_no_step(house):
    engine = await house.open()
    work = Work("a", "b")
    work.held = {"a"}
    engine.register("work", work)
    await engine.start()
    await engine.submit("work", "first", None)
    await work.entered.wait()

    engine.pause()
    await engine.submit("work", "second", None)
    work.let_go.set()
    await asyncio.sleep(0.15)

    assert work.calls == ["a"]
    assert (await engine.state("second")).state == "queued"

    work.held = set()
    engine.resume()
    await ended(engine, "first")
    await ended(engine, "second")

    assert sorted(work.calls) == ["a", "a", "b", "b"]


async def test_a_paused_queue_can_be_closed(house):
    engine = await house.open()
    work = Work("a")
    engine.register("work", work)
    await engine.start()
    engine.pause()
    await engine.submit("work", "j", None)
    await house.close()

    engine = await house.open()
    engine.register("work", work)
    await engine.start()

    assert (await ended(engine)).state == "done"


async def test_smaller_priorities_run_sooner(house):
    order = []

    async def job(steps, arguments):
        order.append(arguments)

    engine = await house.open(concurrency=1)
    engine.register("job", job)
    engine.pause()
    await engine.start()
    for number, priority in enumerate((30, 10, 20, 10)):
        await engine.submit("job", f"j{number}", number, priority=priority)
    engine.resume()
    for number in range(4):
        await ended(engine, f"j{number}")

    assert order == [1, 3, 2, 0]


async def test_no_more_jobs_run_than_may(house):
    running, most = 0, 0
    are_two = asyncio.Event()

    async def job(steps, arguments):
        async def busy():
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 2:
                are_two.set()
            await are_two.wait()
            await asyncio.sleep(0.03)
            running -= 1

        await steps.run("busy", busy)

    engine = await house.open(concurrency=2)
    engine.register("job", job)
    await engine.start()
    for number in range(6):
        await engine.submit("job", f"j{number}", None)
    for number in range(6):
        await ended(engine, f"j{number}")

    assert most == 2


async def test_a_cancelled_job_stops_and_never_goes_on(house):
    engine = await house.open()
    work = Work("a", "b")
    work.held = {"a"}
    engine.register("work", work)
    await engine.start()
    await engine.submit("work", "j", None)
    await work.entered.wait()

    await engine.cancel(["j", "nobody"])
    engine = await house.open()
    engine.register("work", work)
    await engine.start()
    await asyncio.sleep(0.1)

    assert (await engine.state("j")).state == "cancelled"
    assert work.calls == ["a"]


async def test_cancelling_what_is_done_changes_nothing(house):
    engine = await house.open()
    engine.register("work", Work("a"))
    await engine.start()
    await engine.submit("work", "j", None)
    await ended(engine)

    await engine.cancel(["j"])

    assert (await engine.state("j")).state == "done"


@pytest.mark.parametrize("when", ["queued", "running", "done"])
async def test_a_purged_job_is_forgotten_and_its_id_free(house, when):
    engine = await house.open()
    work = Work("a")
    work.held = {"a"} if when == "running" else set()
    engine.register("work", work)
    if when != "queued":
        await engine.start()
    await engine.submit("work", "j", 1)
    if when == "running":
        await work.entered.wait()
    if when == "done":
        await ended(engine)

    await engine.purge(["j", "nobody"])

    assert await engine.state("j") is None

    work.held = set()
    await engine.start()
    await engine.submit("work", "j", 2)

    assert (await ended(engine)).result["arguments"] == 2


async def test_a_job_may_submit_another_from_a_step(house):
    engine = await house.open()

    async def first(steps, arguments):
        async def submit():
            await engine.submit("second", "next", {"from": steps.job_id})

        await steps.run("submit", submit)

    async def second(steps, arguments):
        return arguments

    engine.register("first", first)
    engine.register("second", second)
    await engine.start()
    await engine.submit("first", "j", None)
    await ended(engine)

    assert (await ended(engine, "next")).result == {"from": "j"}


@pytest.mark.parametrize("end", ["purge", "cancel"])
async def test_a_job_may_end_itself_from_a_step(house, end, caplog):
    engine = await house.open()
    calls = []
    over = asyncio.Event()

    async def job(steps, arguments):
        async def end_itself():
            await getattr(engine, end)([steps.job_id])
            calls.append("ended")
            over.set()

        async def after():
            calls.append("after")

        await steps.run("end", end_itself)
        await steps.run("after", after)

    engine.register("job", job)
    await engine.start()
    await engine.submit("job", "j", None)
    async with asyncio.timeout(10):
        await over.wait()
    await house.close()
    engine = await house.open()

    assert calls == ["ended"]
    assert caplog.records == []
    known = await engine.state("j")
    assert (known.state if known else None) == {"purge": None, "cancel": "cancelled"}[end]


async def test_a_job_waits_for_a_plugin_that_does_it(house, caplog):
    engine = await house.open()
    await engine.start()
    await engine.submit("work", "j", None)
    await asyncio.sleep(0.1)

    assert (await engine.state("j")).state in ("queued", "running")

    engine.register("work", Work("a"))
    await engine.start()

    assert (await ended(engine)).state == "done"


async def test_the_newest_function_of_a_name_does_the_job(house):
    engine = await house.open()
    old, new = Work("old"), Work("new")
    engine.register("work", old)
    engine.register("work", new)
    await engine.start()
    await engine.submit("work", "j", None)
    await ended(engine)

    assert (old.calls, new.calls) == ([], ["new"])


async def test_queues_are_paused_one_by_one(house):
    engine = await house.open()
    work = Work("a")
    engine.register("work", work)
    await engine.start()
    engine.pause("sleep")
    await engine.submit("work", "paused", None)
    await engine.submit("work", "other", None, queue="other")

    assert (await ended(engine, "other")).queue == "other"
    assert (await engine.state("paused")).state == "queued"


async def test_a_step_that_ends_while_all_stops_is_not_called_again(house):
    engine = await house.open()
    finishing = asyncio.Event()
    calls = []

    async def job(steps, arguments):
        async def quick():
            calls.append("quick")
            finishing.set()
            return "q"

        async def after():
            calls.append("after")

        await steps.run("quick", quick)
        await steps.run("after", after)

    engine.register("job", job)
    await engine.start()
    await engine.submit("job", "j", None)
    await finishing.wait()
    engine = await house.open()
    engine.register("job", job)
    await engine.start()
    await ended(engine)

    assert calls.count("quick") == 1
