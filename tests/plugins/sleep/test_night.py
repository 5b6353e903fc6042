"""The night: what is slept on, when, and why not."""

import asyncio
from dataclasses import replace

import pytest
from tests.plugins.sleep.nights import Model, context, notes

from predawn.plugins.sleep.budget_day import DayLimits
from predawn.plugins.sleep.contexts import Asked, Estimate, SleepOptions, Spent
from predawn.plugins.sleep.desk import MemoryDesk, Subject
from predawn.plugins.sleep.gate import GateRules
from predawn.plugins.sleep.night import Night
from predawn.plugins.sleep.orders import Order
from predawn.plugins.sleep.planning import NightRules, Planner, Surroundings
from predawn.plugins.sleep.predictability import PREDICTABILITY
from predawn.plugins.sleep.stages import StageRules
from predawn.plugins.sleep.unslept import Unslept
from predawn.plugins.sleep.warming import WarmRules
from predawn.plugins.sleep.work import ThinkingRules
from predawn.plugins.sleep.worth import History, WorthRules
from predawn.plugins.testing import settle
from predawn.proxy.jobs.memory import MemoryJobEngine, MemoryJobs
from predawn.proxy.store_errors import StoreError
from predawn.proxy.upstreams.base import UpstreamError

ANSWERS = {"consolidate": notes("Bob has 7"), "check": "1: right", "anticipate": "Q: How many has Bob?", "warm": "x"}
ALL = ["consolidate", "consolidate", "check", "anticipate", "anticipate", "anticipate", "warm"]


def says(messages, options):
    return Asked(ANSWERS[options.purpose], prompt_tokens=100, output_tokens=20)


class House:
    """A night with its engine, desk and model."""

    def __init__(self, clock, tasks, script=says, *, kept=None, desk=None, around=None, **rules):
        self.clock = clock
        self.model = script if isinstance(script, Model) else Model(script)
        self.desk = desk or MemoryDesk(clock)
        self.engine = MemoryJobEngine(clock, tasks, kept=kept)
        self.ended = []
        given = {"gate": GateRules(idle_s=5), "worth": WorthRules(policy="always"), **rules}
        surroundings = {
            "upstream_of": lambda model: f"up-{model}",
            "model_of": lambda context: context.model or None,
            "on_end": self.ended.append,
            **(around or {}),
        }
        self.night = Night(
            NightRules(**given), Surroundings(**surroundings), self.model, self.desk, self.engine, clock, tasks
        )
        self.night.register()

    async def start(self):
        await self.engine.start()
        return self

    async def register(self, made=None):
        made = made or context()
        self.desk.put(made)
        await self.night.came(made, "created")
        return made

    def state(self, name="ctx", tenant="acme"):
        return self.desk.contexts[tenant, name].state

    async def nights(self, rounds=60, seconds=1.0):
        for _ in range(rounds):
            await self.night.look()
            await self.clock.advance(seconds)
            await settle()


@pytest.fixture
async def house(clock, tasks):
    made = await House(clock, tasks).start()
    yield made
    await made.engine.aclose()


async def test_a_registered_context_is_slept_on_from_first_to_last(house):
    await house.register()
    await house.nights(5)

    assert house.model.purposes == ALL
    assert house.state() == "asleep"
    assert [(one.kind, one.outcome) for one in house.ended] == [
        ("consolidate", "done"),
        ("check", "accepted"),
        ("anticipate", "done"),
        ("warm", "done"),
    ]
    accepted = await house.desk.notes("acme", "ctx", status="accepted")
    assert [one.text for one in accepted] == ["- Bob has 7"]
    assert (await house.desk.spent("acme")).tokens == 7 * 120
    assert [one.stage for one in house.desk.shown] == ["consolidate", "consolidate", "check", "check", "anticipate", ""]


async def test_a_context_that_came_again_as_it_is_changes_nothing(house):
    made = await house.register()
    await house.nights(5)
    await house.night.came(made, "same")
    house.night.happened("acme", "ctx", 1, "seen")
    await house.nights(5)

    assert len(house.model.calls) == len(ALL)


async def test_a_decision_is_stored_with_its_numbers(house):
    await house.register()
    await house.nights(2)
    decision = house.desk.decisions["acme", "ctx"]

    assert (decision["reason"], decision["trigger"]) == ("policy_always", "registered")
    assert {"expected_uses", "balance_tokens", "break_even_uses", "hit_probability"} <= decision.keys()


