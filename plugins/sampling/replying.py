"""One request from its plan to its reply: draws, gives out the winner, and leaves a record of what was done."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from predawn.plugins import Reply, RequestError
from predawn.plugins.calls import Refused, answer
from predawn.plugins.sampling.answers import BUILT_IN, Reader, reader
from predawn.plugins.sampling.drawing import Drawing, Means
from predawn.plugins.sampling.hedging import FirstTokens
from predawn.plugins.sampling.judging import Judging, verifier_named
from predawn.plugins.sampling.meters import OUTCOMES, SamplingMeters
from predawn.plugins.sampling.result import STATE_KEY, SamplingResult
from predawn.plugins.sampling.revising import revised
from predawn.plugins.sampling.strategies import STRATEGIES, Options
from predawn.plugins.sampling.strategies.trust import Trust, Trusts
from predawn.plugins.sampling.streaming import follow, of_choice, without_logprobs
from predawn.proxy.dispatch import PluginError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from predawn.plugins import App, CallNext, Chunk, Exchange, Extractor
    from predawn.plugins.sampling.control import Plan
    from predawn.plugins.sampling.settings import SamplingSettings
    from predawn.plugins.sampling.strategies.protocol import Sample, Stop
    from predawn.plugins.sampling.voices import Draw, Voice

LARGEST_SEED: Final = 2**63 - 1
UNLIKE: Final = frozenset({"vote", "first_m_of_k", "confidence", "best_of", "judge", "waves"})
"""Strategies that are of use only if samples differ."""
REFUSALS: Final = frozenset({400, 404, 422})
"""What an upstream says that does not know a member of the request."""


ENOUGH_REFUSALS: Final = 3
"""Requests refused for them, and none answered with them, after which members of our own are left out."""
TAKEN: Final = -1
MOST_MODELS: Final = 1000


@dataclass(frozen=True, slots=True)
class Manner:
    """How the samples of one request differ from the client's own words."""

    temperature: float | None = None
    seed: int | None = None
    """Of sample 0; each further one has the next."""
    is_own_seed: bool = False
    """True if it was drawn here."""
    logprobs: bool = False
    """True if they are asked for although the client did not."""

    @property
    def is_changed(self) -> bool:
        """True if they have a member that the client did not send."""
        return self.temperature is not None or self.is_own_seed or self.logprobs

    def members(self, draw: Draw) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if self.temperature is not None:
            made["temperature"] = self.temperature
        if self.seed is not None:
            made["seed"] = (self.seed + draw.voices[0].index) % (LARGEST_SEED + 1)
        if self.logprobs:
            made["logprobs"] = True
        if len(draw.voices) > 1:
            made["n"] = len(draw.voices)
        return made


class OwnMembers:
    """Which models refuse the members that sampling adds; bounded, as a client may name the model."""

    def __init__(self) -> None:
        self._refusals: OrderedDict[str, int] = OrderedDict()

    def refused(self, alias: str) -> None:
        """A request was refused with them, and taken without."""
        if (count := self._refusals.get(alias, 0)) >= 0:
            self._keep(alias, count + 1)

    def took(self, alias: str) -> None:
        """A request was answered with them."""
        if self._refusals.get(alias) != TAKEN:
            self._keep(alias, TAKEN)

    def are_refused(self, alias: str) -> bool:
        """True once it is not worth trying."""
        return self._refusals.get(alias, 0) >= ENOUGH_REFUSALS

    def _keep(self, alias: str, count: int) -> None:
        self._refusals[alias] = count
        self._refusals.move_to_end(alias)
        if len(self._refusals) > MOST_MODELS:
            self._refusals.popitem(last=False)


