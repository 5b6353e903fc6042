"""Budget's own estimators, and how several views of a request become one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from predawn.plugins import Difficulty, RequestError
from predawn.plugins.budget.features import read
from predawn.plugins.budget.seen import seen_of

if TYPE_CHECKING:
    from predawn.plugins import Exchange
    from predawn.plugins.budget.features import Features
    from predawn.plugins.budget.learning import Memory

UNTAUGHT: Final = 0.25
"""Confidence in features while nothing was learnt."""
TAUGHT: Final = 0.65
ENOUGH: Final = 100.0
"""Outcomes after which half of the way between the two has been gone."""
NEAR: Final = 1.5
"""Weight of near outcomes that makes for a confidence of one half."""


def features_of(exchange: Exchange) -> Features | None:
    """What the request looks like, read once; `None` if it cannot be read, which the upstream may judge."""
    seen = seen_of(exchange)
    if seen.features is None:
        try:
            request = exchange.request
        except RequestError:
            return None
        seen.features = read(
            exchange.route,
            request,
            tenant=exchange.tenant,
            size=len(exchange.body),
            has_notes=any(note.get("fresh") is True for note in exchange.notes),
        )
    return seen.features


class ByFeatures:
    """The chance that a cheap answer is wrong, by sixteen features whose weights are learnt."""

    name: str = "features"

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def estimate(self, exchange: Exchange) -> Difficulty | None:
        features = features_of(exchange)
        if features is None:
            return None
        state = self._memory.of(exchange.tenant, exchange.alias)
        confidence = UNTAUGHT + (TAUGHT - UNTAUGHT) * state.judged / (state.judged + ENOUGH)
        return Difficulty(state.hardness(features), confidence, self.name)


class ByNeighbours:
    """How hard those past requests were that share most words with this one."""

    name: str = "neighbours"

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def estimate(self, exchange: Exchange) -> Difficulty | None:
        features = features_of(exchange)
        if features is None:
            return None
        neighbours = self._memory.of(exchange.tenant, exchange.alias).neighbours
        if not neighbours:
            return None
        hardness, weight = neighbours.nearest(features.sketch)
        return Difficulty(hardness, weight / (weight + NEAR), self.name) if weight else None


def combined(views: Mapping[str, Difficulty]) -> Difficulty | None:
    """The views weighed by confidence, under the name of the most confident one; views without sense are left out."""
    total = weights = 0.0
    doubt = 1.0
    first: Difficulty | None = None
    for view in views.values():
        if not 0.0 <= view.score <= 1.0 or not 0.0 <= view.confidence <= 1.0:
            continue
        confidence = min(view.confidence, 0.99)
        weight = confidence / (1.0 - confidence) + 1e-6
        total += weight * view.score
        weights += weight
        doubt *= 1.0 - confidence
        if first is None or view.confidence > first.confidence:
            first = view
    return Difficulty(total / weights, 1.0 - doubt, first.estimator) if first is not None else None
