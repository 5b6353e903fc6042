"""Runs checks beside the generation: bounded, timed, isolated, a few begun at a time so that chunks go first.

In one turn of the event loop checks begin for `SLICE_S` together, and at least one: between two turns everything else
that is ready gets its own. So many run side by side for an answer, and for all answers; the others wait, answer by
answer in turn. Once too many wait, the oldest is passed over, and its step is `unsure`: the oldest of all, or that of
the answer that makes them too many, where it has more than its share. A verifier that does not end when its time is
over loses its place all the same: whoever waits for its word gets another one.

Most verifiers come to their word without waiting for anything. One task runs those one after another; it becomes the
task of the first that does wait, which only then is given a timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Generator
from contextvars import copy_context
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from predawn.proxy.exchange import Verdict
from predawn.proxy.joining import rest_of

if TYPE_CHECKING:
    from predawn.plugins.verify.trace import Check
    from predawn.proxy.exchange import Exchange
    from predawn.proxy.extensions import Step
    from predawn.proxy.tasks import Tasks

log = logging.getLogger("predawn.verify")
MOST_CHARS = 4 << 20
"""Characters of the steps that may wait: what a client waits for is held as chunks, each of some hundred bytes."""
SLICE_S = 0.001
"""How long checks begin before others get their turn."""
AT_A_TIME = 16
"""Tasks that begin with checks in one turn: of verifiers that wait each needs its own."""
LONGEST_FEEDBACK = 2000
LONGEST_CORRECTION = 1 << 16
OUTCOMES = frozenset({"pass", "violation", "unsure"})
Fork: TypeAlias = "Callable[[Check], Awaitable[str | None]]"


class CheckMeters(Protocol):
    """Where checks are counted."""

    def checked(self, check: Check) -> None: ...


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """How much is verified at a time."""

    per_answer: int = 8
    at_once: int = 256
    waiting: int = 1024


class Checks:
    """The checks of one answer. `settled` is called with each check that is over; it must not wait."""

    __slots__ = ("exchange", "fork", "is_in_turn", "limit", "runner", "settled", "tasks", "waiting", "wanted")

    def __init__(
        self, runner: Runner, exchange: Exchange, settled: Callable[[Check], None], fork: Fork | None = None
    ) -> None:
        self.runner = runner
        self.exchange = exchange
        self.settled = settled
        self.fork = fork
        self.limit = runner.limits.per_answer
        self.waiting: deque[Check] = deque()
        """Those that may begin, oldest first, and some that nobody wants any more."""
        self.wanted = 0
        """How many of those that wait are wanted."""
        self.tasks: dict[Check, asyncio.Task[None]] = {}
        """Those that run, of which each has a place."""
        self.is_in_turn = False

    def add(self, check: Check) -> None:
        """Have a step looked at. Never waits."""
        self.runner.add(self, check)

    def drop(self, check: Check) -> None:
        """Nobody wants to know any more."""
        if check.is_stale:
            return
        check.is_stale = True
        self.runner.waits_no_more(self, check)
        task = self.tasks.get(check)
        if task is not None:
            task.cancel()

    def pass_over(self, check: Check, why: str) -> None:
        """Have a step stay unverified that nobody will look at."""
        self.runner.pass_over(self, check, why)

    def close(self) -> None:
        """Drop all there are."""
        for check in (*self.waiting, *self.tasks):
            self.drop(check)
        self.waiting.clear()
        self.settled = _to_nobody  # no circle is left: of 300 answers a second the collector's pauses grew to 250 ms
        self.fork = None

    @property
    def is_idle(self) -> bool:
        return not self.tasks and not self.wanted


class Runner:
    """The checks of all answers of this process."""

    def __init__(self, tasks: Tasks, limits: RunnerLimits, meters: CheckMeters) -> None:
        self.limits = limits
        self.shed = 0
        """Checks that were passed over."""
        self.failed = 0
        self._tasks = tasks
        self._meters = meters
        self._running = 0
        self._in_turn: deque[Checks] = deque()
        """Answers of which a check may begin, each once."""
        self._waiting: OrderedDict[Check, Checks] = OrderedDict()
        """What waits and is wanted, oldest first; nothing else, for each holds on to the text of its answer."""
        self._chars = 0
        """How long their steps are, together."""
        self._answers = 0
        """How many answers those belong to."""
        self._is_called = False

    def add(self, checks: Checks, check: Check) -> None:
        checks.waiting.append(check)
        self._waiting[check] = checks
        self._chars += check.cut.end - check.cut.start
        checks.wanted += 1
        self._answers += checks.wanted == 1
        self._give_turn(checks)
        while len(self._waiting) > self.limits.waiting or (self._chars > MOST_CHARS and len(self._waiting) > 1):
            self._shed(checks)
        self._call()

    def _shed(self, checks: Checks) -> None:
        """The oldest stays unverified: of the answer that adds one, where it has more than its share."""
        oldest = next(iter(self._waiting))
        if checks.wanted * self._answers > len(self._waiting):
            oldest = next(check for check in checks.waiting if check in self._waiting)
        its_own = self._waiting[oldest]
        self.waits_no_more(its_own, oldest)
        its_own.waiting.remove(oldest)  # near the front: none of its answer has waited longer
        self.pass_over(its_own, oldest, "too much was waiting to be verified")

    def pass_over(self, checks: Checks, check: Check, why: str) -> None:
        """A check that does not wait ends without a look."""
        check.began_s = check.ended_s = perf_counter()
        self.shed += 1
        self._end(checks, check, _unsure(check, "shed", why))

    def waits_no_more(self, checks: Checks, check: Check) -> None:
        """One begins, or nobody wants to know any more."""
        if self._waiting.pop(check, None) is not None:
            checks.wanted -= 1
            self._chars -= check.cut.end - check.cut.start
            self._answers -= not checks.wanted

    def _give_turn(self, checks: Checks) -> None:
        if checks.waiting and not checks.is_in_turn and len(checks.tasks) < checks.limit:
            checks.is_in_turn = True
            self._in_turn.append(checks)

    def _call(self) -> None:
        if not self._is_called and self._in_turn and self._running < self.limits.at_once:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Have tasks begin with the next checks, in a slice that they share; and look again once they have."""
        self._is_called = False
        in_turn = self._in_turn
        while in_turn and not in_turn[0].wanted:  # its answer is over
            in_turn.popleft().is_in_turn = False
        ready = sum(checks.wanted > 0 for checks in islice(in_turn, AT_A_TIME))
        count = min(ready, self.limits.at_once - self._running)
        if count <= 0:
            return
        piece = _Slice()
        for _ in range(count):
            self._tasks.spawn(self._work(piece), "verify")
        self._is_called = True
        asyncio.get_running_loop().call_soon(self._begin)

    def _next_in_turn(self) -> tuple[Checks, Check] | None:
        """The check that begins next, of the answer whose turn it is; it has a place by this."""
        while self._in_turn and self._running < self.limits.at_once:
            checks = self._in_turn.popleft()
            checks.is_in_turn = False
            check = self._next(checks) if len(checks.tasks) < checks.limit else None
            if check is not None:
                self._running += 1
                check.began_s = perf_counter()
                return checks, check
        return None

    def _next(self, checks: Checks) -> Check | None:
        while checks.waiting:
            check = checks.waiting.popleft()
            if not check.is_stale:
                self.waits_no_more(checks, check)
                return check
        return None

    async def _work(self, piece: _Slice) -> None:
        """Run checks one after another, until one has had to wait or others are to get their turn."""
        task = asyncio.current_task()
        assert task is not None
        found = None if piece.is_over else self._next_in_turn()
        if found is None:
            return
        look = _Look(self, *found)
        task.add_done_callback(look.ended)
        context = copy_context()
        while True:
            look.checks.tasks[look.check] = task
            self._give_turn(look.checks)
            await self._run(look)
            if look.has_waited or task.cancelling() or piece.is_over or copy_context() != context:
                return  # what a verifier leaves in its context is for no other
            found = self._next_in_turn()
            if found is None:
                return
            look.checks, look.check = found

    async def _run(self, look: _Look) -> None:
        checks, check = look.checks, look.check
        attempt = _Attempt()
        verdict: Verdict | None = None
        with attempt:
            told = await look
            check.ended_s = perf_counter()
            verdict = _as_told(told, checks, check)
        self._free(checks, check)
        if check.is_stale or check.verdict is not None:
            return
        if verdict is None:
            assert attempt.error is not None
            check.ended_s = perf_counter()
            verdict = self._failed(check, attempt.error)
        self._end(checks, check, verdict)

    def expire(self, checks: Checks, check: Check) -> None:
        """Its time is over: its place is free for another one, whether the verifier ends by that or not."""
        task = checks.tasks.get(check)
        if task is None:
            return
        self._free(checks, check)
        if check.verdict is None and not check.is_stale:
            check.ended_s = perf_counter()
            self._end(checks, check, _unsure(check, "timeout", f"it took longer than {check.verifier.timeout_s:g} s"))
        task.cancel()

    def ended(self, checks: Checks, check: Check, task: asyncio.Task[None]) -> None:
        """The task of a check is over, and so is the check."""
        self._free(checks, check)
        check.cut.forget()
        if check.verdict is not None or check.is_stale:
            return
        check.ended_s = perf_counter()
        if task.cancelling():  # the server stops
            verdict = _unsure(check, "shed", "its verification was broken off")
        else:  # what its verifier waited for was cancelled, and whoever waits for a word would do so for ever
            verdict = self._failed(check, asyncio.CancelledError())
        self._end(checks, check, verdict)

    def _free(self, checks: Checks, check: Check) -> None:
        """Another check may begin in its place."""
        if checks.tasks.pop(check, None) is not None:
            self._running -= 1
            self._give_turn(checks)
            self._call()

    def _failed(self, check: Check, error: BaseException) -> Verdict:
        self.failed += 1
        if not self.failed & (self.failed - 1):  # at powers of two: a flood must not flood the log
            log.error("verifier %s failed, the %dth failure", check.verifier.name, self.failed, exc_info=error)
        return _unsure(check, "error", f"it failed: {type(error).__name__}")

    def _end(self, checks: Checks, check: Check, verdict: Verdict) -> None:
        check.verdict = verdict
        self._meters.checked(check)
        checks.settled(check)
        check.cut.forget()


