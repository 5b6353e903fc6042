"""One request from its plan to its reply: draws, gives out the winner, and leaves a record of what was done."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, cast

from predawn.plugins import Reply, RequestError
from predawn.plugins.calls import Refused, answer
from predawn.plugins.knobs import EFFORTS
from predawn.plugins.sampling.account import Account, headers_of
from predawn.plugins.sampling.answers import BUILT_IN, Reader, reader
from predawn.plugins.sampling.drawing import Drawing, Means
from predawn.plugins.sampling.hedging import FirstTokens
from predawn.plugins.sampling.judging import Judging, verifier_named
from predawn.plugins.sampling.keeping import Keeping
from predawn.plugins.sampling.manner import Manner, OwnMembers
from predawn.plugins.sampling.meters import SamplingMeters
from predawn.plugins.sampling.revising import revised
from predawn.plugins.sampling.strategies import STRATEGIES, Options
from predawn.plugins.sampling.strategies.trust import Place, Trust
from predawn.plugins.sampling.streaming import follow, of_choice, without_logprobs
from predawn.proxy.dispatch import PluginError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from predawn.plugins import App, CallNext, Chunk, Exchange, Extractor
    from predawn.plugins.sampling.control import Plan
    from predawn.plugins.sampling.settings import SamplingSettings
    from predawn.plugins.sampling.strategies.protocol import Sample
    from predawn.plugins.sampling.voices import Draw

UNLIKE: Final = frozenset({"vote", "first_m_of_k", "confidence", "best_of", "judge", "waves"})
"""Strategies that are of use only if samples differ."""
REFUSALS: Final = frozenset({400, 404, 422})
"""What an upstream says that does not know a member of the request."""


class Replying:
    """Answers requests that are to be drawn more than once; lives as long as the server."""

    def __init__(self, app: App, settings: SamplingSettings) -> None:
        self.app = app
        self.settings = settings
        self.meters = SamplingMeters(app.metrics)
        self.first_tokens = FirstTokens()
        _check(app, settings)
        self.members = OwnMembers()
        self.keeping = Keeping(app)
        self._shares = frozenset(model.name for model in app.settings.models if model.shared_prefill)
        self._own_temperature = frozenset(_without_temperature(app))

    async def reply(self, exchange: Exchange, call_next: CallNext, plan: Plan) -> Reply:
        """The chosen answer; where every sample failed, the first failure as it came."""
        manner = self._manner(exchange, plan)
        means = self._means(exchange, call_next, plan, manner)
        drawing = Drawing(exchange, call_next, plan, means)
        account = Account(drawing, manner, self.meters)
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
        return answer(side, chunks=chunks, more=account.told, headers=headers_of(drawing, stop))

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
        exchange.scope.callback(self.keeping.look)
        return self.keeping.of(Place(exchange.tenant, exchange.alias, _effort(exchange)))

    def _reader(self, exchange: Exchange, plan: Plan) -> Reader:
        try:
            return reader(exchange.request, plan.answer, cast("Mapping[str, Extractor]", self.app.extractors))
        except KeyError as exc:
            message = f"No extractor is called {plan.answer[:100]!r}."
            raise RequestError(400, message, param="predawn.sampling.answer") from exc


def _effort(exchange: Exchange) -> str:
    """Who asks decides among the efforts there are: words of its own would make a place of each."""
    own = exchange.request.get("reasoning_effort")
    if own is not None:
        return str(own) if own in EFFORTS else "other"
    budget = exchange.budget
    return budget.effort or "" if budget is not None else ""


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
