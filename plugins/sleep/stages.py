"""The four jobs as the engine runs them, and what follows what: consolidate, check, anticipate, warm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from predawn.plugins.sleep.anticipation import AnticipationRules, anticipate
from predawn.plugins.sleep.checking import CheckRules, check
from predawn.plugins.sleep.contexts import Ask
from predawn.plugins.sleep.desk import Desk, Subject
from predawn.plugins.sleep.prompts import Style
from predawn.plugins.sleep.thinking import consolidate
from predawn.plugins.sleep.warming import warm
from predawn.plugins.sleep.work import ThinkingRules, Work
from predawn.proxy.jobs.protocol import Json, Postponed
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.jobs.protocol import JobEngine, Step, Steps

JobKind: TypeAlias = Literal["consolidate", "check", "anticipate", "warm"]
KINDS: tuple[JobKind, ...] = ("consolidate", "check", "anticipate", "warm")
PREFIX = "sleep."
STORE_WAIT_S = 5.0
log = logging.getLogger("predawn.sleep")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done about a subject: every number that a job decides by, fixed when it is submitted."""

    subject: Subject
    model: str
    style: Style = "full"
    passes: int = 4
    drafts: int = 1
    budget_tokens: int = 60_000
    questions: int = 5
    warms: bool = True
    priority: int = 100
    turn: int = 0
    """How often a prefix was warmed in a row; jobs are named by it, so that there are few names to remember."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "subject": self.subject.as_json()}

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Order:
        return cls(**{**arguments, "subject": Subject.of(arguments["subject"])})

    def job_id(self, kind: JobKind) -> str:
        """The same on every machine, so that two which submit the same order submit one job."""
        return f"{PREFIX}{kind}.{self.subject.ident(kind, self.turn if kind == 'warm' else 0)}"

    @property
    def job_ids(self) -> list[str]:
        return [self.job_id(kind) for kind in KINDS]


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that ended in this process."""

    kind: JobKind
    order: Order
    outcome: str
    """`done`, `accepted`, `rejected`, `empty`, `failed`, `deferred`, `superseded`."""
    seconds: float
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StageRules:
    """The bounds of all stages; an order narrows them."""

    thinking: ThinkingRules = field(default_factory=ThinkingRules)
    check: CheckRules = field(default_factory=CheckRules)
    anticipation: AnticipationRules = field(default_factory=AnticipationRules)


@dataclass(slots=True)
class Stages:
    """Runs orders on the job engine."""

    ask: Ask
    desk: Desk
    jobs: JobEngine
    clock: Clock
    rules: StageRules = field(default_factory=StageRules)
    on_end: Callable[[Ended], None] = lambda _: None

    def register(self) -> None:
        """Tell the engine what does the jobs."""
        for kind in KINDS:
            self.jobs.register(f"{PREFIX}{kind}", partial(self._run, kind))

    async def submit(self, kind: JobKind, order: Order) -> None:
        """Put a stage into the queue. One that ended before is done again; what it paid for is on the desk."""
        job_id = order.job_id(kind)
        known = await self.jobs.state(job_id)
        if known is not None and known.state in ("done", "failed", "cancelled"):
            await self.jobs.purge([job_id])
        await self.jobs.submit(f"{PREFIX}{kind}", job_id, order.as_json(), priority=order.priority)

    async def is_under_way(self, order: Order) -> bool:
        """True while any stage of an order waits or runs, on any machine."""
        for job_id in order.job_ids:
            job = await self.jobs.state(job_id)
            if job is not None and job.state in ("queued", "running"):
                return True
        return False

    async def _run(self, kind: JobKind, steps: Steps, arguments: Any) -> Json:
        steps, order = _Patient(steps), Order.of(arguments)
        began = self.clock.monotonic()
        work = self._work(order)
        result = await self._do(kind, steps, work, order)
        outcome = result["outcome"]
        following = _next(kind, order, outcome)
        if following is not None:
            await steps.run("next", partial(self._follow, following, order))
        elif outcome in ("deferred", "failed", "empty") and kind in ("consolidate", "check"):
            await steps.run("put back", partial(self._put_back, work, outcome, result))
        elif outcome != "superseded":
            await steps.run("end", partial(self._end, order.subject))
        self.on_end(Ended(kind, order, outcome, self.clock.monotonic() - began, result))
        return result

    async def _do(self, kind: JobKind, steps: Steps, work: Work, order: Order) -> dict[str, Any]:
        if kind == "consolidate":
            return await consolidate(steps, work)
        if kind == "check":
            return await check(steps, work, self.rules.check)
        if kind == "anticipate":
            return await anticipate(steps, work, replace(self.rules.anticipation, questions=order.questions))
        return await warm(steps, work)

    def _work(self, order: Order) -> Work:
        rules = replace(
            self.rules.thinking,
            style=order.style,
            max_passes=order.passes,
            drafts=order.drafts,
            budget_tokens=order.budget_tokens,
        )
        return Work(self.ask, self.desk, self.clock, order.subject, order.model, rules)

    async def _follow(self, kind: JobKind, order: Order) -> Json:
        await self.submit(kind, order)
        return kind

    async def _end(self, subject: Subject) -> Json:
        """Nothing is under way any more."""
        context = await self.desk.get(subject.tenant, subject.context_id)
        if context is not None and context.state in ("asleep", "failed") and context.progress.stage:
            progress = replace(context.progress, state=context.state, stage="")
            await self.desk.report(subject.tenant, subject.context_id, subject.version, progress)
        return None

    async def _put_back(self, work: Work, outcome: str, result: Mapping[str, Any]) -> Json:
        """Let it be tried again: deferred ones go on where they were, failed ones when something happens."""
        context = await self.desk.get(work.subject.tenant, work.subject.context_id)
        if context is not None and context.notes_id is not None:
            state: Literal["asleep", "new", "failed"] = "asleep"
        else:
            state = "new" if outcome == "deferred" else "failed"
        await work.show(state, "", result.get("passes", 0), result.get("tokens", 0))
        subject = work.subject
        decision = {**(await self.desk.decision(subject.tenant, subject.context_id) or {})}
        decision["ended"] = {"outcome": outcome, "why": result.get("reason") or result.get("stopped", "")}
        kept = {name: value for name, value in decision.items() if name not in ("at", "version")}
        await self.desk.decide(subject.tenant, subject.context_id, subject.version, kept)
        return state


@dataclass(frozen=True, slots=True)
class _Patient:
    """Steps that wait for a store which cannot be reached, where a job would fail."""

    steps: Steps

    @property
    def job_id(self) -> str:
        return self.steps.job_id

    async def run(self, name: str, function: Step) -> Any:
        async def patiently() -> Json:
            try:
                return await function()
            except StoreError as exc:
                log.warning("sleep waits for the store: %s", exc)
                raise Postponed(STORE_WAIT_S) from exc

        return await self.steps.run(name, patiently)


def _next(kind: JobKind, order: Order, outcome: str) -> JobKind | None:
    if kind == "consolidate":
        return "check" if outcome == "done" else None
    if kind == "check":
        if outcome != "accepted":
            return None
        return "anticipate" if order.questions else "warm" if order.warms else None
    if kind == "anticipate" and outcome == "done":
        return "warm" if order.warms else None
    return None