class _Slice:
    """The time that checks which begin in one turn of the event loop have together; it runs from the first of them."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = 0.0

    @property
    def is_over(self) -> bool:
        now = perf_counter()
        if not self._until:
            self._until = now + SLICE_S
        return now > self._until


def _to_nobody(check: Check) -> None:
    """Whoever wanted to know has gone."""


class _Attempt:
    """Keeps what a verifier raises to itself; what ends the task or the process goes on."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> bool:
        if isinstance(exc, Exception):
            self.error = exc
            return True
        return False


class _Look:
    """A task's look at one check after another; awaiting it is the look itself."""

    __slots__ = ("_runner", "_timer", "check", "checks", "has_waited")

    def __init__(self, runner: Runner, checks: Checks, check: Check) -> None:
        self._runner = runner
        self.checks = checks
        self.check = check
        self.has_waited = False
        """True once one had to wait; the task has no others then."""
        self._timer: asyncio.TimerHandle | None = None

    def __await__(self) -> Generator[Any, Any, object]:
        check, checks = self.check, self.checks
        step, verifier = check.step, check.verifier
        if verifier.fork is None or checks.fork is None:
            steps = verifier.verify(step, checks.exchange).__await__()
        else:
            steps = self._forked(step, checks.fork).__await__()
        try:
            pending = next(steps)
        except StopIteration as ended:
            return ended.value
        self.has_waited = True
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(verifier.timeout_s, self._runner.expire, checks, check)
        return (yield from rest_of(steps, pending))

    async def _forked(self, step: Step, fork: Fork) -> Verdict:
        forked = replace(step, forked=await fork(self.check))
        return await self.check.verifier.verify(forked, self.checks.exchange)

    def ended(self, task: asyncio.Task[None]) -> None:
        """The task is over, and with it the check that it had last."""
        if self._timer is not None:
            self._timer.cancel()
        self._runner.ended(self.checks, self.check, task)


