"""What is known of each tenant's requests to each model: bounded, and from no outcomes but the tenant's own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from predawn.plugins.budget.curves import Curves
from predawn.plugins.budget.features import NAMES
from predawn.plugins.budget.neighbours import Neighbours

if TYPE_CHECKING:
    from predawn.plugins.budget.features import Features, Kind
    from predawn.plugins.budget.outcomes import Judged, Outcome

PRIOR_WEIGHTS: Final[tuple[float, ...]] = (
    *(-2.6, 0.9, 1.6, 0.9, 2.2, 1.0, 0.9, 0.2),
    *(0.1, 0.4, 0.6, 0.2, 0.3, 1.6, -1.2, -1.5),
)
"""By `NAMES`: what each feature says before anything was learnt, in log odds of a cheap answer being wrong."""
RATE: Final = 0.5
PULL: Final = 0.002
FIRST_SLOPE: Final = 0.05
"""As if so much had been seen of every feature before: the first outcomes do not turn everything round."""
MOST_WEIGHT: Final = 12.0
STRIDE: Final = 0.05
"""How much of a surprise in costs is learnt from one request: all of it, and the next one's guess would be noise."""
MOST_STRETCH: Final = 1.5
"""How far, as a logarithm, a request may be expected to cost more or less than others of its tier."""


class State:
    """What one tenant's requests to one model have taught."""

    __slots__ = (
        "_lengths",
        "_most",
        "_ring",
        "_slopes",
        "_telling",
        "curves",
        "is_loaded",
        "judged",
        "neighbours",
        "seen",
        "weights",
    )

    def __init__(self, curves: Curves, most: int, telling: Callable[[], Collection[str]] | None = None) -> None:
        self._most = most
        self._telling = telling
        """Tiers whose answers think no more than the cheapest one: how those end tells how hard a request is."""
        self._lengths: dict[str, tuple[list[float], int]] = {}
        """By tier: how its costs depend on features, and from how many outcomes that is known."""
        self._ring: OrderedDict[str, Outcome] = OrderedDict()
        self.neighbours = Neighbours()
        self.curves = curves
        self.weights = list(PRIOR_WEIGHTS)
        self._slopes = [FIRST_SLOPE] * len(NAMES)
        self.seen = 0
        """Outcomes that were ever learnt here; `len` counts those that are remembered."""
        self.judged = 0
        """Those whose hardness was known."""
        self.is_loaded = False
        """True once the store has been asked."""

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._ring.values())

    def hardness(self, features: Features) -> float:
        """The chance that a cheap answer would be wrong, by what the request looks like."""
        return _logistic(sum(map(_times, self.weights, features.values)))

    def cost(self, kind: Kind, tier: str, difficulty: float, values: Sequence[float] = ()) -> float:
        """Tokens that a request is expected to cost: what its tier costs for such tasks, and what its features add."""
        known = self._lengths.get(tier)
        expected = self.curves.cost(kind, tier, difficulty)
        return expected if known is None else expected * math.exp(_clamped(sum(map(_times, known[0], values))))

    def learn(self, outcome: Outcome) -> None:
        """Take an outcome in; one of the same exchange is replaced, and beyond the limit the oldest forgotten."""
        if outcome.exchange_id not in self._ring:
            self._measure(outcome)
        self._forget(outcome.exchange_id)
        self._ring[outcome.exchange_id] = outcome
        if len(self._ring) > self._most:
            self._forget(next(iter(self._ring)))
        self.seen += 1
        self.curves.add(outcome)
        hardness = self._hardness_after(outcome)
        if hardness is not None:
            self.judged += 1
            if self._tells(outcome):  # of the others it would mostly repeat what was thought before
                self.neighbours.add(outcome.exchange_id, outcome.sketch, hardness, outcome.weight)
            self._fit(outcome.values, hardness, outcome.weight)

    def rejudge(self, exchange_id: str, judged: Judged) -> Outcome | None:
        """Correct what is known of an exchange; `None` if it is not remembered."""
        known = self._ring.get(exchange_id)
        if known is None:
            return None
        better = judged.of(known)
        if better != known:  # said twice is not known better
            self.learn(better)
        return better

    def _forget(self, exchange_id: str) -> None:
        known = self._ring.pop(exchange_id, None)
        if known is not None:
            self.curves.add(known, -1)
            self.neighbours.drop(exchange_id)

    def _hardness_after(self, outcome: Outcome) -> float | None:
        """How hard a request was for a cheap answer, judged by the answer that it got.

        One that was dearer and is wrong shows that a cheap one would have been wrong. One that is right shows next to
        nothing: what is thought already, less the few that fail at either price.
        """
        told, quality = outcome.hardness, outcome.quality
        if told is None or quality is None or self._tells(outcome):
            return told
        before = _logistic(sum(map(_times, self.weights, outcome.values)))
        fails = 0.0
        if self._knows(outcome):
            fails = min(1.0 - self.curves.value(outcome.kind, outcome.tier, before), before)
        if_right = (before - fails) / max(1.0 - fails, 0.02)
        return max(told, 1.0 - quality + quality * if_right)

    def _tells(self, outcome: Outcome) -> bool:
        """Whether an answer like this one shows how a cheap one would have been."""
        return self._telling is None or outcome.tier in self._telling()

    def _knows(self, outcome: Outcome) -> bool:
        return outcome.tier in self.curves.tiers

    def _measure(self, outcome: Outcome) -> None:
        """Learn how the costs of a tier depend on features: a normalised step on the logarithm."""
        values, tokens = outcome.values, outcome.tokens
        length = sum(map(_times, values, values))
        if len(values) != len(NAMES) or not tokens > 0 or not length > 0 or not self._knows(outcome):
            return
        weights, count = self._lengths.get(outcome.tier) or ([0.0] * len(NAMES), 0)
        ratio = math.log(tokens / self.curves.cost(outcome.kind, outcome.tier, outcome.difficulty))
        error = _clamped(_clamped(ratio) - sum(map(_times, weights, values)))
        step = STRIDE * error / (length * math.sqrt(1.0 + count / 50.0))
        self._lengths[outcome.tier] = (
            [one + step * value for one, value in zip(weights, values, strict=True)],
            count + 1,
        )

    def _fit(self, values: tuple[float, ...], hardness: float, weight: float) -> None:
        """A step of logistic regression, for each feature the shorter the more it has taught (AdaGrad, Duchi et al.
        2011), and a pull back to the beginning."""
        if len(values) != len(NAMES):
            return
        error = hardness - _logistic(sum(map(_times, self.weights, values)))
        for at, value in enumerate(values):
            if value:
                slope = weight * (error * value - PULL * (self.weights[at] - PRIOR_WEIGHTS[at]))
                self._slopes[at] += slope * slope
                moved = self.weights[at] + RATE * slope / math.sqrt(self._slopes[at])
                self.weights[at] = min(max(moved, -MOST_WEIGHT), MOST_WEIGHT)


