"""What more tokens gain, by kind of task: learnt per tier from how requests ended, and when a curve is flat.

The value of a tier for a request is the chance that its answer is right. It begins as a guess from the difficulty and
is corrected by what was seen in requests that were about as hard, so that hard requests, which get more and fail more,
do not make spending look useless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from predawn.plugins.budget.features import Kind
    from predawn.plugins.budget.outcomes import Outcome

BINS: Final = 6
"""Classes of difficulty for which costs and corrections are kept apart."""
PRIOR_COUNT: Final = 8.0
"""Outcomes that weigh as much as the guess."""
COST_PRIOR: Final = 3.0
RETRY: Final = 0.72
"""What a doubling of tokens leaves of the chance to fail, until more is known."""
PROVEN: Final = 8
"""Judged outcomes of a tier from which on it may be the one that a flat curve falls back to."""
CONFIDENCE: Final = 1.28
"""Standard errors: a curve is flat if its true slope is below the limit with 90 % chance."""
RELIEF: Final = 0.67
"""Standard errors by which a flat curve's slope must exceed the limit to count as steep again."""


def bin_of(difficulty: float) -> int:
    return min(int(difficulty * BINS), BINS - 1)


class Arm:
    """What one tier has done for one kind of task: sums that outcomes are added to and taken from again."""

    __slots__ = ("count", "d", "dd", "q", "qd", "qq", "residuals", "seen", "tokens", "weights")

    def __init__(self) -> None:
        self.seen = [0] * BINS
        self.tokens = [0.0] * BINS
        self.count = 0
        """Outcomes that somebody judged: samples that agree say what the model would say again, not what is right."""
        self.weights = [0.0] * BINS
        self.residuals = [0.0] * BINS
        self.q = self.d = self.qq = self.dd = self.qd = 0.0

    def add(self, outcome: Outcome, expected: float, sign: int = 1) -> None:
        """Take an outcome in, or with `sign` -1 out again. `expected` is the quality that was guessed."""
        place = bin_of(outcome.difficulty)
        self.seen[place] += sign
        self.tokens[place] += sign * outcome.tokens
        quality, difficulty = outcome.quality, outcome.difficulty
        if quality is None:
            return
        self.weights[place] += sign * outcome.weight
        self.residuals[place] += sign * outcome.weight * (quality - expected)
        if outcome.source == "agreement":
            return
        self.count += sign
        self.q += sign * quality
        self.d += sign * difficulty
        self.qq += sign * quality * quality
        self.dd += sign * difficulty * difficulty
        self.qd += sign * quality * difficulty

    @property
    def mean_tokens(self) -> float | None:
        seen = sum(self.seen)
        return sum(self.tokens) / seen if seen else None


@dataclass(frozen=True, slots=True)
class Slope:
    """Gain in quality per doubling of tokens, difficulty held constant."""

    gain: float
    error: float
    """Its standard error."""
    count: int


