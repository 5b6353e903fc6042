"""`revise`: answers one after another, each with the earlier ones in view, until one is confirmed or changes nothing.

More votes are better than revision for models that reason (arXiv 2504.14047); it is for chains of steps, and for models
that do better with their own attempt before them.
"""

from __future__ import annotations

from collections.abc import Iterator

from predawn.plugins.sampling.answers.units import resolved
from predawn.plugins.sampling.strategies.best_of import is_verified
from predawn.plugins.sampling.strategies.machine import Machine
from predawn.plugins.sampling.strategies.protocol import Action, Sample, Stop
from predawn.plugins.sampling.strategies.tally import Tally, is_refuted

MOST_SEEN = 4
"""Attempts that are shown to a revision at most, the latest."""


class Revise(Machine):
    """At most `rounds` answers, the first included."""

    name: str = "revise"

    def begin(self) -> Iterator[Action]:
        yield from self.pool.start(1)

    def next(self) -> Iterator[Action]:
        finished = self.pool.finished
        latest = finished[-1]
        if self.pool.failed or not latest.complete:
            yield self._best("exhausted")  # what failed or was cut off once will be again
        elif is_verified(latest):
            yield Stop(latest.index, "verified", self._agreement(latest))
        elif len(finished) > 1 and says_the_same(finished[-2], latest) and not is_refuted(latest):
            yield Stop(latest.index, "unchanged", self._agreement(latest))
        elif self.pool.started < self.options.rounds and self.pool.left:
            yield from self.pool.start(1, tuple(sample.index for sample in finished[-MOST_SEEN:]))
        else:
            yield self._best("exhausted")

    def late(self) -> Stop:
        return self._best("late")

    def _best(self, why: str) -> Stop:
        """The answer that was given most; between equals the latest, which has seen the others."""
        finished = self.pool.finished
        tally = Tally(finished)
        if tally.leader is not None:
            equals = [group for group in tally.groups if group.weight == tally.leader.weight]
            latest = max((sample for group in equals for sample in group.samples), key=lambda sample: sample.index)
        else:
            latest = max(finished, key=lambda sample: (sample.complete, not is_refuted(sample), sample.index))
        return Stop(latest.index, why, tally.agreement_with(latest))

    def _agreement(self, sample: Sample) -> float | None:
        return Tally(self.pool.finished).agreement_with(sample)


def says_the_same(before: Sample, after: Sample) -> bool:
    """True if two answers are equal as answers, or as texts where they cannot be compared."""
    if before.extracted is not None and after.extracted is not None:
        first, second = resolved([before.extracted.key, after.extracted.key])
        return first == second
    if before.extracted is not None or after.extracted is not None:
        return False
    return before.text.split() == after.text.split()
