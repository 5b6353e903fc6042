"""`judge`: for text that cannot be counted, the answer that wins comparisons, each asked in both orders."""

from __future__ import annotations

from collections.abc import Iterator

from predawn.plugins.sampling.strategies.choosing import Choosing
from predawn.plugins.sampling.strategies.protocol import Action


class Judging(Choosing):
    """Draws all samples at once. If they all answer the same, nobody is asked."""

    name: str = "judge"

    def begin(self) -> Iterator[Action]:
        yield from self.pool.start(self.pool.limit)

    def next(self) -> Iterator[Action]:
        if not self.pool.is_idle:
            return
        tally = self.tally
        if len(tally.groups) == 1 and tally.total == len(self.pool.complete) > 1:
            yield from self.conclude("settled")
        else:
            yield from self.judge(tally)
