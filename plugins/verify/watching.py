"""One answer under verification: what every mode needs around its flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING

from predawn.plugins.calls import SideCall
from predawn.plugins.verify.continuing import Fork, Ways, forked
from predawn.plugins.verify.looks import Looks
from predawn.plugins.verify.modes.rules import Rules
from predawn.plugins.verify.reading import Part, one_by_one, with_text
from predawn.plugins.verify.result import LOOKED_KEY, MOST_LOOKED, STATE_KEY, VerifyResult
from predawn.plugins.verify.rounds import LONGEST_TURN_S, TURN_EACH_S, Rounds
from predawn.plugins.verify.runner import Checks

if TYPE_CHECKING:
    from predawn.plugins import CallNext, Exchange
    from predawn.plugins.verify.meters import VerifyMeters
    from predawn.plugins.verify.modes.rules import Deed
    from predawn.plugins.verify.runner import Runner
    from predawn.plugins.verify.settings import Mode
    from predawn.plugins.verify.trace import Check, Trace
    from predawn.proxy.extensions import RegisteredVerifier
    from predawn.proxy.tasks import Tasks

MOST_VERDICTS = 5000
"""Kept of one exchange."""
FEW_CHOICES = 128
SLICE = 512
"""Characters that are cut into steps before others get their turn; each may be a step, which costs some 15 µs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one answer is verified."""

    mode: Mode
    verifiers: tuple[RegisteredVerifier, ...]
    rules: Rules
    longest_step: int
    holds_thoughts: bool = True
    remark: str = "Wait: {}"
    replaces: bool = True
    tells_why: bool = True
    verify_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Tools:
    """What lives as long as the server does."""

    tasks: Tasks
    runner: Runner
    meters: VerifyMeters
    ways: Ways
    rounds: Rounds = field(default_factory=Rounds)
    """For answers that are read behind what is sent."""
    turns: Rounds = field(default_factory=lambda: Rounds(TURN_EACH_S, LONGEST_TURN_S))
    """For answers that are held until they are read, which the client waits for."""


def most_choices(exchange: Exchange) -> int:
    """How many choices an answer may have: as many as were asked for. Each costs some 10 KB, so none is made up."""
    request = exchange.request
    n, prompt = request.get("n"), request.get("prompt")
    asked = n if isinstance(n, int) else 1
    return max(asked * (len(prompt) if isinstance(prompt, list) else 1), FEW_CHOICES)


class Watching:
    """The checks of one answer, and what is noted of them."""

    def __init__(  # noqa: PLR0917 - two callers, each with all of them
        self,
        tools: Tools,
        plan: Plan,
        exchange: Exchange,
        call: CallNext,
        settled: Callable[[Check], None],
        trace_of: Callable[[int], Trace | None],
    ) -> None:
        self.tools = tools
        self.plan = plan
        self.exchange = exchange
        self.call = call
        self.result = exchange.state[STATE_KEY] = VerifyResult(plan.mode)
        self.checks = Checks(tools.runner, exchange, settled, self._fork)
        self.generated_at = 0.0
        """When the last of what was generated had come; 0 while it comes."""
        self._looks: dict[str, Looks] = {}
        self._forked_tokens = 0
        self._trace_of = trace_of
        self._is_closed = False

    def heard(self, check: Check) -> None:
        """Note a verdict."""
        verdict, result = check.verdict, self.result
        assert verdict is not None
        if len(self.exchange.verdicts) < MOST_VERDICTS:
            if verdict.at_s is None:  # nobody's own word
                verdict = replace(verdict, at_s=check.ended_s - self.exchange.started)
            self.exchange.verdicts.append(verdict)
        result.checks += 1
        result.missed += bool(check.why)
        if verdict.outcome == "pass":
            result.passed += 1
        elif verdict.outcome == "unsure":
            result.unsure += 1
        else:
            result.violations += 1
        if check.why != "shed":
            self._looks.setdefault(check.verifier.name, Looks()).add(check, self.generated_at)

    def note(self, check: Check, deed: Deed) -> None:
        """A violation and what is done about it, on the record; what was wrong is content, and is not."""
        result = self.result
        result.accepted = result.accepted or deed == "flag"
        result.stopped = result.stopped or deed == "stop"
        result.corrections += deed == "rewrite"
        result.retries += deed == "retry"
        self.tools.meters.intervened(check.verifier.name, deed)
        if deed == "flag" and len(self.exchange.decisions) >= MOST_VERDICTS:
            return
        cut = check.cut
        self.exchange.decide(
            "verify",
            "violation",
            verifier=check.verifier.name,
            action=deed,
            channel=cut.key.where,
            choice=cut.choice,
            step=cut.index,
            at=cut.start,
            **({"why": check.why} if check.why else {}),
        )

    def close(self) -> None:
        """Drop what is still being looked at, and write down how it went. Does nothing the second time."""
        if self._is_closed:
            return
        self._is_closed = True
        self.checks.close()
        now = perf_counter()
        generated_at = self.generated_at or now
        if self._looks:
            last = max(looks.last_s for looks in self._looks.values())
            self.result.added_s = max(last - generated_at, 0.0)
        self.tools.meters.answered(self._looks, generated_at)
        looked = self.exchange.parent_of_all.state.setdefault(LOOKED_KEY, [])
        looked += [one.told(name) for name, one in self._looks.items()][: MOST_LOOKED - len(looked)]
        result = self.result
        self.exchange.decide(
            "verify",
            result.word,
            mode=result.mode,
            verifiers=[verifier.name for verifier in self.plan.verifiers],
            checks=result.checks,
            violations=result.violations,
            unsure=result.unsure,
            missed=result.missed,
            corrections=result.corrections,
            retries=result.retries,
            continued_by=result.ways,
            added_s=round(result.added_s, 6),
        )

    async def _fork(self, check: Check) -> str | None:
        """What the model says if it goes on from here with the suffix of a verifier."""
        fork = check.verifier.fork
        assert fork is not None
        limit = self.plan.verify_tokens
        trace = self._trace_of(check.cut.choice)
        if trace is None:
            return None
        thoughts, content = trace.text_up_to(check)
        suffix, max_tokens = fork(content or thoughts)
        if not suffix or max_tokens < 1 or (limit is not None and self._forked_tokens + max_tokens > limit):
            return None
        self._forked_tokens += max_tokens
        changed = forked(self.exchange, Fork(thoughts, content, suffix, max_tokens), self.tools.ways)
        if changed is None:
            return None
        side = SideCall(
            self.exchange, self.call, changes=changed.changes, without=changed.without, purpose="verify", keep=False
        )
        async with side:
            heard = await side.whole()
        return heard.text or heard.reasoning


def sliced(part: Part) -> Iterator[Part]:
    """A part in pieces that are quickly cut into steps."""
    if all(len(piece.text) <= SLICE for piece in part.pieces):
        yield part
        return
    for one in one_by_one(part):
        text = one.pieces[0].text if one.is_plain else ""
        if len(text) <= SLICE:
            yield one
        else:
            yield from (with_text(one, text[at : at + SLICE], goes_on=at > 0) for at in range(0, len(text), SLICE))
