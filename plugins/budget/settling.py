"""What is learnt when a request is over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from predawn.plugins.budget.outcomes import WEIGHTS, Outcome, judge, spent_tokens
from predawn.plugins.budget.seen import STATE, Granted, Seen, difficulty_of
from predawn.proxy.extensions import Evidence

if TYPE_CHECKING:
    from predawn.plugins import Exchange
    from predawn.plugins.budget.books import Books
    from predawn.plugins.budget.learning import Memory
    from predawn.plugins.budget.meters import BudgetMeters
    from predawn.plugins.budget.outcomes import Judged
    from predawn.plugins.sampling.result import SamplingResult
    from predawn.proxy.extensions import RegisteredEstimator

log = logging.getLogger("predawn.budget")
FAULTS: Final = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What other plugins' estimators raise when they are wrong; it must not keep ours from learning."""


@dataclass(slots=True)
class Settling:
    """Made when the server starts."""

    memory: Memory
    books: Books
    meters: BudgetMeters
    learners: Sequence[RegisteredEstimator]
    """Estimators of other plugins that want to be told."""
    learns: bool

    def done(self, exchange: Exchange) -> None:
        """Settle what was held and expected, and learn from how it went."""
        seen: Seen | None = exchange.state.get(STATE)
        if seen is None or (fitted := seen.fitted) is None:
            return
        ledger, granted = exchange.ledger, seen.granted
        if fitted.held is not None:
            fitted.held.settle(max(ledger.all_output - seen.probed, 0))
        if granted is None or fitted.refusal is not None:
            return
        tokens = float(spent_tokens(ledger))
        was_served = exchange.outcome == "ok" and any(call.phase == "serve" for call in ledger.calls)
        if granted.price is not None:
            if was_served or tokens:
                granted.price.settle(tokens, granted.expected)
                self.meters.price(exchange.alias, granted.price.now)
            else:
                granted.price.withdraw(granted.expected)
        if was_served:
            self.meters.spent(granted.choice.tier.name, tokens, granted.expected)
            self._learn(exchange, seen, granted, tokens)

    def _learn(self, exchange: Exchange, seen: Seen, granted: Granted, tokens: float) -> None:
        judged = judge(exchange.verdicts, _sampled(exchange))
        self.meters.learnt(judged.source)
        features = seen.features
        if self.learns and features is not None:
            outcome = Outcome(
                exchange_id=exchange.id,
                tenant=exchange.tenant,
                model=exchange.alias,
                kind=features.kind,
                shape=features.shape,
                values=features.values,
                sketch=features.sketch,
                difficulty=difficulty_of(exchange),
                tier=granted.choice.tier.name if granted.is_usual else "",
                tokens=tokens,
                at=exchange.arrived_at,
                quality=judged.quality,
                hardness=judged.hardness,
                source=judged.source,
            )
            self.memory.of(exchange.tenant, exchange.alias).learn(outcome)
            self.books.add(outcome)
        if judged.quality is not None:
            self._tell(exchange, judged, judged.quality, tokens)

    def _tell(self, exchange: Exchange, judged: Judged, quality: float, tokens: float) -> None:
        sampled = _sampled(exchange)
        drawn = sampled.drawn if sampled is not None else 1
        evidence = Evidence(
            "agreement" if judged.source == "agreement" else "verdict",
            quality,
            WEIGHTS[judged.source],
            drawn,
            int(tokens),
        )
        for estimator in self.learners:
            if estimator.learn is not None:
                try:
                    estimator.learn(exchange, evidence)
                except FAULTS:
                    log.exception("the estimator %s of plugin %s failed in learn", estimator.name, estimator.plugin)


def _sampled(exchange: Exchange) -> SamplingResult | None:
    """What sampling left, if it is there: budget works without it, and does not import it."""
    return exchange.state.get("sampling.result")
