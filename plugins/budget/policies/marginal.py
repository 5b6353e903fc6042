"""`marginal`: go on to a dearer tier for as long as what it gains is worth its tokens at the present price.

Greedy along the upper hull of (tokens, chance to be right), after Damani et al., arXiv 2410.04707. Until enough
requests have ended it follows the table of tiers, unless that would be too dear.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from predawn.plugins.budget.policies.protocol import Case, Choice
from predawn.plugins.budget.policies.tiers import Tiers
from predawn.plugins.budget.settings import TierSettings

COLD: Final = 20
"""Requests that must have ended before the curves count."""
DEAR: Final = 1.0
"""Targets of debt from which on a cold start follows the curves where they are cheaper than the table."""
MOST_TARGETS: Final = 8.0
"""A request may cost so many times the mean, and not more."""
OPTIMISM: Final = 0.5
"""How many standard errors too well is thought of dearer tiers, and too badly of the cheapest, when all credit is
unused: bad luck must not bury a tier, nor good luck keep from one what there are tokens for."""


class Step(NamedTuple):
    """A tier on the hull, and what each further token gains on the way to it; infinite for the first."""

    tier: TierSettings
    tokens: float
    value: float
    rate: float


class Marginal:
    """Needs a price; without one it is `tiers`."""

    name: str = "marginal"

    def __init__(self) -> None:
        self._tiers = Tiers()

    def choose(self, case: Case) -> Choice:
        price = case.price
        if price is None:
            return self._tiers.choose(case)
        steps = affordable(hull(case, OPTIMISM * price.saved), price.target)
        price.saw(step.rate for step in steps[1:])
        now = price.now
        chosen = steps[0]
        for step in steps[1:]:
            if step.rate <= now:
                break
            chosen = step
        if len(case.state) < COLD:
            by_table = self._tiers.choose(case)
            if by_table.expected > MOST_TARGETS * price.target:
                return Choice(chosen.tier, chosen.tokens, f"cold start: {by_table.tier.name} is too dear")
            if price.debt < DEAR or by_table.expected <= chosen.tokens:
                return Choice(by_table.tier, by_table.expected, f"cold start: {by_table.why}")
        return Choice(chosen.tier, chosen.tokens, _why(steps, chosen, now))


def affordable(steps: list[Step], target: float) -> list[Step]:
    """Without those that cost many times the mean: a few of them would undo what hundreds of others have saved."""
    return [steps[0], *(step for step in steps[1:] if step.tokens <= MOST_TARGETS * target)]


def hull(case: Case, optimism: float = 0.0) -> list[Step]:
    """The tiers worth considering, each gaining less per token than the one before it."""
    curves, kind, difficulty = case.state.curves, case.kind, case.difficulty
    costs = sorted(((case.cost(tier.name), tier) for tier in case.tiers), key=_tokens)
    points = [(tokens, curves.value(kind, tier.name, difficulty, optimism), tier) for tokens, tier in costs]
    tokens, tier = costs[0]
    value = curves.value(kind, tier.name, difficulty, -optimism)
    steps = [Step(tier, tokens, value, float("inf"))]
    for tokens, value, tier in points[1:]:
        while True:
            last = steps[-1]
            gained = value - last.value
            if gained <= 0:
                break
            rate = gained / max(tokens - last.tokens, 1e-6)
            if rate < last.rate:
                steps.append(Step(tier, tokens, value, rate))
                break
            steps.pop()  # below the line from the one before it to this one
    return steps


def _tokens(known: tuple[float, TierSettings]) -> float:
    return known[0]


def _why(steps: list[Step], chosen: Step, price: float) -> str:
    following = next((step for step in steps if step.tokens > chosen.tokens), None)
    if following is None:
        return "nothing gains more"
    return f"{following.tier.name} gains {following.rate * 1000:.3g} per 1000 tokens, and must {price * 1000:.3g}"
