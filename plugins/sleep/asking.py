"""One call asleep: let in by the gate and the day's budget, ended at once when a person comes, booked in any case."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from predawn.plugins.sleep.contexts import Ask, Asked, AskOptions, Message, Preempted
from predawn.plugins.sleep.gate import Closed, Gate
from predawn.proxy.jobs.protocol import Postponed, StepError
from predawn.proxy.spend import cost_usd, to_nano
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.plugins.sleep.budget_day import DayBudget, Hold
    from predawn.proxy.clock import Clock
    from predawn.proxy.settings import PriceSettings
    from predawn.proxy.tasks import Tasks

LONGEST_POSTPONEMENT_S = 30.0
"""A step looks at least so often whether it may go on."""
DEFAULT_MAX_TOKENS = 4096
"""Held back for a call that names no limit."""
MOST_WAITING = 10_000
_PASSING = frozenset({"connect", "timeout_ttft", "timeout_idle", "5xx", "breaker", "truncated", "crashed"})
_Outcome: TypeAlias = "Asked | UpstreamError | Preempted"


class Refused(StepError):  # noqa: N818 - what the upstream did
    """The upstream will not answer this, however often it is asked."""


class Throttled(UpstreamError):  # noqa: N818 - what the upstream did
    """The upstream answered 429, and perhaps for how long it wants to be left alone."""

    def __init__(self, upstream: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(upstream, "429", message, sent_nothing=True)
        self.retry_after_s = retry_after_s


class Deferred(StepError):  # noqa: N818 - nothing is wrong
    """The gate has been closed for too long; the job makes room for others and is submitted again later."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A context whose call may not begin, since when, and why."""

    since: float
    closed: Closed
    failures: int = 0


@dataclass(slots=True)
class Tally:
    """What calls asleep came to in this process."""

    calls: int = 0
    preempted: int = 0
    tokens: int = 0
    tokens_cancelled: int = 0
    """Part of `tokens` whose answers were thrown away."""