class Replying:
    """Answers requests that are to be drawn more than once; lives as long as the server."""

    def __init__(self, app: App, settings: SamplingSettings) -> None:
        self.app = app
        self.settings = settings
        self.meters = SamplingMeters(app.metrics)
        self.first_tokens = FirstTokens()
        _check(app, settings)
        self.members = OwnMembers()
        self._trusts = Trusts()
        self._shares = frozenset(model.name for model in app.settings.models if model.shared_prefill)
        self._own_temperature = frozenset(_without_temperature(app))

    async def reply(self, exchange: Exchange, call_next: CallNext, plan: Plan) -> Reply:
        """The chosen answer; where every sample failed, the first failure as it came."""
        manner = self._manner(exchange, plan)
        means = self._means(exchange, call_next, plan, manner)
        drawing = Drawing(exchange, call_next, plan, means)
        account = _Account(drawing, manner, self.meters)
        exchange.scope.push_async_callback(account.aclose)
        stop = await drawing.decide()
        winner = drawing.winner
        if winner is None:
            return await self._failed(exchange, call_next, drawing, manner)
        if manner.is_changed:
            self.members.took(exchange.alias)
        side = winner.draw.side
        assert side is not None
        several = len(winner.draw.voices) > 1
        side.choose(output_tokens=winner.tokens if several and winner.state == "finished" else None)
        chunks: AsyncIterator[Chunk] = follow(lambda: side.chunks, winner.draw.growth, drawing.quiet)
        if several:
            chunks = of_choice(chunks, winner.choice)
        if manner.logprobs:
            chunks = without_logprobs(chunks)
        return answer(side, chunks=chunks, more=account.told, headers=_headers(drawing, stop))

    async def _failed(self, exchange: Exchange, call_next: CallNext, drawing: Drawing, manner: Manner) -> Reply:
        await drawing.quiet()
        first = drawing.failures[0] if drawing.failures else None
        if isinstance(first, Refused):
            if first.status in REFUSALS and manner.is_changed:
                exchange.decide("sampling", "refused", status=first.status, why="asked again as the client did")
                reply = await call_next(exchange)
                if reply.ok:
                    self.members.refused(exchange.alias)
                return reply
            return first.reply()
        if first is not None:
            raise first
        raise RequestError(502, "No sample could be drawn.", type="server_error", code="upstream_error")

    def _manner(self, exchange: Exchange, plan: Plan) -> Manner:
        if plan.strategy == "hedge":
            return Manner()
        request, settings = exchange.request, self.settings
        given = request.get("seed")
        seed: int | None = None
        if isinstance(given, int) and not isinstance(given, bool):
            seed = given
        elif given is None and settings.seeds and exchange.route != "responses":
            seed = secrets.randbelow(2**31)
        if self.members.are_refused(exchange.alias) and not plan.warms_all:
            return Manner(seed=given if seed == given else None)
        temperature = None
        is_cold = plan.strategy in UNLIKE and not request.get("temperature") and self._may_warm(exchange)
        if is_cold or plan.warms_all:
            temperature = plan.temperature
        logprobs = (
            plan.strategy == "confidence"
            and settings.logprobs
            and exchange.route == "chat"
            and not request.get("logprobs")
        )
        return Manner(temperature, seed, seed is not None and given is None, logprobs)

    def _may_warm(self, exchange: Exchange) -> bool:
        return exchange.alias not in self._own_temperature or "temperature" in exchange.request

    def _means(self, exchange: Exchange, call_next: CallNext, plan: Plan, manner: Manner) -> Means:
        request = exchange.request

        def changes(draw: Draw, seen: list[Sample]) -> Mapping[str, Any] | None:
            members = manner.members(draw)
            if seen:
                more = revised(request, exchange.route, seen)
                if more is None:
                    return None
                members |= more
            return members

        alias = exchange.alias
        after_s = plan.hedge_after_s
        eager = exchange.stream and plan.stream == "eager"
        options = Options(
            samples=plan.samples,
            rounds=plan.rounds,
            min_samples=plan.min_samples,
            epsilon=max(plan.epsilon, self.settings.eager_epsilon) if eager else plan.epsilon,
            beta=plan.beta,
            first=plan.first,
            hedge_after_s=self.first_tokens.hedge_after_s(alias) if after_s is None else after_s,
            fallback=plan.fallback,
            trust=self._trust(exchange) if plan.strategy == "confidence" else None,
        )
        return Means(
            app=self.app,
            settings=self.settings,
            strategy=STRATEGIES[plan.strategy](options),
            read=self._reader(exchange, plan),
            verifier=verifier_named(plan.verifier, self.app.verifiers) if plan.strategy == "best_of" else None,
            changes=changes,
            shares_prefill=alias in self._shares and exchange.route in {"chat", "completions"},
            began=lambda seconds: self.first_tokens.took(alias, seconds),
            judging=Judging(
                exchange,
                call_next,
                self.app,
                self.settings,
                takes_temperature=(self.settings.judge_model or alias) not in self._own_temperature,
            ),
        )

    def _trust(self, exchange: Exchange) -> Trust:
        """What was learnt of such samples: a short thought is sure of other things than a long one."""
        budget, own = exchange.budget, exchange.request.get("reasoning_effort")
        effort = budget.effort if budget is not None else None
        return self._trusts.of(exchange.tenant, exchange.alias, effort, own[:16] if isinstance(own, str) else "")

    def _reader(self, exchange: Exchange, plan: Plan) -> Reader:
        try:
            return reader(exchange.request, plan.answer, cast("Mapping[str, Extractor]", self.app.extractors))
        except KeyError as exc:
            message = f"No extractor is called {plan.answer[:100]!r}."
            raise RequestError(400, message, param="predawn.sampling.answer") from exc


