"""How hard a request is: every estimator's view, weighed; and a probe where it pays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predawn.plugins.budget.estimators import combined, features_of
from predawn.plugins.budget.policies import Case
from predawn.plugins.budget.probing import NAME, is_worth_it, usual_price
from predawn.plugins.budget.settling import FAULTS
from predawn.plugins.calls import Refused
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.plugins import Difficulty, Exchange
    from predawn.plugins.budget.allocating import Allocator
    from predawn.plugins.budget.embedding import Embedder
    from predawn.plugins.budget.features import Features
    from predawn.plugins.budget.probing import Prober
    from predawn.plugins.budget.seen import Seen
    from predawn.plugins.budget.settings import BudgetSettings
    from predawn.proxy.extensions import RegisteredEstimator

log = logging.getLogger("predawn.budget")


@dataclass(slots=True)
class Assessor:
    """Made when the server starts."""

    settings: BudgetSettings
    ours: Sequence[RegisteredEstimator]
    theirs: Sequence[RegisteredEstimator]
    """Those of other plugins, which may wait or fail."""
    allocator: Allocator
    prober: Prober
    embedder: Embedder | None = None

    async def assess(self, exchange: Exchange, seen: Seen) -> Difficulty | None:
        """The difficulty, or `None` if the request cannot be read."""
        features = features_of(exchange)
        if features is None:
            return None
        if self.embedder is not None and (sketch := await self.embedder.sketch(exchange)):
            features = seen.features = features._replace(sketch=sketch)
        for estimator in self.ours:
            view = await estimator.estimate(exchange)
            if view is not None:
                seen.views[estimator.name] = view
        for estimator in self.theirs:
            await self._ask(estimator, exchange, seen)
        difficulty = combined(seen.views)
        if self.settings.probe != "off" and self._probes(exchange, seen, features, difficulty):
            view = await self._probe(exchange, seen)
            if view is not None:
                seen.views[NAME] = view
                difficulty = combined(seen.views)
        return difficulty

    async def _probe(self, exchange: Exchange, seen: Seen) -> Difficulty | None:
        """Ask the model, if there is room for that and an answer under the ceilings."""
        tokens = self.prober.output_tokens(exchange)
        held = self.allocator.ceilings.hold(exchange.tenant, exchange.key_id, tokens)
        if held is None:
            return None
        before = exchange.ledger.all_output
        try:
            return await self.prober.probe(exchange)
        finally:
            seen.probed = exchange.ledger.all_output - before
            held.settle(seen.probed)

    async def _ask(self, estimator: RegisteredEstimator, exchange: Exchange, seen: Seen) -> None:
        try:
            async with asyncio.timeout(self.settings.probe_timeout_s):
                view = await estimator.estimate(exchange)
        except (TimeoutError, Refused, UpstreamError, *FAULTS) as exc:
            log.warning("the estimator %s of plugin %s failed: %r", estimator.name, estimator.plugin, exc)
            return
        if view is not None:
            seen.views[estimator.name] = view

    def _probes(self, exchange: Exchange, seen: Seen, features: Features, difficulty: Difficulty | None) -> bool:
        """Whether the model is to be asked a little first."""
        if exchange.route != "chat" or seen.wish.tier is not None or self.settings.policy == "fixed":
            return False
        if self.settings.probe == "always":
            return True
        if difficulty is None or self.settings.policy != "marginal" or difficulty.confidence > 0.7:
            return False
        allocator = self.allocator
        state = allocator.memory.of(exchange.tenant, exchange.alias)
        if state.curves.is_flat(features.kind):
            return False
        capability = allocator.capabilities.of(exchange.alias)
        menu = allocator.menus.of(allocator.terms(exchange.request, exchange, capability))
        price = allocator.prices.of(exchange.tenant, exchange.alias)
        case = Case(difficulty.score, features.kind, state, menu, price)
        now = price.now if price is not None else usual_price(case)
        tokens = self.prober.output_tokens(exchange)
        if not is_worth_it(case, difficulty.confidence, tokens, now):
            return False
        return is_worth_it(case, difficulty.confidence, tokens + self.prober.prompt_tokens(exchange), now)
