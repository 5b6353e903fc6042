"""`budget`: how hard is this request, and what may it cost?

`assess` guesses the difficulty, `allocate` turns it into a `Budget`. Effort reaches the model by its own knob; samples
and rounds are for the plugin `sampling` behind it, checks for `verify`. How requests end is learnt from, per tenant.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from predawn.plugins import (
    Budget,
    CallNext,
    Difficulty,
    Exchange,
    Plugin,
    PluginSettings,
    Reply,
    hookimpl,
)
from predawn.plugins.budget import spending
from predawn.plugins.budget.allocating import Allocator, policy_of
from predawn.plugins.budget.assessing import Assessor
from predawn.plugins.budget.books import Books
from predawn.plugins.budget.capabilities import Capabilities
from predawn.plugins.budget.ceilings import Ceilings, Holdings
from predawn.plugins.budget.control import NAME as CONTROL
from predawn.plugins.budget.control import read_wish
from predawn.plugins.budget.curves import Curves
from predawn.plugins.budget.estimators import ByFeatures, ByNeighbours, features_of
from predawn.plugins.budget.feedback import Feedback
from predawn.plugins.budget.learning import Memory
from predawn.plugins.budget.menus import Menus, nominal
from predawn.plugins.budget.meters import BudgetMeters
from predawn.plugins.budget.prices import Prices
from predawn.plugins.budget.seen import ROUTES, seen_of
from predawn.plugins.budget.settings import BudgetSettings
from predawn.plugins.budget.settling import Settling

if TYPE_CHECKING:
    from predawn.plugins import App, RegisterEstimator, RegisterRoute
    from predawn.plugins.budget.ceilings import Fitted
    from predawn.plugins.budget.embedding import Embedder

__all__ = ["BudgetPlugin", "BudgetSettings"]

OURS = ("features", "neighbours")


@dataclass(frozen=True, slots=True)
class _Running:
    """What a running server adds."""

    assessor: Assessor
    allocator: Allocator
    settling: Settling
    books: Books
    meters: BudgetMeters


class BudgetPlugin(Plugin[BudgetSettings]):
    """Gives hard requests more thought and samples than easy ones; put it before `sampling` and `verify`."""

    settings_type: ClassVar[type[PluginSettings]] = BudgetSettings
    wants_usage: ClassVar[bool] = True

    def __init__(self, settings: BudgetSettings) -> None:
        super().__init__(settings)
        self._tiers = tuple(tier.name for tier in settings.tiers)
        self._feedback = Feedback()
        learning, costs = settings.learning, nominal(settings.tiers)

        def make_curves() -> Curves:
            return Curves(costs, flat_after=learning.flat_after, flat_gain=learning.flat_gain)

        self.memory = Memory(make_curves, outcomes=learning.outcomes, states=learning.tenants)
        self._running: _Running | None = None

    @hookimpl
    def register_routes(self, register: RegisterRoute) -> None:
        register("POST", "/v1/exchanges/{id}/feedback", self._feedback.post)

    @hookimpl
    def register_estimators(self, register: RegisterEstimator) -> None:
        register(ByFeatures(self.memory))
        register(ByNeighbours(self.memory))

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        running = self._running = self._start(app)
        await running.books.open()
        tasks = [app.tasks.spawn(running.books.run(), "budget-books")]
        if self.settings.probe_capabilities:
            from predawn.plugins.budget.asking import Capacity

            capacity = Capacity(app, running.allocator.capabilities, running.meters)
            tasks.append(app.tasks.spawn(capacity.ask_all(self.settings.models), "budget-capabilities"))
        self._feedback.tell = running.books.tell
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await running.books.close()

    def _start(self, app: App) -> _Running:
        from predawn.plugins.budget.probing import Prober
        from predawn.proxy.problems import unknown

        settings = self.settings
        if missing := [name for name in settings.estimators if name not in app.estimators]:
            raise ValueError(f"estimators: {unknown('estimator', missing[0], app.estimators)}")
        chosen = [app.estimators[name] for name in settings.estimators]
        theirs = [one for one in chosen if one.name not in OURS]
        capabilities, prices = Capabilities(app.settings), Prices(settings)
        ceilings = Ceilings(settings.ceilings, app.clock)
        models = [model.name for model in app.settings.models]
        meters = BudgetMeters(app.metrics, self._tiers, models, settings.estimators)
        plugins = {entry.name for entry in app.settings.plugins}
        allocator = Allocator(
            settings,
            self.memory,
            prices,
            ceilings,
            capabilities,
            Menus(settings.tiers),
            policy_of(settings),
            random.Random(),  # noqa: S311 - which requests explore is no secret
            can_sample="sampling" in plugins,
            can_verify="verify" in plugins,
        )
        self.memory.telling = allocator.telling
        books = Books(settings, app, self.memory, prices, ceilings, meters)
        assessor = Assessor(
            settings,
            [one for one in chosen if one.name in OURS],
            theirs,
            allocator,
            Prober(settings, app, capabilities, meters),
            self._embedder(app, models),
        )
        settling = Settling(self.memory, books, meters, theirs, settings.learning.enabled)
        return _Running(assessor, allocator, settling, books, meters)

    def _embedder(self, app: App, models: list[str]) -> Embedder | None:
        from predawn.plugins.budget.embedding import Embedder
        from predawn.proxy.problems import unknown

        alias = self.settings.embeddings
        if alias is None:
            return None
        if alias not in models and "*" not in models:
            raise ValueError(f"embeddings: {unknown('model', alias, models)}")
        return Embedder(app, alias, self.settings.probe_timeout_s)

    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        """Only a request that says something about its budget has something to be refused for."""
        if CONTROL in exchange.control:
            seen_of(exchange).wish = read_wish(exchange.control, self._tiers)

    @hookimpl
    async def assess(self, exchange: Exchange) -> Difficulty | None:
        running = self._running
        if running is None or exchange.route not in ROUTES:
            return None
        seen = seen_of(exchange)
        if not seen.wish.is_on:
            return None
        difficulty = await running.assessor.assess(exchange, seen)
        if difficulty is not None:
            running.meters.assessed(difficulty, exchange.alias)
        return difficulty

    @hookimpl
    async def allocate(self, exchange: Exchange) -> Budget | None:
        running = self._running
        if running is None or exchange.route not in ROUTES:
            return None
        seen = seen_of(exchange)
        features = features_of(exchange) if seen.wish.is_on else None
        if features is None:
            return None
        running.books.wants(exchange.tenant, exchange.alias, self.memory.of(exchange.tenant, exchange.alias))
        granted, fitted = running.allocator.allocate(exchange, seen, features)
        running.meters.granted(granted.choice.tier.name, granted.expected, exhausted=fitted.is_scarce)
        spending.explain(exchange, seen, granted, fitted, self.settings.policy)
        return granted.budget

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        running = self._running
        if running is None or exchange.route not in ROUTES:
            return await call_next(exchange)
        allocator, seen = running.allocator, seen_of(exchange)
        granted, fitted = seen.granted, seen.fitted
        if fitted is None and allocator.ceilings.limits_tokens:  # they hold where nothing was granted too
            fitted = allocator.fit(exchange, seen, Budget())
        if fitted is not None:
            hold(exchange, fitted)
        capability = allocator.capabilities.of(exchange.alias)
        if granted is None:
            if fitted is not None and fitted.held is not None:
                spending.write_limit(exchange, fitted.answer_tokens, capability)
            return await call_next(exchange)
        spending.write_limit(exchange, granted.budget.max_output_tokens, capability)
        reply = await self._asked(exchange, call_next, granted.budget, running)
        spending.mark(reply, exchange, granted)
        return reply

    async def _asked(self, exchange: Exchange, call_next: CallNext, budget: Budget, running: _Running) -> Reply:
        """Ask with the effort that was granted; without it, where the upstream does not take it."""
        capabilities = running.allocator.capabilities
        written = spending.write(exchange, budget, capabilities.of(exchange.alias))
        reply = await call_next(exchange)
        if written is None or budget.effort is None:
            return reply
        if reply.ok:
            capabilities.took(exchange.alias, budget.effort)
        elif reply.status in spending.REFUSALS:
            spending.refused(exchange, written, reply.status)
            reply = await call_next(exchange)
            if reply.ok:
                capabilities.refused(exchange.alias, budget.effort)
        return reply

    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        if self._running is not None and exchange.call_purpose == "serve":
            self._running.settling.done(exchange)


def hold(exchange: Exchange, fitted: Fitted) -> None:
    """Refuse a request that there is no room for; have whatever it asks for beyond its grant held as well."""
    if fitted.refusal is not None:
        raise fitted.refusal
    if fitted.held is not None:
        exchange.lease = Holdings(fitted.held, exchange.lease)