def _as_told(verdict: object, checks: Checks, check: Check) -> Verdict:
    """A verifier's word as others may rely on it. Raises `TypeError` for what is none."""
    if not isinstance(verdict, Verdict):
        raise TypeError(f"it returned {type(verdict).__name__} in place of a Verdict")
    where, feedback, right = verdict.where, verdict.feedback, verdict.corrected
    if verdict.outcome not in OUTCOMES:
        raise TypeError(f"{verdict.outcome!r:.40} is no outcome")
    if (
        not all(isinstance(told, str) for told in (where, feedback, right or ""))
        or len(right or "") > LONGEST_CORRECTION
    ):
        raise TypeError("it said what is no text, or far too long a one")
    told = (where[:LONGEST_FEEDBACK], feedback[:LONGEST_FEEDBACK], right)
    at_s = check.ended_s - checks.exchange.started
    return Verdict(verdict.outcome, *told, check.verifier.name, check.cut.choice, at_s)


def _unsure(check: Check, why: str, feedback: str) -> Verdict:
    """A step nobody had a word on: as good as a pass, or a violation where its verifier fails closed."""
    check.why = why
    outcome: Literal["violation", "unsure"] = "violation" if check.verifier.fails == "closed" else "unsure"
    message = f"This could not be verified by {check.verifier.name}: {feedback}."
    return Verdict(outcome, feedback=message, verifier=check.verifier.name, choice=check.cut.choice)