async def test_what_does_not_pay_is_skipped_and_says_why(clock, tasks):
    house = await House(clock, tasks, worth=WorthRules()).start()
    await house.register(context(created_at=clock.now() - 30 * 86_400))
    await house.nights(3)

    assert house.model.calls == []
    assert house.state() == "skipped"
    assert house.desk.decisions["acme", "ctx"]["reason"] == "does_not_pay"


async def test_a_skipped_context_is_weighed_again_when_something_happens(clock, tasks):
    house = await House(clock, tasks, worth=WorthRules()).start()
    old = await house.register(context(created_at=clock.now() - 30 * 86_400))
    await house.nights(2)
    house.desk.put(replace(old, state="skipped", uses=5000, last_used_at=clock.now()))
    house.desk.estimates["acme", "ctx", "m", "plain"] = Estimate(9, 2000.0)
    house.night.happened("acme", "ctx", 1, "seen")
    await house.nights(5)

    assert house.state() == "asleep"


async def test_a_context_may_opt_out_and_a_client_may_insist(house):
    made = await house.register(context(options=SleepOptions(policy="off")))
    await house.nights(3)
    before = house.state()
    await house.night.asked(replace(made, state="skipped"), SleepOptions(max_passes=1, questions=0, warm=False))
    await house.nights(5)

    assert before == "skipped"
    assert house.model.purposes == ["consolidate", "check"]


async def test_where_sleep_is_off_nobody_can_insist(clock, tasks):
    house = await House(clock, tasks, worth=WorthRules(policy="off")).start()
    made = await house.register()
    await house.night.asked(made, SleepOptions())
    await house.nights(3)

    assert house.model.calls == []
    assert house.desk.decisions["acme", "ctx"]["reason"] == "policy_off"


async def test_a_context_that_wants_sleep_gets_it_where_others_do_not(clock, tasks):
    house = await House(clock, tasks, worth=WorthRules(policy="off")).start()
    made = context(options=SleepOptions(policy="always"))
    house.desk.put(made)
    refusal = await house.night.asked(made, SleepOptions())
    await house.nights(3)

    assert refusal == ""
    assert house.state() == "asleep"


@pytest.mark.parametrize("came", ["created", "changed"])
async def test_what_a_client_asked_for_is_not_done_again_for_having_come(house, came):
    made = context()
    house.desk.put(made)
    await house.night.came(made, came)
    await house.night.asked(made, SleepOptions())
    waits = house.night.waits_for("acme", "ctx")
    await house.nights(10)

    assert waits is None
    assert house.model.purposes == ALL
    assert house.desk.decisions["acme", "ctx"]["trigger"] == "asked"


async def test_a_change_that_another_machine_slept_on_is_not_slept_on_again(house):
    await house.register()
    await house.nights(5)
    house.night.happened("acme", "ctx", 1, "changed")
    await house.nights(5)

    assert house.model.purposes == ALL


async def test_while_it_is_slept_on_it_does_not_wait_for_its_turn(house):
    house.night._active["acme", "ctx"] = Order(Subject("acme", "ctx", 1), "m")
    house.night.happened("acme", "ctx", 1, "quiet")

    assert house.night.waits_for("acme", "ctx") is None


async def test_it_waits_until_the_upstream_is_quiet_and_says_so(house):
    house.night.began("up-m")
    await house.register()
    await house.nights(3)
    busy = house.night.waits_for("acme", "ctx")
    house.night.ended("up-m")
    await house.nights(3)
    quiet = len(house.model.calls)
    await house.nights(6)

    assert (busy["why"], busy["in_flight"], busy["trigger"]) == ("busy", 1, "registered")
    assert quiet == 0
    assert house.state() == "asleep"
    assert house.night.waits_for("acme", "ctx") is None


async def test_the_first_request_ends_sleep_and_it_goes_on_when_all_is_quiet(clock, tasks):
    """Preemption: the call ends in the very moment; the job goes on where it was, and pays nothing twice."""
    started, cancelled = [], []

    async def slow(messages, options):
        started.append(options.purpose)
        options.used.prompt_tokens = 50
        try:
            await clock.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(clock.monotonic())
            raise
        return says(messages, options)

    house = House(clock, tasks)
    house.night.asking._send = slow
    await house.start()
    await house.register()
    await house.nights(4)
    before = clock.monotonic()
    house.night.began("up-m")
    await settle()
    during = list(cancelled)
    await house.nights(5)
    waiting = house.night.waits_for("acme", "ctx")
    house.night.ended("up-m")
    await house.nights(100)

    assert during == [before]
    assert waiting["why"] == "busy"
    assert house.state() == "asleep"
    assert started == ["consolidate", *ALL]
    assert house.night.status()["tokens_cancelled"] == 50
    assert (await house.desk.spent("acme")).tokens == 50 + 7 * 120


