"""`waves`: start few, add while it pays; one knob from cheap to thorough.

A wave pays as long as the chance that it brings another leader is worth its samples. That ends sooner than `vote`
where many answers share the votes: there the leader may change at any time, and for no better one. One knob in place
of many is the lesson of AutoTTS (arXiv 2605.08083).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from predawn.plugins.sampling import posterior
from predawn.plugins.sampling.strategies.choosing import Choosing
from predawn.plugins.sampling.strategies.protocol import Action, Options

CHEAP_PRICE, THOROUGH_PRICE = 0.08, 0.004
"""What one more sample must bring of a chance to change the leader, at the two ends of the knob."""
CHEAP_FIRST, THOROUGH_FIRST = 2, 5
"""Samples of the first wave."""


def between(cheap: float, thorough: float, beta: float) -> float:
    """A value on the way from one end to the other, in equal ratios."""
    beta = min(1.0, max(0.0, beta))
    return math.exp((1 - beta) * math.log(cheap) + beta * math.log(thorough))


class Waves(Choosing):
    """The first wave is small; each later one is as large as it must be to settle the vote, and at most doubles
    them."""

    name: str = "waves"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.price = between(CHEAP_PRICE, THOROUGH_PRICE, options.beta)
        self.first = round(between(CHEAP_FIRST, THOROUGH_FIRST, options.beta))

    def begin(self) -> Iterator[Action]:
        yield from self.pool.start(self.first)

    def next(self) -> Iterator[Action]:
        if not self.pool.is_idle:
            return
        tally = self.tally
        if not tally.groups or not self.pool.left:
            yield from self.conclude("exhausted")
            return
        wave = self._wave()
        if wave:
            yield from self.pool.start(wave)
        else:
            settled = tally.confidence(self.pool.left) > 1 - self.price
            yield from self.conclude("settled" if settled else "unprofitable")

    def _wave(self) -> int:
        """How many more to draw: the number that pays best for each sample; 0 if none pays."""
        votes = self.tally.votes
        most = min(self.pool.left, max(2, self.pool.started))
        best, gain = 0, self.price
        for count in range(1, most + 1):
            each = posterior.risk(votes, count) / count
            if each >= gain:
                best, gain = count, each
        return best
