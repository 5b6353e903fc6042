"""`best_of`: the answer that verifiers like best; a judge's choice where no verifier said anything.

A few are drawn first. As soon as one ends without a violation and with something passed, it is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from predawn.plugins.sampling.strategies.choosing import Choosing
from predawn.plugins.sampling.strategies.protocol import Action, Sample, Stop
from predawn.plugins.sampling.strategies.tally import Tally, plainness


class BestOf(Choosing):
    """Waves of `min_samples`, each twice as large as the one before, until one is verified."""

    name: str = "best_of"
    _wave = 0

    def begin(self) -> Iterator[Action]:
        yield from self._draw_on()

    def next(self) -> Iterator[Action]:
        verified = [sample for sample in self.pool.complete if is_verified(sample)]
        if verified:
            best = min(verified, key=plainness)
            yield Stop(best.index, "verified", self.tally.agreement_with(best))
        elif not self.pool.is_idle:
            return
        elif self.pool.left:
            yield from self._draw_on()
        else:
            yield from self._choose()

    def _draw_on(self) -> Iterator[Action]:
        self._wave = self._wave * 2 or max(1, self.options.min_samples)
        unheard = bool(self.pool.finished) and not self._is_checked
        yield from self.pool.start(self.pool.left if unheard else self._wave)

    def _choose(self) -> Iterator[Action]:
        """Everything is drawn and nothing is verified: what verifiers mind least; else a judge."""
        if self._is_checked:
            yield self._least_refuted("exhausted")
        else:
            yield from self.judge(self.tally)

    def late(self) -> Stop:
        return self._least_refuted("late") if self._is_checked else super().late()

    @property
    def _is_checked(self) -> bool:
        return any(sample.verdicts for sample in self.pool.finished)

    def _least_refuted(self, why: str) -> Stop:
        """The fewest violations, then the most votes."""
        finished = self.pool.finished
        least = min(map(violations, finished))
        best = [sample for sample in finished if violations(sample) == least]
        tally = Tally(best, {sample.index: 1.0 for sample in best})
        if tally.leader is not None and not tally.is_open:
            best = list(tally.leader.samples)
        chosen = min(best, key=lambda sample: (not sample.complete, plainness(sample)))
        return Stop(chosen.index, why, self.tally.agreement_with(chosen))


def violations(sample: Sample) -> int:
    """How often verifiers objected; an answer that was cut off has one violation more."""
    return sum(verdict.outcome == "violation" for verdict in sample.verdicts) + (not sample.complete)


def is_verified(sample: Sample) -> bool:
    """True if a verifier passed it, and none objected."""
    outcomes = {verdict.outcome for verdict in sample.verdicts}
    return "pass" in outcomes and "violation" not in outcomes