class Curves:
    """The arms of one tenant and model: every tier for every kind of task. Bounded by their number."""

    __slots__ = ("_arms", "_flat", "_nominal", "_since", "flat_after", "flat_gain")

    def __init__(self, nominal: Mapping[str, float], *, flat_after: int = 60, flat_gain: float = 0.03) -> None:
        self._nominal = dict(nominal)
        """What each tier is thought to cost, cheapest first."""
        self._arms: dict[tuple[str, str], Arm] = {}
        self._flat: dict[str, bool] = {}
        self._since: dict[str, int] = {}
        self.flat_after = flat_after
        self.flat_gain = flat_gain

    @property
    def tiers(self) -> Sequence[str]:
        return tuple(self._nominal)

    def add(self, outcome: Outcome, sign: int = 1) -> None:
        """Learn an outcome, or with `sign` -1 forget it; tiers that the settings know no more are passed over."""
        if outcome.tier not in self._nominal:
            return
        for kind in (outcome.kind, ""):
            arm = self._arms.get((kind, outcome.tier))
            if arm is None:
                arm = self._arms[kind, outcome.tier] = Arm()
            arm.add(outcome, self.guess(outcome.tier, outcome.difficulty), sign)
        if outcome.quality is not None:
            self._since[outcome.kind] = self._since.get(outcome.kind, 0) + 1
            if self._since[outcome.kind] >= 8:  # a slope takes 20 µs, and few outcomes do not turn it
                self._since[outcome.kind] = 0
                self._judge(outcome.kind)

    def guess(self, tier: str, difficulty: float) -> float:
        """The chance to be right, by the settings alone: each doubling of tokens halves or so the chance to fail."""
        cheapest = min(self._nominal.values())
        doublings = math.log2(max(self._nominal[tier] / cheapest, 1.0))
        return 1.0 - difficulty * math.pow(RETRY, doublings)

    def value(self, kind: Kind, tier: str, difficulty: float, optimism: float = 0.0) -> float:
        """The chance to be right, by all that is known; so many standard errors better with `optimism`."""
        guess = self.guess(tier, difficulty)
        place = bin_of(difficulty)
        total = weights = whole = whole_weights = 0.0
        for name, share in ((kind, 1.0), ("", 0.25)):  # other kinds of tasks say a little
            arm = self._arms.get((name, tier))
            if arm is not None:
                total += share * arm.residuals[place]
                weights += share * arm.weights[place]
                whole += share * sum(arm.residuals)
                whole_weights += share * sum(arm.weights)
        # what holds at all difficulties holds at this one, until it has taught something else
        whole /= whole_weights + PRIOR_COUNT
        value = guess + (total + PRIOR_COUNT * whole) / (weights + PRIOR_COUNT)
        if optimism:
            value += optimism * math.sqrt(0.25 / (weights + 1.0))
        return min(max(value, 0.0), 1.0)

    def cost(self, kind: Kind, tier: str, difficulty: float) -> float:
        """Tokens that a request is expected to cost, from what is nearest: this kind and difficulty, this kind, any."""
        expected = self._nominal[tier]
        place = bin_of(difficulty)
        anything, own = self._arms.get(("", tier)), self._arms.get((kind, tier))
        if anything is not None and (seen := sum(anything.seen)):
            expected = (expected + sum(anything.tokens)) / (1.0 + seen)
        if own is not None and (seen := sum(own.seen)):
            expected = (COST_PRIOR * expected + sum(own.tokens)) / (COST_PRIOR + seen)
        if own is not None and own.seen[place]:
            expected = (COST_PRIOR * expected + own.tokens[place]) / (COST_PRIOR + own.seen[place])
        return max(expected, 1.0)

    def is_flat(self, kind: Kind) -> bool:
        """True if more tokens surely gain next to nothing for such tasks."""
        return self._flat.get(kind, False)

    def is_proven(self, kind: Kind, tier: str) -> bool:
        """True if enough answers of the tier were judged for a flat curve to say something of it."""
        arm = self._arms.get((kind, tier))
        return arm is not None and arm.count >= PROVEN

    def slope(self, kind: str) -> Slope | None:
        """The regression of quality on the logarithm of a tier's mean cost and on difficulty; `None` without data."""
        rows = [
            (arm, math.log2(mean))
            for tier in self._nominal
            if (arm := self._arms.get((kind, tier))) is not None and arm.count > 0 and (mean := arm.mean_tokens)
        ]
        count = sum(arm.count for arm, _ in rows)
        if count < 4:
            return None
        x = sum(arm.count * at for arm, at in rows) / count
        q = sum(arm.q for arm, _ in rows) / count
        d = sum(arm.d for arm, _ in rows) / count
        sxx = sum(arm.count * (at - x) ** 2 for arm, at in rows)
        sxq = sum((at - x) * arm.q for arm, at in rows)
        sxd = sum((at - x) * arm.d for arm, at in rows)
        sdd = sum(arm.dd for arm, _ in rows) - count * d * d
        sdq = sum(arm.qd for arm, _ in rows) - count * d * q
        sqq = sum(arm.qq for arm, _ in rows) - count * q * q
        if sxx / count < 0.02:  # one tier had nearly all of them
            return None
        return _partial(count, sxx, sxd, sdd, sxq, sdq, sqq)

    def _judge(self, kind: Kind) -> None:
        slope = self.slope(kind)
        if slope is None or slope.count < self.flat_after:
            self._flat[kind] = False
        elif self._flat.get(kind):
            self._flat[kind] = slope.gain - RELIEF * slope.error <= self.flat_gain
        else:
            self._flat[kind] = slope.gain + CONFIDENCE * slope.error < self.flat_gain

    @property
    def flat_kinds(self) -> list[str]:
        return sorted(kind for kind, is_flat in self._flat.items() if is_flat)


def _partial(  # noqa: PLR0917 - six sums under their usual names
    count: int, sxx: float, sxd: float, sdd: float, sxq: float, sdq: float, sqq: float
) -> Slope | None:
    """The slope along x of the plane through the data, and its error, from sums about the means."""
    determinant = sxx * sdd - sxd * sxd
    if sdd <= 1e-9 * count:  # all were equally hard
        gain = sxq / sxx
        rest, spread = sqq - gain * sxq, sxx
    elif determinant <= 1e-3 * sxx * sdd:  # cost follows difficulty so closely that nobody can tell them apart
        return None
    else:
        gain = (sxq * sdd - sdq * sxd) / determinant
        along = (sdq * sxx - sxq * sxd) / determinant
        rest, spread = sqq - gain * sxq - along * sdq, determinant / sdd
    # as if two more had gone the other way: twenty right answers in a row prove no certainty
    variance = (max(rest, 0.0) + 0.5) / max(count - 3, 1)
    return Slope(gain, math.sqrt(variance / spread), count)