async def test_requests_to_other_upstreams_do_not_disturb(house):
    house.night.began("up-other")
    await house.register()
    await house.nights(5)

    assert house.state() == "asleep"


async def test_two_upstreams_do_not_wait_for_each_other(house):
    house.night.began("up-busy")
    for number in range(60):
        await house.register(replace(context(name=f"busy-{number}"), model="busy"))
    await house.register()
    await house.nights(10)

    assert house.state() == "asleep"
    assert house.state("busy-0") == "new"


async def test_a_429_to_anybody_holds_sleep_back(house):
    house.night.refused("up-m", 30)
    await house.register()
    await house.nights(20)
    held = house.night.waits_for("acme", "ctx")
    await house.nights(20)

    assert held["why"] == "throttled"
    assert house.state() == "asleep"


async def test_a_queue_at_the_upstream_holds_sleep_back(house):
    house.night.told("up-m", 'vllm:num_requests_waiting{engine="0"} 3\n')
    house.night.told("up-m", "garbage")
    await house.register()
    await house.nights(5)

    assert house.night.waits_for("acme", "ctx")["why"] == "saturated"
    assert house.night.status()["gates"] == {"up-m": "saturated"}


async def test_a_spent_budget_defers_until_there_is_more(clock, tasks):
    house = await House(clock, tasks, limits=DayLimits(tokens=4000)).start()
    await house.desk.spend("acme", replace(await house.desk.spent("acme"), tokens=3900))
    await house.register()
    await house.nights(5)
    deferred = house.night.waits_for("acme", "ctx")
    state = house.state()
    await house.nights(100, seconds=1000)

    assert (deferred["why"], deferred["spent"], deferred["limit"]) == ("tokens", 3900, 4000)
    assert state == "new"
    assert house.state() == "asleep"
    assert house.model.purposes == ALL


async def test_a_deferred_order_goes_on_with_its_notes(clock, tasks):
    """Out of budget in the middle: the passes that were paid for are not paid for again."""
    house = await House(clock, tasks, limits=DayLimits(tokens=2500)).start()
    await house.register()
    await house.nights(3)
    midway = list(house.model.purposes)
    await house.nights(100, seconds=1000)

    assert 0 < len(midway) < len(ALL)
    assert house.model.purposes == ALL


async def test_a_refused_call_fails_the_context(clock, tasks):
    house = await House(clock, tasks, lambda m, o: UpstreamError("up-m", "protocol", "400: too long")).start()
    await house.register()
    await house.nights(3)

    assert house.state() == "failed"
    assert house.desk.decisions["acme", "ctx"]["reason"] == "policy_always"
    assert house.desk.decisions["acme", "ctx"]["ended"] == {"outcome": "failed", "why": "up-m: 400: too long"}


async def test_a_store_that_is_away_for_a_while_is_waited_for(clock, tasks):
    class Shaky(MemoryDesk):
        def __init__(self, clock):
            super().__init__(clock)
            self.failures = 3

        async def add_notes(self, tenant, notes):
            if self.failures:
                self.failures -= 1
                raise StoreError("away")
            return await super().add_notes(tenant, notes)

    house = await House(clock, tasks, desk=Shaky(clock)).start()
    await house.register()
    await house.nights(60)

    assert house.state() == "asleep"
    assert house.desk.failures == 0


async def test_a_context_too_large_for_its_budget_says_so(house):
    await house.register(context("word " * 1000, options=SleepOptions(budget_tokens=1000)))
    await house.nights(3)

    assert house.state() == "failed"
    assert house.desk.decisions["acme", "ctx"]["ended"] == {
        "outcome": "empty",
        "why": "the context with one answer about it is more than budget_tokens",
    }


