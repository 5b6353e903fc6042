"""`vote`: the answer that most samples give, drawn until another leader is unlikely."""

from __future__ import annotations

from collections.abc import Iterator

from predawn.plugins.sampling.strategies.choosing import Choosing
from predawn.plugins.sampling.strategies.protocol import Action
from predawn.plugins.sampling.strategies.tally import Tally


class Vote(Choosing):
    """Draws the fewest samples that could settle it if all of them agreed, looks, and draws on.

    So nothing is drawn that turns out not to have been needed, and most requests take one wave. `min_samples` as
    large as `samples` draws all of them at once: a plain vote.
    """

    name: str = "vote"

    def begin(self) -> Iterator[Action]:
        yield from self.pool.start(self._wanted(Tally(())))

    def next(self) -> Iterator[Action]:
        tally = self.tally
        if self._is_settled(tally):
            yield from self.conclude("settled")
        elif self.pool.is_idle and (not tally.groups or not self.pool.left):
            yield from self.conclude("exhausted")  # a whole wave without any answer: more of the same would not help
        elif tally.groups:
            yield from self.pool.start(self._wanted(tally) - len(self.pool.running))

    def _is_settled(self, tally: Tally) -> bool:
        undecided = self.pool.undecided
        return tally.total >= self.least and tally.confidence(undecided) > 1 - self.options.epsilon

    def _wanted(self, tally: Tally) -> int:
        """Samples that should be running now."""
        to_settle = tally.needed(self.pool.undecided, self.options.epsilon)
        return max(1, to_settle, self.least - tally.total)

    @property
    def least(self) -> int:
        """Comparable answers that come before it may end."""
        return min(self.options.min_samples, self.pool.limit)