class Memory:
    """The states of all tenants and models that were met lately."""

    def __init__(self, make_curves: Callable[[], Curves], *, outcomes: int, states: int) -> None:
        self._make_curves = make_curves
        self._outcomes = outcomes
        self._most = states
        self._states: OrderedDict[tuple[str, str], State] = OrderedDict()
        self.telling: Callable[[str], Collection[str]] | None = None
        """Set when the server starts: the tiers of an alias that think no more than its cheapest one."""

    def __len__(self) -> int:
        return len(self._states)

    def of(self, tenant: str, model: str) -> State:
        """The state of a tenant and an alias; made, and the one unused for longest forgotten, where there is none."""
        key = (tenant, model)
        state = self._states.get(key)
        if state is not None:
            self._states.move_to_end(key)
            return state
        state = self._states[key] = self.begin(model)
        if len(self._states) > self._most:
            self._states.popitem(last=False)
        return state

    def begin(self, model: str) -> State:
        """A state to be filled from the store, and then installed."""
        telling = partial(self.telling, model) if self.telling is not None else None
        return State(self._make_curves(), self._outcomes, telling)

    def install(self, tenant: str, model: str, state: State) -> None:
        """Put a state that was read in the place of the one there, and learn anew what that had learnt meanwhile."""
        for outcome in self.of(tenant, model):
            state.learn(outcome)
        state.is_loaded = True
        self._states[tenant, model] = state

    @property
    def states(self) -> Mapping[tuple[str, str], State]:
        return self._states


def _times(weight: float, value: float) -> float:
    return weight * value


def _clamped(stretch: float) -> float:
    return min(max(stretch, -MOST_STRETCH), MOST_STRETCH)


def _logistic(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(odds, -30.0), 30.0)))
