"""Traffic whose difficulty and costs are drawn by a seed, and the real policy in front of it: no model, no clock."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from predawn.plugins.budget.curves import Curves
from predawn.plugins.budget.features import NAMES, Kind
from predawn.plugins.budget.learning import State
from predawn.plugins.budget.nominal import nominal_tokens
from predawn.plugins.budget.outcomes import Outcome
from predawn.plugins.budget.policies.marginal import Marginal
from predawn.plugins.budget.policies.protocol import Case
from predawn.plugins.budget.price import Price
from predawn.plugins.budget.settings import STANDARD_TIERS

TRUE_COSTS: Final = {"easy": 60.0, "usual": 350.0, "hard": 2400.0, "hardest": 9000.0}
"""What a request of medium difficulty costs; the settings guess otherwise."""
DOUBLING: Final = {"math": 0.7, "code": 0.8, "open": 0.93, "choice": 0.99, "json": 0.9, "tools": 0.85}
"""What a doubling of tokens really leaves of the chance to fail."""


@dataclass(frozen=True)
class Mix:
    """A kind of traffic: how often each kind of task comes, and how hard it is on the mean."""

    kinds: dict[Kind, float]
    difficulty: float
    spread: float = 0.2


EASY: Final = Mix({"open": 0.8, "json": 0.2}, 0.2, 0.15)
USUAL: Final = Mix({"open": 0.5, "math": 0.3, "code": 0.2}, 0.4)
HARD: Final = Mix({"math": 0.6, "code": 0.4}, 0.75, 0.15)
SAME: Final = Mix({"math": 1.0}, 0.5, 0.0)


@dataclass(frozen=True)
class Served:
    """One simulated request."""

    tokens: float
    price: float
    tier: str
    was_right: bool


class Site:
    """One tenant and model under the policy `marginal`."""

    def __init__(self, target: float, *, seed: int, in_flight: int = 1, told: float = 0.3) -> None:
        nominal = {tier.name: nominal_tokens(tier) for tier in STANDARD_TIERS}
        self.state = State(Curves(nominal), 512)
        self.price = Price(target)
        self.policy = Marginal()
        self._random = random.Random(seed)
        self._told = told
        self._in_flight = in_flight
        self._waiting: deque[tuple[float, Outcome]] = deque()
        self._count = 0

    def serve(self, mix: Mix, count: int) -> list[Served]:
        return [self._one(mix) for _ in range(count)]

    def _one(self, mix: Mix) -> Served:
        draw = self._random
        self._count += 1
        kind = draw.choices(list(mix.kinds), list(mix.kinds.values()))[0]
        true = min(max(draw.gauss(mix.difficulty, mix.spread), 0.02), 0.98)
        guessed = min(max(true + draw.gauss(0, 0.12), 0.0), 1.0)
        choice = self.policy.choose(Case(guessed, kind, self.state, STANDARD_TIERS, self.price))
        price = self.price.now
        self.price.expect(choice.expected)
        name = choice.tier.name
        tokens = TRUE_COSTS[name] * (0.4 + 1.2 * true) * draw.lognormvariate(-0.18, 0.6)
        doublings = math.log2(TRUE_COSTS[name] / TRUE_COSTS["easy"])
        was_right = draw.random() > true * DOUBLING[kind] ** doublings
        is_told = draw.random() < self._told
        outcome = Outcome(
            exchange_id=str(self._count),
            tenant="t",
            model="m",
            kind=kind,
            shape="open",
            values=(1.0,) * len(NAMES),
            sketch=(self._count % 97,),
            difficulty=guessed,
            tier=name,
            tokens=tokens,
            at=float(self._count),
            quality=float(was_right) if is_told else None,
            hardness=None,
            source="verdict" if is_told else "none",
        )
        self._waiting.append((choice.expected, outcome))
        if len(self._waiting) >= self._in_flight:
            expected, ended = self._waiting.popleft()
            self.price.settle(ended.tokens, expected)
            self.state.learn(ended)
        return Served(tokens, price, name, was_right)


def mean_tokens(served: Sequence[Served]) -> float:
    return sum(one.tokens for one in served) / len(served)