class Asking:
    """An `Ask` for job steps around the one that sends. Raises `Postponed` where the step is to be called again,
    `Deferred` where that has gone on for `patience_s`, and `Refused` where asking again does not help.

    `on_closed` is told a reason whenever it begins to keep a context waiting.
    """

    def __init__(
        self,
        send: Ask,
        gate: Gate,
        budget: DayBudget,
        *,
        tasks: Tasks,
        clock: Clock,
        upstream_of: Callable[[str], str],
        price_of: Callable[[str], PriceSettings | None] = lambda _: None,
        patience_s: float = 600.0,
        most_failures: int = 4,
        on_closed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._send = send
        self._gate = gate
        self._budget = budget
        self._tasks = tasks
        self._clock = clock
        self._upstream_of = upstream_of
        self._price_of = price_of
        self._patience_s = patience_s
        self._most_failures = most_failures
        self._on_closed = on_closed
        self._waiting: OrderedDict[tuple[str, str], Waiting] = OrderedDict()
        self.tally = Tally()

    async def __call__(self, messages: Sequence[Message], options: AskOptions) -> Asked:
        upstream = self._upstream_of(options.model)
        if (closed := self._gate.closed(upstream)) is not None:
            raise self._postponed(options, closed)
        estimate = estimated_tokens(messages)
        price = self._price_of(options.model)
        most = options.max_tokens or DEFAULT_MAX_TOKENS
        hold = await self._budget.hold(
            options.tenant, estimate + most, to_nano(cost_usd(price, estimate, 0, most)) if price else 0
        )
        if isinstance(hold, Closed):
            raise self._postponed(options, hold)
        if (closed := self._gate.closed(upstream)) is not None:  # while the budget was looked up
            await self._budget.settle(hold, 0, 0)
            raise self._postponed(options, closed)
        return await self._call(messages, options, upstream, hold, estimate)

    async def _call(
        self, messages: Sequence[Message], options: AskOptions, upstream: str, hold: Hold, estimate: int
    ) -> Asked:
        task = self._tasks.spawn(self._outcome(messages, options), f"sleep.{options.purpose}")
        end = task.cancel
        self._gate.enter(upstream, end)
        outcome: _Outcome | None = None
        try:
            await asyncio.wait({task})
            outcome = None if task.cancelled() else task.result()
        finally:  # also when the job itself is cancelled
            self._gate.leave(upstream, end)
            task.cancel()
            booking = self._tasks.spawn(self._book(task, options, hold, estimate), "sleep.book")
            await asyncio.wait({booking})
        if isinstance(outcome, Asked):
            self._gate.answered(upstream)
            self._waiting.pop((options.tenant, options.context_id), None)
            return outcome
        raise self._failed(outcome, options, upstream)

    async def _outcome(self, messages: Sequence[Message], options: AskOptions) -> _Outcome:
        try:
            return await self._send(messages, options)
        except (UpstreamError, Preempted) as exc:
            return exc

    async def _book(self, task: asyncio.Task[_Outcome], options: AskOptions, hold: Hold, estimate: int) -> None:
        """Book what a call used, once it is over: an answer's own figures, or what was known when it ended early."""
        await asyncio.wait({task})
        result = task.result() if not task.cancelled() and task.exception() is None else None
        used = options.used
        if isinstance(result, Asked):
            prompt, output, cached = result.prompt_tokens, result.output_tokens, result.cached_tokens
        elif isinstance(result, UpstreamError) and result.sent_nothing:
            prompt, output, cached = used.prompt_tokens, used.output_tokens, 0
        else:  # the prompt had been sent, and most upstreams had read it
            prompt, output, cached = used.prompt_tokens or estimate, used.output_tokens, 0
            if isinstance(result, Preempted):
                output = max(output, result.tokens - prompt)
        tally = self.tally
        tally.calls += 1
        tally.tokens += prompt + output
        if not isinstance(result, Asked):
            tally.tokens_cancelled += prompt + output
        nano_usd = to_nano(cost_usd(self._price_of(options.model), prompt, cached, output))
        await self._budget.settle(hold, prompt + output, nano_usd)

    def _failed(self, outcome: UpstreamError | Preempted | None, options: AskOptions, upstream: str) -> Exception:
        if outcome is None or isinstance(outcome, Preempted):
            self.tally.preempted += 1
            return self._postponed(options, self._gate.closed(upstream) or Closed("busy", 1.0))
        if outcome.reason == "429":
            self._gate.refused(upstream, outcome.retry_after_s if isinstance(outcome, Throttled) else None)
            return self._postponed(options, self._gate.closed(upstream) or Closed("throttled", 5.0))
        if outcome.reason not in _PASSING:
            return Refused(f"{upstream}: {outcome.message}"[:500])
        known = self._waiting.get((options.tenant, options.context_id))
        # an upstream that went down with this very call inside gets it once more, for the call may not be the cause
        weight = self._most_failures if outcome.reason == "crashed" else 1
        failures = (known.failures if known is not None else 0) + weight
        if failures > self._most_failures:
            self._waiting.pop((options.tenant, options.context_id), None)
            what = "went down with the call" if outcome.reason == "crashed" else f"failed {failures} times"
            return Refused(f"{upstream}: {what}, the last time: {outcome.message}"[:500])
        closed = Closed("throttled", 2.0**failures, {"failures": failures, "reason": outcome.reason})
        return self._postponed(options, closed, failures)

    def waiting(self, tenant: str, context_id: str) -> Waiting | None:
        """Why a context's call does not begin just now, if one wants to."""
        return self._waiting.get((tenant, context_id))

    def forget(self, tenant: str, context_id: str) -> None:
        """It wants nothing any more."""
        self._waiting.pop((tenant, context_id), None)

    def _postponed(self, options: AskOptions, closed: Closed, failures: int = 0) -> Exception:
        """Keep the reason for whoever looks, and decide whether the step waits here or the job makes room."""
        key, now = (options.tenant, options.context_id), self._clock.monotonic()
        known = self._waiting.pop(key, None)
        since = known.since if known is not None else now
        if known is None or known.closed.why != closed.why:
            self._on_closed(closed.why)
        is_long = closed.why in ("hours", "tokens", "money") or now - since >= self._patience_s
        failures = failures or (known.failures if known is not None else 0)
        self._waiting[key] = Waiting(now, closed) if is_long else Waiting(since, closed, failures)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)
        if is_long:
            return Deferred(f"waits for {closed.why}, {closed.wait_s:.0f} s")
        return Postponed(min(max(closed.wait_s, 0.05), LONGEST_POSTPONEMENT_S))


def estimated_tokens(messages: Sequence[Message]) -> int:
    """A quarter of the bytes, and a few for each message's frame."""
    return len(json.dumps(list(messages), ensure_ascii=False, default=str).encode("utf-8", "replace")) // 4 + 4
