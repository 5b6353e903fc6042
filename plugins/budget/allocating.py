"""From a difficulty to a budget: the policy's tier, shaped to the task, fitted under the ceilings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins import Budget
from predawn.plugins.budget.capabilities import Capabilities
from predawn.plugins.budget.menus import Menus, Terms
from predawn.plugins.budget.policies import Case, Choice
from predawn.plugins.budget.policies.fixed import Fixed
from predawn.plugins.budget.policies.marginal import COLD, MOST_TARGETS, Marginal
from predawn.plugins.budget.policies.tiers import Tiers
from predawn.plugins.budget.seen import Granted, Seen, difficulty_of
from predawn.plugins.knobs import EFFORTS, choices_of, client_limit, leaves_open, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predawn.plugins import Exchange
    from predawn.plugins.budget.capabilities import Capability
    from predawn.plugins.budget.ceilings import Ceilings, Fitted
    from predawn.plugins.budget.features import Features
    from predawn.plugins.budget.learning import Memory, State
    from predawn.plugins.budget.policies import Policy
    from predawn.plugins.budget.price import Price
    from predawn.plugins.budget.prices import Prices
    from predawn.plugins.budget.settings import BudgetSettings, TierSettings


UNUSED: Final = 0.5
"""Share of the credit that may be saved up from which on nothing is gained by trying whether less would do."""
HOPE: Final = 2.0
"""Standard errors by which a tier must be thought better than seen for an experiment with it to be worth its price."""


def policy_of(settings: BudgetSettings) -> Policy:
    if settings.policy == "marginal":
        return Marginal()
    if settings.policy == "tiers":
        return Tiers()
    middle = settings.tiers[min(1, len(settings.tiers) - 1)].name
    return Fixed(settings.fixed_tier or middle)


@dataclass(slots=True)
class Allocator:
    """Decides what requests may cost; made when the server starts."""

    settings: BudgetSettings
    memory: Memory
    prices: Prices
    ceilings: Ceilings
    capabilities: Capabilities
    menus: Menus
    policy: Policy
    draw: random.Random
    can_sample: bool
    can_verify: bool

    def allocate(self, exchange: Exchange, seen: Seen, features: Features) -> tuple[Granted, Fitted]:
        """Decide, and hold what was decided; whoever gets it settles it."""
        request = exchange.request
        capability = self.capabilities.of(exchange.alias)
        terms = self.terms(request, exchange, capability)
        menu = self.menus.of(terms)
        state = self.memory.of(exchange.tenant, exchange.alias)
        price = self.prices.of(exchange.tenant, exchange.alias)
        choice = self._choose(exchange, seen, features, menu, state, price)
        budget = self._budget(choice.tier, seen, features, terms)
        fitted = self.fit(exchange, seen, budget)
        shrinks = (fitted.samples, fitted.rounds) != (budget.samples, budget.rounds)
        expected = choice.expected
        if shrinks:
            expected *= fitted.samples * fitted.rounds / (budget.samples * budget.rounds)
        limit = fitted.answer_tokens if fitted.held is not None else budget.max_output_tokens
        if shrinks or limit != budget.max_output_tokens:
            budget = Budget(budget.effort, limit, fitted.samples, fitted.rounds, budget.verify, budget.deadline_s)
        is_usual = terms == self._usual(capability) and not seen.wish.is_own and not fitted.is_scarce
        granted = seen.granted = Granted(choice, budget, price, expected, is_usual)
        if price is not None and fitted.refusal is None:
            price.expect(expected)
        return granted, fitted

    def fit(self, exchange: Exchange, seen: Seen, budget: Budget) -> Fitted:
        """Hold what there is room for under the ceilings, also where budget has no say otherwise."""
        request = exchange.request
        fitted = seen.fitted = self.ceilings.fit(
            exchange.tenant,
            exchange.key_id,
            budget.samples,
            budget.rounds,
            _least(budget.max_output_tokens, client_limit(request)),
            choices_of(request),
            spent=seen.probed,
        )
        return fitted

    def _usual(self, capability: Capability) -> Terms:
        """What there is to decide where the client decides nothing."""
        return Terms(capability, decides_effort=True, can_sample=self.can_sample, can_verify=self.can_verify)

    def telling(self, alias: str) -> frozenset[str]:
        """The tiers whose answers tell how hard a request is for a cheap one."""
        return self.menus.alike(self._usual(self.capabilities.of(alias)))

    def terms(self, request: Mapping[str, Any], exchange: Exchange, capability: Capability) -> Terms:
        """What there is to decide."""
        return Terms(
            capability,
            not capability.is_reasoning or leaves_open(request, exchange.route, capability.knob),
            self.can_sample and choices_of(request) == 1,
            self.can_verify,
        )

    def _choose(  # noqa: PLR0917 - all that a choice depends on
        self,
        exchange: Exchange,
        seen: Seen,
        features: Features,
        menu: Sequence[TierSettings],
        state: State,
        price: Price | None,
    ) -> Choice:
        difficulty = difficulty_of(exchange)
        kind, curves = features.kind, state.curves
        if seen.wish.tier is not None:
            tier = next((one for one in menu if one.name == seen.wish.tier), None)
            if tier is None:  # for this model it comes to the same as one before it
                at = [one.name for one in self.settings.tiers].index(seen.wish.tier)
                names = {one.name for one in self.settings.tiers[: at + 1]}
                tier = next(one for one in reversed(menu) if one.name in names)
            return Choice(tier, curves.cost(kind, tier.name, difficulty), "asked for")
        choice = self.policy.choose(Case(difficulty, kind, state, menu, price, values=features.values))
        if self.settings.policy == "fixed" or len(menu) == 1 or not self.settings.learning.enabled:
            return choice
        explored = self._explored(choice, menu, state, price, (kind, difficulty))
        if explored is not None:
            return explored
        proven = [tier for tier in menu if curves.is_proven(kind, tier.name)] if curves.is_flat(kind) else []
        if proven:  # of tiers that nobody has judged nothing is known, however flat it is among the others
            cheapest = min(proven, key=lambda tier: curves.cost(kind, tier.name, difficulty))
            slope = curves.slope(kind)
            seen_gain = f", {slope.gain:+.3f} ± {slope.error:.3f} per doubling" if slope is not None else ""
            why = f"flat: more tokens do not help with {kind}{seen_gain}"
            return Choice(cheapest, curves.cost(kind, cheapest.name, difficulty), why)
        return choice

    def _explored(
        self,
        choice: Choice,
        menu: Sequence[TierSettings],
        state: State,
        price: Price | None,
        place: tuple[Any, float],
    ) -> Choice | None:
        """Now and then the tier next to the chosen one, or what it is worth would never be learnt."""
        lot = self.draw.random()
        if lot >= self.settings.learning.explore or len(state) < COLD:
            return None
        at = menu.index(choice.tier) + (1 if lot * 2 < self.settings.learning.explore else -1)
        if not 0 <= at < len(menu):
            return None
        expected = state.curves.cost(place[0], menu[at].name, place[1])
        if price is not None and expected > MOST_TARGETS * price.target:
            return None
        if price is not None and price.saved > UNUSED and expected < choice.expected:
            return None  # what it might save is not wanted
        gained = state.curves.value(*_at(place, menu[at]), HOPE) - state.curves.value(*_at(place, choice.tier))
        if gained <= (price.now * (expected - choice.expected) if price is not None else 0.0):
            return None
        return Choice(menu[at], expected, f"explores, instead of {choice.tier.name}")

    def _budget(self, tier: TierSettings, seen: Seen, features: Features, terms: Terms) -> Budget:
        """The tier as a budget: width or depth by the structure of the task, and what the client asks for itself."""
        effort, samples, rounds, verify = tier.effort, tier.samples, tier.rounds, tier.verify
        capability, wish = terms.capability, seen.wish
        if self.settings.shape and samples * rounds > 1:
            if features.shape == "width":
                samples, rounds = samples * rounds, 1
            elif features.shape == "depth" and samples >= 2 and effort is not None and effort != "max":
                deeper = nearest(EFFORTS[EFFORTS.index(effort) + 1], capability.efforts)
                if deeper is not None and EFFORTS.index(deeper) > EFFORTS.index(effort):
                    effort, samples = deeper, samples // 2
        if wish.effort is not None and terms.decides_effort:
            effort = nearest(wish.effort, capability.efforts)
        if terms.can_sample:
            samples, rounds = wish.samples or samples, wish.rounds or rounds
        if samples > 1 and rounds > 1:  # answers side by side are voted on, and not revised
            samples, rounds = samples * rounds, 1
        if wish.verify is not None and terms.can_verify:
            verify = wish.verify
        limit = _least(tier.max_output_tokens, wish.max_output_tokens)
        return Budget(effort, limit, samples, rounds, verify, tier.deadline_s)


def _at(place: tuple[Any, float], tier: TierSettings) -> tuple[Any, str, float]:
    return place[0], tier.name, place[1]


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
