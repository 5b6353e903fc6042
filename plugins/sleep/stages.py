"""The four jobs as the engine runs them, and what follows what: consolidate, check, anticipate, warm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.anticipation import AnticipationRules, anticipate
from predawn.plugins.sleep.checking import CheckRules, check
from predawn.plugins.sleep.contexts import Ask, ContextState
from predawn.plugins.sleep.deferral import Deferral, backoff_s, deferral_of
from predawn.plugins.sleep.desk import Desk, Subject
from predawn.plugins.sleep.orders import KINDS, PREFIX, JobKind, Order
from predawn.plugins.sleep.thinking import consolidate
from predawn.plugins.sleep.warming import warm
from predawn.plugins.sleep.work import ThinkingRules, Work
from predawn.proxy.jobs.protocol import Json, Postponed
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.jobs.protocol import JobEngine, Step, Steps

STORE_WAIT_S = 5.0
_WHY_EMPTY = {
    "budget": "the context with one answer about it is more than budget_tokens",
    "unreadable": "the model answered with nothing that could be read as notes",
}
log = logging.getLogger("predawn.sleep")


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

    async def submit(self, kind: JobKind, order: Order) -> bool:
        """Put a stage into the queue; False if its context is forgotten: nothing of it stays in the job store.

        One that ended before is done again; what it paid for is on the desk.
        """
        job_id = order.job_id(kind)
        known = await self.jobs.state(job_id)
        if known is not None and known.state in ("done", "failed", "cancelled"):
            await self.jobs.purge([job_id])
        if not await self._note(order, job_id):
            return False
        await self.jobs.submit(f"{PREFIX}{kind}", job_id, order.as_json(), priority=order.priority)
        if not await self._note(order, job_id):  # forgotten meanwhile, and perhaps purged before the job was there
            await self.jobs.purge([job_id])
            return False
        return True

    async def _note(self, order: Order, job_id: str) -> bool:
        """Note that a job holds something of a context; False if that is forgotten."""
        subject = order.subject
        return await self.desk.add_job(subject.tenant, subject.context_id, subject.version, job_id)

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
        if outcome == "superseded":
            self.on_end(Ended(kind, order, outcome, self.clock.monotonic() - began, result))
            await steps.run("leave", partial(self._leave, order.subject, steps.job_id))
            return result
        if following is not None:
            await steps.run("next", partial(self._follow, following, order))
        elif outcome == "deferred":
            result = {**result, "times": await steps.run("put off", partial(self._put_off, work, kind, order, result))}
        elif outcome in ("failed", "empty") and kind in ("consolidate", "check"):
            await steps.run("put back", partial(self._put_back, work, outcome, result))
        else:
            await steps.run("end", partial(self._end, order.subject, outcome, result))
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

    async def _end(self, subject: Subject, outcome: str, result: Mapping[str, Any]) -> Json:
        """Nothing is under way any more."""
        context = await self.desk.get(subject.tenant, subject.context_id)
        if context is not None and context.state in ("asleep", "failed") and context.progress.stage:
            progress = replace(context.progress, state=context.state, stage="")
            await self.desk.report(subject.tenant, subject.context_id, subject.version, progress)
        ended = _end_of(outcome, result) if outcome == "rejected" else None
        stored = await self.desk.decision(subject.tenant, subject.context_id)
        if ended is not None or deferral_of(stored, subject) is not None:
            await self._amend(subject, deferred=None, ended=ended)
        return None

    async def _leave(self, subject: Subject, job_id: str) -> Json:
        """Purge this very job if its context is forgotten: whoever forgot it may not have known of the job."""
        context = await self.desk.get(subject.tenant, subject.context_id)
        if context is None or context.state == "forgotten":
            await self.jobs.purge([job_id])
        return None

    async def _put_back(self, work: Work, outcome: str, result: Mapping[str, Any]) -> Json:
        """It failed: let it be tried again when something happens, from the start if nothing came of the passes."""
        if outcome == "empty" and (notes := await self.desk.note(work.subject.tenant, work.notes_id)) is not None:
            await self.desk.judge(work.subject.tenant, replace(notes, status="rejected"))
        context = await self.desk.get(work.subject.tenant, work.subject.context_id)
        state: ContextState = "asleep" if context is not None and context.notes_id is not None else "failed"
        # before it shows: whoever sees it finds out why
        await self._amend(work.subject, ended=_end_of(outcome, result), deferred=None)
        await work.show(state, "", result.get("passes", 0), result.get("tokens", 0))
        return state

    async def _put_off(self, work: Work, kind: JobKind, order: Order, result: Mapping[str, Any]) -> Json:
        """Write down what is to go on later, and when: in the store, for this process may not be there any more."""
        subject = work.subject
        context = await self.desk.get(subject.tenant, subject.context_id)
        if context is None:
            return 1
        known = deferral_of(await self.desk.decision(subject.tenant, subject.context_id), subject)
        times = known.times + 1 if known is not None and known.kind == kind else 1
        deferral = Deferral(kind, order, self.clock.now() + backoff_s(times), times)
        # before it shows: whoever sees it finds out why
        await self._amend(subject, ended=_end_of("deferred", result), deferred=deferral.as_json())
        if kind in ("anticipate", "warm"):  # it stays asleep, with the stage that is left
            progress = replace(context.progress, state=context.state, stage=kind)
            await self.desk.report(subject.tenant, subject.context_id, subject.version, progress)
        else:
            state: ContextState = "asleep" if context.notes_id is not None else "new"
            await work.show(state, "", result.get("passes", 0), result.get("tokens", 0))
        return times

    async def _amend(self, subject: Subject, **members: Any) -> None:
        """Change members of the stored decision; `None` takes one out."""
        decision = {**(await self.desk.decision(subject.tenant, subject.context_id) or {}), **members}
        kept = {name: value for name, value in decision.items() if name not in ("at", "version") and value is not None}
        await self.desk.decide(subject.tenant, subject.context_id, subject.version, kept)


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


def _end_of(outcome: str, result: Mapping[str, Any]) -> dict[str, Any]:
    stopped = result.get("stopped", "")
    return {"outcome": outcome, "why": result.get("reason") or _WHY_EMPTY.get(stopped, stopped)}


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
