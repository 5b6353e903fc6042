"""One call asleep: let in, ended at once when a person comes, and booked whatever happens."""

import asyncio

import pytest

from predawn.plugins.sleep.asking import Asking, Deferred, Refused, Throttled, estimated_tokens
from predawn.plugins.sleep.budget_day import DayBudget, DayLimits
from predawn.plugins.sleep.contexts import Asked, AskOptions, Preempted, Spent
from predawn.plugins.sleep.desk import MemoryDesk
from predawn.plugins.sleep.gate import Closed, Gate, GateRules
from predawn.plugins.testing import settle
from predawn.proxy.jobs.protocol import Postponed
from predawn.proxy.settings import PriceSettings
from predawn.proxy.store_errors import StoreError
from predawn.proxy.upstreams.base import UpstreamError

MESSAGES = [{"role": "user", "content": "x" * 400}]


def options(**given):
    return AskOptions(**{"model": "m", "tenant": "acme", "context_id": "c", "max_tokens": 50, **given})


class House:
    """An `Asking` with all that is around it."""

    def __init__(self, clock, tasks, send, *, limits=None, price=None, **given):
        self.desk = MemoryDesk(clock)
        self.closed = []
        self.gate = Gate(GateRules(idle_s=5), clock)
        self.ask = Asking(
            send,
            self.gate,
            DayBudget(limits or DayLimits(), clock, self.desk),
            tasks=tasks,
            clock=clock,
            upstream_of=lambda model: f"up-{model}",
            price_of=lambda model: price,
            on_closed=self.closed.append,
            **given,
        )

    @property
    async def spent(self):
        return await self.desk.spent("acme")


async def answers(messages, options):
    return Asked("yes", prompt_tokens=100, output_tokens=20, cached_tokens=60)


def fails(*errors):
    left = list(errors)

    async def send(messages, options):
        raise left.pop(0) if len(left) > 1 else left[0]

    return send


class Slow:
    """A model that writes until it is cancelled."""

    def __init__(self):
        self.cancelled = False
        self.asked = None

    async def __call__(self, messages, options):
        self.asked = options
        options.used.prompt_tokens, options.used.output_tokens = 90, 7
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_a_call_is_answered_and_booked(clock, tasks):
    house = House(clock, tasks, answers, price=PriceSettings(input_usd_per_mtok=1, output_usd_per_mtok=10))
    asked = await house.ask(MESSAGES, options())

    assert asked.text == "yes"
    assert await house.spent == Spent(120, 300_000, 1)
    assert house.gate.calls("up-m") == 0
    assert house.ask.tally.tokens == 120


async def test_it_waits_while_somebody_is_being_answered(clock, tasks):
    house = House(clock, tasks, answers)
    house.gate.began("up-m")
    with pytest.raises(Postponed):
        await house.ask(MESSAGES, options())

    assert house.ask.waiting("acme", "c").closed.why == "busy"
    assert house.closed == ["busy"]
    assert house.desk.days == {}


async def test_a_person_ends_the_call_at_once_and_its_tokens_are_booked(clock, tasks):
    slow = Slow()
    house = House(clock, tasks, slow)
    call = tasks.spawn(house.ask(MESSAGES, options()), "call")
    await settle()
    house.gate.began("up-m")
    outcome = (await asyncio.gather(call, return_exceptions=True))[0]

    assert clock.monotonic() == 0
    assert slow.cancelled
    assert isinstance(outcome, Postponed)
    assert await house.spent == Spent(97, 0, 1)
    assert house.ask.tally.tokens_cancelled == 97
    assert house.ask.tally.preempted == 1


async def test_a_person_at_another_upstream_does_not_disturb(clock, tasks):
    slow = Slow()
    house = House(clock, tasks, slow)
    tasks.spawn(house.ask(MESSAGES, options()), "call")
    await settle()
    house.gate.began("up-other")
    await settle()

    assert not slow.cancelled


async def test_a_cancelled_job_ends_its_call_and_books_it(clock, tasks):
    slow = Slow()
    house = House(clock, tasks, slow)
    call = tasks.spawn(house.ask(MESSAGES, options()), "call")
    await settle()
    call.cancel()
    outcome = (await asyncio.gather(call, return_exceptions=True))[0]

    assert isinstance(outcome, asyncio.CancelledError)
    assert slow.cancelled
    assert (await house.spent).tokens == 97
    assert house.gate.calls("up-m") == 0


async def test_a_call_that_says_it_was_preempted_is_booked_as_it_says(clock, tasks):
    house = House(clock, tasks, fails(Preempted(tokens=400)))
    with pytest.raises(Postponed):
        await house.ask(MESSAGES, options())

    assert (await house.spent).tokens == 400


async def test_a_refusal_closes_the_gate(clock, tasks):
    house = House(clock, tasks, fails(UpstreamError("up-m", "429", "slow down")))
    with pytest.raises(Postponed):
        await house.ask(MESSAGES, options())

    assert house.gate.closed("up-m").why == "throttled"
    assert house.desk.days == {}