async def test_what_was_thought_about_an_old_version_ends_when_a_new_one_comes(clock, tasks):
    cancelled = []

    async def slow(messages, options):
        try:
            await clock.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(clock.monotonic())
            raise

    house = await House(clock, tasks).start()
    house.night.asking._send = slow
    await house.register()
    await house.nights(3)
    house.night.asking._send = house.model
    changed = context("Ann has 4 apples.", version=2)
    house.desk.put(changed)
    await house.night.came(changed, "changed")
    await house.nights(9)

    assert cancelled == [3]
    assert house.state() == "asleep"
    assert house.model.purposes == ALL


@pytest.mark.parametrize(("tokens", "uses", "questions"), [(40, 3, 5), (500, 3, 5), (2000, 3, 5), (20_000, 8, 5)])
def test_a_context_of_which_nothing_is_known_is_given_a_chance(clock, tokens, uses, questions):
    """As in the paper, sleep pays from the third query on at t = 10; with a long context, from a few more."""
    planner = Planner(NightRules(), Surroundings(lambda model: "", lambda context: "m"), MemoryDesk(clock), clock)
    order = Order(Subject("acme", "ctx", 1), "m", questions=questions)
    _, decision = planner.narrowed(History(tokens=tokens, uses=0, age_s=0), order, SleepOptions())

    assert decision.sleeps
    assert decision.numbers["break_even_uses"] <= uses


def test_questions_are_not_anticipated_where_only_that_would_not_pay(clock):
    planner = Planner(NightRules(), Surroundings(lambda model: "", lambda context: "m"), MemoryDesk(clock), clock)
    order = Order(Subject("acme", "ctx", 1), "m", questions=50)
    leaner, decision = planner.narrowed(History(tokens=20_000, uses=0, age_s=0), order, SleepOptions())

    assert (leaner.questions, decision.reason) == (0, "pays")


async def test_rejected_notes_are_tried_again_only_so_often(clock, tasks):
    answers = {**ANSWERS, "check": "1: wrong"}
    house = await House(clock, tasks, lambda m, o: answers[o.purpose], most_attempts=2).start()
    await house.register()
    for _ in range(5):
        await house.nights(3)
        house.night.happened("acme", "ctx", 1, "schedule")

    assert house.state() == "failed"
    assert house.model.purposes.count("check") == 2
    assert await house.desk.verdicts("acme", "m") == (0, 2)


async def test_of_rejected_notes_it_is_told_why(clock, tasks):
    answers = {**ANSWERS, "check": "1: wrong"}
    house = await House(clock, tasks, lambda m, o: answers[o.purpose]).start()
    await house.register()
    await house.nights(5)

    assert house.desk.decisions["acme", "ctx"]["ended"] == {
        "outcome": "rejected",
        "why": "nothing was confirmed: 1 wrong",
    }


async def test_answers_that_nobody_can_read_are_asked_for_again_when_a_client_insists(clock, tasks):
    """They are rejected notes: else the passes that led nowhere would stand for this version for ever."""
    unreadable = Model(lambda messages, options: "I would rather not.")
    house = await House(clock, tasks, unreadable).start()
    made = await house.register()
    await house.nights(5)
    failed, calls = house.state(), len(unreadable.calls)
    unreadable.script = says
    await house.night.asked(replace(made, state="failed"), SleepOptions())
    await house.nights(10)

    assert (failed, calls) == ("failed", 2)
    assert house.state() == "asleep"
    assert await house.desk.verdicts("acme", "m") == (1, 1)


async def test_a_changed_context_is_slept_on_again(house):
    await house.register()
    await house.nights(5)
    changed = context("Ann has 3 apples. Zoe has 1 fewer.", version=2, base_version=1)
    house.desk.put(changed)
    await house.night.came(changed, "changed")
    await house.nights(5)

    assert house.model.purposes == [*ALL, *ALL[1:]]  # the notes of before still hold: one pass
    assert [one.status for one in await house.desk.notes("acme", "ctx", version=1)] == ["stale"]
    assert [one.status for one in await house.desk.notes("acme", "ctx", version=2)] == ["accepted"]


async def test_two_machines_sleep_on_a_context_once(clock, tasks):
    kept, desk = MemoryJobs(), MemoryDesk(clock)
    one = await House(clock, tasks, kept=kept, desk=desk).start()
    other = await House(clock, tasks, kept=kept, desk=desk).start()
    made = await one.register()
    await other.night.came(made, "created")
    await asyncio.gather(one.night.look(), other.night.look())
    await one.nights(5)
    await other.nights(5)

    assert len(one.model.calls) + len(other.model.calls) == len(ALL)


