"""`judge`: another look by a model, several steps by one call, a bounded number of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from predawn.plugins import Exchange, RequestError, Verdict
from predawn.plugins.verify.verifiers.judging import question, read_verdicts
from predawn.plugins.verify.verifiers.settings import JudgeSettings
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.plugins import Reply
    from predawn.proxy.extensions import Step

STATE = "verify.judge"
_PASS = Verdict("pass")
_DROPPED = (
    "tools", "tool_choice", "functions", "function_call", "response_format", "n", "best_of", "stop", "logprobs",
    "top_logprobs", "max_completion_tokens", "parallel_tool_calls", "suffix", "echo", "prediction", "seed",
    "frequency_penalty", "presence_penalty", "logit_bias", "audio", "modalities",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class _Waiting:
    """A step that waits for its verdict; `leads` once it is its turn to ask for all that wait."""

    step: Step
    told: asyncio.Future[Verdict | None]
    """`None` tells it to lead."""


@dataclass(slots=True)
class _Bench:
    """What waits of one answer, and how often was asked."""

    waiting: list[_Waiting] = field(default_factory=list[_Waiting])
    is_led: bool = False
    calls: int = 0


class JudgeVerifier:
    """Asks a model whether steps meet the criteria. While one call is under way, further steps gather for the next."""

    name = "judge"

    def __init__(self, settings: JudgeSettings | None = None) -> None:
        self.settings = settings or JudgeSettings()
        self.boundary = self.settings.boundary
        self.reads = self.settings.reads
        self.timeout_s = self.settings.timeout_s
        self.fails = self.settings.fails
        self._send: Callable[[Exchange], Awaitable[Reply]] | None = None
        self._model = self.settings.model

    def bind(self, send: Callable[[Exchange], Awaitable[Reply]], model: str | None = None) -> None:
        """Calls go out by `send`, to `model` if the settings name none."""
        self._send = send
        self._model = self.settings.model or model

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A violation carries the judge's reason; what it does not rule on is unsure."""
        if not step.text.strip():
            return _PASS
        if self._send is None or exchange.route not in ("chat", "completions"):
            return Verdict("unsure", "", "There is no model to judge by.")
        bench: _Bench = exchange.state.setdefault(STATE, _Bench())
        mine = _Waiting(step, asyncio.get_running_loop().create_future())
        bench.waiting.append(mine)
        try:
            if bench.is_led:
                verdict = await mine.told
                if verdict is not None:
                    return verdict
            bench.is_led = True
            return await self._lead(bench, mine, exchange)
        finally:
            if mine in bench.waiting:
                bench.waiting.remove(mine)

    async def _lead(self, bench: _Bench, mine: _Waiting, exchange: Exchange) -> Verdict:
        """Ask for this step and others that wait, then hand over."""
        others = [each for each in bench.waiting if each is not mine and _go_together(each.step, mine.step)]
        asked = sorted([mine, *others[: self.settings.batch - 1]], key=lambda each: each.step.start)
        for each in asked:
            bench.waiting.remove(each)
        verdicts = [Verdict("unsure", "", "The judge did not answer.")] * len(asked)
        try:
            verdicts = await self._ask(bench, [each.step for each in asked], exchange)
        finally:
            for each, verdict in zip(asked, verdicts, strict=True):
                if each is not mine and not each.told.done():
                    each.told.set_result(verdict)
            _hand_over(bench)
        return verdicts[asked.index(mine)]

    async def _ask(self, bench: _Bench, steps: Sequence[Step], exchange: Exchange) -> list[Verdict]:
        if bench.calls >= self.settings.max_calls:
            return [Verdict("unsure", "", "The judge was asked as often as it may be.")] * len(steps)
        bench.calls += 1
        from predawn.plugins.calls import Refused, SideCall

        assert self._send is not None
        system, asked = question(exchange.request, steps, self.settings.criteria, self.settings.max_context_chars)
        changes: dict[str, Any] = {"temperature": 0, "max_tokens": self.settings.max_output_tokens}
        if exchange.route == "chat":
            changes["messages"] = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
        else:
            changes["prompt"] = f"{system}\n\n{asked}\n\nVerdicts:\n"
        if self._model is not None:
            changes["model"] = self._model
        dropped = [name for name in _DROPPED if name not in changes]
        try:
            async with SideCall(exchange, self._send, changes=changes, without=dropped, purpose="verify") as side:
                heard = await side.whole()
        except (Refused, UpstreamError, RequestError) as exc:
            return [Verdict("unsure", "", f"The judge could not be asked: {type(exc).__name__}.")] * len(steps)
        return read_verdicts(heard.text, len(steps))


def _go_together(one: Step, other: Step) -> bool:
    return one.choice == other.choice and one.where == other.where


def _hand_over(bench: _Bench) -> None:
    """The oldest that waits leads next."""
    bench.is_led = False
    for each in bench.waiting:
        if not each.told.done():
            bench.is_led = True
            each.told.set_result(None)
            return
