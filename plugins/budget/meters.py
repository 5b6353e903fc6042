"""The meters of budget, all created at 0; `proxy.metrics` declares what they count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from predawn.plugins.budget.outcomes import WEIGHTS
from predawn.proxy.traffic import OTHER

if TYPE_CHECKING:
    from predawn.plugins import Difficulty
    from predawn.plugins.budget.outcomes import Source
    from predawn.proxy.metrics import Metrics

PROBES: Final = ("told", "empty", "timeout", "failed")


class BudgetMeters:
    """Where budget counts. Labels come from the settings and from what is registered, never from a request."""

    def __init__(
        self, metrics: Metrics, tiers: Iterable[str], models: Iterable[str], estimators: Iterable[str]
    ) -> None:
        self._metrics = metrics
        self._models = frozenset(models) - {"*"}
        self._estimators = frozenset((*estimators, "probe"))
        names = tuple(tiers)
        self._granted = {tier: metrics.budget_granted.of(tier).observe for tier in names}
        self._spent = {tier: metrics.budget_spent.of(tier).observe for tier in names}
        self._used = {tier: metrics.budget_utilization.of(tier).observe for tier in names}
        self._exhausted = {tier: metrics.budget_exhausted.of(tier) for tier in names}
        self._outcomes = {source: metrics.budget_outcomes.of(source) for source in WEIGHTS}
        self._probes = {outcome: metrics.budget_probes.of(outcome) for outcome in PROBES}

    def assessed(self, difficulty: Difficulty, model: str) -> None:
        estimator = difficulty.estimator if difficulty.estimator in self._estimators else OTHER
        self._metrics.difficulty.of(estimator, self._label(model)).observe(difficulty.score)

    def granted(self, tier: str, tokens: float, *, exhausted: bool) -> None:
        """A request was given a budget; `exhausted` if a ceiling made it smaller, or nothing."""
        self._granted[tier](tokens)
        if exhausted:
            self._exhausted[tier].inc()

    def spent(self, tier: str, tokens: float, expected: float) -> None:
        self._spent[tier](tokens)
        self._used[tier](tokens / expected if expected > 0 else 0.0)

    def learnt(self, source: Source) -> None:
        self._outcomes[source].inc()

    def probed(self, outcome: str) -> None:
        self._probes[outcome].inc()

    def price(self, model: str, price: float) -> None:
        """The last price that a request to the model was decided at."""
        self._metrics.budget_price.of(self._label(model)).set(price)

    def flat(self, model: str, kinds: int) -> None:
        self._metrics.budget_flat.of(self._label(model)).set(kinds)

    def knob(self, model: str, *, works: bool) -> None:
        self._metrics.budget_knob.of(self._label(model)).set(float(works))

    def _label(self, model: str) -> str:
        return model if model in self._models else OTHER