async def test_what_a_crash_left_in_the_middle_is_found(clock, tasks):
    async def unslept(after, limit, with_given_up=False):
        found = [one for one in desk.contexts.values() if one.state in ("new", "queued", "sleeping", "checking")]
        return [Unslept(one.tenant, one.id, one.version, one.state, 1) for one in found]

    desk = MemoryDesk(clock)
    desk.put(context(state="sleeping"))
    desk.put(context(name="fresh"))
    house = await House(clock, tasks, desk=desk, around={"unslept": unslept}).start()
    await house.nights(20)

    assert (house.state(), house.state("fresh")) == ("asleep", "asleep")


async def test_what_is_under_way_elsewhere_is_not_taken_for_a_crash(clock, tasks):
    async def unslept(after, limit, with_given_up=False):
        return [Unslept("acme", "ctx", 1, desk.contexts["acme", "ctx"].state, 1)]

    desk = MemoryDesk(clock)
    kept = MemoryJobs()
    elsewhere = House(clock, tasks, desk=desk, kept=kept)
    await elsewhere.register()
    await elsewhere.night.look()  # submitted, and never begun
    house = House(clock, tasks, desk=desk, kept=kept, around={"unslept": unslept})
    await house.nights(3, seconds=61)

    assert house.state() == "queued"
    assert len(kept.jobs) == 1


async def test_a_forgotten_context_leaves_no_job_behind(house):
    house.night.began("up-other")
    await house.register()
    await house.night.look()
    jobs = house.desk.jobs["acme", "ctx"]
    del house.desk.contexts["acme", "ctx"]
    await house.night.purge("acme", "ctx", jobs)
    await house.nights(3)

    assert [await house.engine.state(job) for job in jobs] == [None] * 4
    assert house.night.waits_for("acme", "ctx") is None
    assert house.night.status()["active"] == 0


async def test_a_conversation_that_went_quiet_is_slept_on(house):
    house.desk.put(context())
    house.night.used("acme", "ctx", 1)
    await house.nights(100)
    before = len(house.model.calls)
    await house.nights(30)

    assert before == 0
    assert house.state() == "asleep"


async def test_more_orders_than_may_be_under_way_wait_their_turn(clock, tasks):
    house = House(clock, tasks, most_active=2)
    for number in range(5):
        await house.register(context(name=f"c{number}"))
    await house.night.look()

    assert house.night.status()["active"] == 2
    assert house.night.status()["candidates"] == 3
    await house.start()
    await house.nights(40)
    assert {house.state(f"c{number}") for number in range(5)} == {"asleep"}


async def test_a_warm_prefix_is_kept_warm_while_it_pays_and_no_longer(clock, tasks):
    house = await House(clock, tasks, warming=WarmRules(every_s=240, most_times=3)).start()
    await house.register(context(uses=5000, last_used_at=clock.now(), created_at=clock.now() - 86_400, tokens=5000))
    await house.nights(20, seconds=60)
    once = house.model.purposes.count("warm")
    house.desk.put(replace(house.desk.contexts["acme", "ctx"], uses=0, created_at=clock.now() - 90 * 86_400))
    await house.nights(20, seconds=60)

    assert once == 3
    assert len(set(house.desk.jobs["acme", "ctx"])) == 4 + 2
    assert house.model.purposes.count("warm") == 3


async def test_questions_that_were_foreseen_make_a_context_predictable(house):
    for score in (1.0, 1.0, 0.5, 0.5):
        await house.desk.observe("acme", "ctx", "m", PREDICTABILITY, score)
    history = await house.night.planner.history(context(), "m")

    assert history.predictability == pytest.approx((3 + 1) / 6)


async def test_a_client_s_wishes_are_kept_within_bounds(house):
    wild = SleepOptions(max_passes=10**6, drafts=10**6, budget_tokens=10**12, questions=10**6)
    from predawn.plugins.sleep.triggers import Candidate, Key

    order = await house.night.planner.order(context(), "m", wild, Candidate(Key("acme", "ctx"), 1, "asked", 0))

    assert (order.passes, order.drafts, order.budget_tokens, order.questions) == (10, 10, 1_000_000, 50)