async def test_an_upstream_is_left_alone_for_as_long_as_it_asks(clock, tasks):
    house = House(clock, tasks, fails(Throttled("up-m", "slow down", 300)))
    with pytest.raises(Postponed):
        await house.ask(MESSAGES, options())

    assert house.gate.closed("up-m").wait_s == 300


async def test_failures_are_tried_again_later_and_not_for_ever(clock, tasks):
    house = House(clock, tasks, fails(UpstreamError("up-m", "connect", "no route")), most_failures=2)
    waits = []
    for _ in range(2):
        with pytest.raises(Postponed) as postponed:
            await house.ask(MESSAGES, options())
        waits.append(postponed.value.seconds)
    with pytest.raises(Refused, match="failed 3 times"):
        await house.ask(MESSAGES, options())

    assert waits == [2, 4]


async def test_what_cannot_be_answered_is_not_asked_again(clock, tasks):
    house = House(clock, tasks, fails(UpstreamError("up-m", "protocol", "400: no such model")))
    with pytest.raises(Refused, match="no such model"):
        await house.ask(MESSAGES, options())


async def test_a_day_s_tokens_are_a_limit(clock, tasks):
    house = House(clock, tasks, answers, limits=DayLimits(tokens=400))
    await house.ask(MESSAGES, options())
    await house.ask(MESSAGES, options())
    with pytest.raises(Deferred, match="tokens"):
        await house.ask(MESSAGES, options())
    await clock.advance(86_400)
    await house.ask(MESSAGES, options())

    assert [spent.tokens for spent in house.desk.days.values()] == [240, 120]


async def test_a_day_s_money_is_a_limit(clock, tasks):
    price = PriceSettings(input_usd_per_mtok=1, output_usd_per_mtok=10)
    house = House(clock, tasks, answers, limits=DayLimits(tokens=None, nano_usd=700_000), price=price)
    await house.ask(MESSAGES, options())
    with pytest.raises(Deferred, match="money"):
        await house.ask(MESSAGES, options())


async def test_one_tenant_s_limit_is_no_other_s(clock, tasks):
    house = House(clock, tasks, answers, limits=DayLimits(tokens=250))
    await house.ask(MESSAGES, options())
    with pytest.raises(Deferred):
        await house.ask(MESSAGES, options())
    await house.ask(MESSAGES, options(tenant="other"))

    assert (await house.desk.spent("other")).tokens == 120


async def test_what_is_in_flight_is_held_back(clock, tasks):
    house = House(clock, tasks, Slow(), limits=DayLimits(tokens=300))
    tasks.spawn(house.ask(MESSAGES, options()), "call")
    await settle()
    held = await DayBudget(DayLimits(tokens=300), clock, house.desk).hold("acme", 200, 0)
    closed = await house.ask._budget.hold("acme", 200, 0)

    assert not isinstance(held, Closed)
    assert closed.numbers == {"spent": 0, "held": estimated_tokens(MESSAGES) + 50, "wanted": 200, "limit": 300}


async def test_a_call_begun_before_midnight_is_booked_on_that_day(clock, tasks):
    budget = DayBudget(DayLimits(), clock, desk := MemoryDesk(clock))
    day = int(clock.now() // 86_400)
    hold = await budget.hold("acme", 100, 0)
    await clock.advance(86_400)
    await budget.settle(hold, 80, 0)

    assert desk.days == {("acme", day): Spent(80, 0, 1)}


async def test_what_cannot_be_booked_stays_held(clock, tasks):
    class Lost(MemoryDesk):
        async def spend(self, tenant, spent, *, at=None):
            raise StoreError("gone")

    budget = DayBudget(DayLimits(tokens=300), clock, Lost(clock))
    hold = await budget.hold("acme", 200, 0)
    await budget.settle(hold, 180, 0)

    assert (await budget.hold("acme", 200, 0)).numbers["held"] == 180


async def test_after_long_patience_the_job_makes_room(clock, tasks):
    house = House(clock, tasks, answers, patience_s=60)
    house.gate.began("up-m")
    with pytest.raises(Postponed):
        await house.ask(MESSAGES, options())
    await clock.advance(61)
    with pytest.raises(Deferred, match="busy"):
        await house.ask(MESSAGES, options())

    assert house.ask.waiting("acme", "c").since == 61  # its patience begins anew


async def test_waiting_contexts_are_counted_by_reason_once(clock, tasks):
    house = House(clock, tasks, answers)
    house.gate.began("up-m")
    for _ in range(3):
        with pytest.raises(Postponed):
            await house.ask(MESSAGES, options())
    house.gate.ended("up-m")
    with pytest.raises(Postponed):
        await house.ask(MESSAGES, options())

    assert house.closed == ["busy", "quiet"]


async def test_an_upstream_that_went_down_with_a_call_gets_it_once_more(clock, tasks):
    house = House(clock, tasks, fails(UpstreamError("up-m", "crashed", "the engine died", sent_nothing=False)))
    with pytest.raises(Postponed):
        await house.ask(MESSAGES, options())
    with pytest.raises(Refused, match="went down with the call"):
        await house.ask(MESSAGES, options())
