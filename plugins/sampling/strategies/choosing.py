"""The end of a strategy that votes: the leader; or, where answers cannot be compared, a judge or a single one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from predawn.plugins.sampling.strategies.knockout import Knockout
from predawn.plugins.sampling.strategies.machine import Machine
from predawn.plugins.sampling.strategies.protocol import Action, Judged, Sample, Stop
from predawn.plugins.sampling.strategies.tally import Tally


class Choosing(Machine):
    """A machine that ends in `conclude`."""

    knockout: Knockout | None = None

    def weights(self) -> Mapping[int, float] | None:
        """What votes count, by sample number; `None` for what verifiers make of them."""
        return None

    @property
    def tally(self) -> Tally:
        """The votes so far."""
        return Tally(self.pool.finished, self.weights())

    def conclude(self, why: str) -> Iterator[Action]:
        """Give the leader, if there is one; something must have finished."""
        tally = self.tally
        leader = tally.leader
        if leader is None or _says_nothing(tally, self.pool.complete):
            yield from self.fall_back(tally)
            return
        confidence = tally.confidence(self.pool.undecided)
        yield Stop(leader.best.index, why, agreement=tally.agreement, confidence=confidence)

    def late(self) -> Stop:
        """The leader; where a judge has begun to choose, the best of those that are left."""
        tally = self.tally
        if self.knockout is not None:
            best = self.knockout.best
        else:
            best = tally.leader.best if tally.leader is not None else first_of(self.pool.finished)
        return Stop(best.index, "late", tally.agreement_with(best))

    def fall_back(self, tally: Tally) -> Iterator[Action]:
        """No answer was given twice: have the answers judged, or take one of them."""
        yield from self.pool.cancel(list(self.pool.running))
        if self.options.fallback == "judge":
            yield from self.judge(tally)
        elif tally.leader is not None and tally.total * 2 > len(self.pool.complete):
            best = tally.leader.best
            yield Stop(best.index, "exhausted", tally.agreement, tally.confidence(self.pool.undecided))
        else:
            yield Stop(first_of(self.pool.finished).index, "incomparable")

    def judge(self, tally: Tally) -> Iterator[Action]:
        """Have finished answers compared until one is left: where some were given several times, the serious ones."""
        finished = self.pool.finished
        self.knockout = Knockout(finished if tally.is_open else _serious(tally), finished)
        if (winner := self.knockout.winner) is not None:
            agreement = tally.agreement_with(winner)
            yield Stop(winner.index, "incomparable" if agreement is None else "exhausted", agreement)
        else:
            yield from self.knockout.ask()

    def judged(self, event: Judged) -> Iterator[Action]:
        """Go on with those that won."""
        if self.knockout is None:
            return
        self.knockout.heard(event)
        if (winner := self.knockout.winner) is not None:
            yield Stop(winner.index, "judged", self.tally.agreement_with(winner))
        else:
            yield from self.knockout.ask()


def first_of(samples: list[Sample]) -> Sample:
    """The first that ended by itself, or else the first with any text."""
    return min(samples, key=lambda sample: (not sample.complete, not sample.text, sample.index))


def _serious(tally: Tally) -> list[Sample]:
    """The best of each answer with at least half of the leader's votes: a judge errs more often than nine of ten."""
    return [group.best for group in tally.groups if 2 * group.weight >= tally.groups[0].weight]


def _says_nothing(tally: Tally, complete: list[Sample]) -> bool:
    """True where the leader has one vote of several, or is the only answer that could be compared at all."""
    return tally.is_open and len(complete) > 1
