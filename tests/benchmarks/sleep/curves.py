"""The arithmetic of the evidence: means with intervals, what a query costs, and after how many of them sleep has paid."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from predawn.plugins.sleep.worth import Prices

ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Tokens:
    """What calls took."""

    prompt: float = 0.0
    cached: float = 0.0
    """Part of `prompt`."""
    output: float = 0.0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.cached + other.cached, self.output + other.output)

    def __truediv__(self, count: float) -> "Tokens":
        return Tokens(self.prompt / count, self.cached / count, self.output / count)

    def cost(self, prices: Prices) -> float:
        """In output tokens bought asleep."""
        fresh = self.prompt - self.cached
        return self.output + prices.prompt_weight * fresh + prices.cached_weight * self.cached


@dataclass(frozen=True, slots=True)
class Economics:
    """What sleeping on one context costs, and what a query costs without and with it, before the price ratio."""

    asleep: float
    plain: float
    noted: float

    def per_query(self, queries: float, ratio: float) -> float:
        """A query's share of sleep and its own cost, if a context has so many of them."""
        return self.asleep / queries + ratio * self.noted

    def break_even(self, ratio: float) -> float | None:
        """Queries per context from which on sleep is the cheaper way; `None` if it never is."""
        saved = ratio * (self.plain - self.noted)
        return self.asleep / saved if saved > 0 else None

    def cheaper_by(self, queries: float, ratio: float) -> float:
        """How many times cheaper a query is with sleep, at so many queries per context."""
        return ratio * self.plain / self.per_query(queries, ratio)


def economics(asleep: Tokens, plain: Tokens, noted: Tokens, *, prices: Prices | None) -> Economics:
    """Of mean tokens per context and per query. Without `prices`, output tokens alone count, as in arXiv 2504.13171."""
    if prices is None:
        return Economics(asleep.output, plain.output, noted.output)
    return Economics(asleep.cost(prices), plain.cost(prices), noted.cost(prices))


def mean(values: Sequence[float]) -> float:
    """NaN where there are none."""
    return sum(values) / len(values) if values else math.nan


def median(values: Sequence[float]) -> float:
    """NaN where there are none."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return math.nan
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def interval(groups: Sequence[Sequence[float]], seed: int, share: float = 0.95) -> tuple[float, float]:
    """Where the mean of all values lies with this probability, by bootstrap over whole groups.

    Questions about one context stand and fall together, so that contexts are drawn and not questions.
    """
    sums = [(sum(group), len(group)) for group in groups if group]
    if not sums:
        return math.nan, math.nan
    draw = random.Random(seed)
    means = []
    for _ in range(ROUNDS):
        drawn = draw.choices(sums, k=len(sums))
        means.append(sum(total for total, _ in drawn) / sum(count for _, count in drawn))
    means.sort()
    tail = (1 - share) / 2
    return means[int(tail * ROUNDS)], means[min(ROUNDS - 1, math.ceil((1 - tail) * ROUNDS) - 1)]