async def test_tenants_with_the_same_names_share_nothing(house):
    await house.register()
    await house.register(context("Zoe has 9 pears.", tenant="other"))
    await house.nights(10)
    ids = {job for jobs in house.desk.jobs.values() for job in jobs}

    assert (house.state(), house.state(tenant="other")) == ("asleep", "asleep")
    assert len(ids) == 8
    for messages, options in house.model.calls:
        text = str(messages)
        assert ("Zoe" in text) == (options.tenant == "other")
        assert ("Ann" in text) == (options.tenant == "acme")


async def test_jobs_hold_no_text_of_a_context(clock, tasks):
    kept = MemoryJobs()
    house = await House(clock, tasks, kept=kept).start()
    await house.register(context("The secret is xyzzy."))
    await house.nights(5)

    assert house.state() == "asleep"
    assert "xyzzy" not in str([(job.arguments, job.steps, job.job) for job in kept.jobs.values()])
    assert "Bob" not in str([(job.arguments, job.steps, job.job) for job in kept.jobs.values()])


async def test_it_runs_until_it_is_stopped(clock, tasks):
    house = await House(clock, tasks).start()
    running = tasks.spawn(house.night.run(), "night")
    await settle()
    await house.register()
    for _ in range(6):
        await clock.advance(1)
        await settle()
    running.cancel()

    assert house.state() == "asleep"


async def test_the_bundled_model_sleeps_in_its_own_words(clock, tasks):
    script = {"consolidate": "Ann = 3. Bob is Ann + 4. 3 + 4 = 7. Bob = 7.", "anticipate": "7", "warm": "x"}
    script["check"] = script["consolidate"]
    house = await House(
        clock,
        tasks,
        lambda m, o: script[o.purpose],
        stages=StageRules(thinking=ThinkingRules(max_passes=1)),
        around={"style_of": lambda model: "terse"},
    ).start()
    await house.register()
    await house.nights(5)

    assert house.state() == "asleep"
    assert [one.text for one in await house.desk.notes("acme", "ctx", status="accepted")] == ["Ann = 3. Bob = 7."]
    assert [(one.answer, one.verified) for one in house.desk.questions.values()] == [("7", False), ("7", True)]


def left(desk, *, stage=None):
    """Finds in a desk what is to be recovered."""

    async def unslept(after, limit, with_given_up=False):
        states = ("new", "queued", "sleeping", "checking", *(("skipped", "failed") if with_given_up else ()))
        return [
            Unslept(one.tenant, one.id, one.version, one.state, 1)
            for one in desk.contexts.values()
            if one.state in states or (one.state == "asleep" and one.progress.stage in ("anticipate", "warm"))
        ]

    return {"unslept": unslept}


