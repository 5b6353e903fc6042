"""The night: hears what happens, decides what is slept on and when, and can say why it waits.

The one object that the plugin talks to. What concerns requests (`began`, `ended`, `refused`) is memory only and safe on
the request path; everything else runs in `look`, once a second, away from requests.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.asking import Asking
from predawn.plugins.sleep.budget_day import DayBudget
from predawn.plugins.sleep.contexts import SLEEPABLE, Ask, Context, ContextState, Policy, SleepOptions
from predawn.plugins.sleep.deferral import Deferral, backoff_s, deferral_of
from predawn.plugins.sleep.desk import Desk, Subject
from predawn.plugins.sleep.gate import Closed, Gate
from predawn.plugins.sleep.orders import JobKind, Order
from predawn.plugins.sleep.planning import NightRules, Planner, Surroundings
from predawn.plugins.sleep.saturation import read_load
from predawn.plugins.sleep.stages import Ended, Stages
from predawn.plugins.sleep.triggers import Candidate, Candidates, Conversations, Key, Schedule, Trigger
from predawn.plugins.sleep.unslept import GIVEN_UP
from predawn.plugins.sleep.warming import WarmPrefixes
from predawn.plugins.sleep.worth import Decision, expected_uses, keeps_warm
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins.sleep.shelf_contexts import Came
    from predawn.plugins.sleep.unslept import Unslept
    from predawn.proxy.clock import Clock
    from predawn.proxy.jobs.protocol import JobEngine
    from predawn.proxy.tasks import Tasks

log = logging.getLogger("predawn.sleep")
LOOKED_AT = 50
"""Candidates that one look reads from the store."""
_SETTLED = frozenset({"asleep", "skipped", "failed", "forgotten"})


@dataclass(slots=True)
class Night:
    """Made when the server starts; `register` before jobs begin, `run` until it stops."""

    rules: NightRules
    around: Surroundings
    send: Ask
    desk: Desk
    jobs: JobEngine
    clock: Clock
    tasks: Tasks
    gate: Gate = field(init=False)
    asking: Asking = field(init=False)
    stages: Stages = field(init=False)
    planner: Planner = field(init=False)
    candidates: Candidates = field(init=False)
    warmth: WarmPrefixes = field(init=False)
    _conversations: Conversations = field(init=False)
    _schedule: Schedule = field(init=False)
    _active: dict[Key, Order] = field(init=False, default_factory=dict[Key, Order])
    _held: dict[Key, tuple[str, Closed]] = field(init=False, default_factory=dict[Key, tuple[str, Closed]])
    """Candidates whose upstream was not free when they were looked at."""
    _deferred: dict[Key, Deferral] = field(init=False, default_factory=dict[Key, Deferral])
    """What this process knows of what was put off; the store has it all."""
    _orphans: dict[Unslept, int] = field(init=False, default_factory=dict["Unslept", int])
    """How often jobs were found gone without an end."""
    _recovered_at: float = field(init=False, default=float("-inf"))
    _recovered_to: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        rules, around = self.rules, self.around
        self.gate = Gate(rules.gate, self.clock)
        self.asking = Asking(
            self.send,
            self.gate,
            DayBudget(rules.limits, self.clock, self.desk),
            tasks=self.tasks,
            clock=self.clock,
            upstream_of=around.upstream_of,
            price_of=around.price_of,
            patience_s=rules.patience_s,
            on_closed=around.on_closed,
        )
        self.stages = Stages(self.asking, self.desk, self.jobs, self.clock, rules.stages, self._ended)
        self.planner = Planner(rules, around, self.desk, self.clock)
        self.candidates = Candidates(rules.most_waiting)
        self.warmth = WarmPrefixes(rules.warming)
        self._conversations = Conversations(rules.quiet_s, rules.most_waiting)
        self._schedule = Schedule(rules.schedule, rules.gate.timezone)

    # What it is told of requests: memory only.

    def began(self, upstream: str) -> int:
        """A person's request begins. Sleep's calls to the same upstream end now; returns how many did."""
        return self.gate.began(upstream)

    def ended(self, upstream: str) -> None:
        """A person's request is over, however it ended; call it once for each `began`."""
        self.gate.ended(upstream)

    def refused(self, upstream: str, retry_after_s: float | None = None) -> None:
        """The upstream answered a person with 429."""
        self.gate.refused(upstream, retry_after_s)

    def told(self, upstream: str, metrics: str) -> None:
        """The upstream's own metrics page, if it has one."""
        if (load := read_load(metrics)) is not None:
            self.gate.told(upstream, load)

    # What it is told of contexts.

    def happened(self, tenant: str, context_id: str, version: int, trigger: Trigger) -> None:
        """Something makes a context a candidate."""
        key = Key(tenant, context_id)
        self.candidates.add(Candidate(key, version, trigger, self.clock.monotonic()))

    def used(self, tenant: str, context_id: str, version: int) -> None:
        """A request began with this context."""
        key, now = Key(tenant, context_id), self.clock.monotonic()
        self._conversations.used(key, version, now)
        self.warmth.used(key, now)

    async def came(self, context: Context, came: Came) -> None:
        """A context was registered, or changed, or came again as it is."""
        active = self._active.get(Key(context.tenant, context.id))
        if came == "changed" and active is not None and active.subject.version < context.version:
            await self.jobs.cancel(active.job_ids)  # what it would find out is of no use
        if came != "same":
            self.happened(context.tenant, context.id, context.version, "registered" if came == "created" else "changed")

    async def asked(self, context: Context, options: SleepOptions) -> str:
        """A client wants sleep now. It is submitted at once, and waits in the queue until nobody else does.

        Returns why nothing will be done; empty if it will.
        """
        if options.policy == "off":
            return "the request itself has the policy off."
        model = self.around.model_of(context)
        if model is None:
            return "there is no model to think with: neither `model` of the plugin nor the context's own is one here."
        key = Key(context.tenant, context.id)
        candidate = Candidate(key, context.version, "asked", self.clock.monotonic())
        order = await self.planner.order(context, model, options, candidate)
        history = await self.planner.history(context, model)
        decision = self.planner.weigh(history, order, replace(options, policy=options.policy or _wanted(context)))
        if decision.policy != "off":
            decision = replace(decision, sleeps=True, reason="prompted")
        await self._keep(context, decision, "asked")
        if not decision.sleeps:
            return "the server's settings have `policy: off` for the plugin sleep."
        if await self._submit(order, "consolidate"):
            self._drop(key)  # whatever else made it a candidate is answered by this
        return ""

    async def purge(self, tenant: str, context_id: str, job_ids: Sequence[str]) -> None:
        """A context was forgotten. Raises `StoreError`."""
        key = Key(tenant, context_id)
        self._drop(key)
        self.warmth.drop(key)
        self.asking.forget(tenant, context_id)
        self._conversations.drop(key)
        self._deferred.pop(key, None)
        order = self._active.pop(key, None)
        await self.jobs.purge([*job_ids, *(order.job_ids if order is not None else ())])

    # What it does.

    def register(self) -> None:
        """Tell the job engine what does the jobs; before the server's jobs begin."""
        self.stages.register()

    async def run(self) -> None:
        """Look around until cancelled."""
        while True:
            await self.clock.sleep(self.rules.look_every_s)
            try:
                await self.look()
            except StoreError as exc:
                log.warning("sleep waits for the store: %s", exc)

    async def look(self) -> int:
        """One round; returns how many orders were submitted. Raises `StoreError`."""
        now = self.clock.monotonic()
        for key, version in self._conversations.gone_quiet(now):
            self.happened(key.tenant, key.context_id, version, "quiet")
        for key, order in list(self._active.items()):
            if not await self.stages.is_under_way(order):
                self._active.pop(key, None)
        scheduled = self._schedule.is_due(self.clock.now())
        if scheduled or now - self._recovered_at >= self.rules.recover_every_s:
            self._recovered_at = now
            await self._recover("schedule" if scheduled else "resumed")
        submitted = await self._resume()
        looked_at, open_ = 0, self._open()
        if len(self._held) > self.rules.most_waiting:
            self._held.clear()  # candidates were let go for want of room; those still here are looked at again
        for candidate in self.candidates.in_order():
            if looked_at >= LOOKED_AT or len(self._active) >= self.rules.most_active:
                break
            held = self._held.get(candidate.key)
            if candidate.key in self._active or (held is not None and held[0] not in open_):
                continue
            looked_at += 1
            submitted += await self._consider(candidate)
        return submitted + await self._rewarm(now)

    def _open(self) -> frozenset[str]:
        """The upstreams that are free now."""
        return frozenset(name for name in self.gate.upstreams if self.gate.closed(name) is None)

    async def _consider(self, candidate: Candidate) -> int:
        """Decide about one candidate; it stays one only while its upstream is not free."""
        key = candidate.key
        context = await self.desk.get(key.tenant, key.context_id)
        model = self.around.model_of(context) if context is not None else None
        if context is None or model is None or context.version != candidate.version or not _may(context, candidate):
            self._drop(key)
            return 0
        upstream = self.around.upstream_of(model)
        if (closed := self.gate.closed(upstream)) is not None:
            if key not in self._held or self._held[key][1].why != closed.why:
                self.around.on_closed(closed.why)
            self._held[key] = (upstream, closed)
            return 0
        order = await self.planner.order(context, model, SleepOptions(), candidate)
        self._drop(key)
        if order.subject.attempt > self.rules.most_attempts:
            return 0
        order, decision = self.planner.narrowed(await self.planner.history(context, model), order, context.options)
        await self._keep(context, decision, candidate.trigger)
        if decision.sleeps:
            return int(await self._submit(order, "consolidate"))
        if context.state != "asleep":
            await self.desk.claim(key.tenant, key.context_id, context.version, "skipped", of=SLEEPABLE)
        return 0

    async def _submit(self, order: Order, kind: JobKind) -> bool:
        subject = order.subject
        if kind in ("consolidate", "check"):
            place = (subject.tenant, subject.context_id, subject.version)
            if not await self.desk.claim(*place, "queued", of=SLEEPABLE, job_ids=order.job_ids):
                return False
        if not await self.stages.submit(kind, order):
            return False
        self._active[Key(subject.tenant, subject.context_id)] = order
        return True

    async def _resume(self) -> int:
        """Orders that were deferred and may go on."""
        submitted, now = 0, self.clock.now()
        for key, deferred in list(self._deferred.items()):
            upstream = self.around.upstream_of(deferred.order.model)
            if now < deferred.at or key in self._active or self.gate.closed(upstream) is not None:
                continue
            del self._deferred[key]
            stored = deferral_of(await self.desk.decision(*key), deferred.order.subject)
            if stored is None or stored.times != deferred.times or await self.stages.is_under_way(deferred.order):
                continue  # another process was quicker, or all is different now
            submitted += await self._submit(deferred.order, deferred.kind)
        return submitted

    async def _rewarm(self, now: float) -> int:
        submitted = 0
        for key, warmth in self.warmth.due(now):
            context = await self.desk.get(key.tenant, key.context_id)
            model = self.around.model_of(context) if context is not None else None
            if context is None or model is None or context.version != warmth.version:
                self.warmth.drop(key)
                continue
            if key in self._active or self.gate.closed(self.around.upstream_of(model)) is not None:
                continue
            history = await self.planner.history(context, model)
            rate = expected_uses(history, self.rules.worth) / self.rules.worth.horizon_s
            pays, _ = keeps_warm(rate, self.rules.warming.every_s, context.tokens, self.rules.worth.prices)
            if not pays:
                self.warmth.drop(key)
            else:
                self.warmth.tried(key, now)
                candidate = Candidate(key, context.version, "schedule", now)
                order = await self.planner.order(context, model, SleepOptions(), candidate)
                submitted += await self._submit_warming(replace(order, turn=1 + warmth.times))
        return submitted

    async def _submit_warming(self, order: Order) -> bool:
        subject = order.subject
        place = (subject.tenant, subject.context_id, subject.version)
        if not await self.desk.claim(*place, "asleep", of=["asleep"]):
            return False
        return await self.stages.submit("warm", order)

    async def _recover(self, trigger: Trigger) -> None:
        """Find contexts that nobody told us of, and those whose jobs a crash took away."""
        if self.around.unslept is None:
            return
        after, is_scheduled = 0 if trigger == "schedule" else self._recovered_to, trigger == "schedule"
        for _ in range(self.rules.most_waiting // LOOKED_AT if is_scheduled else 1):
            found = await self.around.unslept(after, LOOKED_AT, is_scheduled)
            for one in found:
                await self._look_at(one, trigger)
            after = found[-1].change if len(found) == LOOKED_AT else 0
            if not after:
                break
        self._recovered_to = after

    async def _look_at(self, one: Unslept, trigger: Trigger) -> None:
        """Decide what is to be done about a context that was found in the store."""
        key, subject = Key(one.tenant, one.context_id), Subject(one.tenant, one.context_id, one.version)
        if key in self._active or key in self._deferred:
            return
        if one.state in ("new", "asleep"):
            deferral = deferral_of(await self.desk.decision(*key), subject)
            if deferral is not None and not await self.stages.is_under_way(deferral.order):
                if len(self._deferred) < self.rules.most_waiting:
                    self._deferred[key] = deferral
                return
        if one.state == "asleep":
            await self._finish(one)
        elif one.state in ("new", *GIVEN_UP) or await self._is_orphaned(one):
            self.happened(one.tenant, one.context_id, one.version, trigger)

    async def _finish(self, one: Unslept) -> None:
        """A context that is asleep with a stage left: do it, or say that it is over, where no job is under way."""
        context = await self.desk.get(one.tenant, one.context_id)
        model = self.around.model_of(context) if context is not None else None
        left = context.progress.stage if context is not None else ""
        stage: JobKind | None = "anticipate" if left == "anticipate" else "warm" if left == "warm" else None
        if context is None or model is None or context.version != one.version or stage is None:
            return
        candidate = Candidate(Key(one.tenant, one.context_id), one.version, "resumed", self.clock.monotonic())
        order = await self.planner.order(context, model, SleepOptions(), candidate)
        order = replace(order, subject=replace(order.subject, attempt=max(order.subject.attempt - 1, 1)))
        if await self.stages.is_under_way(order):
            return
        if self.gate.closed(self.around.upstream_of(model)) is not None:
            return  # it is found again
        if self._found_gone(one) <= self.rules.most_attempts:
            await self._submit(order, stage)
        else:
            progress = replace(context.progress, state=context.state, stage="")
            await self.desk.report(one.tenant, one.context_id, one.version, progress)

    def _found_gone(self, one: Unslept) -> int:
        """How often jobs of this one were found gone without an end, this time included."""
        if len(self._orphans) >= self.rules.most_waiting:
            self._orphans.clear()
        times = self._orphans[one] = self._orphans.get(one, 0) + 1
        return times

    async def _is_orphaned(self, one: Unslept) -> bool:
        attempt = await self.planner.attempt(one.tenant, one.context_id, one.version)
        order = Order(Subject(one.tenant, one.context_id, one.version, attempt), "")
        if await self.stages.is_under_way(order):
            return False
        last = replace(order, subject=replace(order.subject, attempt=max(attempt - 1, 1)))
        if await self.stages.is_under_way(last):
            return False
        state: ContextState = "new" if self._found_gone(one) <= self.rules.most_attempts else "failed"
        place = (one.tenant, one.context_id, one.version)
        return await self.desk.claim(*place, state, of=[one.state]) and state == "new"

    def _drop(self, key: Key) -> None:
        self.candidates.drop(key)
        self._held.pop(key, None)

    async def _keep(self, context: Context, decision: Decision, trigger: Trigger) -> None:
        shown = {**decision.as_json(), "trigger": trigger}
        await self.desk.decide(context.tenant, context.id, context.version, shown)

    def _ended(self, ended: Ended) -> None:
        """A job ended in this process."""
        key = Key(ended.order.subject.tenant, ended.order.subject.context_id)
        if ended.outcome == "deferred":
            times = int(ended.result.get("times", 1))
            self._deferred[key] = Deferral(ended.kind, ended.order, self.clock.now() + backoff_s(times), times)
            if len(self._deferred) > self.rules.most_waiting:
                self._deferred.pop(next(iter(self._deferred)))
        else:
            self.asking.forget(*key)
            if (known := self._deferred.get(key)) is not None and known.kind == ended.kind:
                self._deferred.pop(key)
        if ended.kind == "warm" and ended.outcome == "done":
            self.warmth.primed(key, ended.order.subject.version, self.clock.monotonic())
        self.around.on_end(ended)

    # What it shows.

    def waits_for(self, tenant: str, context_id: str) -> dict[str, Any] | None:
        """Why a context is not being slept on right now, with the figures; `None` if nothing keeps it."""
        key = Key(tenant, context_id)
        if (waiting := self.asking.waiting(tenant, context_id)) is not None:
            waited_s = self.clock.monotonic() - waiting.since
            return {"why": waiting.closed.why, "waited_s": round(waited_s, 3), **waiting.closed.numbers}
        if (deferred := self._deferred.get(key)) is not None:
            return self._put_off(deferred)
        if (candidate := self.candidates.get(key)) is not None and key not in self._active:
            waited_s = self.clock.monotonic() - candidate.at
            upstream, closed = self._held.get(key, ("", None))
            why = {"why": closed.why, **closed.numbers} if closed is not None and self.gate.closed(upstream) else {}
            return {"why": "turn", "trigger": candidate.trigger, "waited_s": round(waited_s, 3), **why}
        return None

    def waits_elsewhere(self, context: Context, decision: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The same for what another process does: what was put off stands in the store, and this process's gate hears
        of everybody's requests."""
        subject = Subject(context.tenant, context.id, context.version)
        deferral = deferral_of(decision, subject) if context.state in SLEEPABLE else None
        if deferral is not None and deferral.at > self.clock.now():
            return self._put_off(deferral)
        model = self.around.model_of(context)
        if model is None or context.state in _SETTLED:
            return None
        closed = self.gate.closed(self.around.upstream_of(model))
        if closed is None or closed.why == "full":  # a call of our own is no reason to wait
            return None
        return {"why": closed.why, **closed.numbers}

    def _put_off(self, deferral: Deferral) -> dict[str, Any]:
        again_s = max(0.0, deferral.at - self.clock.now())
        return {"why": "deferred", "stage": deferral.kind, "again_s": round(again_s, 3), "times": deferral.times}

    def status(self) -> dict[str, Any]:
        """The night at a glance, for metrics and the live page. Says nothing of any tenant."""
        gates = {name: self.gate.closed(name) for name in self.gate.upstreams}
        return {
            "gates": {name: closed.why if closed is not None else "open" for name, closed in gates.items()},
            "candidates": len(self.candidates),
            "oldest_candidate_s": self.candidates.oldest_s(self.clock.monotonic()),
            "active": len(self._active),
            "deferred": len(self._deferred),
            "warm_prefixes": len(self.warmth),
            "calls": self.asking.tally.calls,
            "tokens": self.asking.tally.tokens,
            "tokens_cancelled": self.asking.tally.tokens_cancelled,
            "preempted": self.asking.tally.preempted,
        }


def _wanted(context: Context) -> Policy | None:
    """A context's own policy where a client asks for sleep: that is more than an `off` it was registered with."""
    return context.options.policy if context.options.policy != "off" else None


def _may(context: Context, candidate: Candidate) -> bool:
    """Whether a candidate's context is in a state from which this trigger makes it be slept on.

    A version that has been slept on is not again, unless a client asks for it; a change makes a new one.
    """
    if context.state == "failed":
        return candidate.trigger == "schedule"
    return context.state in ("new", "skipped")
