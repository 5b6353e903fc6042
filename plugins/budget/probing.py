"""A probe: ask the model a little, to learn how hard a request is for it, where that is worth more than it costs.

Where log-probabilities come, one short direct answer tells: how sure the model is of its first tokens, or, if it may
choose to think, how likely it is to begin thinking. Elsewhere two short answers are compared. Its cost is booked as
discarded.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins import Difficulty, RequestError
from predawn.plugins.budget.policies.marginal import hull
from predawn.plugins.budget.spending import REFUSALS
from predawn.plugins.calls import Refused, SideCall
from predawn.plugins.knobs import members_for
from predawn.proxy.prompt_size import estimated_prompt_tokens
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.plugins import App, Exchange
    from predawn.plugins.budget.capabilities import Capabilities, Capability
    from predawn.plugins.budget.meters import BudgetMeters
    from predawn.plugins.budget.policies import Case
    from predawn.plugins.budget.settings import BudgetSettings
    from predawn.plugins.calls import Heard, TokenLogprob
    from predawn.proxy.extensions import RegisteredExtractor

NAME: Final = "probe"
SURE: Final = 0.75
"""Confidence in what a probe says."""
UNCERTAINTY: Final = 0.35
"""How far off a difficulty may be in the mean when nothing at all is known."""
TOP: Final = 5
_THINKS: Final = re.compile(r"^\W*(?:think|thinking|thought|reasoning|analysis)\W*$", re.IGNORECASE)
_DIRECT: Final[Mapping[str, Any]] = {"temperature": 0}
_DRAWN: Final[Mapping[str, Any]] = {"temperature": 0.8}
_LEFT_OUT: Final = (
    *("max_tokens", "max_completion_tokens", "n", "stream_options", "logprobs", "top_logprobs", "tools", "tool_choice"),
    *("parallel_tool_calls", "response_format", "seed", "temperature", "stop", "logit_bias", "prediction"),
)
"""Members of a request that say how the answer is to look, which a probe has no answer for."""


@dataclass(slots=True)
class Prober:
    """Asks, and remembers who tells log-probabilities."""

    settings: BudgetSettings
    app: App
    capabilities: Capabilities
    meters: BudgetMeters

    def calls(self, exchange: Exchange) -> int:
        return 2 if self.capabilities.of(exchange.alias).logprobs is False else 1

    def output_tokens(self, exchange: Exchange) -> int:
        """Most tokens that a probe may answer."""
        return self.calls(exchange) * self.settings.probe_tokens

    def prompt_tokens(self, exchange: Exchange) -> int:
        """About what it reads: each call has the whole prompt, and that counts as spent."""
        return self.calls(exchange) * estimated_prompt_tokens(exchange.body)

    async def probe(self, exchange: Exchange) -> Difficulty | None:
        """How hard the model finds it; `None` if that could not be learnt, for whatever reason a call may fail."""
        capability = self.capabilities.of(exchange.alias)
        outcome = "failed"
        try:
            async with asyncio.timeout(self.settings.probe_timeout_s):
                await exchange.reserve(self.calls(exchange), output_tokens=self.settings.probe_tokens)
                if capability.logprobs is not False:
                    found = await self._by_logprobs(exchange, capability)
                else:
                    found = await self._by_agreement(exchange, capability)
            outcome = "empty" if found is None else "told"
            return found
        except TimeoutError:
            outcome = "timeout"
            return None
        except (Refused, RequestError, UpstreamError):
            return None
        finally:
            self.meters.probed(outcome)

    async def _by_logprobs(self, exchange: Exchange, capability: Capability) -> Difficulty | None:
        changes = {**self._changes(capability), **_DIRECT, "logprobs": True, "top_logprobs": TOP}
        async with self._call(exchange, changes) as side:
            try:
                heard = await side.whole()
            except Refused as exc:
                if exc.status in REFUSALS:
                    self.capabilities.refused_logprobs(exchange.alias)
                raise
        tokens = heard.logprobs
        if tokens or heard.text:
            self.capabilities.told_logprobs(exchange.alias, came=bool(tokens))
        return Difficulty(hardness_of(tokens), SURE, NAME) if tokens else None

    async def _by_agreement(self, exchange: Exchange, capability: Capability) -> Difficulty | None:
        changes = {**self._changes(capability), **_DRAWN}
        asked = [
            self.app.tasks.spawn(self._whole(exchange, {**changes, "seed": seed}), "budget-probe") for seed in (1, 2)
        ]
        try:
            first, second = await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()
        one, other = (answer_of(heard, self.app.extractors) for heard in (first, second))
        if one is None or other is None:
            return None
        return Difficulty(0.25 if one == other else 0.85, SURE / 2, NAME)

    async def _whole(self, exchange: Exchange, changes: Mapping[str, Any]) -> Heard:
        async with self._call(exchange, changes) as side:
            return await side.whole()

    def _call(self, exchange: Exchange, changes: Mapping[str, Any]) -> SideCall:
        return SideCall(exchange, self.app.send, changes=changes, without=_LEFT_OUT, purpose="probe")

    def _changes(self, capability: Capability) -> dict[str, Any]:
        limit = "max_completion_tokens" if capability.knob == "reasoning_effort" else "max_tokens"
        direct: Mapping[str, Any] = {}
        if "none" in capability.efforts:
            direct = members_for(capability.knob, "none")
        return {limit: self.settings.probe_tokens, **direct}


def hardness_of(tokens: list[TokenLogprob]) -> float:
    """From the first tokens of a direct answer: the chance that it is begun with thinking, or else how unsure it is."""
    first = tokens[0]
    thinking = [math.exp(min(logprob, 0.0)) for token, logprob in first.top if _THINKS.match(token)]
    if thinking:
        return min(sum(thinking), 1.0)
    # the answer is right if all of its tokens are; long answers have many that matter little
    least = sorted(min(token.logprob, 0.0) for token in tokens)[:4]
    return 1.0 - math.exp(max(sum(least), -30.0))


def answer_of(heard: Heard, extractors: Mapping[str, RegisteredExtractor]) -> object | None:
    """What a short answer says, so that equal answers are equal."""
    text = heard.text.strip()
    if not text:
        return None
    for name, extractor in extractors.items():
        found = extractor.extract(text)
        if found is not None:
            return (name, found.key)
    return " ".join(text.lower().split())


def is_worth_it(case: Case, confidence: float, tokens: float, price: float) -> bool:
    """Whether knowing the difficulty better is expected to gain more than the probe's tokens are worth.

    What a probe can gain is what the best choices for an easier and a harder variant of the request are worth, beyond
    the one choice that is best for both.
    """
    spread = UNCERTAINTY * (1.0 - confidence)
    if spread < 0.05 or len(case.tiers) < 2:
        return False
    low, high = max(case.difficulty - spread, 0.0), min(case.difficulty + spread, 1.0)
    curves, kind = case.state.curves, case.kind
    at_low = [curves.value(kind, tier.name, low) - price * curves.cost(kind, tier.name, low) for tier in case.tiers]
    at_high = [curves.value(kind, tier.name, high) - price * curves.cost(kind, tier.name, high) for tier in case.tiers]
    informed = (max(at_low) + max(at_high)) / 2
    blind = max(one + other for one, other in zip(at_low, at_high, strict=True)) / 2
    return SURE * (informed - blind) > price * tokens


def usual_price(case: Case) -> float:
    """What a token is worth where no mean is kept: what the table itself pays on the way to its middle."""
    steps = hull(case)
    return steps[len(steps) // 2].rate if len(steps) > 1 else 0.0
