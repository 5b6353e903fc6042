"""`first_m_of_k`: start k, vote among the m that end first, give up the rest.

Short answers tend to be right ones (short-m@k, arXiv 2505.17813: a third less time, 40 % fewer tokens).
"""

from __future__ import annotations

from collections.abc import Iterator

from predawn.plugins.sampling.strategies.choosing import Choosing
from predawn.plugins.sampling.strategies.protocol import Action


class FirstOfMany(Choosing):
    """Answers that were cut off do not count towards m."""

    name: str = "first_m_of_k"

    def begin(self) -> Iterator[Action]:
        yield from self.pool.start(self.pool.limit)

    def next(self) -> Iterator[Action]:
        if len(self.pool.complete) >= self.options.first:
            yield from self.conclude("enough")
        elif self.pool.is_idle:
            yield from self.conclude("exhausted")
