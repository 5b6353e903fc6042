"""What would be done about a context, within which bounds, and what is known to weigh it by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from predawn.plugins.sleep.anticipation import MOST_QUESTIONS
from predawn.plugins.sleep.budget_day import DayLimits
from predawn.plugins.sleep.contexts import Context, SleepOptions
from predawn.plugins.sleep.desk import Desk, Subject
from predawn.plugins.sleep.gate import GateRules
from predawn.plugins.sleep.orders import Order
from predawn.plugins.sleep.predictability import PREDICTABILITY, PRIOR, PRIOR_WEIGHT
from predawn.plugins.sleep.prompts import Style
from predawn.plugins.sleep.stages import Ended, StageRules
from predawn.plugins.sleep.triggers import Candidate
from predawn.plugins.sleep.warming import WarmRules
from predawn.plugins.sleep.worth import Decision, History, Plan, WorthRules, decide

if TYPE_CHECKING:
    from predawn.plugins.sleep.unslept import Unslept
    from predawn.proxy.clock import Clock
    from predawn.proxy.settings import PriceSettings

T = TypeVar("T")
EXPECTED_PASSES = 3.0
"""Most notes have converged by then."""


@dataclass(frozen=True, slots=True)
class NightRules:
    """Everything that bounds sleep."""

    gate: GateRules = field(default_factory=GateRules)
    limits: DayLimits = field(default_factory=DayLimits)
    stages: StageRules = field(default_factory=StageRules)
    worth: WorthRules = field(default_factory=WorthRules)
    warming: WarmRules = field(default_factory=WarmRules)
    questions: int = 5
    warms: bool = True
    most_passes: int = 10
    most_drafts: int = 10
    most_budget_tokens: int = 1_000_000
    """A context's own options may not go beyond these three."""
    most_attempts: int = 3
    """At one version, if nobody asks for more."""
    most_active: int = 4
    """Orders of this process under way at a time."""
    patience_s: float = 600.0
    quiet_s: float = 120.0
    schedule: tuple[str, ...] = ()
    look_every_s: float = 1.0
    recover_every_s: float = 60.0
    most_waiting: int = 10_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the night needs to know of the server."""

    upstream_of: Callable[[str], str]
    """The upstream that serves an alias."""
    model_of: Callable[[Context], str | None]
    """The alias to think with; `None` if there is none for this context."""
    style_of: Callable[[str], Style] = lambda _: "full"
    price_of: Callable[[str], PriceSettings | None] = lambda _: None
    unslept: Callable[[int, int, bool], Awaitable[Sequence[Unslept]]] | None = None
    """Contexts after a change's number, at most so many, that are new or left in the middle: for recovery. With those
    that were not worth it, or failed, if the last argument is true: for the schedule."""
    on_end: Callable[[Ended], None] = lambda _: None
    on_closed: Callable[[str], None] = lambda _: None


class Planner:
    """Reads from the desk what a decision needs."""

    def __init__(self, rules: NightRules, around: Surroundings, desk: Desk, clock: Clock) -> None:
        self.rules = rules
        self._around = around
        self._desk = desk
        self._clock = clock

    async def order(self, context: Context, model: str, options: SleepOptions, candidate: Candidate) -> Order:
        """What would be done: the client's wishes within the rules' bounds, else what the rules say."""
        rules, own = self.rules, context.options
        thinking = rules.stages.thinking
        style = self._around.style_of(model)
        attempt = await self.attempt(context.tenant, context.id, context.version)
        passes = _first(options.max_passes, own.max_passes, otherwise=thinking.max_passes)
        drafts = _first(options.drafts, own.drafts, otherwise=thinking.drafts)
        budget = _first(options.budget_tokens, own.budget_tokens, otherwise=thinking.budget_tokens)
        return Order(
            Subject(context.tenant, context.id, context.version, attempt),
            model,
            style,
            passes=_within(1, passes, rules.most_passes),
            drafts=_within(1, drafts, rules.most_drafts),
            budget_tokens=_within(0, budget, rules.most_budget_tokens),
            questions=_within(0, _first(options.questions, own.questions, otherwise=rules.questions), MOST_QUESTIONS),
            warms=_first(options.warm, own.warm, otherwise=rules.warms),
            priority=candidate.priority,
        )

    async def attempt(self, tenant: str, context_id: str, version: int) -> int:
        """The number of the attempt that is to be made or under way: one more than were judged."""
        judged = await self._desk.notes(tenant, context_id, version=version)
        return 1 + sum(one.status != "candidate" for one in judged)

    async def history(self, context: Context, model: str) -> History:
        now = self._clock.now()
        accepted, rejected = await self._desk.verdicts(context.tenant, model)
        place = (context.tenant, context.id, model)
        plain, noted = [await self._desk.estimate(*place, kind) for kind in ("plain", "noted")]
        foreseen = await self._desk.estimate(*place, PREDICTABILITY)
        return History(
            tokens=context.tokens,
            uses=max(context.uses, sum(one.count for one in (plain, noted) if one is not None)),
            age_s=now - context.created_at,
            idle_s=now - context.last_used_at if context.last_used_at is not None else None,
            left_s=context.expires_at - now if context.expires_at is not None else None,
            predictability=_mean(foreseen.mean, foreseen.count) if foreseen is not None else PRIOR,
            accepted_share=(accepted + 2) / (accepted + rejected + 2),
            plain_tokens=plain.mean if plain is not None else None,
            noted_tokens=noted.mean if noted is not None else None,
        )

    def narrowed(self, history: History, order: Order, options: SleepOptions) -> tuple[Order, Decision]:
        """The order, or where it does not pay but would without anticipating questions, that; and the decision."""
        decision = self.weigh(history, order, options)
        if not decision.sleeps and decision.reason == "does_not_pay" and order.questions:
            leaner = replace(order, questions=0)
            if (other := self.weigh(history, leaner, options)).sleeps:
                return leaner, other
        return order, decision

    def weigh(self, history: History, order: Order, options: SleepOptions | None = None) -> Decision:
        is_terse = order.style == "terse"
        most = self.rules.stages.thinking.max_chars // 4
        plan = Plan(
            min(float(order.passes), EXPECTED_PASSES),
            order.drafts,
            min(most, history.tokens if is_terse else 100 + history.tokens // 4),
            questions=order.questions,
            answer_tokens=10 if is_terse else 200,
            warms=order.warms,
        )
        return decide(history, plan, self.rules.worth, options.policy if options is not None else None)


def _mean(mean: float, count: int) -> float:
    return (mean * count + PRIOR * PRIOR_WEIGHT) / (count + PRIOR_WEIGHT)


def _first(*values: T | None, otherwise: T) -> T:
    """The first that says something."""
    return next((value for value in values if value is not None), otherwise)


def _within(least: int, value: int, most: int) -> int:
    return min(max(value, least), most)