class _Account:
    """What a drawing came to; written once, when its request is over."""

    def __init__(self, drawing: Drawing, manner: Manner, meters: SamplingMeters) -> None:
        self._drawing = drawing
        self._manner = manner
        self._meters = meters
        self._is_written = False

    def told(self) -> Mapping[str, Any]:
        """What `usage.predawn` says besides tokens."""
        drawing = self._drawing
        stop = drawing.stop
        told: dict[str, Any] = {"strategy": drawing.plan.strategy, "samples": len(drawing.voices)}
        if stop is not None:
            told["why"] = stop.why
            if stop.agreement is not None:
                told["agreement"] = round(stop.agreement, 4)
        return told

    async def aclose(self) -> None:
        """Give up what still runs, and write the record."""
        try:
            await self._drawing.aclose()
        finally:
            self._write()

    def _write(self) -> None:
        if self._is_written:
            return
        self._is_written = True
        drawing, manner = self._drawing, self._manner
        exchange, stop, plan = drawing.exchange, drawing.stop, drawing.plan
        winner = drawing.winner
        extracted = winner.sample.extracted if winner is not None and winner.sample is not None else None
        result = SamplingResult(
            strategy=plan.strategy,
            drawn=len(drawing.voices),
            agreement=stop.agreement if stop is not None else None,
            why=stop.why if stop is not None else "abandoned",
            tokens=exchange.ledger.all_output,
            selected=stop.winner if stop is not None else None,
            confidence=stop.confidence if stop is not None else None,
            answer=extracted.shown[:200] if extracted is not None else None,
        )
        exchange.state[STATE_KEY] = result
        outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        for voice in drawing.voices:
            outcomes[_outcome(voice, winner)] += 1
        cancelled = sum(voice.spent for voice in drawing.voices if _outcome(voice, winner) == "cancelled")
        detail: dict[str, Any] = {
            "wanted_by": plan.by,
            "strategy": result.strategy,
            "samples": result.drawn,
            "allowed": plan.samples,
            "agreement": result.agreement,
            "confidence": result.confidence,
            "selected": result.selected,
            "why": result.why,
            "tokens": result.tokens,
            "cancelled_tokens": cancelled,
            **{name: count for name, count in outcomes.items() if count and name != "selected"},
        }
        if manner.temperature is not None:
            detail["temperature"] = manner.temperature
        if manner.seed is not None:
            detail["seed"] = manner.seed
        if comparisons := drawing.means.judging.comparisons:
            detail["comparisons"] = comparisons
        exchange.decide("sampling", "answered" if winner is not None else "no answer", **detail)
        self._meters.ended(result, outcomes, cancelled, plan.samples)


def _outcome(voice: Voice, winner: Voice | None) -> str:
    if voice is winner:
        return "selected"
    return {"finished": "discarded", "failed": "failed"}.get(voice.state, "cancelled")


def _headers(drawing: Drawing, stop: Stop) -> Mapping[str, str]:
    headers = {
        "x-predawn-strategy": drawing.plan.strategy,
        "x-predawn-samples": str(len(drawing.voices)),
        "x-predawn-stopped": stop.why,
    }
    if stop.agreement is not None:
        headers["x-predawn-agreement"] = f"{stop.agreement:.2f}"
    return headers


def _check(app: App, settings: SamplingSettings) -> None:
    """Raise for names in the settings that nothing has, before the first request does."""
    if settings.verifier is not None and settings.verifier not in app.verifiers:
        raise PluginError(f"sampling: no verifier is called {settings.verifier!r}")
    if settings.answer not in BUILT_IN and settings.answer not in app.extractors:
        raise PluginError(f"sampling: no extractor is called {settings.answer!r}; built in are {', '.join(BUILT_IN)}")
    names = {model.name for model in app.settings.models}
    if settings.judge_model is not None and not names & {settings.judge_model, "*"}:
        raise PluginError(f"sampling: judge_model {settings.judge_model!r} is no alias")


def _without_temperature(app: App) -> set[str]:
    """Aliases of reasoning models at providers, which refuse a request that names a temperature."""
    local = {upstream.name for upstream in app.settings.upstreams if upstream.kind == "local"}
    return {
        model.name
        for model in app.settings.models
        if model.reasoning == "reasoning_effort" and not all(target.upstream in local for target in model.all_targets)
    }