def spends_at_check(clock):
    """A model in whose first check the day's tokens end."""

    def script(messages, options):
        if options.purpose == "check":
            script.house.desk.days["acme", int(clock.now() // 86_400)] = Spent(2990)
        return says(messages, options)

    return script


async def test_what_was_put_off_outlives_its_process(clock, tasks):
    """The day's tokens end between check and anticipate, then the process dies; another one goes on next day."""
    kept = MemoryJobs()
    first = await House(clock, tasks, spends_at_check(clock), kept=kept, limits=DayLimits(tokens=3000)).start()
    first.model.script.house = first
    await first.register()
    await first.nights(5)
    await first.engine.aclose()
    before, stage = first.model.purposes, first.desk.contexts["acme", "ctx"].progress.stage
    deferred = first.desk.decisions["acme", "ctx"]["deferred"]
    second = await House(
        clock, tasks, kept=kept, desk=first.desk, around=left(first.desk), limits=DayLimits(tokens=3000)
    ).start()
    shown = second.night.waits_elsewhere(first.desk.contexts["acme", "ctx"], first.desk.decisions["acme", "ctx"])
    await second.nights(200, seconds=600)

    assert (stage, deferred["stage"], deferred["times"]) == ("anticipate", "anticipate", 1)
    assert (shown["why"], shown["stage"]) == ("deferred", "anticipate")
    assert before + second.model.purposes == ALL
    assert second.desk.contexts["acme", "ctx"].progress.stage == ""
    assert "tenant" not in str(deferred)


async def test_of_several_processes_one_goes_on_with_what_was_put_off(clock, tasks):
    kept = MemoryJobs()
    first = await House(clock, tasks, spends_at_check(clock), kept=kept, limits=DayLimits(tokens=3000)).start()
    first.model.script.house = first
    await first.register()
    await first.nights(5)
    others = [
        House(clock, tasks, kept=kept, desk=first.desk, around=left(first.desk), limits=DayLimits(tokens=3000))
        for _ in range(2)
    ]
    for _ in range(200):
        for house in (first, *others):
            await house.night.look()
        await clock.advance(600)
        await settle()

    asked = [*first.model.purposes, *(purpose for house in others for purpose in house.model.purposes)]

    assert asked.count("warm") >= 1
    assert sorted(set(asked) - {"warm"}) == ["anticipate", "check", "consolidate"]
    assert len([purpose for purpose in asked if purpose != "warm"]) == len(ALL) - 1


async def test_what_was_put_off_waits_its_time_though_it_is_found_in_the_store_meanwhile(clock, tasks):
    house = House(clock, tasks, limits=DayLimits(tokens=4000))
    house.night.around = replace(house.night.around, **left(house.desk))
    await house.start()
    await house.desk.spend("acme", replace(await house.desk.spent("acme"), tokens=3900))
    await house.register()
    ends = []
    for _ in range(30):
        await house.nights(1, seconds=61)
        ends.append(len(house.ended))

    assert ends[-1] <= 6  # 60, 120, 240, 480 s and so on, not once a minute


async def test_a_stage_whose_job_is_gone_is_done_or_given_up(clock, tasks):
    desk = MemoryDesk(clock)
    made = context(state="asleep")
    desk.put(replace(made, progress=replace(made.progress, state="asleep", stage="warm")))
    house = await House(clock, tasks, desk=desk, around=left(desk)).start()
    await house.nights(3, seconds=61)

    assert house.model.purposes == ["warm"]
    assert desk.contexts["acme", "ctx"].progress.stage == ""


async def test_the_schedule_looks_again_at_what_failed_or_was_not_worth_it(clock, tasks):
    desk = MemoryDesk(clock)
    desk.put(context(state="failed"))
    desk.put(context(name="skipped", state="skipped"))
    house = await House(clock, tasks, desk=desk, around=left(desk), schedule=("00:00",)).start()
    await house.nights(3, seconds=1)
    before = len(house.model.calls)
    await house.nights(30, seconds=3600)

    assert before == 0
    assert (house.state(), house.state("skipped")) == ("asleep", "asleep")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_context_forgotten_while_its_next_job_is_submitted_leaves_none_behind(clock, tasks, when):
    house = House(clock, tasks)
    submit = house.engine.submit

    async def forgets(name, job_id, arguments, *given, **more):
        if name != "sleep.check":
            return await submit(name, job_id, arguments, *given, **more)
        if when == "after":
            await submit(name, job_id, arguments, *given, **more)
        del house.desk.contexts["acme", "ctx"]
        others = [known for known in house.desk.jobs["acme", "ctx"] if "consolidate" not in known]
        await house.night.purge("acme", "ctx", others)
        if when == "before":
            await submit(name, job_id, arguments, *given, **more)
        return None

    house.engine.submit = forgets
    await house.start()
    await house.register()
    await house.nights(5)

    assert [job for job in house.engine._kept.jobs if "consolidate" not in job] == []


async def test_a_job_whose_context_is_forgotten_purges_itself(clock, tasks):
    """Whoever forgot it had not known of the job."""
    kept = MemoryJobs()
    house = House(clock, tasks, kept=kept)
    await house.register()
    await house.night.look()
    del house.desk.contexts["acme", "ctx"]
    await house.start()
    await house.nights(2)

    assert [one.outcome for one in house.ended] == ["superseded"]
    assert kept.jobs == {}


async def test_why_nothing_will_be_done_is_said_in_words(clock, tasks):
    off = House(clock, tasks, worth=WorthRules(policy="off"))
    on = House(clock, tasks)
    made = await off.register()
    await on.register()

    assert "policy: off" in await off.night.asked(made, SleepOptions())
    assert "policy off" in await on.night.asked(made, SleepOptions(policy="off"))
    assert "no model" in await on.night.asked(replace(made, model=""), SleepOptions())
    assert await on.night.asked(made, SleepOptions()) == ""


async def test_another_process_tells_why_a_context_waits_by_its_own_gate(clock, tasks):
    house = House(clock, tasks)
    house.night.gate.heard("up-m")
    told = [
        house.night.waits_elsewhere(context(state=state), None)
        for state in ("queued", "sleeping", "asleep", "skipped", "failed")
    ]

    assert [one["why"] if one else None for one in told] == ["quiet", "quiet", None, None, None]
