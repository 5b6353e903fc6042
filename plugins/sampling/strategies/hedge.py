"""`hedge`: a second request if the first does not begin to answer in time; whichever begins first is the answer.

It cuts the tail of the waiting time (Dean and Barroso, The Tail at Scale, 2013) and costs a second answer in one
request of twenty, most of which is given up at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from predawn.plugins.sampling.strategies.machine import Machine
from predawn.plugins.sampling.strategies.protocol import Action, Options, Sample, Stop, Wake


class Hedge(Machine):
    """Two samples at most, whatever the options say."""

    name: str = "hedge"
    progress_every = 1

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.pool.limit = min(2, self.pool.limit)

    def begin(self) -> Iterator[Action]:
        yield from self.pool.start(1)
        if self.pool.left and isfinite(self.options.hedge_after_s):
            yield Wake(self.options.hedge_after_s)

    def woke(self) -> Iterator[Action]:
        """The first has not begun yet."""
        yield from self.pool.start(1)

    def grew(self, sample: Sample) -> Iterator[Action]:
        """It has begun: it is the answer, and is streamed while it grows."""
        yield Stop(sample.index, "first")

    def next(self) -> Iterator[Action]:
        if self.pool.finished:
            yield Stop(self.pool.finished[0].index, "first")
